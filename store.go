package main

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// The store keeps the bets file, and how far each source got. Its one writer is the committer: while it writes and syncs a group, the next one fills; so one sync
// serves all that waits, and whoever is about to join it (company.go).
//
//	submit → group → commit: record to the redo log, sync, rows to the bets file → settle: state, answers
//
// The order matters: a row is written to the bets file only after the sync that made its record durable. So no reader ever sees a row that a power cut could
// take back, and a bets file that goes on behind the log's last intact record proves that the log is damaged.

const (
	// groupMax is the size from which a group takes no more, in bytes. Two of them exist at a time.
	groupMax = 512 << 10
	// maxSources is how many sources a store remembers.
	maxSources = 65536
	// probeEvery is how often a store that had no room looks whether there is some now.
	probeEvery = 500 * time.Millisecond
	// checkpointAfter is how many full segments of the log start a checkpoint.
	checkpointAfter = 4
	// betsCached is how much of the bets file's end the system is not told to forget after a checkpoint: what somebody who follows the file may still read.
	betsCached = 64 << 20
)

// What a message may meet besides a reason to refuse its bets.
var (
	errUnavailable = errors.New("store: not taking bets now")                       // try again later: ACK 5
	errFenced      = errors.New("store: a newer connection has taken over")         // close without an answer
	errAfterDraw   = errors.New("store: the draw has taken place")                  // refuse the bets
	errSources     = errors.New("the store remembers as many sources as it can")    // ACK 6
	errDead        = errors.New("store: stopped by an earlier failure of the disk") // close without an answer
)

// A store is open from openStore to close. Its methods may be called by many goroutines.
type store struct {
	disk     disk
	path     string
	log      *slog.Logger
	interval time.Duration // store.sync: always, never, or how often
	bets     file          // the bets file; written by the committer alone
	wal      *wal          // written by the committer alone
	dead     chan struct{} // closed when fatal is set
	stopped  chan struct{} // closed when the committer has ended
	drawn    chan struct{} // closed when the draw is durable
	wake     chan struct{} // ends a pause of the committer
	full     chan struct{} // asks the checkpointer for a checkpoint
	scarce   chan struct{} // asks it for a free segment
	helpers  sync.WaitGroup

	writing sync.Mutex // held for a commit, and for a sync of syncLoop

	checkpointing sync.Mutex // held for one checkpoint; protects following
	checkpointed  uint64     // sequence number of the last durable snapshot
	unsynced      error      // a sync for a checkpoint has failed: there is no other try; sticky

	patience *time.Timer // ends the committer's wait for company; runs while held

	mu         sync.Mutex // protects following
	changed    sync.Cond  // the open group got its first message, need not wait any more or was taken, or the store is closing, unavailable or dead
	state      state      // as of the last settled group
	open       *group     // what comes now goes here
	committing *group     // what the committer has in hand; nil: nothing
	spare      []byte     // the buffer of the group before last
	live       map[sourceKey]*source
	fresh      int       // live sources that the state does not know yet
	pending    agencySet // finished, settled or in a group
	drawing    bool      // drawn, or a group with the draw is under way
	trouble    error     // why bets are not taken now, for example a full disk; nil: they are
	need       int64     // bytes of the group that met the trouble; read by the committer, which alone sets it
	fatal      error     // why nothing is answered any more
	closing    bool
	company    company
	held       bool   // the committer holds the open group back until it is complete
	commits    uint64 // groups since the start
	batches    uint64 // messages in them
}

// A group is what one record of the log and one sync make durable: messages of any number of connections, in the order of their submission.
type group struct {
	buf      []byte // the record: head, fixed part, rows; seal appends the rest
	count    uint32 // rows
	messages int
	marks    []sourceMark
	sources  []*source // of marks
	winners  []byte    // as in the record
	nwinners uint32
	finished []byte
	draw     bool
	done     chan struct{} // closed when err is final
	err      error         // nil: durable; a fatalError: nothing may be said of it; else: nothing of it is stored
}

