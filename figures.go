//go:build !nohttp && !notls

package main

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// An office is where the figures come from.
type office struct {
	cfg      *config
	counts   *counts
	stopping func() bool
	stream   streamView                 // nil: the log is this server's alone
	opened   atomic.Pointer[openOffice] // nil while the store recovers
}

// open notes that the store has recovered, and what agencies come in by.
func (o *office) open(st storeView, door net.Listener) {
	keys, _ := door.(keyView)
	o.opened.Store(&openOffice{store: st, keys: keys})
}

// An openOffice is what there is once the store has recovered.
type openOffice struct {
	store storeView
	keys  keyView // nil: nobody needs a key
}

// A keyView is the gate, as the page sees it: when the newest key of each agency was made, and how
// many handshakes there were by result.
type keyView interface {
	keyFacts() (made map[uint8]time.Time, handshakes map[string]uint64)
}

// A storeView is a store, as the page sees it. It takes the store's lock for an instant only.
type storeView interface {
	facts() storeFacts
	agencyFacts(agency uint8, source string) agencyFacts
}

// A report is what there is to say at one moment: /status.json is its JSON.
type report struct {
	Time        time.Time         `json:"time"`
	Program     programFigures    `json:"program"`
	Taking      bool              `json:"taking_bets"`
	Reason      string            `json:"reason,omitempty"` // why bets are not taken
	Detail      string            `json:"detail,omitempty"` // what to do, and the error
	Since       time.Time         `json:"since"`            // when Taking or Reason became what it is
	Sentence    string            `json:"sentence"`
	Troubles    []string          `json:"troubles"` // what somebody should look at besides
	Store       storeFigures      `json:"store"`
	Disk        diskFigures       `json:"disk"`
	Rates       []uint64          `json:"bets_per_second"` // the last ten minutes, the oldest first
	Agencies    []agencyFigures   `json:"agencies"`
	Draw        drawFigures       `json:"draw"`
	Connections connectionFigures `json:"connections"`
	Log         logFigures        `json:"log"`
}

// programFigures are about the program.
type programFigures struct {
	Version    string            `json:"version"`
	Started    time.Time         `json:"started"`
	Recovery   float64           `json:"recovery_seconds"`
	Handshakes map[string]uint64 `json:"handshakes,omitempty"`
}

// storeFigures are about what is stored.
type storeFigures struct {
	Promise string `json:"promise"` // what an answer survives
	storeFacts
	Stream *streamFigures `json:"stream,omitempty"` // nil: the log is this server's alone
	Commit float64        `json:"commit_latest_seconds"`
	P99    float64        `json:"commit_p99_seconds"`
}

// diskFigures are about the disk that the store is on.
type diskFigures struct {
	Known bool    `json:"known"` // the system says
	Free  uint64  `json:"free_bytes"`
	Rate  float64 `json:"bytes_per_second_today"`
	Lasts float64 `json:"lasts_seconds"` // at that rate; 0: not known
}

// drawFigures are about the draw.
type drawFigures struct {
	Expected int       `json:"agencies"` // that must finish; 0: there is no draw
	Finished int       `json:"finished"`
	Done     bool      `json:"done"`
	Time     time.Time `json:"time,omitzero"` // zero also where it took place before the program started
	Awaited  []int     `json:"waiting_for"`
	Winners  int       `json:"winners"`
	Seal     string    `json:"sha256,omitempty"`
}

// logFigures are the last lines of the log that somebody should read.
type logFigures struct {
	Warnings []note `json:"warnings"`
	Repairs  []note `json:"repairs"` // of the last start
}

// connectionFigures are about connections.
type connectionFigures struct {
	Open  int               `json:"open"`
	Most  int               `json:"most"`
	Limit int               `json:"limit"`
	Ended map[string]uint64 `json:"ended"`
}

const (
	// statusConns is how many connections the status page has at most; one more is closed at once.
	statusConns = 32
	// diskLow and diskSoon are when a disk counts as nearly full: bytes left, and time at today's
	// rate.
	diskLow  = 256 << 20
	diskSoon = time.Hour
	// rateSpan is for how many seconds the graph goes back, and agencyRateSpan over how many an
	// agency's rate is taken.
	rateSpan       = 600
	agencyRateSpan = 10
)

// A watch remembers what a report needs of the time before it. One goroutine at a time uses it.
type watch struct {
	office  *office
	rates   []uint64                        // bets stored in each second, of rateSpan at most
	past    [agencyRateSpan + 1][256]uint64 // bets stored by agency at the last samples: of sample n at n % len
	samples int                             // how many there were
	bets    uint64                          // in the store at the last sample
	opened  bool                            // the store had recovered by then

	reason string    // why no bets are taken; empty: they are
	since  time.Time // when reason became that
	quorum bool      // the engine takes records
	turned time.Time // when quorum became that
	drawn  bool
	drawAt time.Time // when drawn became true; zero: before the program started

	day   time.Time // when today, or the program, began
	bytes int64     // of the bets file then
}

