package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"tp0/tools/torture"
)

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
	number   int       // that was drawn
}

// documents returns how often the bets file has each document, and the winners of each agency
// as the strings of a WINNERS.
func documents(data []byte, number int) (stored map[string]int, winners map[string][]byte) {
	stored, winners = map[string]int{}, map[string][]byte{}
	rows, _ := csv.NewReader(bytes.NewReader(data)).ReadAll()
	for _, row := range rows {
		stored[row[3]]++
		if row[5] == strconv.Itoa(number) {
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

// start starts the store, with a crash to come at one of its next calls or never, and checks
// what it has.
func (r *drawRun) start() error {
	left := r.rng.IntN(120)
	rng := newRNG(r.rng.Uint64())
	r.crashed = nil
	r.options.winner = drawNumber + r.rng.IntN(3) // whoever starts it decides
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
	if r.drawn && l.drawn == noNumber {
		return errors.New("the draw has come undone")
	}
	if l.drawn != noNumber && l.finished.count() < r.options.agencies {
		return fmt.Errorf("drawn with %d of %d agencies", l.finished.count(), r.options.agencies)
	}
	stored, winners := documents(data, l.drawn)
	for _, doc := range r.answered {
		if stored[doc] != 1 {
			return fmt.Errorf("bet %s was answered: got it %d times", doc, stored[doc])
		}
	}
	if l.drawn == noNumber {
		return nil
	}
	if r.final == "" {
		r.drawn, r.final, r.number = true, string(data), l.drawn
	}
	if l.drawn != r.number {
		return fmt.Errorf("the draw's number: got %d, want %d as before", l.drawn, r.number)
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
	return r.s.state.draw.drawn != noNumber
}

// awaitWinners waits until the winners are known. It returns false if a crash keeps them from
// being found.
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
		b := Bet{agency, []byte("A"), []byte("B"), []byte(doc), []byte("2000-01-01"),
			uint16(drawNumber + r.rng.IntN(3))}
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

// runDraw is one interleaving: lives with crashes between them, until the draw has been and
// some lives after it.
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

// TestDrawInterleavings is 1,000 stores with 1 to 20 agencies, each killed and cut before, in
// and after its draw.
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
