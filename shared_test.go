package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// A fakeStream is a shared log in memory. Servers reach it each by a fakeLink of its own, whose
// faults are those that an engine and a network have.
type fakeStream struct {
	mu      sync.Mutex
	id      storeID
	records [][]byte
	late    []fakeRecord // sent, and still to arrive
	down    bool         // no quorum: nothing is taken, and nobody says how far it is
	young   int          // so often it still says that it ends before its last record, as a new leader may
	links   []*fakeLink
}

// A fakeRecord is a record on its way.
type fakeRecord struct {
	number uint64
	record []byte
}

// A fakeLink is one server's way to a fakeStream.
type fakeLink struct {
	stream *fakeStream
	heard  func([]byte)
	cut    bool                          // the server is cut off
	deaf   bool                          // it hears no signs
	fault  func(number uint64) sendFault // of each sending; nil: none
}

// A sendFault is what becomes of a record that is sent.
type sendFault uint8

const (
	sendArrives   sendFault = iota
	sendLost                // the message is: nothing is known
	sendUnsaid              // the answer is: nothing is known, and the record stands there
	sendLate                // it arrives later, if its place is still free
	sendRefused             // no leader: nothing was taken
	sendOvertaken           // another server's record comes first
	sendFaults              // how many there are
)

// newFakeStream returns an empty stream. It skips the test in a build without streams.
func newFakeStream(t testing.TB) *fakeStream {
	t.Helper()
	if !canShare {
		t.Skip("SKIPPED: this build has no streams")
	}
	return &fakeStream{id: testStore}
}

// fork returns the stream as it is now, for a server that goes on from here; nil if there is none.
func (s *fakeStream) fork() *fakeStream {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &fakeStream{id: s.id, records: slices.Clone(s.records), late: slices.Clone(s.late)}
}

// link returns a server's way to the stream.
func (s *fakeStream) link() *fakeLink {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &fakeLink{stream: s}
	s.links = append(s.links, k)
	return k
}

// change runs what changes the stream or a link.
func (s *fakeStream) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// length returns how many records there are.
func (s *fakeStream) length() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.records))
}

// put appends a record if its number is the next. s.mu is held.
func (s *fakeStream) put(number uint64, record []byte) {
	if number == uint64(len(s.records))+1 {
		s.records = append(s.records, slices.Clone(record))
	}
}

// deliver lets what was late arrive. s.mu is held.
func (s *fakeStream) deliver() {
	for _, r := range s.late {
		s.put(r.number, r.record)
	}
	s.late = nil
}

// tail returns the state that the records lead to, for a record of a writer that is no server here.
// s.mu is held.
func (s *fakeStream) tail() *state {
	st := &state{draw: draw{drawn: noNumber}}
	for i, payload := range s.records {
		if rec, _, err := st.read(uint64(i+1), payload); err == nil {
			st.apply(uint64(i+1), rec)
		}
	}
	return st
}

// voids returns how many records count for nothing.
func (s *fakeStream) voids() (n int) {
	st := &state{draw: draw{drawn: noNumber}}
	for i, payload := range s.records {
		rec, _, _ := st.read(uint64(i+1), payload)
		if counts, _ := st.admit(rec); !counts {
			n++
		}
		st.apply(uint64(i+1), rec)
	}
	return n
}

// stranger returns a record of another writer for the next place: a claim, or one that is void.
// s.mu is held.
func (s *fakeStream) stranger(claims bool) []byte {
	st, rec := s.tail(), redo{drawn: noNumber}
	st.identity = s.id
	by := st.claim(0x5151)
	if !claims {
		by.term, by.writer = st.term, 0x5252
		rec.count, rec.drawn = 1, 3 // and would do harm
	}
	buf := rec.seal(make([]byte, redoRowsAt), st.length, st.crc, by)
	return buf[walRecordHead:]
}

func (k *fakeLink) begin(number uint64, record []byte) {
	k.stream.mu.Lock()
	defer k.stream.mu.Unlock()
	k.send(number, record)
}

// send sends a record once, and reports whether the answer came that it stands. s.mu is held.
func (k *fakeLink) send(number uint64, record []byte) bool {
	fault, s := sendArrives, k.stream
	switch {
	case k.cut || s.down:
		fault = sendRefused
	case k.fault != nil:
		fault = k.fault(number)
	}
	switch fault {
	case sendLost, sendRefused:
		return false
	case sendLate:
		s.late = append(s.late, fakeRecord{number, slices.Clone(record)})
		return false
	case sendOvertaken:
		if number == uint64(len(s.records))+1 {
			s.put(number, s.stranger(number%2 == 0))
		}
	}
	s.put(number, record)
	return fault == sendArrives
}

func (k *fakeLink) settle(ctx context.Context, number uint64, record []byte) error {
	for ; ctx.Err() == nil; time.Sleep(100 * time.Microsecond) {
		if err, known := k.settled(number, record); known {
			return err
		}
	}
	return errUnsettled
}

// settled looks what stands at number, and sends record again where nothing does.
func (k *fakeLink) settled(number uint64, record []byte) (err error, known bool) {
	s := k.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case k.cut || s.down:
		return nil, false
	case number <= uint64(len(s.records)) && bytes.Equal(s.records[number-1], record):
		return nil, true
	case number <= uint64(len(s.records)):
		return &conflictError{number, slices.Clone(s.records[number-1])}, true
	case number > uint64(len(s.records))+1:
		return &fatalError{fmt.Errorf("stream: record %d is gone", number-1)}, true
	}
	k.send(number, record)
	return nil, false
}

