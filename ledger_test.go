package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// noRoom makes every write fail for lack of room from the n-th on, with so many of its bytes in
// the file, and all else that may need room.
func noRoom(n, short int) func(diskCall) *diskFault {
	return func(c diskCall) *diskFault {
		if c.kind != "write" && c.kind != "reserve" && c.kind != "truncate" {
			return nil
		}
		if n--; n > 0 {
			return nil
		}
		return &diskFault{syscall.ENOSPC, short}
	}
}

// TestTakeBackWithoutRoom has a commit whose record or rows meet a full disk, on which taking
// them back needs room as well. It gets no answer, and no other is taken until there is room.
// To close the store meanwhile is no failure: a start finds the commit whole or not at all.
func TestTakeBackWithoutRoom(t *testing.T) {
	for _, short := range []int{0, 30, 1 << 20} {
		for _, writes := range []int{1, 2} { // the record, the rows
			for _, room := range []bool{true, false} {
				t.Run(fmt.Sprintf("write %d, %d bytes, room again %v", writes, short, room), func(t *testing.T) {
					t.Parallel()
					testTakeBack(t, noRoom(writes, short), room)
				})
			}
		}
	}
}

func testTakeBack(t *testing.T, fault func(diskCall) *diskFault, room bool) {
	sim, o := newSimDisk(), newOracle(1)
	d := &faultDisk{disk: sim}
	s := openTest(t, d, testOptions())
	ses, _ := mustHello(t, s, sourceOf(0))
	if first := mustSubmit(t, s, ses, 0); first.wait() != nil {
		t.Fatal(first.err)
	}
	answered := ses.at.Records
	d.setFault(fault)
	g := mustSubmit(t, s, ses, 0)
	o.sources[0] = oracleSource{answered, ses.at.Records}
	if !isFatal(g.wait()) {
		t.Errorf("got the answer %v, want none", g.err)
	}
	if err := s.available(); err != errUnavailable {
		t.Errorf("health: got %v, want errUnavailable", err)
	}
	if _, err := s.submit(ses, batchOf(0, ses.at)); err != errUnavailable {
		t.Errorf("another batch: got %v, want errUnavailable", err)
	}
	if room {
		d.setFault(nil)
		waitFor(t, "bets taken again", func() bool { return s.available() == nil })
		ses, at := mustHello(t, s, sourceOf(0))
		if next := mustSubmit(t, s, ses, 0); at.Records != answered || next.wait() != nil {
			t.Errorf("with room: got %d records and %v, want %d and nil", at.Records, next.err, answered)
		}
		o.sources[0] = oracleSource{ses.at.Records, ses.at.Records}
	}
	if err := s.close(); err != nil {
		t.Errorf("close: got %v, want nil: nothing that was answered is lost", err)
	}
	for _, after := range []*simDisk{sim.kill(), sim.powerCut(newRNG(1))} {
		s := openTest(t, after, testOptions())
		if err := o.copy().verify(s, after.read(testPath)); err != nil {
			t.Error(err)
		}
		s.close()
	}
}

// TestCheckpointFails has checkpoints fail over and over: that is said once, and again when the
// reason changes; at the end the log still has all.
func TestCheckpointFails(t *testing.T) {
	sim, o, reason := newSimDisk(), newOracle(1), syscall.EISDIR
	d := &faultDisk{disk: sim}
	var log bytes.Buffer
	s, err := openStore(context.Background(), d, testOptions(), newLogger(&log, 0))
	if err != nil {
		t.Fatal(err)
	}
	var failed atomic.Int32
	d.setFault(func(c diskCall) *diskFault {
		if c.kind == "create" && strings.HasSuffix(c.name, ".state.new") {
			if failed.Add(1) == 4 {
				reason = syscall.EACCES
			}
			return &diskFault{err: reason}
		}
		return nil
	})
	ses, _ := mustHello(t, s, sourceOf(0))
	if g := mustSubmit(t, s, ses, 0); g.wait() != nil {
		t.Fatal(g.err)
	}
	waitFor(t, "checkpoints", func() bool {
		select {
		case s.ledger.full <- struct{}{}:
		default:
		}
		return failed.Load() > 8
	})
	o.sources[0] = oracleSource{ses.at.Records, ses.at.Records}
	if err := s.close(); err != nil {
		t.Errorf("close: got %v, want nil: nothing is lost", err)
	}
	// The close says it once more: nobody will try again.
	if got := strings.Count(log.String(), "action: checkpoint | result: fail"); got != 3 {
		t.Errorf("got %d lines, want 2 and that of the close:\n%s", got, log.String())
	}
	s = openTest(t, sim.kill(), testOptions())
	defer s.close()
	if err := o.verify(s, sim.read(testPath)); err != nil {
		t.Error(err)
	}
}

// TestFatalIsForGood checks that nothing is written or synced after a failed sync, whoever met
// it.
func TestFatalIsForGood(t *testing.T) {
	for _, file := range []string{testPath, testPath + ".wal.00", testPath + ".state.new"} {
		for _, interval := range []bool{false, true} {
			d, options := &faultDisk{disk: newSimDisk()}, testOptions()
			if interval {
				options.sync = 1 // all the time
			}
			s := openTest(t, d, options)
			ses, _ := mustHello(t, s, sourceOf(0))
			failed, later := false, 0
			d.setFault(func(c diskCall) *diskFault {
				switch {
				case failed && c.name == file:
					later++
				case c.name == file && strings.HasSuffix(c.kind, "sync"):
					failed = true
					return &diskFault{err: syscall.EIO}
				}
				return nil
			})
			for s.available() == nil {
				if g, err := s.submit(ses, batchOf(0, ses.at)); err == nil {
					g.wait()
				}
			}
			<-s.dead
			if err := s.ledger.sync(); !isFatal(err) {
				t.Errorf("%s: sync: got %v, want a fatalError", file, err)
			}
			if _, err := s.ledger.append(make([]byte, redoRowsAt), nil, 0); !isFatal(err) {
				t.Errorf("%s: append: got %v, want a fatalError", file, err)
			}
			if err := s.ledger.hasRoom(1); !isFatal(err) {
				t.Errorf("%s: hasRoom: got %v, want a fatalError", file, err)
			}
			if err := s.ledger.checkpoint(); !isFatal(err) {
				t.Errorf("%s: checkpoint: got %v, want a fatalError", file, err)
			}
			if err := s.close(); !isFatal(err) {
				t.Errorf("%s: close: got %v, want a fatalError", file, err)
			}
			if later > 0 && file != testPath { // rows that were committed before may still come
				t.Errorf("%s: got %d calls after its sync failed", file, later)
			}
		}
	}
}

// TestLongestRecord checks what group.go's bound on a record stands on: rows are at most twice
// as long as the messages that they come in. And the log refuses what a start would not read.
func TestLongestRecord(t *testing.T) {
	for _, b := range []Bet{
		{255, bytes.Repeat([]byte{'"'}, 8000), []byte(`"`), []byte("1234567890"), []byte("1999-12-31"), 65535},
		{255, []byte(`"`), []byte(`"`), []byte("1"), []byte("1999-12-31"), 65535},
	} {
		if row, message := len(appendRow(nil, &b)), len(appendBet(nil, &b)); row > 2*message {
			t.Errorf("a row of %d bytes for a BET of %d, want at most twice", row, message)
		}
	}
	_, w := fillWAL(t, false)
	if err := w.makeRoom(walMaxRecord + 1); err == nil || isFatal(err) {
		t.Errorf("a record that is too long: got %v, want it refused", err)
	}
}
