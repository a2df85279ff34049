//go:build !nostream && !notls

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// replicateTest is mode replicate with a store on d and the stream of e; without e, with none.
func replicateTest(t *testing.T, ctx context.Context, d disk, e *fakeEngine) error {
	t.Helper()
	m := &replication{log: quiet, most: 1000, peers: goneAfter, shown: func(*progress) {}}
	if e != nil {
		m.stream = openFake(t, e)
		defer m.stream.close()
	}
	return m.run(ctx, d, smallOptions())
}

// followed returns the state and the bets that a server with an empty folder gets from records.
func followed(t *testing.T, records [][]byte) (s state, bets []byte) {
	t.Helper()
	s.draw.drawn = noNumber
	for i, record := range records {
		r, err := parseRedo(walVersion, record)
		if err != nil {
			t.Fatal(err)
		}
		if counts, err := s.admit(r); err != nil || !counts || !s.precedes(r) || len(record) > maxShared {
			t.Fatalf("record %d: counts %v, %v", i+1, counts, err)
		}
		s.apply(uint64(i+1), r)
		bets = append(bets, r.rows...)
	}
	return s, bets
}

// stateOf recovers the store on d and returns its state, without what the settings say.
func stateOf(t *testing.T, d *simDisk) state {
	t.Helper()
	r, err := recoverStore(context.Background(), d, aloneOptions(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	r.ledger.closeFiles()
	r.state.draw.agencies, r.state.draw.winner = 0, 0
	return r.state
}

// storeOf makes a store of so many rows, with sources, agencies that have finished, and a draw.
func storeOf(rows, sources int, drawn bool) *simDisk {
	d, s, bets := newSimDisk(), state{sequence: 1000}, []byte(nil)
	for i := range rows {
		bets = fmt.Appendf(bets, "%d,Ana,Paz,%d,2000-01-01,%d\r\n", i%5+1, 10_000_000+i*7, i%9999)
	}
	s.length, s.bets, s.crc, s.draw.drawn = int64(len(bets)), uint64(rows), crc32.Checksum(bets, castagnoli), noNumber
	for i := range sources {
		key, n := sourceKey{uint8(i%255 + 1), fmt.Sprintf("lot-%d", i)}, uint64(i+1)
		s.sources.put(key, mark{Resume{n, 7}, n})
	}
	if drawn {
		s.draw.finished.add(1)
		s.draw.finished.add(255)
		s.draw.drawn = 7574
	}
	d.put(testPath, bets)
	d.put(testPath+".state", appendState(nil, &s))
	return d
}

// TestReplicate puts stores of many kinds into a stream. A server that follows it from nothing gets
// the same store, and the store is one of the stream.
func TestReplicate(t *testing.T) {
	t.Parallel()
	small, _ := smallStore(t)
	adopted := newSimDisk()
	adopted.put(testPath, []byte("no bet\n\"a\nb\",c\n"+strings.Repeat("long", 1000)+"\nand no end"))
	for _, test := range []struct {
		name  string
		store *simDisk
	}{
		{"new", newSimDisk()}, {"small, with a log", small}, {"adopted", adopted},
		{"rows", storeOf(1000, 0, false)}, {"sources", storeOf(0, 1000, false)}, {"a draw alone", storeOf(0, 0, true)},
		{"all", storeOf(1000, 1000, true)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newFakeEngine(t)
			e.deleted = true
			before := stateOf(t, test.store)
			bets := test.store.read(testPath)
			if err := replicateTest(t, context.Background(), test.store, e); err != nil {
				t.Fatal(err)
			}
			after, rows := followed(t, e.records)
			if len(e.records) == 0 { // then only its first record tells a server whose store it is
				after.identity, _ = parseStoreID(e.config["metadata"].(map[string]any)[storeKey].(string))
			}
			if got := stateOf(t, test.store); !reflect.DeepEqual(got, after) {
				t.Errorf("got state %+v, and %+v of the stream", got, after)
			}
			if string(rows) != string(bets) || string(test.store.read(testPath)) != string(bets) {
				t.Errorf("got %d bytes of rows, want the store's %d", len(rows), len(bets))
			}
			if after.identity == (storeID{}) || after.bets != before.bets || after.term != 0 || after.holder != 0 {
				t.Errorf("got %+v", after.tenancy)
			}
			records := len(e.records)
			if err := replicateTest(t, context.Background(), test.store, e); err != nil || len(e.records) != records {
				t.Errorf("once more: got %v, %d records", err, len(e.records))
			}
			if err := replicateTest(t, context.Background(), test.store, nil); err != nil {
				t.Errorf("leaving: got %v", err)
			}
			before.sequence = uint64(records)
			if got := stateOf(t, test.store); !reflect.DeepEqual(got, before) {
				t.Errorf("after it has left: got %+v, want %+v", got, before)
			}
			var usage *usageError
			if err := replicateTest(t, context.Background(), test.store, nil); !errors.As(err, &usage) {
				t.Errorf("leaving nothing: got %v", err)
			}
		})
	}
}

// TestReplicateKeepsTheLog: where there was no room for a snapshot at the start, the log is not
// emptied before there is one that has what it has.
func TestReplicateKeepsTheLog(t *testing.T) {
	t.Parallel()
	small, _ := smallStore(t)
	want := stateOf(t, small.kill()).sequence
	e := newFakeEngine(t)
	e.deleted = true
	d := &faultDisk{disk: small}
	full, emptied := true, false
	d.setFault(func(c diskCall) *diskFault {
		switch {
		case strings.HasSuffix(c.name, ".state.new") && full && c.kind == "write":
			full = false
			return &diskFault{err: syscall.ENOSPC}
		case strings.Contains(c.name, ".wal.") && c.kind == "truncate" && !emptied:
			emptied = true
			s, _, err := parseState(small.read(testPath + ".state"))
			if err != nil || s.sequence != want {
				t.Errorf("got a snapshot of record %d, %v, want %d", s.sequence, err, want)
			}
		}
		return nil
	})
	if err := replicateTest(t, context.Background(), d, e); err != nil || full || !emptied {
		t.Errorf("got %v, full %v, emptied %v", err, full, emptied)
	}
}

// TestReplicateRefused: a stream that has records of another store is left alone, and so is the
// store.
func TestReplicateRefused(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.deleted = true
	first, changed := storeOf(100, 3, false), storeOf(100, 3, false)
	if err := replicateTest(t, context.Background(), first, e); err != nil {
		t.Fatal(err)
	}
	bets := changed.read(testPath)
	bets[5] ^= 1
	changed.put(testPath, bets)
	elsewhere := storeOf(100, 3, false)
	if err := replicateTest(t, context.Background(), elsewhere, func() *fakeEngine {
		other := newFakeEngine(t)
		other.deleted = true
		return other
	}()); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		store *simDisk
		want  string // in the error; empty: it goes in
	}{
		{"fewer rows", storeOf(99, 3, false), "records that this store does not give"},
		{"a source less", storeOf(100, 2, false), "records that this store does not give"},
		{"nothing", newSimDisk(), "records that this store does not give"},
		{"changed bytes", changed, "the CRC-32C of " + testPath},
		{"the same bets, and of another stream", elsewhere, ""},
		{"the same", storeOf(100, 3, false), ""},
	} {
		records := len(e.records)
		was := test.store.read(testPath + ".state")
		err := replicateTest(t, context.Background(), test.store, e)
		switch {
		case test.want == "" && err != nil, len(e.records) != records:
			t.Errorf("%s: got %v, %d records", test.name, err, len(e.records))
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		case test.want != "" && was != nil && string(test.store.read(testPath+".state")) != string(was):
			t.Errorf("%s: the store was changed", test.name)
		}
	}
	s := openFake(t, e)
	mustLast(t, context.Background(), s, uint64(len(e.records)))
	if err := s.settle(context.Background(), uint64(len(e.records)+1), []byte("a server's")); err != nil {
		t.Fatal(err)
	}
	if err := replicateTest(t, context.Background(), storeOf(100, 3, false), e); err != nil {
		t.Errorf("the stream has gone on behind the store's records: got %v", err)
	}
}

