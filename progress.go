package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The bar that a client draws on a terminal: one line that is drawn over and over, always the
// last one on the screen. Whatever else goes to the same terminal is written inside around,
// which takes the bar away first.
//
// Each drawing asks the terminal for its width, which may change; one that does not say has
// COLUMNS or a guess. A guess that is too wide would wrap the bar, and a wrapped bar cannot be
// drawn over; so wrapping is off while it is drawn, and the terminal cuts it.

const (
	progressEvery   = 100 * time.Millisecond // shortest time between two drawings of new figures
	progressColumns = 80                     // width where neither the terminal nor COLUMNS says
	progressMinBar  = 5                      // cells; where fewer fit there is no bar, only figures

	progressErase = "\r\x1b[K"       // to the first column, erase to the end of the line
	progressDraw  = "\r\x1b[?7l"     // to the first column, do not wrap
	progressDrawn = "\x1b[K\x1b[?7h" // erase what is left of a longer line, wrap again
	progressNever = 1000 * time.Hour // a longer time left says nothing: it is not known
)

// progressState is what the bar shows.
type progressState struct {
	done, total   int64         // bytes of the agency file; a total of 0 or less is not known
	bets, refused int64         // bets that the server has decided on, and how many of them were refused
	rate          float64       // bets a second; negative: not known yet
	left          time.Duration // until the end of the file; negative: not known
}

// progress draws the bar. A nil *progress draws nothing.
type progress struct {
	now     func() time.Time // the clock
	w       io.Writer        // the terminal
	columns func() int       // its width

	mu       sync.Mutex    // protects the following, and keeps what is written in around apart from the drawings
	state    progressState // as of the last update; rate and left as of the last drawing
	start    progressMark  // the first update: what was done before it (skipped on resuming) is not our speed
	drawn    time.Time     // when frame was made; zero before the first update
	frame    []byte        // the last drawing, which around puts back
	finished bool          // after finish, or after a write that failed: the terminal is gone, the work goes on
}

// progressMark is how far the work was at a moment.
type progressMark struct {
	at   time.Time
	done int64 // bytes
	bets int64
}

// newProgress returns a bar on w for a file of that many bytes, or nil where w is no terminal
// that can draw one.
func newProgress(w *os.File, total int64) *progress {
	if term := os.Getenv("TERM"); term == "" || term == "dumb" || !isTerminal(w) {
		return nil
	}
	columns := func() int { return cmp.Or(askColumns(w), terminalColumns(os.Getenv("COLUMNS"))) }
	return newProgressOn(w, total, columns, time.Now)
}

// newProgressOn is newProgress for any writer, width and clock.
func newProgressOn(w io.Writer, total int64, columns func() int, now func() time.Time) *progress {
	return &progress{now: now, w: w, columns: columns, state: progressState{total: total}}
}

// isTerminal reports whether f is a character device other than the one that swallows everything.
// That is as near to "is a terminal" as the standard library gets.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	sink, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, sink)
}

// terminalColumns returns the width that the variable COLUMNS gives.
func terminalColumns(value string) int {
	if columns, err := strconv.Atoi(value); err == nil && columns >= 1 && columns <= 4096 {
		return columns
	}
	return progressColumns
}

// update takes the position in the file and the bets decided on so far. The first one says
// where this run starts: it is to come before the first batch, with what was skipped on
// resuming. Cheap enough for each batch.
func (p *progress) update(doneBytes int64, bets, refused int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.state.done, p.state.bets, p.state.refused = doneBytes, bets, refused
	if p.drawn.IsZero() {
		p.start = progressMark{at: now, done: doneBytes, bets: bets}
	}
	if now.Sub(p.drawn) >= progressEvery {
		p.render(now)
		p.write(p.frame)
	}
}

// around takes the bar off its line, calls write, and draws the bar again below what write
// wrote to the terminal. No drawing comes between. write must not call methods of p: they wait
// for it.
func (p *progress) around(write func()) {
	if p == nil {
		write()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn.IsZero() { // no bar yet
		write()
		return
	}
	p.write([]byte(progressErase))
	write()
	if now := p.now(); !p.finished && now.Sub(p.drawn) >= progressEvery {
		p.render(now)
	}
	p.write(p.frame)
}

// finish draws the last state and leaves it on a line of its
// own. Later calls of any method draw nothing. Where there was no update there is no bar to
// finish.
func (p *progress) finish() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.drawn.IsZero() && !p.finished {
		p.render(p.now())
		p.write(append(p.frame, '\n'))
	}
	p.finished = true
}