func (k *fakeLink) read(ctx context.Context, from uint64, yield func(number uint64, record []byte) error) error {
	for number := from; ; number++ {
		record, err := k.at(number)
		if record == nil || err != nil {
			return err
		}
		if err := yield(number, record); err != nil {
			return err
		}
	}
}

// at returns a record; nil if there is none.
func (k *fakeLink) at(number uint64) ([]byte, error) {
	s := k.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.cut {
		return nil, errCut
	}
	if number > uint64(len(s.records)) {
		return nil, nil
	}
	return slices.Clone(s.records[number-1]), nil
}

// errCut is what a server sees that reaches no engine.
var errCut error = sharedError{fmt.Errorf("stream: nobody answers")}

func (k *fakeLink) last(context.Context) (uint64, error) {
	s := k.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.cut || s.down {
		return 0, errCut
	}
	if s.young > 0 && len(s.records) > 0 {
		s.young--
		return uint64(len(s.records) - 1), nil
	}
	return uint64(len(s.records)), nil
}

func (k *fakeLink) identity() storeID { return k.stream.id }

func (k *fakeLink) sign(data []byte) {
	s := k.stream
	s.mu.Lock()
	links := slices.Clone(s.links)
	cut := k.cut || s.down
	s.mu.Unlock()
	for _, other := range links {
		other.hear(data, cut)
	}
}

// hear passes a sign on, unless one of the two is cut off.
func (k *fakeLink) hear(data []byte, cut bool) {
	k.stream.mu.Lock()
	heard := k.heard
	cut = cut || k.cut || k.deaf
	k.stream.mu.Unlock()
	if heard != nil && !cut {
		heard(data)
	}
}

func (k *fakeLink) listen(heard func(data []byte)) { k.stream.change(func() { k.heard = heard }) }

func (k *fakeLink) close() { k.stream.change(func() { k.heard, k.cut = nil, true }) }

// testPace is that of the tests' servers.
var testPace = pace{patience: 30 * time.Millisecond, follow: time.Millisecond, sign: 5 * time.Millisecond,
	silence: 30 * time.Millisecond, look: 20 * time.Millisecond, shrunk: 700 * time.Millisecond}

// sharedOptions are those of a store on a shared log.
func sharedOptions(k *fakeLink) storeOptions {
	options := testOptions()
	options.shared, options.pace, options.name = k, &testPace, "office"
	return options
}

// awaitTaking waits until the store takes bets; it is asked all the time.
func awaitTaking(t testing.TB, s *store) {
	t.Helper()
	waitFor(t, "a server that takes bets", func() bool { return s.available() == nil })
}

// awaitSame waits until the store has all records of the stream.
func awaitSame(t testing.TB, stream *fakeStream, s *store) {
	t.Helper()
	waitFor(t, "a server that has all records", func() bool { return s.sequence() == stream.length() })
}

// sequence returns the number of the last record that the store has.
func (s *store) sequence() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.sequence
}

// TestSharedYoungLeader has a stream that says for a moment that it ends earlier than it does: no
// server takes that for a loss, one that starts no more than one that takes bets.
func TestSharedYoungLeader(t *testing.T) {
	stream, d := newFakeStream(t), newSimDisk()
	for range 2 {
		s, err := openStore(context.Background(), d, sharedOptions(stream.link()), quiet)
		if err != nil {
			t.Fatal(err)
		}
		awaitTaking(t, s)
		stream.change(func() { stream.young = 3 })
		waitFor(t, "a server that has looked", func() bool {
			stream.mu.Lock()
			defer stream.mu.Unlock()
			return stream.young == 0
		})
		awaitTaking(t, s)
		stream.change(func() { stream.young = 2 })
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSharedFailover has a client go from one server to another and back, and a third one built
// from nothing: all have the same bets.
func TestSharedFailover(t *testing.T) {
	t.Parallel()
	stream, o := newFakeStream(t), newOracle(2)
	var disks []*simDisk
	var stores []*store
	var links []*fakeLink
	for range 3 {
		disks, links = append(disks, newSimDisk()), append(links, stream.link())
	}
	for i := range 2 {
		stores = append(stores, openTest(t, disks[i], sharedOptions(links[i])))
	}
	w := &workload{s: stores[0], o: o}
	rng := rand.New(rand.NewPCG(1, 2))
	for i, at := range []int{0, 1, 0, 1} {
		w.s = stores[at]
		if i > 0 {
			stream.change(func() { links[1-at].cut = true })
		}
		awaitTaking(t, w.s)
		// A server that was cut off finds out with its first record that another one holds the
		// term.
		for err := w.run(rng, 30); err != nil; err = w.run(rng, 30) {
			if err != errUnavailable && err != errStandby && err != errFenced {
				t.Fatalf("turn %d: %v", i, err)
			}
			awaitTaking(t, w.s)
		}
		stream.change(func() { links[1-at].cut = false })
	}
	stores = append(stores, openTest(t, disks[2], sharedOptions(links[2])))
	for i, s := range stores {
		awaitSame(t, stream, s)
		known := o.copy()
		if err := known.verify(s, disks[i].read(testPath)); err != nil {
			t.Errorf("server %d: %v", i, err)
		}
		if err := s.close(); err != nil {
			t.Errorf("server %d: close: %v", i, err)
		}
	}
}
