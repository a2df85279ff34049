package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestProgressLine(t *testing.T) {
	half := progressState{done: 500, total: 1000, bets: 13468, refused: 3, rate: 210_000.4, left: 7 * time.Second}
	huge := progressState{done: math.MaxInt64 / 3, total: math.MaxInt64, bets: math.MaxInt64, refused: math.MaxInt64,
		rate: 1e18, left: 9998 * 24 * time.Hour}
	tests := []struct {
		name  string
		state progressState
		width int
		want  string
	}{
		{"start", progressState{total: 1000, rate: -1, left: -1}, 79,
			"[...................]    0%  bets 0  refused 0  left -  bets/s -"},
		{"half", half, 79, "[#########..........]   50%  bets 13,468  refused 3  left 0:07  bets/s 210,000"},
		{"end", progressState{done: 1000, total: 1000, bets: 26936, rate: 99.5}, 79,
			"[###################]  100%  bets 26,936  refused 0  left 0:00  bets/s 100"},
		{"a byte before the end", progressState{done: math.MaxInt64 - 1, total: math.MaxInt64, rate: -1, left: -1}, 41,
			" 99%  bets 0  refused 0  left -  bets/s -"},
		{"the file grew", progressState{done: 1001, total: 1000, rate: 0}, 30, "100%  bets 0  left 0:00"},
		{"an hour left", progressState{total: 9, rate: 1, left: time.Hour + 59*time.Second}, 58,
			"[.......]    0%  bets 0  refused 0  left 1:00:59  bets/s 1"},
		{"wide", half, 160, "[" + strings.Repeat("#", 20) + strings.Repeat(".", 20) +
			"]   50%  bets 13,468  refused 3  left 0:07  bets/s 210,000"},
		{"least bar", half, 64, "[##...]   50%  bets 13,468  refused 3  left 0:07  bets/s 210,000"},
		{"no bar", half, 63, " 50%  bets 13,468  refused 3  left 0:07  bets/s 210,000"},
		{"no speed, but a bar again", half, 54, "[#####......]   50%  bets 13,468  refused 3  left 0:07"},
		{"no refused", half, 36, " 50%  bets 13,468  left 0:07"},
		{"no bets", half, 20, " 50%  left 0:07"},
		{"no time", half, 14, " 50%"},
		{"no percent", half, 3, ""},
		{"no room", half, 0, ""},
		{"less than no room", half, -1, ""},
		{"huge", huge, 200, "[################..................................]   33%  " +
			"bets 9,223,372,036,854,775,807  " +
			"refused 9,223,372,036,854,775,807  left 239952:00:00  bets/s 1,000,000,000,000,000,000"},
		{"huge, narrow", huge, 79, "[######.............]   33%  bets 9,223,372,036,854,775,807  left 239952:00:00"},
		{"forty columns", progressState{done: 1, total: 3, bets: 78_688_123, refused: 5_000_000, rate: 1e7,
			left: 99 * time.Hour}, 39,
			" 33%  bets 78,688,123  left 99:00:00"},
	}
	for _, tt := range tests {
		if got := tt.state.line(tt.width); got != tt.want {
			t.Errorf("%s, width %d: got %q, want %q", tt.name, tt.width, got, tt.want)
		}
	}
}

func TestProgressLineFits(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	number := func() int64 { return random.Int63() >> random.Intn(63) }
	for range 20_000 {
		s := progressState{done: number(), total: number(), bets: number(), refused: number(),
			rate: float64(number()) - 1, left: time.Duration(number() - 1)}
		width := random.Intn(120)
		if got := s.line(width); len(got) > width {
			t.Fatalf("%+v: got %d columns %q, want at most %d", s, len(got), got, width)
		}
	}
}

func TestTimeLeft(t *testing.T) {
	tests := []struct {
		left time.Duration
		want string
	}{
		{-1, "-"},
		{0, "0:00"},
		{999 * time.Millisecond, "0:00"},
		{59 * time.Second, "0:59"},
		{61 * time.Second, "1:01"},
		{time.Hour - 1, "59:59"},
		{time.Hour, "1:00:00"},
		{100*time.Hour - 1, "99:59:59"},
		{100 * time.Hour, "100:00:00"},
	}
	for _, tt := range tests {
		if got := timeLeft(tt.left); got != tt.want {
			t.Errorf("timeLeft(%v): got %q, want %q", tt.left, got, tt.want)
		}
	}
}

