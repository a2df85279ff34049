package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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
	s.groups.expected = 2 // as after a group of both
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

// A faultCase is what fails in a run of the short workload, and how.
type faultCase struct {
	err   error
	short int
	run   int  // so many calls, one after the other, whatever they are
	after bool // and all calls of the first one's kind and file from then on
}

// TestEveryCallFails lets each call of a short workload fail, alone and with those that follow
// it, in each way. Either the batch is refused and nothing of it is stored, or the store is
// dead and says nothing, or it says nothing until it knows; with a good disk it goes on from
// there, also if the power is cut as well.
func TestEveryCallFails(t *testing.T) {
	for _, c := range []faultCase{
		{syscall.EIO, 0, 1, false}, {syscall.ENOSPC, 100, 1, false}, {syscall.EDQUOT, 1 << 20, 1, false},
		{syscall.EFBIG, 0, 1, true},
		{syscall.ENOSPC, 100, 2, false}, {syscall.EMFILE, 0, 5, false}, {syscall.ENOSPC, 1 << 20, 10, false},
	} {
		t.Run(fmt.Sprintf("%v %d", c.err, c.run), func(t *testing.T) {
			counting := &faultDisk{disk: newSimDisk()}
			if err := faultyLife(counting, newOracle(2), false); err != nil {
				t.Fatal(err)
			}
			t.Parallel()
			var all sync.WaitGroup
			slots := make(chan struct{}, 64) // a refusal takes half a second, of waiting
			for n := 1; n <= counting.calls; n++ {
				all.Add(1)
				slots <- struct{}{}
				go func() {
					defer func() { <-slots; all.Done() }()
					failAt(t, newSimDisk(), n, c)
				}()
			}
			all.Wait()
			t.Logf("%d calls", counting.calls)
		})
	}
}

// failAt runs the workload with call n failing, and checks what is left.
func failAt(t *testing.T, d *simDisk, n int, c faultCase) {
	t.Helper()
	faulty := &faultDisk{disk: d}
	kind, name := "", ""         // of the first call that fails
	synced := map[string]error{} // files whose sync has failed
	faulty.setFault(func(call diskCall) *diskFault {
		if synced[call.name] != nil && strings.HasSuffix(call.kind, "sync") {
			t.Errorf("call %d: %s of %s was tried again", n, call.kind, call.name)
		}
		if (call.n < n || call.n >= n+c.run) && !(c.after && kind == call.kind && name == call.name) {
			return nil
		}
		if kind == "" {
			kind, name = call.kind, call.name
		}
		if strings.Contains(call.kind, "sync") {
			synced[call.name] = c.err
		}
		return &diskFault{c.err, c.short}
	})
	o := newOracle(2)
	err := faultyLife(faulty, o, c.after)
	story := fmt.Sprintf("call %d (%s of %s) fails with %v", n, kind, name, c.err)
	if dead := len(synced) > 0; dead && err == nil {
		t.Errorf("%s: a sync failed: got no error, want the end of the store", story)
	}
	for _, after := range []*simDisk{d.kill(), d.powerCut(newRNG(uint64(n)))} {
		known := o.copy()
		s, err := openStore(context.Background(), after, testOptions(), quiet)
		if err != nil {
			t.Errorf("%s: the next start: got %v", story, err)
			continue
		}
		if err := known.verify(s, after.read(testPath)); err != nil {
			t.Errorf("%s: %v", story, err)
		}
		w := &workload{s: s, o: known}
		if err := w.run(newRNG(1), 10); err != nil {
			t.Errorf("%s: work after the next start: got %v", story, err)
		}
		if err := s.close(); err != nil {
			t.Errorf("%s: close: got %v", story, err)
		}
	}
}

// faultyLife opens a store, sends batches past a checkpoint, and closes it. It returns what
// ended it, if it was not a refusal; after one, or when there was no answer, it sends again as
// soon as there is room, or ends if there will be none.
func faultyLife(d disk, o *oracle, noRoom bool) error {
	s, err := openStore(context.Background(), d, testOptions(), quiet)
	if err != nil {
		return err
	}
	w := &workload{s: s, o: o}
	for range 5 {
		err := w.run(newRNG(3), 12)
		if errors.Is(err, errUnavailable) || err == errFenced {
			o.refuse(s)
		}
		if err != nil && noRoom {
			break
		}
		waitRoom(s)
	}
	return s.close()
}