// write sends bytes to the terminal unless the bar is finished. p.mu is held.
func (p *progress) write(b []byte) {
	if p.finished {
		return
	}
	if _, err := p.w.Write(b); err != nil {
		p.finished = true
	}
}

// render makes the frame, in one piece so that it is one write, with the speed since the start.
// p.mu is held.
func (p *progress) render(now time.Time) {
	p.state.rate, p.state.left = p.state.speed(p.start, now)
	p.drawn = now
	p.frame = append(p.frame[:0], progressDraw...)
	// The last column stays free: some terminals wrap when a character stands there, whatever
	// they were told.
	p.frame = append(p.frame, p.state.line(p.columns()-1)...)
	p.frame = append(p.frame, progressDrawn...)
}

// speed returns the bets a second since a mark, and how long the rest of the file takes at the
// bytes a second since then; negative where there is nothing to measure.
func (s progressState) speed(since progressMark, now time.Time) (rate float64, left time.Duration) {
	rate, left = -1, -1
	seconds := now.Sub(since.at).Seconds()
	if seconds > 0 {
		rate = float64(s.bets-since.bets) / seconds
	}
	if s.total > 0 && s.done >= s.total {
		left = 0
	} else if s.total > 0 && seconds > 0 && s.done > since.done {
		rest := float64(s.total-s.done) / float64(s.done-since.done) * seconds
		if rest < progressNever.Seconds() { // beyond it the conversion could overflow
			left = time.Duration(rest * float64(time.Second))
		}
	}
	return rate, left
}

// line returns the bar in at most width columns: "[####......]   40%  bets 10,774  refused 3
// left 0:07  bets/s 210,000". A narrow one goes without the bar, then without fields: percent
// and time left stay longest. The bar takes what room that leaves. ASCII, so that a byte is a
// column.
func (s progressState) line(width int) string {
	percent, left, rate := "", "", "-"
	if s.total > 0 {
		percent, left = fmt.Sprintf("%3d%%", s.percent()), "left "+timeLeft(s.left)
	}
	if s.rate >= 0 {
		rate = thousands(strconv.FormatFloat(s.rate, 'f', 0, 64))
	}
	fields := []string{percent, "bets " + thousands(strconv.FormatInt(s.bets, 10)),
		"refused " + thousands(strconv.FormatInt(s.refused, 10)), left, "bets/s " + rate}
	text := joinFields(fields)
	for _, least := range []int{4, 2, 1, 3, 0} {
		if len(text) > width {
			fields[least] = ""
			text = joinFields(fields)
		}
	}
	return s.bar(width, len(text)) + text
}

// joinFields joins those that are not empty.
func joinFields(fields []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return f == "" }), "  ")
}

// bar returns the bar with two spaces behind it, or nothing where the file's size is not known
// or the text leaves too little room. A quarter of the line at most, so that figures which grow
// do not move it back and forth.
func (s progressState) bar(width, text int) string {
	cells := min(width/4, width-text-len("[]  "))
	if s.total <= 0 || cells < progressMinBar {
		return ""
	}
	full := cells * s.percent() / 100
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", cells-full) + "]  "
}

// percent returns how much of the file is done, rounded down, so that 100 means all; a file
// that grew while it was read is at 100, too. The total is over 0. Floating point, since 100
// times the bytes could overflow.
func (s progressState) percent() int {
	if s.done >= s.total {
		return 100
	}
	return max(0, min(99, int(float64(s.done)/float64(s.total)*100)))
}

// thousands puts a comma after every three digits from the right of a whole number that is not
// negative.
func thousands(digits string) string {
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// timeLeft returns a time as m:ss or h:mm:ss, and "-" for one that is not known.
func timeLeft(d time.Duration) string {
	seconds := int64(d / time.Second)
	switch {
	case d < 0:
		return "-"
	case d >= time.Hour:
		return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
	}
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}