// newWatch returns a watch of o.
func newWatch(o *office) *watch {
	return &watch{office: o, rates: make([]uint64, 0, rateSpan), since: o.counts.began, turned: o.counts.began}
}

// sample is to be called each second.
func (w *watch) sample(now time.Time) {
	open := w.office.opened.Load()
	if open == nil {
		w.notice(now, nil)
		return
	}
	facts := open.store.facts()
	w.notice(now, &facts)
	if len(w.rates) == rateSpan {
		w.rates = append(w.rates[:0], w.rates[1:]...)
	}
	w.rates = append(w.rates, facts.Bets-w.bets)
	w.bets = facts.Bets
	past := &w.past[w.samples%len(w.past)]
	for i := range past {
		past[i] = w.office.counts.agencies[i].stored.Load()
	}
	w.samples++
}

// notice notes when what changes rarely has changed. It returns the figures of the shared log; nil:
// there is none.
func (w *watch) notice(now time.Time, facts *storeFacts) (stream *streamFigures) {
	shared := ""
	if w.office.stream != nil {
		f := w.office.stream.streamFacts()
		shared = sharedReason(&f, facts)
		stream = newStreamFigures(f, facts)
		if stream.Quorum != w.quorum {
			w.quorum, w.turned = stream.Quorum, now
		}
		stream.Since = w.turned
	}
	if reason := w.whyNot(facts, shared); reason != w.reason {
		w.reason, w.since = reason, now
	}
	if facts == nil {
		return stream
	}
	if facts.drawn && !w.drawn && w.opened {
		w.drawAt = now
	}
	if !w.opened || now.YearDay() != w.day.YearDay() {
		w.day, w.bytes = now, facts.Bytes
	}
	if !w.opened {
		w.bets, w.opened = facts.Bets, true
	}
	w.drawn = facts.drawn
	return stream
}

// whyNot says why no bets are taken; nothing if they are. facts is nil while the store recovers;
// shared is what the shared log has to say to that.
func (w *watch) whyNot(facts *storeFacts, shared string) string {
	switch {
	case facts == nil:
		return cmp.Or(shared, "the store is recovering")
	case isShared(facts.fatal):
		return "the stream has failed"
	case facts.fatal != nil:
		return "the disk has failed"
	case w.office.stopping():
		return "the server is stopping"
	case facts.trouble == nil:
		return ""
	case shared != "":
		return shared
	case errors.Is(facts.trouble, syscall.ENOSPC):
		return "the disk is full"
	case errors.Is(facts.trouble, syscall.EDQUOT):
		return "the disk quota is used up"
	case errors.Is(facts.trouble, syscall.EFBIG):
		return "the limit on file size is reached"
	}
	return facts.trouble.Error()
}

// report returns what there is to say now.
func (w *watch) report(now time.Time) *report {
	open := w.office.opened.Load()
	var facts *storeFacts
	if open != nil {
		at := open.store.facts()
		facts = &at
	}
	stream := w.notice(now, facts)
	r := &report{Time: now, Reason: w.reason, Since: w.since, Taking: w.reason == "",
		Rates: slices.Clone(w.rates), Agencies: []agencyFigures{}}
	callers := w.countFigures(r)
	r.Disk.Free, r.Disk.Known = freeDisk(filepath.Dir(w.office.cfg.storePath))
	r.Store = storeFigures{storeFacts: storeFacts{commits: new(histogram)}, Stream: stream,
		Promise: promise(w.office.cfg.storeSync, stream != nil)}
	r.Draw = drawFigures{Expected: w.office.cfg.drawAgencies, Time: w.drawAt, Awaited: []int{}}
	if facts != nil {
		w.storeFigures(r, facts)
		w.agencyFigures(r, open, facts, callers)
	}
	r.Troubles = r.troubles()
	r.Sentence = r.sentence()
	return r
}

// countFigures puts in what is counted under a lock, and returns the agencies as their connections
// show them.
func (w *watch) countFigures(r *report) (callers [256]caller) {
	c := w.office.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Log = logFigures{append([]note{}, c.warnings...), append([]note{}, c.repairs...)}
	r.Program = programFigures{Version: version, Started: c.began, Recovery: c.recovered.Seconds()}
	r.Connections = connectionFigures{Open: c.open, Most: c.most, Limit: w.office.cfg.connMax,
		Ended: map[string]uint64{}}
	for why, n := range c.endings {
		r.Connections.Ended[endingNames[why]] = n
	}
	return c.callers
}