func TestProgressSpeed(t *testing.T) {
	tests := []struct {
		name    string
		state   progressState
		since   progressState
		seconds float64
		rate    float64
		left    time.Duration
	}{
		{"no time has passed", progressState{done: 10, total: 100, bets: 5}, progressState{}, 0, -1, -1},
		{"nothing done", progressState{total: 100}, progressState{}, 2, 0, -1},
		{"from the start", progressState{done: 20, total: 100, bets: 6}, progressState{}, 2, 3, 8 * time.Second},
		{"after a resume", progressState{done: 60, total: 100, bets: 56}, progressState{done: 50, bets: 50}, 2, 3,
			8 * time.Second},
		{"at the end", progressState{done: 100, total: 100, bets: 6}, progressState{done: 100}, 2, 3, 0},
		{"too long to say", progressState{done: 1, total: math.MaxInt64}, progressState{}, 2, 0, -1},
	}
	for _, tt := range tests {
		rate, left := tt.state.speed(tt.since, tt.seconds)
		if rate != tt.rate || left != tt.left {
			t.Errorf("%s: got %v bets/s, %v left, want %v, %v", tt.name, rate, left, tt.rate, tt.left)
		}
	}
}

// A screen is a terminal as far as the bar needs one. It has no lock: with -race it shows that
// its writers take turns.
type screen struct {
	lines  []string // what was on lines that the cursor has left
	line   []byte   // the line where the cursor is
	column int
	writes int
	err    error // answers each write, once set
}

// errScreen stands for a terminal that was closed.
var errScreen = errors.New("input/output error")

func (s *screen) Write(p []byte) (int, error) {
	s.writes++
	if s.err != nil {
		return 0, s.err
	}
	for rest := p; len(rest) > 0; {
		switch {
		case rest[0] == '\n':
			s.lines = append(s.lines, string(s.line))
			s.line, s.column, rest = nil, 0, rest[1:]
		case rest[0] == '\r':
			s.column, rest = 0, rest[1:]
		case bytes.HasPrefix(rest, []byte("\x1b[K")):
			s.line, rest = s.line[:min(s.column, len(s.line))], rest[3:]
		case bytes.HasPrefix(rest, []byte("\x1b[?7l")), bytes.HasPrefix(rest, []byte("\x1b[?7h")):
			rest = rest[5:]
		default:
			s.line = append(s.line[:s.column], append([]byte{rest[0]}, s.line[min(s.column+1, len(s.line)):]...)...)
			s.column, rest = s.column+1, rest[1:]
		}
	}
	return len(p), nil
}

// newTestProgress returns a bar for 1,000 bytes on a screen of 80 columns, and the time, which
// the caller moves.
func newTestProgress() (*progress, *screen, *time.Time) {
	now := time.Date(2024, 9, 3, 16, 15, 58, 0, time.UTC)
	terminal := &screen{}
	return newProgressOn(terminal, func() time.Time { return now }), terminal, &now
}

// newProgressOn returns a bar for 1,000 bytes on a terminal of 80 columns.
func newProgressOn(w io.Writer, now func() time.Time) *progress {
	return &progress{now: now, w: w, columns: func() int { return 80 }, state: progressState{total: 1000}}
}

func TestProgressUpdate(t *testing.T) {
	p, terminal, now := newTestProgress()
	steps := []struct {
		after time.Duration
		done  int64
		bets  int64
		want  string // on the screen
	}{
		{0, 200, 20, "[###................]   20%  bets 20  refused 1  left -  bets/s -"},
		{99 * time.Millisecond, 210, 21, "[###................]   20%  bets 20  refused 1  left -  bets/s -"},
		{901 * time.Millisecond, 300, 30, "[#####..............]   30%  bets 30  refused 1  left 0:07  bets/s 10"},
		{4 * time.Second, 700, 70, "[#############......]   70%  bets 70  refused 1  left 0:03  bets/s 10"},
		{5 * time.Second, 800, 80, "[###############....]   80%  bets 80  refused 1  left 0:03  bets/s 6"},
		{5 * time.Second, 1000, 80, "[###################]  100%  bets 80  refused 1  left 0:00  bets/s 4"},
	}
	for i, step := range steps {
		*now = now.Add(step.after)
		p.update(step.done, step.bets, 1)
		if got := string(terminal.line); got != step.want || len(terminal.lines) != 0 {
			t.Errorf("step %d: got %q below %q, want %q alone", i, got, terminal.lines, step.want)
		}
	}
	if want := len(steps) - 1; terminal.writes != want {
		t.Errorf("got %d writes, want %d: one a drawing, none within %v", terminal.writes, want, progressEvery)
	}
}

func TestProgressRedraws(t *testing.T) {
	p, terminal, now := newTestProgress()
	for i := range int64(2001) { // two seconds, an update each millisecond
		p.update(i/3, i, 0)
		*now = now.Add(time.Millisecond)
	}
	if want := 21; terminal.writes != want {
		t.Errorf("got %d drawings in 2 s, want %d", terminal.writes, want)
	}
}

