package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// waitFor waits until ready returns true.
func waitFor(t testing.TB, what string, ready func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("30 s and still not: %s", what)
		}
	}
}

// mustSubmit submits the next batch of source k and returns its group.
func mustSubmit(t testing.TB, s *store, ses *session, k int) *group {
	t.Helper()
	g, err := s.submit(ses, batchOf(k, ses.at))
	if err != nil {
		t.Fatalf("submit: %v", err)
	}
	return g
}

// mustHello opens a session.
func mustHello(t testing.TB, s *store, key sourceKey) (*session, Resume) {
	t.Helper()
	ses := &session{fence: func() {}}
	at, g, err := s.hello(ses, key)
	if err == nil && g != nil {
		<-g.done
		err = g.err
	}
	if err != nil {
		t.Fatalf("hello: %v", err)
	}
	return ses, at
}

// TestGroupCommit holds a sync up: all that is submitted meanwhile is one group.
func TestGroupCommit(t *testing.T) {
	d, allow := &faultDisk{disk: newSimDisk()}, make(chan struct{})
	s := openTest(t, d, testOptions())
	started := make(chan struct{}, 1)
	var once sync.Once
	d.setFault(func(c diskCall) *diskFault {
		if c.kind == "datasync" {
			once.Do(func() { started <- struct{}{}; <-allow })
		}
		return nil
	})
	ses, _ := mustHello(t, s, sourceOf(0))
	first := mustSubmit(t, s, ses, 0)
	<-started
	var groups []*group
	for i := range 50 {
		g, err := s.submit(&session{}, anonymousBet(i))
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g)
	}
	second := mustSubmit(t, s, ses, 0)
	for _, g := range groups {
		if g != second || g == first {
			t.Error("what was submitted during a sync is not one group")
		}
	}
	select {
	case <-first.done:
		t.Error("the first group was answered before its sync")
	default:
	}
	close(allow)
	<-second.done
	if s.close(); s.commits != 2 || s.batches != 52 {
		t.Errorf("got %d commits of %d messages, want 2 of 52", s.commits, s.batches)
	}
}

// TestCompany has two clients that were answered together share the next group too, however far
// apart they come; but one that does not come again is not waited for long.
func TestCompany(t *testing.T) {
	s := openTest(t, newSimDisk(), testOptions())
	defer s.close()
	var sessions [2]*session
	for k := range sessions {
		sessions[k], _ = mustHello(t, s, sourceOf(k))
	}
	took := func(d time.Duration) { s.took.latest.Store(int64(d)) }
	s.mu.Lock()
	s.groups.expected, s.groups.answered = 2, time.Now() // as after a group of both
	s.mu.Unlock()
	for range 3 {
		took(time.Hour)
		first := mustSubmit(t, s, sessions[0], 0)
		time.Sleep(time.Millisecond) // a committer that does not wait takes it
		if second := mustSubmit(t, s, sessions[1], 1); second != first {
			t.Error("the second client's batch is not in the first one's group")
		}
		if err := first.wait(); err != nil {
			t.Fatal(err)
		}
	}
	took(time.Millisecond)
	if err := mustSubmit(t, s, sessions[0], 0).wait(); err != nil {
		t.Error(err)
	}
}

// TestCompanyAfterStall: after a commit that took long nobody waits as long again for one who has
// gone.
func TestCompanyAfterStall(t *testing.T) {
	s := openTest(t, newSimDisk(), testOptions())
	defer s.close()
	s.mu.Lock()
	s.groups.expected, s.groups.answered = 2, time.Now()
	s.took.latest.Store(int64(10 * time.Second))
	s.mu.Unlock()
	g, err := s.submit(&session{}, anonymousBet(0))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.done:
	case <-time.After(5 * time.Second):
		t.Error("the group still waits for company")
	}
}

// TestCompanyAndSize: the committer does not wait on for a group that has just become large, or
// full of sources. Such a wait would be the same each time, so one try of five has to do without.
func TestCompanyAndSize(t *testing.T) {
	s := openTest(t, newSimDisk(), testOptions())
	defer s.close()
	one, rows := anonymousBet(0), []byte(nil)
	for len(rows) < companyLarge {
		rows = append(rows, one.rows...)
	}
	large := &decision{rows: rows, count: len(rows) / len(one.rows), total: len(rows) / len(one.rows)}
	var sources [groupMax/maxMark + 1]*session
	for i := range sources {
		sources[i], _ = mustHello(t, s, sourceKey{uint8(1 + i/sourceShare), fmt.Sprint(i)})
	}
	for _, tt := range []struct {
		name string
		rest func() (*group, error) // fills the group
	}{
		{"a large one", func() (*group, error) { return s.submit(&session{}, large) }},
		{"one full of sources", func() (g *group, err error) {
			for _, ses := range sources {
				if g, err = s.submit(ses, &decision{total: 1, at: Resume{Records: ses.at.Records + 1}}); err != nil {
					return nil, err
				}
			}
			return g, nil
		}},
	} {
		fastest := time.Hour
		for range 5 {
			s.mu.Lock()
			s.groups.expected, s.groups.answered = 1<<20, time.Now()
			s.took.latest.Store(int64(time.Second))
			s.mu.Unlock()
			first, err := s.submit(&session{}, one)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // the committer waits now
			last, err := tt.rest()
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			<-last.done
			fastest = min(fastest, time.Since(began))
			if last != first {
				t.Errorf("%s: got two groups, want one", tt.name)
			}
		}
		if fastest > 100*time.Millisecond {
			t.Errorf("%s: got %v until it is done, want no wait for company", tt.name, fastest)
		}
	}
}