// waitRoom waits until the store takes bets again or never will.
func waitRoom(s *store) {
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		if err := s.available(); err != errUnavailable {
			return
		}
	}
}

// TestRoomAgain fills the disk under a real file, and makes room: bets are refused, health
// fails, and intake goes on by itself.
func TestRoomAgain(t *testing.T) {
	t.Parallel()
	options := testOptions()
	options.path, options.sync = filepath.Join(t.TempDir(), "bets.csv"), 2*time.Millisecond
	d := &faultDisk{disk: openTestDisk(t, options.path)}
	s, o := openTest(t, d, options), newOracle(1)
	w := &workload{s: s, o: o}
	if err := w.run(newRNG(1), 5); err != nil {
		t.Fatal(err)
	}
	d.setFault(func(c diskCall) *diskFault {
		if c.kind == "write" && c.name == "bets.csv" || c.kind == "reserve" {
			return &diskFault{syscall.ENOSPC, 10}
		}
		return nil
	})
	if err := w.run(newRNG(2), 20); !errors.Is(err, errUnavailable) {
		t.Fatalf("on a full disk: got %v, want errUnavailable", err)
	}
	if err := s.available(); err != errUnavailable {
		t.Errorf("health on a full disk: got %v, want errUnavailable", err)
	}
	o.refuse(s)
	data, _ := os.ReadFile(options.path)
	if err := o.copy().verify(s, data); err != nil {
		t.Errorf("on a full disk: %v", err)
	}
	d.setFault(nil)
	waitFor(t, "bets taken again", func() bool { return s.available() == nil })
	w = &workload{s: s, o: o}
	if err := w.run(newRNG(3), 20); err != nil {
		t.Errorf("with room: got %v", err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	s = openTest(t, d, options)
	defer s.close()
	data, _ = os.ReadFile(options.path)
	if err := o.verify(s, data); err != nil {
		t.Error(err)
	}
}

// TestRefusedGroupSentAgain refuses a group of two batches, and sends one of them again: that
// one is stored, and the other is not, which is no part of a group.
func TestRefusedGroupSentAgain(t *testing.T) {
	t.Parallel()
	d := &faultDisk{disk: newSimDisk()}
	s, o := openTest(t, d, testOptions()), newOracle(2)
	w := &workload{s: s, o: o, ses: make([]*session, 2)}
	both, writes := make(chan struct{}), 0
	d.setFault(func(c diskCall) *diskFault {
		if c.kind != "write" || c.name == testPath {
			return nil
		}
		switch writes++; writes {
		case 1: // of the group before: meanwhile both join the next one
			<-both
		case 2, 3: // its record, and the zeros that take it back
			return &diskFault{syscall.ENOSPC, 10}
		}
		return nil
	})
	steps := errors.Join(w.hello(0), w.hello(1), w.submitAnonymous())
	waitFor(t, "a commit", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.groups.committing != nil })
	steps = errors.Join(steps, w.submit(0), w.submit(1))
	close(both)
	if steps = errors.Join(steps, w.settleTo(2)); steps != nil {
		t.Fatal(steps)
	}
	if err := w.settleTo(0); err == nil {
		t.Fatal("without room: got an answer, want a group that is refused")
	}
	for w.settleTo(0) != nil {
	}
	waitRoom(s)
	if err := errors.Join(w.hello(0), w.hello(1), w.submit(0), w.settleTo(0), s.close()); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, d, testOptions())
	defer s.close()
	if err := o.verify(s, d.disk.(*simDisk).read(testPath)); err != nil {
		t.Error(err)
	}
}

// A heldDisk is a disk on which writes to the bets file wait.
type heldDisk struct {
	disk
	hold chan struct{} // of each write: it has come, and it may go on
}

func (d heldDisk) open(name string, flag int) (file, error) {
	f, err := d.disk.open(name, flag)
	if err == nil && name == testPath {
		f = heldFile{f, d.hold}
	}
	return f, err
}

// A heldFile is the bets file of a heldDisk.
type heldFile struct {
	file
	hold chan struct{}
}

func (f heldFile) WriteAt(p []byte, at int64) (int, error) {
	f.hold <- struct{}{}
	<-f.hold
	return f.file.WriteAt(p, at)
}

// TestTwoGroupsTakenBack has a group's rows, or the record behind them, meet a full disk while the
// disk has both records: what is refused is taken back, in the reverse order, whatever crash comes
// meanwhile.
func TestTwoGroupsTakenBack(t *testing.T) {
	for _, full := range []string{testPath, testPath + ".wal.00"} {
		for _, short := range []int{0, 30} {
			t.Run(fmt.Sprintf("%s, %d bytes", full, short), func(t *testing.T) {
				t.Parallel()
				testTwoTakenBack(t, full, short)
			})
		}
	}
}

