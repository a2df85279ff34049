package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

// The oracle of the store's tests, the same in all of them: answered ⊆ stored ⊆ submitted,
// nothing twice, each source's order, counts and CRCs equal to what was submitted up to there,
// whole batches and whole groups.

const (
	// testPath is the bets file of the tests' stores on a simDisk.
	testPath = "bets.csv"
	// testSegment is the size of the redo log's segments in most tests: 7 records of a page, so
	// that segments are soon full and used again.
	testSegment = 32 << 10
	// testAnonymous is the agency of the bets that come without a HELLO.
	testAnonymous = 200
	// testBets is how many bets a test source has.
	testBets = 20000
)

// quiet is a log that nobody reads.
var quiet = newLogger(io.Discard, slog.LevelError+1)

// testOptions are the options of a store in the tests' folder.
func testOptions() storeOptions { return storeOptions{path: testPath, segment: testSegment} }

// openTest opens a store that must open.
func openTest(t testing.TB, d disk, options storeOptions) *store {
	t.Helper()
	s, err := openStore(context.Background(), d, options, quiet)
	if err != nil {
		t.Fatalf("openStore: %v", err)
	}
	return s
}

// sourceOf returns the key of test source k.
func sourceOf(k int) sourceKey { return sourceKey{uint8(k + 1), fmt.Sprintf("agency-%d.csv", k+1)} }

// testBet returns bet i of an agency: always the same one, which no other is equal to. Each
// fifth is refused.
func testBet(agency uint8, i int) (b Bet, why refusal) {
	b = Bet{agency, []byte("José"), []byte("Pérez, hijo"), strconv.AppendInt(nil, int64(i), 10), []byte("1999-12-31"),
		uint16(i % 9999)}
	if i%5 == 4 {
		b.Number = 9999
	}
	why = rule{agency: agency, maxNumber: 9998}.check(&b)
	return b, why
}

// batchSize returns how many bets the batch has that starts with bet from of source k: so the
// batches are the same in every run.
func batchSize(k, from int) int {
	if (from+k)%4 == 0 {
		return min(testBets-from, 130) // more than a page of rows
	}
	return min(testBets-from, 1+(from*7+k)%6)
}

// batchOf returns the decision on the batch that starts where source k is.
func batchOf(k int, at Resume) *decision {
	key, d := sourceOf(k), &decision{at: at}
	for i := range batchSize(k, int(at.Records)) {
		b, why := testBet(key.agency, int(at.Records)+i)
		d.total++
		d.at.Records++
		d.at.CRC = crc32.Update(d.at.CRC, castagnoli, appendBet(nil, &b))
		if why == accepted {
			d.rows = appendRow(d.rows, &b)
			d.count++
		}
	}
	return d
}

// anonymousBet returns the decision on the bet i that comes without a HELLO.
func anonymousBet(i int) *decision {
	b, _ := testBet(testAnonymous, i*5)
	return &decision{rows: appendRow(nil, &b), count: 1, total: 1}
}

// An oracle knows what was submitted to a store and what was answered.
type oracle struct {
	sources   []oracleSource
	answered  []int // anonymous bets that were answered, in order
	refused   []int // anonymous bets that were refused
	anonymous int   // anonymous bets that were submitted: 0 to anonymous-1
	groups    map[*group][]oraclePart
	floor     []uint64 // of each source: what a power cut can't take, since the last start made it durable
	floorAnon []int    // answered, at the last start
	relaxed   bool     // a power cut may take what was answered since then
}

// An oracleSource says how far a source got, in bets.
type oracleSource struct{ answered, submitted uint64 }

// An oraclePart is a batch in a group: of a source, up to a bet.
type oraclePart struct {
	source int
	to     uint64
}

func newOracle(sources int) *oracle {
	return &oracle{sources: make([]oracleSource, sources), floor: make([]uint64, sources),
		groups: map[*group][]oraclePart{}}
}