// TestManySubmitters lets 50 goroutines send batches of sources of their own at once.
func TestManySubmitters(t *testing.T) {
	const sources, batches = 50, 40
	d, o := newSimDisk(), newOracle(sources)
	s := openTest(t, d, testOptions())
	var all sync.WaitGroup
	for k := range sources {
		all.Add(1)
		go func() {
			defer all.Done()
			ses, _ := mustHello(t, s, sourceOf(k))
			var last *group
			for range batches {
				last = mustSubmit(t, s, ses, k)
			}
			<-last.done
			if last.err != nil {
				t.Error(last.err)
			}
			o.sources[k] = oracleSource{ses.at.Records, ses.at.Records}
		}()
	}
	all.Wait()
	if err := o.copy().verify(s, d.read(testPath)); err != nil {
		t.Error(err)
	}
	if s.close(); s.commits >= s.batches || s.batches != sources*batches {
		t.Errorf("got %d commits of %d messages, want fewer than %d", s.commits, s.batches, sources*batches)
	}
	s = openTest(t, d.kill(), testOptions())
	defer s.close()
	if err := o.verify(s, d.read(testPath)); err != nil {
		t.Error(err)
	}
}

// TestFencing checks that a newer HELLO takes a source over while a batch of the older one is
// under way.
func TestFencing(t *testing.T) {
	d, allow := &faultDisk{disk: newSimDisk()}, make(chan struct{})
	s := openTest(t, d, testOptions())
	defer s.close()
	fenced := 0
	older := &session{fence: func() { fenced++ }}
	if _, _, err := s.hello(older, sourceOf(0)); err != nil {
		t.Fatal(err)
	}
	d.setFault(func(c diskCall) *diskFault {
		if c.kind == "datasync" {
			<-allow
		}
		return nil
	})
	under := mustSubmit(t, s, older, 0)
	newer := &session{fence: func() {}}
	at, g, err := s.hello(newer, sourceOf(0))
	if err != nil || g != under || at != older.at || fenced != 1 {
		t.Errorf("newer HELLO: got %+v, its group %v, %v, %d fenced; want %+v, "+
			"true, nil, 1", at, g == under, err, fenced, older.at)
	}
	if _, err := s.submit(older, batchOf(0, older.at)); err != errFenced {
		t.Errorf("submit of the older one: got %v, want errFenced", err)
	}
	if _, _, err := s.hello(older, sourceOf(0)); err != errFenced {
		t.Errorf("HELLO of the older one: got %v, want errFenced", err)
	}
	s.leave(older)
	close(allow)
	next := mustSubmit(t, s, newer, 0)
	if <-next.done; next.err != nil || newer.at.Records <= at.Records {
		t.Errorf("batch of the newer one: got %v and %+v", next.err, newer.at)
	}
	if again, g, err := s.hello(newer, sourceOf(0)); err != nil || again != newer.at || g != nil || fenced != 1 {
		t.Errorf("HELLO again: got %+v, %v, %v, %d fenced", again, g, err, fenced)
	}
}

