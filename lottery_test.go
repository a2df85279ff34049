package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// drawNumber is the winning number of the tests' draws.
const drawNumber = 7574

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