// TestReplicateAwaitsPeers: an engine that says that a server is away is asked again, since one
// that was just started says so as well.
func TestReplicateAwaitsPeers(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.deleted, e.reads = true, []string{"ok", "10005", "ok", "10005"}
	if err := replicateTest(t, context.Background(), storeOf(100, 3, false), e); err != nil {
		t.Fatal(err)
	}
	if len(e.records) == 0 || len(e.reads) > 0 {
		t.Errorf("got %d records, %d answers left", len(e.records), len(e.reads))
	}
}

// TestReplicateWithoutPeers: an engine that goes on saying that a server is away is believed.
func TestReplicateWithoutPeers(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.deleted, e.reads = true, slices.Repeat([]string{"ok", "10005"}, 50)
	m := &replication{log: quiet, most: 1000, peers: time.Millisecond, shown: func(*progress) {},
		stream: openFake(t, e)}
	defer m.stream.close()
	err := m.run(context.Background(), storeOf(100, 3, false), smallOptions())
	if err == nil || !strings.Contains(err.Error(), "cannot be made") || !isCode(err, codeNoPeers) {
		t.Errorf("got %v, want the engine's reason", err)
	}
	if len(e.reads) < 10 {
		t.Errorf("got %d answers left: it was asked on and on", len(e.reads))
	}
}

