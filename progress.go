package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// The bar that a client draws on a terminal: one line that is drawn over and over, always the
// last one on the screen. Whatever else goes to the same terminal is written inside around,
// which takes the bar away first.
//
// Each drawing asks the terminal for its width, which may change; one that does not say gets a
// guess. A guess that is too wide would wrap the bar, and a wrapped bar cannot be drawn over; so
// wrapping is off while it is drawn, and the terminal cuts it.

const (
	progressEvery   = 100 * time.Millisecond // shortest time between two drawings of new figures
	progressColumns = 80                     // width where the terminal does not say
	progressMinBar  = 5                      // cells; where fewer fit there is no bar, only figures

	progressErase = "\r\x1b[K"       // to the first column, erase to the end of the line
	progressDraw  = "\r\x1b[?7l"     // to the first column, do not wrap
	progressDrawn = "\x1b[K\x1b[?7h" // erase what is left of a longer line, wrap again
	progressNever = 1000 * time.Hour // a longer time left says nothing: it is not known
)

// progressState is what the bar shows.
type progressState struct {
	done, total   int64         // bytes of the agency file
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
	start    progressState // as of the first update: what was done before it (skipped on resuming) is not our speed
	began    time.Time     // the first update
	drawn    time.Time     // when frame was made; zero before the first update
	frame    []byte        // the last drawing, which around puts back
	finished bool          // after finish, or after a write that failed: the terminal is gone, the work goes on
}

// newProgress returns a bar on w for a file of that many bytes, or nil where w is no terminal
// that can draw one.
func newProgress(w *os.File, total int64) *progress {
	if term := os.Getenv("TERM"); term == "" || term == "dumb" || !isTerminal(w) {
		return nil
	}
	columns := func() int { return cmp.Or(askColumns(w), progressColumns) }
	return &progress{now: time.Now, w: w, columns: columns, state: progressState{total: total}}
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
		p.start, p.began = p.state, now
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
	p.state.rate, p.state.left = p.state.speed(p.start, now.Sub(p.began).Seconds())
	p.drawn = now
	// The last column stays free: some terminals wrap when a character stands there, whatever
	// they were told.
	p.frame = []byte(progressDraw + p.state.line(p.columns()-1) + progressDrawn)
}

// speed returns the bets a second since a state that is so many seconds old, and how long the rest
// of the file takes at the bytes a second since then; negative where there is nothing to measure.
func (s progressState) speed(since progressState, seconds float64) (rate float64, left time.Duration) {
	rate, left = -1, -1
	if seconds > 0 {
		rate = float64(s.bets-since.bets) / seconds
	}
	if s.done >= s.total {
		left = 0
	} else if seconds > 0 && s.done > since.done {
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
	rate := "-"
	if s.rate >= 0 {
		rate = countText(uint64(math.Round(s.rate)))
	}
	texts := []string{fmt.Sprintf("%3d%%", s.percent()), "bets " + countText(uint64(s.bets)),
		"refused " + countText(uint64(s.refused)), "left " + timeLeft(s.left), "bets/s " + rate}
	text := strings.Join(texts, "  ")
	for _, least := range []string{texts[4], texts[2], texts[1], texts[3], texts[0]} {
		if len(text) > width {
			texts = slices.DeleteFunc(texts, func(t string) bool { return t == least })
			text = strings.Join(texts, "  ")
		}
	}
	return s.bar(width, len(text)) + text
}

// bar returns the bar with two spaces behind it, or nothing where the text leaves too little
// room. A quarter of the line at most, so that figures which grow do not move it back and forth.
func (s progressState) bar(width, text int) string {
	cells := min(width/4, width-text-len("[]  "))
	if cells < progressMinBar {
		return ""
	}
	full := cells * s.percent() / 100
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", cells-full) + "]  "
}

// percent returns how much of the file is done, rounded down, so that 100 means all; a file
// that grew while it was read is at 100, too. Floating point, since 100 times the bytes could
// overflow.
func (s progressState) percent() int {
	if s.done >= s.total {
		return 100
	}
	return min(99, int(float64(s.done)/float64(s.total)*100))
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
