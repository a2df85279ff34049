package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
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

// drawStore opens a store with those settings, which must have that many winners of agency 1;
// -1: no draw.
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

// TestDrawSettings changes draw.agencies and draw.winner between starts: before the draw they
// count, after it no more.
func TestDrawSettings(t *testing.T) {
	d := newSimDisk()
	rows := "1,a,b,111,1999-01-01,7\r\n1,a,\"b,c\",222,1999-01-01,8\r\n" +
		"1,a,b,333,1999-01-01,8\r\n2,a,b,444,1999-01-01,8\r\n" +
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

// drawnStore returns what is left of a store that has drawn drawNumber over bets of two
// agencies: agency 1 has so many winners, each of its bets having another document, with as
// many bets on other numbers between them, and agency 2 has one.
func drawnStore(t *testing.T, winners int) *simDisk {
	t.Helper()
	d := newSimDisk()
	options := testOptions()
	options.agencies, options.winner, options.segment = 1, drawNumber, walSegment
	s := openTest(t, d, options)
	add := func(b Bet, count *decision) {
		count.rows = appendRow(count.rows, &b)
		count.count++
	}
	for i := 0; i < winners; {
		var next decision
		for ; i < winners && next.count < 400; i++ {
			document := []byte(strconv.Itoa(i))
			add(Bet{1, []byte("A"), []byte("B, C"), document, []byte("2000-01-01"), drawNumber}, &next)
			add(Bet{1, []byte("A"), []byte("B"), document, []byte("2000-01-01"), drawNumber + 1}, &next)
			if i == winners/2 {
				add(Bet{2, []byte("A"), []byte("B"), []byte("77"), []byte("2000-01-01"), drawNumber}, &next)
			}
		}
		if _, err := s.submit(&session{}, &next); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.finish(2); err != nil {
		t.Fatal(err)
	}
	<-s.drawn
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	return d.kill()
}

// TestManyWinners has more winners than are kept: all are told, in order, and the store holds
// no more of them than it says.
func TestManyWinners(t *testing.T) {
	for _, winners := range []int{0, 1, keptWinners, keptWinners + 1, 3*keptWinners + 5} {
		d := drawnStore(t, winners)
		s := openTest(t, d, testOptions())
		<-s.drawn
		var want []byte
		for i := range winners {
			want = appendString(want, strconv.Itoa(i))
		}
		if got, _ := packedWinners(s, 1); !bytes.Equal(got, want) {
			t.Errorf("%d winners: got %.200q", winners, got)
		}
		if got, _ := packedWinners(s, 2); winners > 0 && string(got) != "\x00\x0277" {
			t.Errorf("%d winners, those of the other agency: got %q", winners, got)
		}
		if kept := len(s.drawing.found.winners[1].kept); kept > keptWinners {
			t.Errorf("%d winners: got %d in memory", winners, kept)
		}
		if winners > keptWinners {
			some := 0
			_, each, _ := s.winners(1)
			err := each(func([]byte) bool { some++; return some < keptWinners+1 })
			if err != nil || some != keptWinners+1 {
				t.Errorf("stopped in the middle: got %d of them, %v", some, err)
			}
			d.dir[testPath].cache = d.dir[testPath].cache[:len(d.read(testPath))/2]
			if err := each(func([]byte) bool { return true }); err == nil {
				t.Errorf("%d winners, half of the bets file gone: got no error", winners)
			}
		}
		s.close()
	}
}

// TestDrawSeal checks what is said of the bets file at the draw's survey: its seal if it is
// what was stored, what is wrong if it is not. Either way the winners are told as it stands.
func TestDrawSeal(t *testing.T) {
	whole := drawnStore(t, 3)
	data := whole.read(testPath)
	seal := fmt.Sprintf("action: sorteo_sello | result: success | apuestas: 7 | sha256: %x", sha256.Sum256(data))
	at := bytes.Index(data, []byte("2000-01-01,7575"))
	for _, tt := range []struct {
		name string
		at   int
		to   byte
		want string
	}{
		{"as it was", 0, data[0], seal},
		{"a name", 2, 'X', "result: fail | file: bets.csv | reason: its first"},
		{"a birthdate", at + 4, '/', "the first line that is no bet is 2"},
		{"a line break", bytes.IndexByte(data, '\n'), ' ', "result: fail | file: bets.csv"},
		{"the last byte", len(data) - 1, ' ', "result: fail | file: bets.csv"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := whole.kill()
			d.dir[testPath].cache[tt.at] = tt.to
			var log bytes.Buffer
			s, err := openStore(context.Background(), d, testOptions(), newLogger(&log, 0))
			if err != nil {
				t.Fatal(err)
			}
			<-s.drawn
			if count, _, known := s.winners(1); !known || count < 2 {
				t.Errorf("winners: got %d, %v", count, known)
			}
			s.close()
			if got := strings.Count(log.String(), tt.want); got != 1 {
				t.Errorf("got %d lines with %q in\n%s", got, tt.want, log.String())
			}
			for line := range strings.Lines(log.String()) {
				checkLogLine(t, strings.TrimSuffix(line, "\n"))
			}
		})
	}
}

// TestDrawReadFails cannot read the bets file at the survey, for a while: the winners are known
// when it can.
func TestDrawUnreadable(t *testing.T) {
	d := &faultDisk{disk: drawnStore(t, 3)}
	d.setFault(func(c diskCall) *diskFault {
		if c.kind == "read" && c.name == testPath {
			return &diskFault{err: syscall.EIO}
		}
		return nil
	})
	var log bytes.Buffer
	s, err := openStore(context.Background(), d, testOptions(), newLogger(&log, 0))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a read that failed", d.hasFailed)
	if _, _, known := s.winners(1); known {
		t.Error("got winners of a file that cannot be read")
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "action: sorteo_sello | result: fail | file: bets.csv") {
		t.Errorf("got no line about it in\n%s", log.String())
	}
}

// TestDrawAfterOtherNumbers has a life with another draw.winner, or none, in which no snapshot
// can be written: the winners are those of the number that is drawn, whatever was in force when
// they were stored.
func TestDrawAfterOtherNumbers(t *testing.T) {
	for _, between := range [][]int{{8}, {noNumber}, {8, 9}} {
		d := newSimDisk()
		options := testOptions()
		options.agencies = 2
		bet := 0
		life := func(winner int, room bool) *store {
			faulty := &faultDisk{disk: d}
			s := openTest(t, faulty, func() storeOptions { o := options; o.winner = winner; return o }())
			if !room {
				faulty.setFault(func(c diskCall) *diskFault {
					if c.name == testPath+".state.new" {
						return &diskFault{err: syscall.ENOSPC}
					}
					return nil
				})
			}
			for _, number := range []uint16{7, 8, 9} {
				bet++
				b := Bet{1, []byte("A"), []byte("B"), []byte(strconv.Itoa(bet)), []byte("2000-01-01"), number}
				g, err := s.submit(&session{}, &decision{rows: appendRow(nil, &b), count: 1, total: 1})
				if err != nil {
					t.Fatal(err)
				}
				<-g.done
			}
			return s
		}
		life(7, true).close()
		for _, winner := range between {
			s := life(winner, false)
			next := d.kill()
			d.powerOff()
			s.close()
			d = next
		}
		s := life(7, true)
		s.finish(1)
		s.finish(2)
		<-s.drawn
		want := []byte{}
		for i := range len(between) + 2 {
			want = appendString(want, strconv.Itoa(1+3*i))
		}
		if got, _ := packedWinners(s, 1); !bytes.Equal(got, want) {
			t.Errorf("numbers %v between: got winners %q, want %q", between, got, want)
		}
		s.close()
	}
}

// TestDrawMeetsFullDisk makes the draw when there is room: one that was due at the start, since
// draw.agencies is lower than it was, and one whose last agency met the full disk and says
// again that it has finished, or whose others do.
func TestDrawMeetsFullDisk(t *testing.T) {
	options := testOptions()
	options.winner = 7
	for _, tt := range []struct {
		name     string
		agencies int     // at the second start; both have finished if it is 2
		again    []uint8 // who says that it has finished once there is room
	}{{"due at the start", 2, nil}, {"due at the start, said again", 2, []uint8{1, 2}},
		{"the last agency again", 3, []uint8{1, 3}}} {
		t.Run(tt.name, func(t *testing.T) {
			d := newSimDisk()
			options.agencies = 4
			s := openTest(t, d, options)
			for agency := range uint8(2) {
				g, _ := s.finish(agency + 1)
				<-g.done
			}
			s.close()
			faulty := &faultDisk{disk: d}
			full := func(c diskCall) *diskFault {
				if c.kind == "write" && strings.Contains(c.name, ".wal.") || c.kind == "reserve" {
					return &diskFault{err: syscall.ENOSPC}
				}
				return nil
			}
			if tt.agencies == 2 {
				faulty.setFault(full)
			}
			options.agencies = tt.agencies
			s = openTest(t, faulty, options)
			defer s.close()
			if faulty.setFault(full); tt.agencies == 3 {
				s.finish(3)
			}
			waitFor(t, "a full disk", func() bool { return s.available() == errUnavailable })
			faulty.setFault(nil)
			waitFor(t, "bets taken again", func() bool { return s.available() == nil })
			for _, agency := range tt.again {
				if _, err := s.finish(agency); err != nil {
					t.Error(err)
				}
			}
			<-s.drawn
		})
	}
}

// TestStartStopped stops a start that has to read a bets file: it fails with the context's
// error, changes no row, and the next start goes on.
func TestStartStopped(t *testing.T) {
	stopped, stop := context.WithCancel(context.Background())
	stop()
	d := newSimDisk()
	rows := strings.Repeat("1,a,b,1,1999-01-01,7\r\n", 100_000)
	d.put(testPath, []byte(rows))
	reads := 0
	counting := &faultDisk{disk: d, fault: func(c diskCall) *diskFault {
		if c.kind == "read" && c.name == testPath {
			reads++
		}
		return nil
	}}
	if _, err := openStore(stopped, counting, testOptions(), quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if reads > 3 { // its last byte, and no more than the first rows
		t.Errorf("got %d reads of the bets file, want it to stop at once", reads)
	}
	s := openTest(t, d.kill(), testOptions())
	defer s.close()
	if got := string(d.read(testPath)); got != rows || s.state.bets != 100_000 {
		t.Errorf("the next start: got %d bytes and %d bets, want %d and 100,000", len(got), s.state.bets, len(rows))
	}
}

// TestDrawOnce lets many goroutines say that the last agency has finished: there is one draw,
// in one line of the log.
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
