package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"tp0/tools/torture"
)

// drawNumber is the winning number of the tests' draws.
const drawNumber = 7574

// A drawRun is a store with a draw under random messages and crashes, and what its clients know.
type drawRun struct {
	rng      *rand.Rand
	options  storeOptions
	d        *simDisk
	crashed  *simDisk // what the crash left; nil: there was none
	s        *store
	ses      map[sourceKey]*session
	said     agencySet // agencies that have said that they have finished
	known    agencySet // of those, whose group was done
	bets     int       // made
	answered []string  // documents of the bets that were answered with a good ACK
	drawn    bool      // somebody has seen it
	final    string    // the bets file when the draw was first seen
}

// documents returns how often the bets file has each document, and the winners of each agency in the form of a winnerList.
func documents(data []byte) (stored map[string]int, winners map[string][]byte) {
	stored, winners = map[string]int{}, map[string][]byte{}
	rows, _ := csv.NewReader(bytes.NewReader(data)).ReadAll()
	for _, row := range rows {
		stored[row[3]]++
		if row[5] == strconv.Itoa(drawNumber) {
			winners[row[0]] = appendString(winners[row[0]], row[3])
		}
	}
	return stored, winners
}

// packedWinners returns the winners of agency as the strings of a WINNERS.
func packedWinners(s *store, agency uint8) (packed []byte, known bool) {
	count, each, known := s.winners(agency)
	if !known {
		return nil, false
	}
	got := 0
	err := each(func(document []byte) bool {
		packed = appendString(packed, document)
		got++
		return true
	})
	if err != nil || got != count {
		return fmt.Appendf(nil, "%d winners where %d were announced, %v", got, count, err), true
	}
	return packed, true
}

// start starts the store, with a crash to come at one of its next calls or never, and checks what it has.
func (r *drawRun) start() error {
	left := r.rng.IntN(120)
	rng := newRNG(r.rng.Uint64())
	r.crashed = nil
	r.d.before = func() {
		if left--; left != 0 {
			return
		}
		if r.crashed = r.d.powerCut(rng); rng.IntN(3) == 0 {
			r.crashed = r.d.kill()
		}
		r.d.off = true
	}
	s, err := openStore(context.Background(), r.d, r.options, quiet)
	if err != nil {
		if errors.Is(err, errPowerOff) {
			return nil
		}
		return err
	}
	r.s, r.ses = s, map[sourceKey]*session{}
	return r.check()
}

// check holds the store to what is known. Nothing is under way.
func (r *drawRun) check() error {
	r.s.mu.Lock()
	l, data := r.s.state.draw, r.d.read(testPath)
	r.s.mu.Unlock()
	for agency := range 256 {
		if a := uint8(agency); l.finished.has(a) && !r.said.has(a) || !l.finished.has(a) && r.known.has(a) {
			return fmt.Errorf("agency %d: got finished %v", a, l.finished.has(a))
		}
	}
	if r.drawn && !l.done {
		return errors.New("the draw has come undone")
	}
	if l.done && l.finished.count() < r.options.agencies {
		return fmt.Errorf("drawn with %d of %d agencies", l.finished.count(), r.options.agencies)
	}
	stored, winners := documents(data)
	for _, doc := range r.answered {
		if stored[doc] != 1 {
			return fmt.Errorf("bet %s was answered: got it %d times", doc, stored[doc])
		}
	}
	if !l.done {
		return nil
	}
	if r.final == "" {
		r.drawn, r.final = true, string(data)
	}
	if string(data) != r.final {
		return errors.New("the bets file changed after the draw")
	}
	if !r.awaitWinners() {
		return nil
	}
	for agency := range r.options.agencies + 1 {
		want := winners[strconv.Itoa(agency)]
		if got, drawn := packedWinners(r.s, uint8(agency)); !drawn || !bytes.Equal(got, want) {
			return fmt.Errorf("winners of agency %d: got %q, want %q", agency, got, want)
		}
	}
	return nil
}

// hasDrawn reports whether the draw has taken place.
func (r *drawRun) hasDrawn() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.s.state.draw.done
}

