package main

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// The counts are what a running server counts of its work, for whoever looks at it (status.go).
// They only count: what the store knows is the store's to say. Each starts at 0 with the process.
//
// Batches are counted by atomics, a handful for each; connections and warnings under a
// lock that nobody holds for longer than a few assignments. Nothing is counted per bet.
type counts struct {
	began    time.Time
	agencies [256]agencyCounts                // 0: batches with bets of several agencies, and what nobody owns
	batches  [len(batchResults)]atomic.Uint64 // by the answer to them
	written  atomic.Uint64                    // bytes, to any file of the store
	syncs    atomic.Uint64                    // of any file of the store, or of its folder

	mu        sync.Mutex // protects following
	open      int        // connections
	most      int        // connections that were open at once
	endings   [endings]uint64
	callers   [256]caller
	recovered time.Duration // what the start of the store took
	warnings  []note        // the last of them, the oldest first
	repairs   []note        // what the start of the store said of its repairs
}

// agencyCounts are the bets of one agency.
type agencyCounts struct {
	stored  atomic.Uint64
	loose   atomic.Uint64               // of stored: those of no source, sent without HELLO
	refused [len(reasons)]atomic.Uint64 // by refusal
	last    atomic.Int64                // when a bet was last stored, in nanoseconds since 1970; 0: never
}

// batchResults say what became of a message with bets, by the answer to it: the values of the
// metric's label.
var batchResults = [...]string{ackStored: "stored", ackRefused: "refused", ackUnavailable: "unavailable"}

// An ending is why a connection has ended.
type ending uint8

const (
	endClient   ending = iota // the client closed it, or is gone
	endServer                 // the server stops, took no bets, or a newer connection sends the same source
	endProtocol               // the client broke the protocol
	endings                   // how many there are
)

// endingNames are the values of the metric's label.
var endingNames = [endings]string{"client", "server", "protocol"}

// A caller is an agency as its connections show it.
type caller struct {
	Connected int `json:"connections"` // that are open
	// Since is when the first of those came, or the last of those before went; zero: never there.
	Since  time.Time `json:"since,omitzero"`
	From   string    `json:"from,omitempty"` // its address
	source string    // what it sent last, by HELLO; empty: it never said HELLO
	// Verified is when it asked, behind its last batch, how far the server got; zero: not since it
	// sent more.
	Verified time.Time `json:"verified,omitzero"`
}

// A note is a line of the log.
type note struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// maxNotes is how many warnings are kept, and how many repairs.
const maxNotes = 20

// newCounts returns counts that are all 0.
func newCounts() *counts { return &counts{began: time.Now()} }

// A tally is what became of one message with bets.
type tally struct {
	agency  uint8 // 0: of several
	source  bool  // sent behind a HELLO
	stored  int
	refused *refusals // nil: none
}

// refusals are how many bets of a message were refused, by refusal.
type refusals [len(reasons)]uint16

// countRefused counts what was refused.
func countRefused(all []refusedBet) *refusals {
	r := new(refusals)
	for _, one := range all {
		r[one.why]++
	}
	return r
}

// batch counts a message with bets.
func (c *counts) batch(answer ackCode, t tally) {
	c.batches[answer].Add(1)
	a := &c.agencies[t.agency]
	if t.stored > 0 {
		a.stored.Add(uint64(t.stored))
		a.last.Store(time.Now().UnixNano())
	}
	if !t.source {
		a.loose.Add(uint64(t.stored))
	}
	if t.refused == nil {
		return
	}
	for why, n := range t.refused {
		if n > 0 {
			a.refused[why].Add(uint64(n))
		}
	}
}

// recoveredIn notes what the start of the store took.
func (c *counts) recoveredIn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recovered = d
}

// listen returns a logger like log, which also tells hear of each line.
func (c *counts) listen(log *slog.Logger) *slog.Logger {
	h, ok := log.Handler().(*lineHandler)
	if !ok {
		return log
	}
	return slog.New(&lineHandler{out: h.out, level: h.level, heard: c.hear})
}