func testTwoTakenBack(t *testing.T, full string, short int) {
	sim, o, hold := newSimDisk(), newOracle(1), make(chan struct{})
	d := &faultDisk{disk: sim}
	s := openTest(t, heldDisk{d, hold}, testOptions())
	goOn := func() { hold <- struct{}{} }
	ses, _ := mustHello(t, s, sourceOf(0))
	begun, joined, reached, syncs := make(chan struct{}), make(chan struct{}), make(chan struct{}), 0
	d.setFault(func(c diskCall) *diskFault {
		if c.kind == "datasync" {
			if syncs++; syncs == 1 {
				close(begun)
				<-joined // the second group waits: so the first is settled beside it
			}
		}
		failing := c.kind == "write" && c.name == full && (full == testPath || syncs == 1)
		if full == testPath && syncs == 2 && c.kind == "datasync" || full != testPath && failing {
			close(reached)
		}
		if failing {
			full = "" // this one alone
			return &diskFault{syscall.ENOSPC, short}
		}
		return nil
	})
	first := mustSubmit(t, s, ses, 0)
	<-begun
	if full != testPath {
		o.sources[0].answered = ses.at.Records
	}
	second := mustSubmit(t, s, ses, 0)
	o.sources[0].submitted = ses.at.Records
	close(joined)
	<-hold // the rows of the first, which wait for the record of the second
	<-reached
	var left []*simDisk
	sim.mu.Lock()
	sim.before = func() { left = append(left, sim.kill(), sim.powerCut(newRNG(uint64(sim.calls)))) }
	sim.mu.Unlock()
	goOn()
	if err := first.wait(); (err == nil) != (o.sources[0].answered > 0) || isFatal(err) {
		t.Errorf("the first group: got %v", err)
	}
	if err := second.wait(); err != errUnavailable {
		t.Errorf("the second group: got %v, want errUnavailable", err)
	}
	sim.mu.Lock()
	sim.before = nil
	sim.mu.Unlock()
	waitRoom(s)
	ses, at := mustHello(t, s, sourceOf(0))
	if want := o.sources[0].answered; at.Records != want {
		t.Errorf("with room: got %d records, want %d", at.Records, want)
	}
	for range 2 {
		g := mustSubmit(t, s, ses, 0)
		<-hold
		goOn()
		if err := g.wait(); err != nil {
			t.Error(err)
		}
	}
	meanwhile := o.copy()
	o.sources[0] = oracleSource{ses.at.Records, ses.at.Records}
	sim.mu.Lock()
	last := []*simDisk{sim.kill(), sim.powerCut(newRNG(1))}
	sim.mu.Unlock()
	if err := s.close(); err != nil {
		t.Error(err)
	}
	for i, after := range append(left, append(last, sim)...) {
		known := meanwhile
		if i >= len(left) {
			known = o
		}
		s := openTest(t, after, testOptions())
		if err := known.copy().verify(s, after.read(testPath)); err != nil {
			t.Errorf("state %d, and %d are of the taking back: %v", i, len(left), err)
		}
		s.close()
	}
}

// TestFailedSyncOfCheckpoint checks that it ends the store, that no answer leaves after it, and
// that it is not tried again.
func TestFailedSyncOfCheckpoint(t *testing.T) {
	d := &faultDisk{disk: newSimDisk()}
	s := openTest(t, d, testOptions())
	ses, _ := mustHello(t, s, sourceOf(0))
	syncs := 0
	d.setFault(func(c diskCall) *diskFault {
		if c.kind == "datasync" && c.name == testPath {
			syncs++
			return &diskFault{err: syscall.EIO}
		}
		return nil
	})
	for s.available() == nil {
		if g, err := s.submit(ses, batchOf(0, ses.at)); err == nil {
			<-g.done
		}
	}
	<-s.dead
	if g, err := s.submit(ses, batchOf(0, ses.at)); err != errDead {
		t.Errorf("submit: got %v, %v, want errDead", g, err)
	}
	if err := s.ledger.checkpoint(); !isFatal(err) {
		t.Errorf("another checkpoint: got %v, want a fatalError", err)
	}
	if s.close(); syncs != 1 {
		t.Errorf("syncs of the bets file: got %d, want 1", syncs)
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