// rowsAt is where the rows start in a group's buffer.
const rowsAt = walRecordHead + recordRowsAt

// A source is a file that a connection is sending now: it lives from the HELLO to the settling of the last group that it has a part in.
type source struct {
	key       sourceKey
	submitted Resume   // how far it got, with all groups under way
	owner     *session // nil: its connection is gone
	group     *group   // the last one under way that it has a part in
	mark      int      // its index in group's marks
	fresh     bool     // the state does not know it yet
	companion companion
}

// A session is a connection's part in the store. Only its connection uses it, but for what the store's lock guards.
type session struct {
	src    *source // nil: no HELLO
	at     Resume  // how far the source got with all that this session submitted
	fence  func()  // closes the connection; called with the store locked
	fenced bool    // another session has taken the source over, or a group failed; guarded by the store's lock
}

// A decision is what a connection found about one BATCH or BET: which bets are good, and the source's state after it.
type decision struct {
	rows    []byte // of the good bets
	count   int    // of rows
	winners []byte // appendPacked for each good bet that wins if there is a draw
	won     int    // of winners
	total   int    // bets, good or not
	at      Resume // of the source; with HELLO only
}

// newGroup returns a group that fills buf.
func newGroup(buf []byte) *group {
	if cap(buf) < rowsAt {
		buf = make([]byte, rowsAt, 64<<10)
	}
	return &group{buf: buf[:rowsAt], done: make(chan struct{})}
}

// takesMore tells whether the group is not full.
func (g *group) takesMore() bool {
	return len(g.buf)+len(g.winners)+len(g.marks)*(maxSource+14) < groupMax
}

// seal completes the record of a group whose rows start at length in the bets file.
func (g *group) seal(length int64) (rec, rows []byte) {
	le := binary.LittleEndian
	end := len(g.buf)
	le.PutUint64(g.buf[walRecordHead:], uint64(length))
	le.PutUint32(g.buf[walRecordHead+8:], g.count)
	le.PutUint32(g.buf[walRecordHead+12:], uint32(end-rowsAt))
	g.buf = le.AppendUint16(g.buf, uint16(len(g.marks)))
	for _, m := range g.marks {
		g.buf = appendMark(g.buf, m)
	}
	g.buf = append(le.AppendUint32(g.buf, g.nwinners), g.winners...)
	g.buf = append(append(g.buf, byte(len(g.finished))), g.finished...)
	draw := byte(0)
	if g.draw {
		draw = 1
	}
	g.buf = append(g.buf, draw)
	return g.buf, g.buf[rowsAt:end]
}

// submit puts a decision into the open group. The answer may leave when the group is done.
func (s *store) submit(ses *session, d *decision) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A full group makes connections wait, and so, through the network, their clients: memory is bounded by two groups, however many there are.
	for s.refuses() == nil && !ses.fenced && !s.open.takesMore() {
		s.changed.Wait()
	}
	if err := s.refuses(); err != nil {
		return nil, err
	}
	if ses.fenced {
		return nil, errFenced
	}
	if s.drawing && d.count > 0 {
		return nil, errAfterDraw
	}
	if d.count == 0 && ses.src == nil {
		return s.underWay(), nil // nothing to remember
	}
	g := s.join()
	defer s.letGo()
	g.buf = append(g.buf, d.rows...)
	g.count += uint32(d.count)
	g.winners = append(g.winners, d.winners...)
	g.nwinners += uint32(d.won)
	if src := ses.src; src != nil {
		src.submitted, ses.at = d.at, d.at
		if m := &src.companion; !m.answered.IsZero() {
			s.company.returned(m, time.Now())
		}
		src.enter(g)
	}
	return g, nil
}

// refuses returns why the store takes nothing now. s.mu is held.
func (s *store) refuses() error {
	switch {
	case s.fatal != nil:
		return errDead
	case s.closing || s.trouble != nil:
		return errUnavailable
	}
	return nil
}

// join adds a message to the open group. s.mu is held.
func (s *store) join() *group {
	if s.open.messages == 0 {
		s.changed.Broadcast()
	}
	s.open.messages++
	return s.open
}