// TestSourcesBound fills an agency's share. Only a source with a bet stored keeps its place:
// those of refused bets alone give theirs up; other agencies notice nothing.
func TestSourcesBound(t *testing.T) {
	d := newSimDisk()
	s := openTest(t, d, testOptions())
	s.mu.Lock()
	for i := range sourceShare - 2 {
		s.state.sources.put(sourceKey{2, fmt.Sprint(i)}, mark{Resume{1, 2}, 1})
	}
	s.mu.Unlock()
	for i := range 2 * sourceShare { // a peer whose bets are all refused
		ses, _ := mustHello(t, s, sourceKey{2, fmt.Sprint("refused", i)})
		g, err := s.submit(ses, &decision{total: 1, at: Resume{1, 3}})
		if err != nil {
			t.Fatal(err)
		}
		<-g.done
		s.leave(ses)
	}
	if got := len(s.state.sources[2]); got > sourceShare {
		t.Errorf("sources of the agency: got %d, want %d at most", got, sourceShare)
	}
	one, _ := mustHello(t, s, sourceKey{2, strings.Repeat("ñ", 127) + "x"})
	two, _ := mustHello(t, s, sourceKey{2, "b"})
	mustHello(t, s, sourceKey{2, "7"}) // one that it knows
	mustHello(t, s, sourceKey{1, "c"}) // another agency's
	for _, ses := range []*session{one, two} {
		<-mustSubmit(t, s, ses, 1).done
		s.leave(ses)
	}
	if _, _, err := s.hello(&session{}, sourceKey{2, "d"}); err != errSources {
		t.Errorf("after two were stored: got %v, want errSources", err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, d.kill(), testOptions())
	defer s.close()
	if got := len(s.state.sources[2]); got != sourceShare {
		t.Errorf("sources after a restart: got %d, want %d", got, sourceShare)
	}
	if _, at := mustHello(t, s, one.src.key); at != one.at {
		t.Errorf("source with a name of 255 bytes: got %+v, want %+v", at, one.at)
	}
}

// TestForgetSource has a stopped store forget a source, and gives its agency the place back.
func TestForgetSource(t *testing.T) {
	d := newSimDisk()
	s := openTest(t, d, testOptions())
	ses, _ := mustHello(t, s, sourceOf(0))
	<-mustSubmit(t, s, ses, 0).done
	kept, _ := mustHello(t, s, sourceOf(1))
	<-mustSubmit(t, s, kept, 1).done
	s.close()
	before := d.read(testPath)
	if err := forgetSource(context.Background(), d, testOptions(), sourceKey{1, "other"}, quiet); err == nil {
		t.Error("a source that is not known: got no error")
	}
	var crashed []*simDisk
	d.before = func() { crashed = append(crashed, d.kill()) }
	if err := forgetSource(context.Background(), d, testOptions(), sourceOf(0), quiet); err != nil {
		t.Fatal(err)
	}
	for i, after := range append(crashed, d.kill()) {
		s := openTest(t, after, testOptions())
		_, at := mustHello(t, s, sourceOf(0))
		if at != (Resume{}) && (at != ses.at || i == len(crashed)) {
			t.Errorf("crash %d: got %+v, want nothing, or %+v before it is durable", i, at, ses.at)
		}
		if _, at := mustHello(t, s, sourceOf(1)); at != kept.at {
			t.Errorf("crash %d: the other source: got %+v, want %+v", i, at, kept.at)
		}
		s.close()
		if !bytes.Equal(after.read(testPath), before) {
			t.Errorf("crash %d: the bets file has changed", i)
		}
	}
}

// TestLogBounded sends far more than the log holds: it never has more files than slots, and
// checkpoints give them back.
func TestLogBounded(t *testing.T) {
	d, o := newSimDisk(), newOracle(1)
	s := openTest(t, d, testOptions())
	ses, _ := mustHello(t, s, sourceOf(0))
	for range 4 * walSlots * testSegment / walPage {
		g := mustSubmit(t, s, ses, 0)
		if <-g.done; g.err != nil {
			t.Fatal(g.err)
		}
	}
	d.mu.Lock()
	if got := len(d.dir); got > walSlots+2 {
		t.Errorf("files: got %d, want at most %d", got, walSlots+2)
	}
	after := d.kill()
	d.mu.Unlock()
	s.close()
	o.sources[0] = oracleSource{ses.at.Records, ses.at.Records}
	s = openTest(t, after, testOptions())
	defer s.close()
	if err := o.verify(s, after.read(testPath)); err != nil {
		t.Error(err)
	}
}

// TestEmptyMessages checks what needs no record: it waits for what is under way, and no more.
func TestEmptyMessages(t *testing.T) {
	s := openTest(t, newSimDisk(), testOptions())
	if g, err := s.submit(&session{}, &decision{total: 3}); g != nil || err != nil {
		t.Errorf("refused bets without HELLO: got %v, %v, want no group", g, err)
	}
	ses, _ := mustHello(t, s, sourceOf(0))
	g, err := s.submit(ses, &decision{total: 3, at: Resume{3, 7}})
	if err != nil {
		t.Fatal(err)
	}
	<-g.done
	s.leave(ses)
	if _, at := mustHello(t, s, sourceOf(0)); at != (Resume{3, 7}) {
		t.Errorf("after a batch of refused bets: got %+v, want 3 records", at)
	}
	s.close()
	if _, err := s.submit(ses, &decision{count: 1}); err != errUnavailable {
		t.Errorf("after close: got %v, want errUnavailable", err)
	}
}

// TestFactsBesideCommits asks the store what it is while it begins segments of the log: the race
// detector sees whether the answer reads what is the committer's alone.
func TestFactsBesideCommits(t *testing.T) {
	s := openTest(t, newSimDisk(), smallOptions())
	stop, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		for {
			select {
			case <-stop:
				return
			default:
				s.facts()
			}
		}
	}()
	ses, _ := mustHello(t, s, sourceOf(0))
	for range 50 {
		<-mustSubmit(t, s, ses, 0).done
	}
	close(stop)
	<-asked
	if s.close(); s.facts().Segments > walSlots {
		t.Errorf("got %d segments", s.facts().Segments)
	}
}