// TestReplicateLeavesPending runs on a store that is in the stream already, and whose log has a
// last record of which nobody knows whether it counts: nothing of the store is changed. Nor by a
// server that was not told of the stream.
func TestReplicateLeavesPending(t *testing.T) {
	t.Parallel()
	e, d := newFakeEngine(t), storeOf(100, 3, false)
	e.deleted = true
	if err := replicateTest(t, context.Background(), d, e); err != nil {
		t.Fatal(err)
	}
	s := stateOf(t, d.kill())
	w, _, _, err := openTestWAL(d, false, s.sequence)
	if err != nil {
		t.Fatal(err)
	}
	rows := "1,Ana,Paz,12345678,2000-01-01,7\r\n"
	rec, buf := redo{drawn: noNumber, count: 1}, append(make([]byte, redoRowsAt), rows...)
	buf = rec.seal(buf, s.length, s.crc, s.stamp())
	if err := appendTest(w, string(buf[walRecordHead:])); err != nil {
		t.Fatal(err)
	}
	was := d.kill()
	if err := replicateTest(t, context.Background(), d, e); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(context.Background(), d, smallOptions(), quiet); err == nil {
		t.Error("a server without the stream has started on its store")
	}
	for _, name := range []string{"", ".state", ".wal.00"} {
		if string(d.read(testPath+name)) != string(was.read(testPath+name)) {
			t.Errorf("%s was changed", testPath+name)
		}
	}
}

// TestForgetInStream: mode forget refuses a store that is in a stream, says why and what to do, and
// changes nothing. What it says leads to a stream without that source.
func TestForgetInStream(t *testing.T) {
	t.Parallel()
	e, d := newFakeEngine(t), newSimDisk()
	e.deleted = true
	s := openTest(t, d, smallOptions())
	for k := range 2 {
		ses, _ := mustHello(t, s, sourceOf(k))
		<-mustSubmit(t, s, ses, k).done
	}
	s.close()
	forget := func() error {
		return forgetSource(context.Background(), d, smallOptions(), sourceOf(0), quiet)
	}
	if err := replicateTest(t, context.Background(), d, e); err != nil {
		t.Fatal(err)
	}
	was := d.kill()
	err := forget()
	if err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "is empty: set it") {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"forget: " + testPath + " is in a stream", "all of them know the source",
		"stop all servers", "-mode=replicate without stream.servers", "-mode=replicate with another stream.name",
		"docs/replication.md"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got %q, want %q in it", err, part)
		}
	}
	for _, name := range []string{"", ".state"} {
		if string(d.read(testPath+name)) != string(was.read(testPath+name)) {
			t.Errorf("%s was changed", testPath+name)
		}
	}
	if err := replicateTest(t, context.Background(), d, nil); err != nil {
		t.Fatalf("out of the stream: %v", err)
	}
	if err := forget(); err != nil {
		t.Fatalf("out of the stream: %v", err)
	}
	again := newFakeEngine(t)
	again.deleted = true
	if err := replicateTest(t, context.Background(), d, again); err != nil {
		t.Fatalf("into a new stream: %v", err)
	}
	after, rows := followed(t, again.records)
	if string(rows) != string(was.read(testPath)) || after.sources.at(sourceOf(0)).stored != 0 ||
		after.sources.at(sourceOf(1)).stored == 0 {
		t.Errorf("got %d bytes of rows and sources %v, want all rows and the second source", len(rows), after.sources)
	}
}

// TestReplicateCrashes kills the program, or cuts the power, at every call of the disk and at every
// record, and starts it again: the stream and the store are in the end what they are without.
func TestReplicateCrashes(t *testing.T) {
	t.Parallel()
	small, _ := smallStore(t)
	rng := rand.New(rand.NewPCG(1, 2))
	want := newFakeEngine(t)
	want.deleted = true
	whole := small.kill()
	if err := replicateTest(t, context.Background(), whole, want); err != nil {
		t.Fatal(err)
	}
	id := want.config["metadata"]
	crashed := 0
	for at := 1; ; at++ {
		e := newFakeEngine(t)
		e.config["metadata"] = id // made, with nothing in it: so the records are the same
		d := small.kill()
		ctx, cancel := context.WithCancel(context.Background())
		var left *simDisk
		count := func(of *simDisk) {
			if at--; at != 0 {
				return
			}
			if left = of.kill(); rng.IntN(2) == 0 {
				left = of.powerCut(rng)
			}
			of.off = true
			cancel()
		}
		steps := at
		d.before = func() { count(d) }
		e.taken = func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			count(d)
		}
		err := replicateTest(t, ctx, d, e)
		cancel()
		at = steps
		if left == nil {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		crashed++
		e.mu.Lock()
		e.taken = nil
		e.mu.Unlock()
		if err := replicateTest(t, context.Background(), left, e); err != nil {
			t.Fatalf("after a crash at step %d: %v", at, err)
		}
		if !reflect.DeepEqual(e.records, want.records) {
			t.Fatalf("after a crash at step %d: got %d records, want the same %d",
				at, len(e.records), len(want.records))
		}
		if got, want := stateOf(t, left), stateOf(t, whole.kill()); !reflect.DeepEqual(got, want) {
			t.Fatalf("after a crash at step %d: got %+v, want %+v", at, got, want)
		}
	}
	if crashed < 20 {
		t.Errorf("got %d moments, want all of a replication", crashed)
	}
}
