package main

import (
	"testing"
	"time"
)

// TestCompany goes through who is waited for.
func TestCompany(t *testing.T) {
	const small, large = companyBytes - 1, companyBytes
	now := time.Unix(1e9, 0)
	var c company
	commit := func(took time.Duration, done ...*companion) {
		now = now.Add(took)
		c.committed(now.Add(-took), now)
		for _, m := range done {
			c.answered(m)
		}
	}
	expect := func(what string, sources, bytes int, want bool) {
		t.Helper()
		if got := c.enough(sources, bytes); got != want {
			t.Errorf("%s: enough for %d sources and %d bytes: got %v, want %v", what, sources, bytes, got, want)
		}
	}
	var a, b, late companion
	for range 200 {
		commit(time.Millisecond)
	}
	if p := c.patience(); p < time.Millisecond || p > 3*time.Millisecond {
		t.Errorf("after commits of 1 ms: got a patience of %v, want about 2 ms", p)
	}
	commit(time.Hour)
	if p := c.patience(); p > 3*time.Millisecond {
		t.Errorf("after one commit of an hour: got a patience of %v, want about 2 ms", p)
	}
	commit(time.Millisecond, &a, &b, &late)
	expect("nobody is known to send on soon", 0, small, true)
	c.returned(&a, now)
	c.returned(&b, now.Add(time.Millisecond))
	c.returned(&late, now.Add(time.Second))

	commit(time.Millisecond, &a, &b, &late)
	expect("two are awaited", 1, small, false)
	expect("two are awaited, one is here", 1, large, false)
	expect("two are awaited, as many are here", 2, large, true)
	c.returned(&a, now)
	expect("one is awaited, a small group", 1, small, false)
	expect("one is awaited, a large group", 1, large, true)
	c.returned(&b, now)
	expect("all are here", 2, small, true)
	c.returned(&late, now)

	commit(time.Millisecond, &a, &b)
	c.returned(&b, now)
	expect("one is awaited", 1, small, false)
	c.left(&a)
	expect("it is gone", 1, small, true)

	commit(time.Millisecond, &b, &late)
	if c.giveUp(now) {
		t.Error("given up at once")
	}
	if !c.giveUp(now.Add(time.Second)) {
		t.Error("not given up after a second")
	}
	expect("given up", 1, small, true)
	c.returned(&b, now)
	commit(time.Millisecond, &b)
	expect("one is awaited again", 0, large, false)
	c.returned(&late, now) // of the round before
	expect("one is awaited still", 0, large, false)
	c.returned(&b, now)
	expect("none is awaited", 0, small, true)
}

// TestGroupWaitsForCompany has the store hold groups back: until the other one is here, or gone, or the time is up.
func TestGroupWaitsForCompany(t *testing.T) {
	s := openTest(t, newSimDisk(), testOptions())
	a, _ := mustHello(t, s, sourceOf(0))
	b, _ := mustHello(t, s, sourceOf(1))
	together := func(cost time.Duration) { // both are answered by the same commit, and known to send on soon
		t.Helper()
		s.mu.Lock()
		s.company.cost = 0
		s.mu.Unlock()
		<-mustSubmit(t, s, a, 0).done
		<-mustSubmit(t, s, b, 1).done
		s.mu.Lock()
		defer s.mu.Unlock()
		s.company.cost = cost
		for _, ses := range []*session{a, b} {
			s.company.left(&ses.src.companion)
			ses.src.companion.prompt = true
			s.company.answered(&ses.src.companion)
		}
		s.company.settled = time.Now()
	}
	held := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.held
	}
	together(time.Hour)
	first := mustSubmit(t, s, a, 0)
	waitFor(t, "a group is held back", held)
	if second := mustSubmit(t, s, b, 1); first != second {
		t.Error("two groups, want one")
	}
	<-first.done

	together(10 * time.Millisecond)
	<-mustSubmit(t, s, a, 0).done // the time is up

	together(time.Hour)
	first = mustSubmit(t, s, a, 0)
	waitFor(t, "a group is held back", held)
	s.leave(b)
	<-first.done

	// A store that closes does not wait.
	b, _ = mustHello(t, s, sourceOf(1))
	together(time.Hour)
	first = mustSubmit(t, s, a, 0)
	waitFor(t, "a group is held back", held)
	closed := make(chan error)
	go func() { closed <- s.close() }()
	<-first.done
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