// awaitWinners waits until the winners are known. It returns false if a crash keeps them from being found.
func (r *drawRun) awaitWinners() bool {
	for {
		select {
		case <-r.s.drawn:
			return true
		case <-time.After(time.Millisecond):
			if r.d.isOff() {
				return false
			}
		}
	}
}

// act sends one message; done notes its answer.
func (r *drawRun) act() (g *group, done func(), err error) {
	agency := uint8(1 + r.rng.IntN(r.options.agencies))
	done = func() {}
	if r.rng.IntN(3) == 0 {
		r.said.add(agency)
		g, err = r.s.finish(agency)
		return g, func() { r.known.add(agency) }, err
	}
	key := sourceKey{agency, []string{"a.csv", "b.csv"}[r.rng.IntN(2)]}
	ses := r.ses[key]
	if ses == nil {
		ses = &session{fence: func() {}}
		if _, _, err = r.s.hello(ses, key); err != nil {
			return nil, done, err
		}
		r.ses[key] = ses
	}
	d, docs := r.decide(agency, ses.at)
	g, err = r.s.submit(ses, d)
	if err == errAfterDraw {
		d.rows, d.count, docs = nil, 0, nil
		g, err = r.s.submit(ses, d)
	}
	return g, func() { r.answered = append(r.answered, docs...) }, err
}

// decide makes a batch of new bets, a third of which win.
func (r *drawRun) decide(agency uint8, at Resume) (*decision, []string) {
	d := &decision{at: at}
	var docs []string
	for range 1 + r.rng.IntN(4) {
		r.bets++
		doc := fmt.Sprintf("%09d", r.bets)
		b := Bet{agency, []byte("A"), []byte("B"), []byte(doc), []byte("2000-01-01"), uint16(drawNumber + r.rng.IntN(3))}
		d.rows = appendRow(d.rows, &b)
		docs = append(docs, doc)
		d.count, d.total, d.at.Records = d.count+1, d.total+1, d.at.Records+1
	}
	return d, docs
}

// live sends messages, several at once, until the crash or the end.
func (r *drawRun) live() error {
	for range 5 + 3*r.options.agencies {
		var settle []func() bool
		for range 1 + r.rng.IntN(4) {
			g, done, err := r.act()
			if err != nil {
				break
			}
			settle = append(settle, func() bool {
				if g != nil {
					<-g.done
				}
				if g != nil && g.err != nil {
					return false
				}
				done()
				return true
			})
		}
		for _, answered := range settle {
			if !answered() {
				return nil
			}
		}
		if r.s.available() != nil {
			return nil
		}
		if r.known.count() == r.options.agencies && !r.hasDrawn() {
			return fmt.Errorf("all %d have finished, and there was no draw", r.options.agencies)
		}
	}
	return r.check()
}

// runDraw is one interleaving: lives with crashes between them, until the draw has been and some lives after it.
func runDraw(seed uint64) error {
	r := &drawRun{rng: newRNG(seed), d: newSimDisk(), options: testOptions()}
	r.options.agencies, r.options.winner = 1+r.rng.IntN(20), drawNumber
	for life, after := 0, 0; life < 60 && after < 2; life++ {
		err := r.start()
		if err == nil && r.s != nil {
			err = r.live()
		}
		if err != nil {
			return fmt.Errorf("seed %d, life %d, %d agencies: %w", seed, life+1, r.options.agencies, err)
		}
		if r.drawn {
			after++
		}
		r.d.mu.Lock()
		next := r.crashed
		if next == nil {
			next = r.d.kill()
		}
		r.d.off = true
		r.d.mu.Unlock()
		if r.s != nil {
			r.s.close()
		}
		r.s, r.d = nil, next
	}
	if !r.drawn {
		return fmt.Errorf("seed %d: no draw in 60 lives of %d agencies", seed, r.options.agencies)
	}
	return nil
}

// TestDrawInterleavings is 1,000 stores with 1 to 20 agencies, each killed and cut before, in and after its draw.
func TestDrawInterleavings(t *testing.T) {
	t.Parallel()
	runDraws(t, 0, 1000)
}