// copy returns what the oracle knows now.
func (o *oracle) copy() *oracle {
	c := *o
	c.sources = append([]oracleSource(nil), o.sources...)
	c.answered = append([]int(nil), o.answered...)
	c.refused = append([]int(nil), o.refused...)
	c.groups = map[*group][]oraclePart{}
	for g, parts := range o.groups {
		c.groups[g] = append([]oraclePart(nil), parts...)
	}
	return &c
}

// cutPower forgets the answers that a power cut may take.
func (o *oracle) cutPower() {
	if !o.relaxed {
		return
	}
	for k := range o.sources {
		o.sources[k].answered = o.floor[k]
	}
	o.answered = o.floorAnon
}

// started notes that a store has started, with what the oracle has verified.
func (o *oracle) started(sync time.Duration) {
	o.relaxed = sync != syncAlways
	o.floor = nil
	for _, src := range o.sources {
		o.floor = append(o.floor, src.answered)
	}
	o.floorAnon = slices.Clone(o.answered)
}

// verify checks a store that has just been opened, whose bets file is data, and brings the
// oracle to where it stands.
func (o *oracle) verify(s *store, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(len(data)) != s.state.length {
		return fmt.Errorf("bets file: got %d bytes, want the state's %d", len(data), s.state.length)
	}
	if crc := crc32.Checksum(data, castagnoli); crc != s.state.crc {
		return fmt.Errorf("CRC of the bets file: got %08x, and the state says %08x", crc, s.state.crc)
	}
	rows, err := splitRows(data)
	if err != nil {
		return err
	}
	if uint64(len(rows)) != s.state.bets {
		return fmt.Errorf("rows: got %d, want the state's %d", len(rows), s.state.bets)
	}
	var of [256][]string
	for _, row := range rows {
		agency, _ := strconv.Atoi(row[:bytes.IndexByte([]byte(row), ',')])
		of[agency&255] = append(of[agency&255], row)
	}
	total := 0
	for k := range o.sources {
		key := sourceOf(k)
		if err := o.sources[k].verify(k, s.state.sources.at(key), of[key.agency]); err != nil {
			return fmt.Errorf("source %d: %w", k+1, err)
		}
		total += len(of[key.agency])
	}
	if total += len(of[testAnonymous]); total != len(rows) {
		return fmt.Errorf("rows of known agencies: got %d, want all %d", total, len(rows))
	}
	if err := o.verifyAnonymous(of[testAnonymous]); err != nil {
		return err
	}
	return o.verifyGroups(s)
}

// splitRows splits a bets file into its rows.
func splitRows(data []byte) (rows []string, err error) {
	if len(data) > 0 && !bytes.HasSuffix(data, []byte("\r\n")) {
		return nil, fmt.Errorf("bets file: got the end %q, want CRLF", data[max(0, len(data)-40):])
	}
	for i, row := range bytes.Split(data, []byte("\r\n")) {
		if len(row) > 0 {
			rows = append(rows, string(row))
		} else if i < bytes.Count(data, []byte("\r\n")) {
			return nil, fmt.Errorf("bets file: got an empty row %d", i+1)
		}
	}
	return rows, nil
}

// verify checks what a store has of source k.
func (src *oracleSource) verify(k int, at mark, rows []string) error {
	if at.Records < src.answered || at.Records > src.submitted {
		return fmt.Errorf("records: got %d, want %d that were answered to %d that were "+
			"submitted", at.Records, src.answered, src.submitted)
	}
	var want []byte
	var reached Resume
	for reached.Records < at.Records {
		d := batchOf(k, reached)
		want, reached = append(want, d.rows...), d.at
	}
	if reached != at.Resume {
		return fmt.Errorf("resume: got %v, want %v at the end of a batch", at, reached)
	}
	wantRows, _ := splitRows(want)
	for i, row := range rows {
		if i >= len(wantRows) || row != wantRows[i] {
			return fmt.Errorf("row %d: got %q, want %q", i+1, row, append(wantRows, "no more")[min(i, len(wantRows))])
		}
	}
	if at.stored != uint64(len(wantRows)) {
		return fmt.Errorf("bets stored: got %d, want %d", at.stored, len(wantRows))
	}
	if len(rows) != len(wantRows) {
		return fmt.Errorf("rows: got %d, want %d", len(rows), len(wantRows))
	}
	src.answered, src.submitted = at.Records, at.Records
	return nil
}