// complete tells whether the open group has no reason to wait for more. s.mu is held.
func (s *store) complete() bool {
	return !s.open.takesMore() || s.company.enough(len(s.open.sources), len(s.open.buf))
}

// letGo wakes the committer if it holds back a group that is complete now. s.mu is held.
func (s *store) letGo() {
	if s.held && s.complete() {
		s.changed.Broadcast()
	}
}

// enter makes src part of g. The store is locked.
func (src *source) enter(g *group) {
	if src.group != g {
		src.group, src.mark = g, len(g.marks)
		g.sources = append(g.sources, src)
		g.marks = append(g.marks, sourceMark{key: src.key})
	}
	g.marks[src.mark].at = src.submitted
}

// hello makes ses the owner of a source, taking it from another session if one has it. RESUME may leave when the group is done; nil: at once.
func (s *store) hello(ses *session, key sourceKey) (Resume, *group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refuses(); err != nil {
		return Resume{}, nil, err
	}
	if ses.fenced {
		return Resume{}, nil, errFenced
	}
	src := s.live[key]
	if src == nil {
		at, known := s.state.sources[key]
		if !known && len(s.state.sources)+s.fresh >= maxSources {
			return Resume{}, nil, errSources
		}
		src = &source{key: key, submitted: at, fresh: !known}
		if src.fresh {
			s.fresh++
		}
		s.live[key] = src
	}
	// The older connection is closed without an answer to what was not taken; what was taken is in src.submitted.
	if old := src.owner; old != nil && old != ses {
		old.fenced = true
		old.fence()
		s.changed.Broadcast()
	}
	src.owner, ses.src, ses.at = ses, src, src.submitted
	return src.submitted, src.group, nil
}

// leave ends a session.
func (s *store) leave(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := ses.src; src != nil && src.owner == ses {
		src.owner = nil
		s.company.left(&src.companion)
		s.letGo()
		s.forget(src)
	}
}

// forget drops a source that nobody sends and that no group under way has a part in: the state knows all of it. s.mu is held.
func (s *store) forget(src *source) {
	if src.owner == nil && src.group == nil && s.live[src.key] == src {
		delete(s.live, src.key)
		if src.fresh {
			s.fresh--
		}
	}
}

// finish notes that agency has sent all its bets; the last one makes the draw. A repeated call changes nothing. What hangs on it may be answered when
// the group is done; nil: at once.
func (s *store) finish(agency uint8) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refuses(); err != nil {
		return nil, err
	}
	if s.pending.has(agency) {
		return s.underWay(), nil // it may be in a group that is not durable yet
	}
	g := s.join()
	s.pending.add(agency)
	g.finished = append(g.finished, agency)
	s.drawIfDue(g)
	return g, nil
}

// hasWon tells whether a bet on number wins if there is a draw. The number does not change while the store is open.
func (s *store) hasWon(number uint16) bool { return s.state.lottery.hasWon(number) }

// pendingGroup is underWay for those who do not hold s.mu.
func (s *store) pendingGroup() *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.underWay()
}

// underWay returns the group that must be done before all that was submitted until now is durable. s.mu is held.
func (s *store) underWay() *group {
	if s.open.messages > 0 {
		return s.open
	}
	return s.committing
}

// drawIfDue puts the draw into g once all have finished. s.mu is held.
func (s *store) drawIfDue(g *group) {
	if !s.drawing && s.state.lottery.due(&s.pending) {
		s.drawing, g.draw = true, true
	}
}

// winners returns how many winning bets agency has, and each, which calls yield with their
// documents in stored order until yield returns false. each fails if they cannot be read; it holds
// no lock while yield runs. known is false, and there are none, before the draw is durable.
func (s *store) winners(agency uint8) (count int, each func(yield func(document []byte) bool) error, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.lottery.drawn {
		return 0, nil, false
	}
	list := s.state.lottery.winnersOf(agency)
	return list.count, list.each, true
}

// available returns nil if bets are taken now.
func (s *store) available() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuses()
}
