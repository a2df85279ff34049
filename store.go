package main

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// The store knows how far each source got, and puts what comes into groups. Its one writer is the
// committer: while it writes and syncs a group, the next one fills; so one sync serves all that
// waits.
//
//	submit → group → ledger.commit: record to the redo log, sync, rows to the bets file → settle: state, answers

const (
	// maxSources is how many sources a store remembers.
	maxSources = 65536
	// probeEvery is how often a store that had no room looks whether there is some now.
	probeEvery = 500 * time.Millisecond
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
	log     *slog.Logger
	ledger  *ledger       // written by the committer alone
	dead    chan struct{} // closed when fatal is set
	stopped chan struct{} // closed when the committer has ended
	drawn   chan struct{} // closed when the draw is durable
	wake    chan struct{} // ends a pause of the committer

	mu         sync.Mutex // protects following
	changed    sync.Cond  // the open group got its first message or was taken, or the store is closing, unavailable or dead
	state      state      // as of the last settled group
	open       *group     // what comes now goes here
	committing *group     // what the committer has in hand; nil: nothing
	spare      []byte     // the buffer of the group before last
	live       map[sourceKey]*source
	fresh      int       // live sources that the state does not know yet
	pending    agencySet // finished, settled or in a group
	drawing    bool      // drawn, or a group with the draw is under way
	trouble    error     // why bets are not taken now, for example a full disk; nil: they are
	need       int       // bytes of the group that met the trouble; read by the committer, which alone sets it
	fatal      error     // why nothing is answered any more
	closing    bool
	commits    uint64 // groups since the start
	batches    uint64 // messages in them
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
	g.buf = append(g.buf, d.rows...)
	g.count += uint32(d.count)
	g.winners = append(g.winners, d.winners...)
	g.nwinners += uint32(d.won)
	if src := ses.src; src != nil {
		src.submitted, ses.at = d.at, d.at
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

// commitLoop is the committer.
func (s *store) commitLoop() {
	defer close(s.stopped)
	for {
		g, end := s.take()
		if end {
			return
		}
		if g == nil {
			s.probe()
			continue
		}
		sequence, err := s.commit(g)
		s.settle(g, sequence, err)
	}
}

// take returns the next group once it has a message; nil while there is trouble; end when the store is closing and nothing is left.
func (s *store) take() (g *group, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open.messages == 0 {
		if s.closing || s.fatal != nil {
			return nil, true
		}
		if s.trouble != nil {
			return nil, false
		}
		s.changed.Wait()
	}
	g = s.open
	s.committing = g
	s.open, s.spare = newGroup(s.spare), nil
	s.changed.Broadcast()
	return g, false
}

// commit has the ledger commit g. Only the committer changes the state, so it is read without the lock.
func (s *store) commit(g *group) (sequence uint64, err error) {
	record, rows := g.seal(s.state.length)
	return s.ledger.commit(record, rows)
}

// settle makes the outcome of a group known.
func (s *store) settle(g *group, sequence uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.committing = nil
	switch {
	case s.fatal != nil || isFatal(err):
		s.die(err)
		g.err = s.fatal
	case err == nil:
		s.settleDone(g, sequence)
	default:
		s.settleTrouble(g, err)
	}
	s.spare = g.buf[:0]
	close(g.done)
	s.changed.Broadcast()
}

// settleDone brings the state to where g leaves it. s.mu is held.
func (s *store) settleDone(g *group, sequence uint64) {
	payload := g.buf[walRecordHead:]
	rec, err := parseRedo(payload)
	if err != nil {
		panic(err) // seal and parseRedo contradict each other
	}
	s.state.apply(sequence, &rec)
	s.commits++
	s.batches += uint64(g.messages)
	for _, src := range g.sources {
		if src.fresh {
			src.fresh = false
			s.fresh--
		}
		s.part(src, g)
	}
	if g.draw {
		close(s.drawn)
		s.log.Info(actSorteo, success)
	}
}

// part ends src's part in g. s.mu is held.
func (s *store) part(src *source, g *group) {
	if src.group == g {
		src.group = nil
		s.forget(src)
	}
}

// settleTrouble refuses g, and the open group with it: what follows a refused batch of a source must not overtake it. s.mu is held.
func (s *store) settleTrouble(g *group, err error) {
	if s.trouble == nil {
		s.log.Error(actStore, fail, "file", s.ledger.path, "reason", err, "todo", "make room (or lift the quota or the limit on file size); bets are refused with ACK 5 until then, and taken again by themselves")
	}
	s.trouble, s.need = err, len(g.buf)
	// What joined the open group meanwhile stands behind the refused group, in its sources' order: it can't be kept when that is not.
	late := s.open
	s.open = newGroup(nil)
	for _, failed := range []*group{g, late} {
		failed.err = errUnavailable
		for _, src := range failed.sources {
			src.submitted = s.state.sources[src.key] // back to what is durable
			// Its connection may have more to submit before it reads of the refusal: fenced, it can't.
			if src.owner != nil {
				src.owner.fenced = true
				src.owner = nil
			}
			s.part(src, failed)
		}
	}
	s.pending, s.drawing = s.state.lottery.finished, s.state.lottery.drawn // whoever finished in these groups must say it again
	close(late.done)
}

// die ends the store: nothing is answered any more. s.mu is held.
func (s *store) die(err error) {
	if s.fatal != nil {
		return
	}
	s.fatal = err
	s.log.Error(actStore, fail, "file", s.ledger.path, "reason", err, "todo", "check the disk, then start the server again: it recovers what was acknowledged")
	close(s.dead)
	s.open.err = err
	close(s.open.done)
	s.open = newGroup(nil)
	s.changed.Broadcast()
}

// snapshot is what the ledger puts into a checkpoint.
func (s *store) snapshot(known uint64) (data []byte, sequence uint64, length int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.sequence != known {
		data = appendState(nil, &s.state)
	}
	return data, s.state.sequence, s.state.length
}

// failed ends the store because of what the ledger met beside a commit.
func (s *store) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.die(err)
}

// probe waits a little and looks whether there is room again, for as much as was refused.
func (s *store) probe() {
	pause := time.NewTimer(probeEvery)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.wake:
		return
	}
	err := s.ledger.hasRoom(s.need)
	s.mu.Lock()
	defer s.mu.Unlock()
	if isFatal(err) {
		s.die(err)
	}
	if err == nil {
		s.trouble = nil
		s.log.Info(actStore, success, "file", s.ledger.path, "reason", "there is room again: bets are taken")
	}
}

// close commits what is under way, writes a checkpoint and closes the files. Everything that was submitted is answered for before it returns.
func (s *store) close() error {
	s.mu.Lock()
	s.closing = true
	s.changed.Broadcast()
	s.mu.Unlock()
	close(s.wake)
	<-s.stopped
	return s.ledger.close(s.fatal != nil)
}