// verifyAnonymous checks the bets that came without a HELLO: those that were answered, in their
// order, and perhaps some others that were submitted.
func (o *oracle) verifyAnonymous(rows []string) error {
	answered, last := o.answered, -1
	o.answered = nil
	for _, row := range rows {
		i, err := strconv.Atoi(string(bytes.Split([]byte(row), []byte(","))[4]))
		want := ""
		if i /= 5; err == nil && i > last && i < o.anonymous {
			want = string(bytes.TrimSpace(anonymousBet(i).rows))
		}
		if row != want {
			return fmt.Errorf("row of a BET without HELLO: got %q after number %d of "+
				"%d, want %q", row, last, o.anonymous, want)
		}
		if slices.Contains(o.refused, i) {
			return fmt.Errorf("BETs without HELLO: number %d was refused and is stored", i)
		}
		if len(answered) > 0 && answered[0] == i {
			answered = answered[1:]
		}
		last = i
		o.answered = append(o.answered, i)
	}
	if len(answered) > 0 {
		return fmt.Errorf("BETs without HELLO: number %d was answered and is not stored", answered[0])
	}
	return nil
}

// verifyGroups checks that of each group all is stored or nothing.
func (o *oracle) verifyGroups(s *store) error {
	for _, parts := range o.groups {
		in := 0
		for _, p := range parts {
			if s.state.sources.at(sourceOf(p.source)).Records >= p.to {
				in++
			}
		}
		if in != 0 && in != len(parts) {
			return fmt.Errorf("a group of %d batches: got %d of them, want all or none", len(parts), in)
		}
	}
	o.groups = map[*group][]oraclePart{}
	return nil
}

// A workload sends batches to a store as connections do, with several under way.
type workload struct {
	s      *store
	o      *oracle
	lock   func(func()) // runs what changes the oracle; nil: nothing to lock
	hurry  bool         // many are under way, and no group waits for company
	bare   bool         // it sends nothing but BETs without HELLO: many records are of one shape
	ses    []*session
	groups []*group          // under way, oldest first
	settle []func(err error) // notes the answer of each, or that it was refused
}

// hello opens a session for source k.
func (w *workload) hello(k int) error {
	ses := &session{fence: func() {}}
	at, g, err := w.s.hello(ses, sourceOf(k))
	if err == nil && g != nil {
		err = g.wait()
	}
	if err != nil {
		return err
	}
	if src := w.o.sources[k]; at.Records < src.answered || at.Records > src.submitted {
		return fmt.Errorf("RESUME of source %d: got %d records, want "+
			"%d to %d", k+1, at.Records, src.answered, src.submitted)
	}
	w.note(func() {
		// The store takes bets, so what it has refused is taken back: nothing of it may be
		// stored but what is sent again, in whatever groups.
		w.o.sources[k].submitted = at.Records
		maps.DeleteFunc(w.o.groups, func(g *group, _ []oraclePart) bool { return g.hasFailed() })
	})
	w.ses[k] = ses
	return nil
}

// note runs what changes the oracle.
func (w *workload) note(change func()) {
	if w.lock == nil {
		change()
	} else {
		w.lock(change)
	}
}