func TestProgressAround(t *testing.T) {
	p, terminal, now := newTestProgress()
	log := func(line string) func() {
		return func() { fmt.Fprintln(terminal, line) }
	}
	p.around(log("before the first update"))
	if got := terminal.writes; got != 1 {
		t.Errorf("before the first update: got %d writes, want 1, the log's", got)
	}
	p.update(500, 50, 0)
	p.around(log("one"))
	p.around(func() {})
	*now = now.Add(time.Second)
	p.around(func() { log("two")(); log("three")() })
	want := "[#########..........]   50%  bets 50  refused 0  left -  bets/s 0"
	if got := string(terminal.line); got != want {
		t.Errorf("under the log: got %q, want %q", got, want)
	}
	p.finish()
	p.around(log("four"))
	p.update(600, 60, 0)
	p.finish()
	lines := []string{"before the first update", "one", "two", "three", want, "four"}
	if got := strings.Join(terminal.lines, "\n"); got != strings.Join(lines, "\n") || len(terminal.line) != 0 {
		t.Errorf("got lines %q and %q, want %q and nothing", terminal.lines, terminal.line, lines)
	}
}

func TestProgressFinish(t *testing.T) {
	p, terminal, now := newTestProgress()
	p.finish()
	if terminal.writes != 0 {
		t.Errorf("finish without an update: got %d writes, want none", terminal.writes)
	}
	p, terminal, now = newTestProgress()
	p.update(500, 1000, 0) // resumed: this much was done before
	for _, bets := range []int64{1001, 1200} {
		*now = now.Add(10 * time.Second)
		p.update(990, bets, 2)
	}
	*now = now.Add(50 * time.Millisecond) // too soon for update to draw
	p.update(1000, 1401, 3)
	p.finish()
	want := "[###################]  100%  bets 1,401  refused 3  left 0:00  bets/s 20"
	if got := strings.Join(terminal.lines, "\n"); got != want {
		t.Errorf("got %q, want %q: the last state, with the whole run's speed", got, want)
	}
}

// Drawings of concurrent updates never come between or into the log's lines.
func TestProgressConcurrent(t *testing.T) {
	const writers, lines = 4, 200
	terminal := &screen{}
	p := newProgressOn(terminal, time.Now)
	p.update(0, 0, 0)
	var all sync.WaitGroup
	for writer := range writers {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := range lines {
				p.update(int64(i), int64(i), 0)
				p.around(func() {
					io.WriteString(terminal, fmt.Sprintf("action: writer %d ", writer))
					io.WriteString(terminal, fmt.Sprintf("line %d\n", i))
				})
			}
		}()
	}
	all.Wait()
	next := [writers]int{}
	for _, got := range terminal.lines {
		var writer int
		if _, err := fmt.Sscanf(got, "action: writer %d", &writer); err != nil || writer >= writers {
			t.Fatalf("got line %q, want one of the log's", got)
		}
		if want := fmt.Sprintf("action: writer %d line %d", writer, next[writer]); got != want {
			t.Fatalf("got line %q, want %q", got, want)
		}
		next[writer]++
	}
	if got := len(terminal.lines); got != writers*lines || !bytes.HasPrefix(terminal.line, []byte("[")) {
		t.Errorf("got %d lines above %q, want %d above the bar", got, terminal.line, writers*lines)
	}
}

func TestProgressTerminalGone(t *testing.T) {
	p, terminal, now := newTestProgress()
	p.update(1, 1, 0)
	terminal.err = errScreen
	called := 0
	for range 3 {
		*now = now.Add(time.Second)
		p.update(2, 2, 0)
		p.around(func() { called++ })
	}
	p.finish()
	if terminal.writes != 2 || called != 3 {
		t.Errorf("got %d writes and %d calls, want 2 (the second fails) and 3", terminal.writes, called)
	}
}

func TestNilProgress(t *testing.T) {
	var p *progress
	called := false
	p.update(1, 2, 3)
	p.around(func() { called = true })
	p.finish()
	if !called {
		t.Error("around on nil: got no call, want one")
	}
}

func TestNewProgress(t *testing.T) {
	tests := []struct {
		name, term string
		make       bool // the file is to be made
		want       bool // a bar
	}{
		{name: os.DevNull, term: "xterm"},
		{name: filepath.Join(t.TempDir(), "log"), term: "xterm", make: true},
		{name: "/dev/ptmx", term: "xterm", want: true}, // each opening is a new terminal
		{name: "/dev/ptmx", term: "dumb"},
		{name: "/dev/ptmx", term: ""},
	}
	for _, tt := range tests {
		flag := os.O_RDWR
		if tt.make {
			flag |= os.O_CREATE
		}
		f, err := os.OpenFile(tt.name, flag, 0o600)
		if err != nil {
			t.Logf("not tested, since not here: %v", err)
			continue
		}
		t.Setenv("TERM", tt.term)
		if got := newProgress(f, 1) != nil; got != tt.want {
			t.Errorf("%s with TERM=%q: got a bar %v, want %v", tt.name, tt.term, got, tt.want)
		}
		f.Close()
		if newProgress(f, 1) != nil {
			t.Errorf("%s, closed: got a bar, want none", tt.name)
		}
	}
}