// hear keeps what the log says of troubles and repairs; its logger calls it for each line.
// What is kept never has a bettor's name or document.
func (c *counts) hear(now time.Time, level slog.Level, action string, line []byte) {
	repair := action == actRecover || action == actAdopt
	if level < slog.LevelWarn && !repair {
		return
	}
	n := note{now, string(line)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if repair {
		c.repairs = appendNote(c.repairs, n)
	} else {
		c.warnings = appendNote(c.warnings, n)
	}
}

// appendNote appends n, and forgets the oldest note where there are too many.
func appendNote(notes []note, n note) []note {
	if len(notes) == maxNotes {
		notes = append(notes[:0], notes[1:]...)
	}
	return append(notes, n)
}

// A visit is one connection, as it is counted. Its connection's reader alone uses it.
type visit struct {
	counts *counts
	from   string // the client's address
	agency uint8  // 0: not known yet
	source string // of HELLO
}

// visit counts a new connection from an address.
func (c *counts) visit(from string) *visit {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	c.most = max(c.most, c.open)
	return &visit{counts: c, from: from}
}

// sends notes whose bets the connection sends.
func (v *visit) sends(agency uint8) {
	if agency == v.agency || agency == 0 {
		return
	}
	c := v.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	v.forget()
	v.agency = agency
	caller := &c.callers[agency]
	if caller.Connected++; caller.Connected == 1 {
		caller.Since = time.Now()
	}
	caller.From = v.from
}

// hello notes a HELLO. The second one on a connection is how a client asks, at the end of its file,
// whether the server has all of it.
func (v *visit) hello(agency uint8, source string) {
	v.sends(agency)
	c := v.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	c.callers[agency].source, c.callers[agency].Verified = source, time.Time{}
	if v.source != "" {
		c.callers[agency].Verified = time.Now()
	}
	v.source = source
}

// forget takes the connection off its agency's. The counts are locked.
func (v *visit) forget() {
	if v.agency == 0 {
		return
	}
	caller := &v.counts.callers[v.agency]
	if caller.Connected--; caller.Connected == 0 {
		caller.Since = time.Now()
	}
}

// end counts the end of the connection.
func (v *visit) end(why ending) {
	v.counts.mu.Lock()
	defer v.counts.mu.Unlock()
	v.counts.open--
	v.counts.endings[why]++
	v.forget()
}

// bucketBounds are the upper ends of a histogram's buckets, in seconds. One more bucket has all
// that is above.
var bucketBounds = [...]float64{
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
}

// A histogram counts durations by their length.
type histogram struct {
	buckets [len(bucketBounds) + 1]atomic.Uint64
	sum     atomic.Int64 // of all durations, in nanoseconds
	latest  atomic.Int64 // the last duration, in nanoseconds
}

// observe counts a duration.
func (h *histogram) observe(d time.Duration) {
	at := 0
	for at < len(bucketBounds) && d.Seconds() > bucketBounds[at] {
		at++
	}
	h.buckets[at].Add(1)
	h.sum.Add(int64(d))
	h.latest.Store(int64(d))
}

// quantile returns the duration in seconds that a part of all, 0 to 1, does not exceed, as well as
// the buckets tell; 0 where nothing was counted.
func (h *histogram) quantile(part float64) float64 {
	var all uint64
	for i := range h.buckets {
		all += h.buckets[i].Load()
	}
	if all == 0 {
		return 0
	}
	rank, below, low := part*float64(all), 0.0, 0.0
	for i, high := range bucketBounds {
		n := float64(h.buckets[i].Load())
		if n > 0 && below+n >= rank {
			return low + (high-low)*(rank-below)/n
		}
		below, low = below+n, high
	}
	return low
}

// A countedDisk is a disk whose writes and syncs are counted: a flash chip wears by them.
type countedDisk struct {
	disk
	counts *counts
}

// open opens a file whose writes and syncs are counted.
func (d countedDisk) open(name string, flag int) (file, error) {
	f, err := d.disk.open(name, flag)
	if err != nil {
		return nil, err
	}
	return countedFile{f, d.counts}, nil
}

// A countedFile is a file of a countedDisk.
type countedFile struct {
	file
	counts *counts
}

func (f countedFile) WriteAt(p []byte, at int64) (n int, err error) {
	n, err = f.file.WriteAt(p, at)
	f.counts.written.Add(uint64(n))
	return n, err
}

func (f countedFile) datasync() error {
	f.counts.syncs.Add(1)
	return f.file.datasync()
}

func (f countedFile) sync() error {
	f.counts.syncs.Add(1)
	return f.file.sync()
}

// storeFacts are what a store says of itself at one moment.
type storeFacts struct {
	Bets     uint64 `json:"bets"`
	Bytes    int64  `json:"bytes"` // of the bets file
	Sources  int    `json:"sources"`
	Segments int    `json:"log_segments"` // that wait for a checkpoint
	commits  *histogram
	trouble  error // why bets are not taken now; nil: they are
	fatal    error // why the store is dead; nil: it is not
	finished agencySet
	drawn    bool
	found    *survey    // the winners and the seal; nil: not known yet
	term     *termFacts // nil: the log is this server's alone
}

// termFacts are what there is to say of the term at one moment.
type termFacts struct {
	Term      uint64        `json:"term"`
	Holder    string        `json:"holder,omitempty"` // its name; empty: not known, or nobody
	Mine      bool          `json:"mine"`
	Heard     bool          `json:"holder_heard"` // another holds it, and has just said that it takes bets
	Name      string        `json:"name"`         // of this server
	Sequence  uint64        `json:"record"`       // the last one that is in
	Conflict  time.Time     `json:"last_conflict,omitzero"`
	Conflicts uint64        `json:"conflicts"`
	Fellows   []fellowFacts `json:"servers"` // that are seen, but for this one
}

// fellowFacts are about another server.
type fellowFacts struct {
	Name     string  `json:"name"`
	Holding  bool    `json:"takes_bets"`
	Sequence uint64  `json:"record"`
	Ago      float64 `json:"seen_seconds_ago"`
}

// agencyFacts are what a store says of one agency.
type agencyFacts struct {
	Files   int    `json:"sources"`          // of it that the store remembers
	Source  string `json:"source,omitempty"` // the one that was asked for, or the only one; empty: there is none
	Records uint64 `json:"records"`          // of that source, that were decided on
	Stored  uint64 `json:"stored"`           // bets of all of them that were stored
}
