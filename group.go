package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// What the store has in hand: groups and what is in them, and whether bets are taken.

// groupMax is the size from which a group takes no more, in bytes. Three of them exist at a time.
const groupMax = 512 << 10

// How long a group waits for company: clients that send one batch at a time then share one sync
// instead of taking turns.
const (
	// companySmall is up to which size a group waits until the one before it is settled.
	companySmall = 64 << 10
	// companyLarge is up to which size it waits for those who were just answered. Beyond, the disk
	// should be busy with one half while the other comes.
	companyLarge = 128 << 10
	// companyCommits is for how many commits it waits, from when they were answered.
	companyCommits = 2
	// companyMost is the longest wait of all: clients who come again come sooner, however slow the
	// disk is. After a disk that took nothing for half a minute most have gone elsewhere.
	companyMost = time.Second / 4
	// companyFrom is from which time on a commit is worth sharing.
	companyFrom = 20 * time.Microsecond
)

// A group is longest when it lacks a byte to be full and gets one more message, whose rows are
// at most twice as long (quotes are doubled), and then what seal appends. This does not compile
// if a start would take the record for a torn one.
const _ = uint(walMaxRecord - (groupMax + 2*maxMessage + maxMark + 4 + 2 + 1 + 255 + 4 + stampSize))

// A group is what one record of the log and one sync make durable: messages of any number of
// connections, in the order of their submission.
type group struct {
	redo                   // what the record says; its rows are in buf until it is sealed
	buf      []byte        // the record: head, fixed part, rows; seal appends the rest
	messages int           // of which it consists
	senders  []*sender     // of its marks
	sequence uint64        // of its record
	began    time.Time     // when its record was first on its way to the disk
	done     chan struct{} // closed when err is final
	err      error         // nil: durable; a fatalError: nothing may be said of it; else: nothing of it is stored
}

// newGroup returns a group that fills buf.
func newGroup(buf []byte) *group {
	if cap(buf) < redoRowsAt {
		buf = make([]byte, redoRowsAt, 64<<10)
	}
	return &group{redo: redo{drawn: noNumber}, buf: buf[:redoRowsAt], done: make(chan struct{})}
}

// takesMore reports whether the group is not full.
func (g *group) takesMore() bool {
	return len(g.buf)+len(g.marks)*maxMark < groupMax
}

// end closes done.
func (g *group) end(err error) {
	g.err = err
	close(g.done)
}

// groups are those that are not done, in the order of open, committing, logged: the last came
// first.
type groups struct {
	open       *group    // what comes now goes here
	committing *group    // what the committer has in hand; nil: nothing
	logged     *group    // its record is durable, its rows are being written; nil: all that were logged are settled
	unwritten  error     // why the rows of logged could not be written; nil: they are, or are about to be
	spare      [2][]byte // the buffers of groups that were settled
	expected   int       // messages of the open group with those who were just answered, if all come again
	answered   time.Time // when that was
	length     int64     // bytes of the bets file with the rows of all that were sealed; the committer's
	crc        uint32    // of all that; the committer's
}

// next takes the open group for the committer, and opens another.
func (q *groups) next() *group {
	q.committing = q.open
	q.open, q.spare = newGroup(q.spare[0]), [2][]byte{q.spare[1]}
	return q.committing
}

// settling reports whether a group is being settled.
func (q *groups) settling() bool { return q.logged != nil && q.unwritten == nil }

// patience returns for how long the open group may wait for more messages, where a commit takes so
// long; 0 or less: not at all.
func (q *groups) patience(commit time.Duration) time.Duration {
	if commit < companyFrom || !q.lacksCompany() {
		return 0
	}
	return companyCommits*commit - time.Since(q.answered)
}

// lacksCompany reports whether the open group waits for more messages, if there is time. One in
// eight of those who were just answered may stay away. Nothing joins a full group, and nothing is
// waited for where all groups are about to be refused.
func (q *groups) lacksCompany() bool {
	if q.unwritten != nil || !q.open.takesMore() {
		return false
	}
	size, most := len(q.open.buf), q.expected-q.expected/8
	return size < companySmall && q.settling() || size < companyLarge && q.open.messages < most
}