// storeFigures puts in what the store says.
func (w *watch) storeFigures(r *report, facts *storeFacts) {
	switch {
	case standsBy(facts.trouble):
	case isShared(cmp.Or(facts.fatal, facts.trouble)):
		r.Detail = sharedDetail(facts)
	case facts.fatal != nil:
		r.Detail = "Check the disk, then start the server again: it recovers what was acknowledged. (" +
			facts.fatal.Error() + ")"
	case facts.trouble != nil:
		r.Detail = "Make room: bets are taken again by themselves."
	}
	r.Store.Commit, r.Store.P99 = time.Duration(facts.commits.latest.Load()).Seconds(), facts.commits.quantile(0.99)
	r.Store.storeFacts = *facts
	r.Draw.Done, r.Draw.Finished = facts.drawn, facts.finished.count()
	if facts.found != nil {
		r.Draw.Seal = hex.EncodeToString(facts.found.seal[:])
	}
	if passed := r.Time.Sub(w.day).Seconds(); passed > 0 {
		r.Disk.Rate = float64(facts.Bytes-w.bytes) / passed
	}
	if r.Disk.Known && r.Disk.Rate > 0 {
		r.Disk.Lasts = float64(r.Disk.Free) / r.Disk.Rate
	}
}

// agencyFigures puts in a row for each agency that is expected or has been seen.
func (w *watch) agencyFigures(r *report, open *openOffice, facts *storeFacts, callers [256]caller) {
	var made map[uint8]time.Time
	if open.keys != nil {
		made, r.Program.Handshakes = open.keys.keyFacts()
	}
	for i := 1; i < len(callers); i++ {
		agency, caller := uint8(i), &callers[i]
		a := agencyFigures{Agency: agency, caller: *caller, agencyFacts: open.store.agencyFacts(agency, caller.source),
			Finished: facts.finished.has(agency), Key: made[agency]}
		a.Expected = !a.Key.IsZero() || open.keys == nil && i <= w.office.cfg.drawAgencies
		w.betFigures(&a, r.Time)
		if facts.found != nil {
			a.Winners = facts.found.winners[i].count
			r.Draw.Winners += a.Winners
		}
		a.State = a.state(r.Time, r.Draw.Expected > 0, r.Store.Stream.standby())
		if a.Expected && !a.Finished && r.Draw.Expected > 0 {
			r.Draw.Awaited = append(r.Draw.Awaited, i)
		}
		if a.Expected || a.Finished || a.Files > 0 || !a.Since.IsZero() {
			r.Agencies = append(r.Agencies, a)
		}
	}
	slices.SortStableFunc(r.Agencies, func(a, b agencyFigures) int {
		return slices.Index(agencyStates, a.State) - slices.Index(agencyStates, b.State)
	})
}

// betFigures puts in what is counted of an agency's bets.
func (w *watch) betFigures(a *agencyFigures, now time.Time) {
	counted := &w.office.counts.agencies[a.Agency]
	a.Stored += counted.loose.Load()
	a.Refused = map[string]uint64{}
	for why := range counted.refused {
		if n := counted.refused[why].Load(); n > 0 {
			a.Refused[refusal(why).reason()] += n
		}
	}
	if last := counted.last.Load(); last != 0 {
		a.Last = time.Unix(0, last)
	}
	if n := min(w.samples, agencyRateSpan); n > 0 {
		before := w.past[(w.samples-n)%len(w.past)][a.Agency]
		newest := w.past[(w.samples-1)%len(w.past)][a.Agency]
		a.Rate = float64(newest-before) / float64(n)
	}
}

// troubles says what somebody should look at, whether bets are taken or not.
func (r *report) troubles() []string {
	all := []string{}
	if r.Detail != "" {
		all = append(all, r.Detail)
	}
	if r.Store.Stream != nil {
		all = append(all, r.Store.Stream.troubles()...)
	}
	for _, a := range r.Agencies {
		if a.State == agencyDown && !r.Draw.Done {
			all = append(all, fmt.Sprintf("Agency %d: %s.", a.Agency, a.down()))
		}
		if a.Files >= sourceWarn {
			all = append(all, fmt.Sprintf("Agency %d has used %d of its %d sources.", a.Agency, a.Files, sourceShare))
		}
	}
	if r.Disk.Known && r.Taking && (r.Disk.Free < diskLow || r.Disk.Lasts > 0 && r.Disk.Lasts < diskSoon.Seconds()) {
		all = append(all, "The disk is nearly full: "+sizeText(r.Disk.Free)+" are free.")
	}
	return all
}

// sentence says how things are in one sentence or three.
func (r *report) sentence() string {
	bets := countText(r.Store.Bets) + " bets stored."
	switch {
	case strings.HasPrefix(r.Reason, standingBy):
		return "S" + r.Reason[1:] + ". " + bets
	case !r.Taking:
		return fmt.Sprintf("NOT taking bets: %s since %s.", r.Reason, timeText(r.Time, r.Since))
	case r.Draw.Done && r.Draw.Time.IsZero():
		return "The draw has taken place. " + bets
	case r.Draw.Done:
		return fmt.Sprintf("The draw took place at %s. %s", timeText(r.Time, r.Draw.Time), bets)
	case r.Draw.Expected > 0:
		return fmt.Sprintf("Taking bets. %d of %d agencies have finished. %s", r.Draw.Finished, r.Draw.Expected, bets)
	}
	return "Taking bets. " + bets
}
