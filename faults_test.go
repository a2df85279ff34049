package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

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

// TestRoomForFullGroups has full groups meet a full disk: together they are more than one record
// may be, and bets are taken again all the same.
func TestRoomForFullGroups(t *testing.T) {
	t.Parallel()
	t.Run("alone", func(t *testing.T) {
		testFullGroups(t, testOptions(), func(err error) bool { return err == errUnavailable })
	})
	// There the record is not taken back: it stands in the shared log.
	t.Run("shared", func(t *testing.T) { testFullGroups(t, sharedOptions(newFakeStream(t).link()), isFatal) })
}

// testFullGroups has one full group's rows meet the full disk while the next group is full.
func testFullGroups(t *testing.T, options storeOptions, refused func(error) bool) {
	d := &faultDisk{disk: newSimDisk()}
	options.segment = walSegment
	s := openTest(t, d, options)
	defer s.close()
	awaitTaking(t, s)
	begun, filled, syncs := make(chan struct{}), make(chan struct{}), 0
	d.setFault(func(c diskCall) *diskFault {
		switch {
		case c.kind == "datasync" && syncs < 2:
			syncs++
			begun <- struct{}{}
			<-filled
		case c.kind == "write" && c.name == testPath && syncs == 2:
			return &diskFault{syscall.ENOSPC, 30}
		}
		return nil
	})
	row := anonymousBet(0).rows
	n := maxMessage / len(row)
	submit := func() (g *group, full bool) {
		g, err := s.submit(&session{}, &decision{rows: bytes.Repeat(row, n), count: n, total: n})
		if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return g, !s.groups.open.takesMore() // g may be the committer's by now
	}
	submit()
	var groups [2]*group
	for i := range groups {
		<-begun // the record of the group before is on its way
		for full := false; !full; {
			groups[i], full = submit()
		}
		filled <- struct{}{}
	}
	if err := groups[0].wait(); !refused(err) {
		t.Errorf("the group that met a full disk: got %v", err)
	}
	if err := groups[1].wait(); err != errUnavailable {
		t.Errorf("the group behind it: got %v, want errUnavailable", err)
	}
	d.setFault(nil)
	waitFor(t, "bets taken again", func() bool { return s.available() == nil })
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
	verifyStates(t, "taking back", o, left)
	o.sources[0] = oracleSource{ses.at.Records, ses.at.Records}
	verifyStates(t, "the end", o, endStates(t, s, sim))
}

// endStates closes a store, and returns what a kill or a power cut would have left just before, and
// what it leaves.
func endStates(t *testing.T, s *store, sim *simDisk) []*simDisk {
	t.Helper()
	sim.mu.Lock()
	states := []*simDisk{sim.kill(), sim.powerCut(newRNG(1)), sim}
	sim.mu.Unlock()
	if err := s.close(); err != nil {
		t.Error(err)
	}
	return states
}

// verifyStates starts a store on each of the states.
func verifyStates(t *testing.T, when string, known *oracle, states []*simDisk) {
	t.Helper()
	for i, state := range states {
		s := openTest(t, state, testOptions())
		if err := known.copy().verify(s, state.read(testPath)); err != nil {
			t.Errorf("%s, state %d: %v", when, i, err)
		}
		s.close()
	}
}

// TestTakenBackAtSegmentEnd has the rows of a segment's last record meet a full disk while the next
// group waits to begin a segment of its own: the record is taken back where it stands, and nothing
// is begun before that.
func TestTakenBackAtSegmentEnd(t *testing.T) {
	sim, o, hold := newSimDisk(), newOracle(1), make(chan struct{})
	d := &faultDisk{disk: sim}
	s := openTest(t, heldDisk{d, hold}, testOptions())
	ses, _ := mustHello(t, s, sourceOf(0))
	commit := func() {
		g := mustSubmit(t, s, ses, 0)
		<-hold
		hold <- struct{}{}
		if err := g.wait(); err != nil {
			t.Fatal(err)
		}
		o.sources[0] = oracleSource{ses.at.Records, ses.at.Records}
	}
	for s.ledger.fits(2 * walPage) {
		commit()
	}
	begun, joined := make(chan struct{}), make(chan struct{})
	d.setFault(func(c diskCall) *diskFault {
		switch {
		case c.kind == "datasync" && begun != nil:
			close(begun)
			<-joined
			begun = nil
		case c.kind == "write" && c.name == testPath:
			return &diskFault{syscall.ENOSPC, 30}
		}
		return nil
	})
	first := mustSubmit(t, s, ses, 0)
	<-begun
	second := mustSubmit(t, s, ses, 0)
	o.sources[0].submitted = ses.at.Records
	close(joined)
	<-hold // the rows of the first, for which the second waits
	waitFor(t, "the second group's turn", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.groups.committing != nil && s.groups.settling()
	})
	hold <- struct{}{}
	for i, g := range []*group{first, second} {
		if err := g.wait(); err != errUnavailable {
			t.Errorf("group %d: got %v, want errUnavailable", i+1, err)
		}
	}
	o.refuse(s)
	sim.mu.Lock()
	left := []*simDisk{sim.kill(), sim.powerCut(newRNG(1))}
	sim.mu.Unlock()
	d.setFault(nil)
	waitRoom(s)
	known := o.copy()
	ses, _ = mustHello(t, s, sourceOf(0))
	commit()
	commit()
	verifyStates(t, "the refusal", known, left)
	verifyStates(t, "the end", o, endStates(t, s, sim))
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