// settled notes that it is.
func (q *groups) settled() {
	q.spare = [2][]byte{q.logged.buf[:0], q.spare[0]}
	q.logged = nil
}

// clear takes all groups out, the first of them first, and goes back to what the state says of the
// bets file.
func (q *groups) clear(at *state) (all []*group) {
	for _, g := range []*group{q.logged, q.committing, q.open} {
		if g != nil {
			all = append(all, g)
		}
	}
	*q = groups{open: newGroup(nil), length: at.length, crc: at.crc}
	return all
}

// underWay returns the group that must be done before all that was submitted until now is durable;
// nil: all of it is.
func (q *groups) underWay() *group {
	switch {
	case q.open.messages > 0:
		return q.open
	case q.committing != nil:
		return q.committing
	}
	return q.logged
}

// A sender is a source that a connection is sending now. It lives from HELLO to the end of the last
// group that it has a part in.
type sender struct {
	key       sourceKey
	submitted mark     // how far it got, with all groups under way
	owner     *session // nil: its connection is gone, or a group with a part of it failed
	group     *group   // the last one under way that it has a part in; nil: there is none
	place     int      // its place in group's marks
}

// submit notes that a part of g brings the sender to at, with so many bets stored.
func (c *sender) submit(g *group, at Resume, stored int) {
	c.submitted = mark{at, c.submitted.stored + uint64(stored)}
	if c.group != g {
		c.group, c.place = g, len(g.marks)
		g.senders = append(g.senders, c)
		g.marks = append(g.marks, sourceMark{key: c.key})
	}
	g.marks[c.place].at = c.submitted
}

// A session is a connection's part in the store. Only its connection uses it, but for what the
// store's lock guards.
type session struct {
	src   *sender // nil: no HELLO
	at    Resume  // how far the source got with all that this session submitted
	fence func()  // closes the connection; called with the store locked
}

// A decision is what a connection found about one BATCH or BET: which bets are good, and how
// far the source gets with it.
type decision struct {
	rows  []byte // of the good bets
	count int    // of rows
	total int    // bets, good or not
	at    Resume // of the source; with HELLO only
}

// What a message may meet besides a reason to refuse its bets.
var (
	errUnavailable = errors.New("store: not taking bets now") // try again later: ACK 5
	// errStandby says that another server takes bets, or that it is not known yet which one: ACK 5,
	// and the connection ends, so that its client tries the next address.
	errStandby   = errors.New("store: standing by: another server takes bets")
	errFenced    = errors.New("store: a newer connection has taken over") // close without an answer
	errAfterDraw = errors.New("store: the draw has taken place")          // refuse the bets
	errDead      = errors.New("store: stopped by a failure of the disk")  // close without an answer
	errSources   = fmt.Errorf("the agency has used up its %d sources",    // ACK 6
		sourceShare)
)

// health says whether bets are taken.
type health struct {
	trouble error // why not, for now: the disk is full; nil: they are
	standby error // why not, for now: errStandby, or what keeps this server from it
	need    int   // bytes of the groups that met the trouble; read by the committer, which alone sets it
	fatal   error // why nothing is answered any more
	closing bool
	turns   uint64 // of the committer: it moves as long as this grows
}

// refuses returns why nothing is taken now; ses is the session that asks, nil where it makes no
// difference.
func (h *health) refuses(ses *session) error {
	switch {
	case h.fatal != nil:
		return errDead
	case h.closing || h.trouble != nil:
		return errUnavailable
	case h.standby != nil:
		return errStandby
	case ses != nil && ses.src != nil && ses.src.owner != ses: // another one has taken it over, or a group failed
		return errFenced
	}
	return nil
}

// why returns why bets are not taken for now; nil: they are.
func (h *health) why() error { return cmp.Or(h.trouble, h.standby) }

// standsBy reports whether a store's trouble is that another server takes bets, or none yet.
func standsBy(trouble error) bool { return trouble == errStandby || isConflict(trouble) }

// work is what the committer has done since the start.
type work struct {
	took    histogram // by their commits; it has a lock of its own
	commits uint64    // groups that are durable
	batches uint64    // messages in them

	segments int // of the log that waited for a checkpoint after the last commit
}