// submit sends the next batch of source k.
func (w *workload) submit(k int) error {
	ses := w.ses[k]
	from := ses.at
	d := batchOf(k, from)
	if d.total == 0 {
		return nil
	}
	w.note(func() { w.o.sources[k].submitted = max(w.o.sources[k].submitted, d.at.Records) })
	g, err := w.s.submit(ses, d)
	if err != nil {
		return err
	}
	w.note(func() { w.o.groups[g] = append(w.o.groups[g], oraclePart{k, d.at.Records}) })
	w.owe(g, func(err error) {
		src := &w.o.sources[k]
		switch {
		case err == nil:
			src.answered = max(src.answered, d.at.Records)
		case err == errUnavailable && w.ses[k] == ses: // nothing of it is stored, nor of what follows it
			src.submitted = min(src.submitted, from.Records)
		}
	})
	return nil
}

// submitAnonymous sends a BET without HELLO.
func (w *workload) submitAnonymous() error {
	i := w.o.anonymous
	w.note(func() { w.o.anonymous++ })
	g, err := w.s.submit(&session{}, anonymousBet(i))
	if err == nil {
		w.owe(g, func(err error) {
			switch err {
			case nil:
				w.o.answered = append(w.o.answered, i)
			case errUnavailable: // ACK 5: nothing of it is stored
				w.o.refused = append(w.o.refused, i)
			}
		})
	}
	return err
}

// owe remembers an answer that waits for g.
func (w *workload) owe(g *group, answered func(err error)) {
	w.groups, w.settle = append(w.groups, g), append(w.settle, answered)
}

// settleTo waits for answers until at most that many are under way.
func (w *workload) settleTo(most int) error {
	for len(w.groups) > most {
		g, answered := w.groups[0], w.settle[0]
		w.groups, w.settle = w.groups[1:], w.settle[1:]
		err := g.wait()
		if w.note(func() { answered(err) }); err != nil {
			return err
		}
	}
	return nil
}

// run sends batches until steps are done or the store does not take them any more. It returns
// what ended it, and knows the outcome of all that was under way.
func (w *workload) run(rng *rand.Rand, steps int) error {
	defer func() {
		for w.settleTo(0) != nil { // one at a time
		}
	}()
	w.ses = make([]*session, len(w.o.sources))
	for k := range w.ses {
		if err := w.hello(k); err != nil {
			return err
		}
	}
	most := 6
	if w.hurry {
		most = 40
	}
	for range steps {
		if w.hurry {
			w.s.took.latest.Store(0) // as if commits took no time
		}
		var err error
		switch k := rng.IntN(len(w.ses) + 1); {
		case k == len(w.ses) || w.bare:
			err = w.submitAnonymous()
		case rng.IntN(16) == 0: // a newer connection takes over
			err = w.hello(k)
		default:
			err = w.submit(k)
		}
		left := rng.IntN(most)
		if w.isFull() {
			left = 0
		}
		if err == nil {
			err = w.settleTo(left)
		}
		if err != nil {
			return err
		}
	}
	return w.settleTo(0)
}

// isFull reports whether one more message may make the open group's record longer than a segment
// takes. In a log of whole segments none is (wal.go): what crashes leave of such a record is not
// what a start has to read.
func (w *workload) isFull() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return int64(len(w.s.groups.open.buf)+maxMessage) > w.s.ledger.wal.size-walPage
}

// wait waits for the outcome of g.
func (g *group) wait() error {
	<-g.done
	return g.err
}

// hasFailed reports whether g is done and was not stored.
func (g *group) hasFailed() bool {
	select {
	case <-g.done:
		return g.err != nil
	default:
		return false
	}
}

// newRNG returns the random numbers of a seed.
func newRNG(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// refuse notes that all that is not answered has been refused: nothing of it may be stored, now
// or later.
func (o *oracle) refuse(s *store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range o.sources {
		at := s.state.sources.at(sourceOf(k)).Records
		o.sources[k].answered, o.sources[k].submitted = max(o.sources[k].answered, at), at
	}
}