// A lateOwner is told of a failure some time after the ledger has stopped for it.
type lateOwner struct {
	ledgerOwner
	met, told chan struct{}
}

func (o lateOwner) failed(err error) {
	close(o.met)
	<-o.told
	o.ledgerOwner.failed(err)
}

// TestRefusalBesideFailure has rows meet a full disk when a checkpoint has just met a failed sync:
// the record cannot be taken back any more, so nothing may be said of it, though the store has not
// been told yet that it has failed.
func TestRefusalBesideFailure(t *testing.T) {
	t.Parallel()
	sim, o, hold := newSimDisk(), newOracle(1), make(chan struct{})
	d := &faultDisk{disk: sim}
	s := openTest(t, heldDisk{d, hold}, testOptions())
	owner := lateOwner{s, make(chan struct{}), make(chan struct{})}
	s.ledger.owner = owner
	ses, _ := mustHello(t, s, sourceOf(0))
	d.setFault(func(c diskCall) *diskFault {
		switch {
		case c.name == testPath && c.kind == "datasync":
			return &diskFault{syscall.EIO, 0}
		case c.name == testPath && c.kind == "write":
			return &diskFault{syscall.ENOSPC, 30}
		}
		return nil
	})
	g := mustSubmit(t, s, ses, 0)
	o.sources[0].submitted = ses.at.Records
	<-hold // its rows, whose record is durable
	checked := make(chan error, 1)
	go func() { checked <- s.ledger.checkpoint() }()
	<-owner.met
	hold <- struct{}{}
	select {
	case <-g.done:
	case <-time.After(50 * time.Millisecond): // it waits; if it ever does not, this is long enough
	}
	close(owner.told)
	if err := <-checked; !isFatal(err) {
		t.Errorf("the checkpoint: got %v, want a failure", err)
	}
	if err := g.wait(); !isFatal(err) {
		t.Errorf("a batch whose record is in the log: got %v, want that nothing is said of it", err)
	}
	sim.mu.Lock()
	left := []*simDisk{sim.kill(), sim.powerCut(newRNG(1))}
	sim.mu.Unlock()
	if err := s.close(); !isFatal(err) {
		t.Errorf("close: got %v, want the failure", err)
	}
	verifyStates(t, "the failure", o, left)
}

// TestRefusedStaysOut has a BET refused, and the next one, a record of the same shape in the same
// place, torn behind its head by a power cut: the checksum of its head fits the body of the refused
// one, which must not be there any more.
func TestRefusedStaysOut(t *testing.T) {
	for _, mode := range []time.Duration{syncAlways, time.Hour} {
		options := testOptions()
		options.sync = mode
		sim, o := newSimDisk(), newOracle(1)
		d := &faultDisk{disk: sim}
		d.setFault(failWrite(testPath, 1, 1, 10))
		w := &workload{s: openTest(t, d, options), o: o}
		if err := errors.Join(w.submitAnonymous(), w.settleTo(0)); !errors.Is(err, errUnavailable) {
			t.Fatalf("on a full disk: got %v, want errUnavailable", err)
		}
		sim.mu.Lock()
		next := sim.powerCut(newRNG(1))
		sim.mu.Unlock()
		sim.powerOff()
		w.s.close()

		w.s = openTest(t, next, options)
		log := next.dir[testPath+".wal.00"]
		var torn *simDisk
		next.mu.Lock()
		next.before = func() { // the call behind the write of the record
			n := len(log.changes)
			if torn != nil || n == 0 || log.changes[n-1].at != walPage {
				return
			}
			torn = next.kill()
			data := simChange{at: walPage, data: log.changes[n-1].data[:redoRowsAt]}.apply(slices.Clone(log.medium))
			torn.put(testPath+".wal.00", data)
		}
		next.mu.Unlock()
		if err := errors.Join(w.submitAnonymous(), w.settleTo(0)); err != nil {
			t.Fatal(err)
		}
		next.powerOff()
		w.s.close()
		if torn == nil {
			t.Fatal("the second record is not where the first one was")
		}
		o.answered = nil // the power went before
		s := openTest(t, torn, options)
		if err := o.verify(s, torn.read(testPath)); err != nil {
			t.Errorf("store.sync %v: %v", mode, err)
		}
		s.close()
	}
}