// runDraws runs the interleavings of count seeds, on two processors.
func runDraws(t *testing.T, first, count uint64) {
	t.Helper()
	failed := make(chan error, 2)
	for half := range uint64(2) {
		go func() {
			var err error
			for seed := first + half; seed < first+count && err == nil; seed += 2 {
				err = runDraw(seed)
			}
			failed <- err
		}()
	}
	if err := errors.Join(<-failed, <-failed); err != nil {
		t.Fatal(err)
	}
}

// TestTortureDraws is TestDrawInterleavings with DRAWS others.
func TestTortureDraws(t *testing.T) {
	draws := torture.Count(t, "DRAWS", 20000)
	runDraws(t, 1000, uint64(draws))
	t.Logf("%d draws", draws)
}

// drawStore opens a store with those settings, which must have that many winners of agency 1; -1: no draw.
func drawStore(t *testing.T, d disk, agencies, winner, want int) *store {
	t.Helper()
	options := testOptions()
	options.agencies, options.winner = agencies, winner
	s := openTest(t, d, options)
	if want >= 0 {
		<-s.drawn
	}
	if count, _, drawn := s.winners(1); drawn != (want >= 0) || drawn && count != want {
		t.Errorf("draw of %d agencies with %d: got %d winners, drawn %v; want %d", agencies, winner, count, drawn, want)
	}
	return s
}

// TestDrawSettings changes draw.agencies and draw.winner between starts: before the draw they count, after it no more.
func TestDrawSettings(t *testing.T) {
	d := newSimDisk()
	rows := "1,a,b,111,1999-01-01,7\r\n1,a,\"b,c\",222,1999-01-01,8\r\n1,a,b,333,1999-01-01,8\r\n2,a,b,444,1999-01-01,8\r\n" +
		"not,a,bet\r\n1,a,b,too long a document,1999-01-01,8\r\n300,a,b,1,1999-01-01,8\r\n"
	d.put(testPath, []byte(rows))
	s := drawStore(t, d, 3, 7, -1)
	for _, agency := range []uint8{1, 1, 2, 1} { // a set, not a count
		if g, err := s.finish(agency); err != nil {
			t.Fatal(err)
		} else if g != nil {
			<-g.done
		}
	}
	s.close()
	drawStore(t, d, 0, 8, -1).close()
	drawStore(t, d, 4, 9, -1).close()
	s = drawStore(t, d, 2, 8, 2) // now all have finished: the draw is at the start
	if got, _ := packedWinners(s, 1); string(got) != "\x00\x03222\x00\x03333" {
		t.Errorf("winners in stored order: got %q", got)
	}
	if _, err := s.submit(&session{}, anonymousBet(1)); err != errAfterDraw {
		t.Errorf("a bet after the draw: got %v, want errAfterDraw", err)
	}
	s.close()
	drawStore(t, d, 5, 7, 2).close()
	drawStore(t, d, 0, 7, 2).close()
	if got := string(d.read(testPath)); got != rows {
		t.Errorf("bets file: got %q, want it as it was", got)
	}
}

// TestDrawOnce lets many goroutines say that the last agency has finished: there is one draw, in one line of the log.
func TestDrawOnce(t *testing.T) {
	var log bytes.Buffer
	options := testOptions()
	options.agencies = 3
	s, err := openStore(context.Background(), newSimDisk(), options, newLogger(&log, 0))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 90 {
		go s.finish(uint8(1 + i%3))
	}
	<-s.drawn
	s.close()
	if got := strings.Count(log.String(), "action: sorteo | result: success"); got != 1 {
		t.Errorf("got %d draws in the log, want 1:\n%s", got, log.String())
	}
}

// TestAgencySet checks the set against a map.
func TestAgencySet(t *testing.T) {
	var set agencySet
	has, rng := map[uint8]bool{}, newRNG(5)
	for range 400 {
		agency := uint8(rng.IntN(256))
		set.add(agency)
		has[agency] = true
		if set.count() != len(has) {
			t.Fatalf("count: got %d, want %d", set.count(), len(has))
		}
	}
	for agency := range 256 {
		if set.has(uint8(agency)) != has[uint8(agency)] {
			t.Errorf("has(%d): got %v", agency, set.has(uint8(agency)))
		}
	}
}
