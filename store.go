package main

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"
)

// The store knows how far each source got, and puts what comes into groups. Three of them are
// under way at a time: one fills; the committer has the record of the one before it written to the
// redo log and synced; and that of the one before, which is durable, is settled meanwhile. So one
// sync serves all that waits, and the disk does not wait for rows and answers.
//
//	submit → group → commitLoop: record to the redo log, sync
//	               → settle: rows to the bets file, state, answers
//
// One group is settled after another. Where one fails, all behind it fail.
//
// Locks, in the order in which they may be taken: ledger.checkpointing, store.mu; and
// ledger.writing, ledger.checkpointing. A connection's locks come before store.mu. Nobody waits for
// a disk or for the network with store.mu held.

// probeEvery is how often a store without room looks whether there is some.
const probeEvery = 500 * time.Millisecond

// A store is open from newStore to close. Its methods may be called by many goroutines.
type store struct {
	log      *slog.Logger
	ledger   *ledger       // its commits are the committer's
	follower *follower     // the committer's; nil: the log is this server's alone
	durable  chan *group   // to the settler; closed by the committer at its end
	dead     chan struct{} // closed when the store has failed for good
	drawn    chan struct{} // closed when the draw has taken place and the winners are known
	life

	intake
	work
}

// A life is what runs beside a store, and ends with it.
type life struct {
	running sync.WaitGroup  // the committer, the settler, the signs of life, and the survey of the draw
	ctx     context.Context // done when the store closes
	stop    context.CancelFunc
}

// newStore returns a store over a ledger that was recovered with its state. It starts to take bets,
// or, where servers share the log and t is what this one knows of the term, to stand by.
func newStore(l *ledger, st state, t *tenure, interval time.Duration, log *slog.Logger) *store {
	s := &store{log: log, ledger: l, durable: make(chan *group, 1),
		dead: make(chan struct{}), drawn: make(chan struct{}),
		intake: intake{tenure: t, state: st, live: map[sourceKey]*sender{}}}
	s.groups.clear(&s.state)
	s.changed.L = &s.mu
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.resetDrawing()
	if s.drawing.begun {
		s.running.Go(s.findWinners)
	}
	if s.isShared() {
		s.follower, s.health.standby = newFollower(l, t, &s.state, s.advance, log), errStandby
		s.running.Go(s.signLoop)
	}
	l.start(s, interval)
	s.running.Go(s.commitLoop)
	s.running.Go(s.settleLoop)
	return s
}

// commitLoop is the committer.
func (s *store) commitLoop() {
	defer close(s.durable)
	for g := s.nextGroup(); g != nil; g = s.nextGroup() {
		if s.isShared() {
			s.share(g)
			continue
		}
		g.buf = g.seal(g.buf, s.groups.length, s.groups.crc, stamp{})
		s.groups.length, s.groups.crc = g.length+int64(len(g.rows)), g.crc
		var err error
		if s.ledger.fits(len(g.buf)) || s.awaitSettled() == nil {
			g.began = time.Now()
			g.sequence, err = s.ledger.append(g.buf, g.rows, g.rowsSum)
		}
		s.appended(g, cmp.Or(s.awaitSettled(), err))
	}
}

// share is a turn of the committer where servers share the log. There one group is done before the
// next one's record is sealed, which says what stands before it.
func (s *store) share(g *group) {
	g.buf = g.seal(g.buf, s.state.length, s.state.crc, s.state.stamp()) // nobody else changes the state
	g.began = time.Now()
	var err error
	g.sequence, err = s.ledger.share(g.buf, g.rows, g.rowsSum)
	s.took.observe(time.Since(g.began))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = s.ledger.wal.waiting()
	if err != nil {
		s.refuse(err)
		return
	}
	s.groups.committing, s.groups.logged = nil, g
	s.groups.settled()
	s.settleDone(g)
	s.changed.Broadcast()
}

// awaitSettled waits until the group before the one in hand is settled, or returns why it is not.
func (s *store) awaitSettled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.groups.settling() {
		s.changed.Wait()
	}
	return s.groups.unwritten
}

// appended has g settled if its record is durable, while the committer goes on. If it is not, or
// the group before could not be settled, all are refused here, where nothing else is going on.
func (s *store) appended(g *group, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = s.ledger.wal.waiting() // here, since the log is the committer's
	if err != nil {
		s.refuse(err)
		return
	}
	s.groups.committing, s.groups.logged = nil, g
	if s.groups.open.messages > 0 {
		s.durable <- g
		return
	}
	s.mu.Unlock() // there is nothing else to do meanwhile
	s.settle(g)
	s.mu.Lock()
}

// nextGroup waits for the next group with a message; nil: the store closes and nothing is left.
func (s *store) nextGroup() *group {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.turns++
	for s.groups.open.messages == 0 || s.groups.unwritten != nil {
		switch {
		case s.groups.unwritten != nil:
			s.refuse(s.groups.unwritten)
			continue
		case s.groups.settling():
			s.changed.Wait()
			continue
		case s.health.closing || s.health.fatal != nil:
			return nil
		case s.isShared() && s.health.standby != nil:
			s.standBy()
			continue
		case s.health.trouble != nil:
			s.probe()
			continue
		case s.isShared() && !s.stillHolds():
			continue
		}
		// The draw may be due with nobody there to say so: draw.agencies is lower than it was,
		// or the group that had the draw met a full disk.
		if s.drawIfDue(); s.groups.open.messages == 0 {
			s.changed.Wait()
		}
	}
	s.awaitCompany()
	s.changed.Broadcast()
	return s.groups.next()
}

// awaitCompany waits for more messages in the open group, while that is worth it. s.mu is held.
func (s *store) awaitCompany() {
	patience := min(s.groups.patience(time.Duration(s.took.latest.Load())), companyMost)
	if patience <= 0 {
		return
	}
	over := false
	timer := time.AfterFunc(patience, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		over = true
		s.changed.Broadcast()
	})
	defer timer.Stop()
	for !over && s.groups.lacksCompany() && s.health.refuses(nil) == nil {
		s.changed.Wait()
	}
}

// settleLoop is the settler: it settles groups while the committer goes on.
func (s *store) settleLoop() {
	for g := range s.durable {
		s.settle(g)
	}
}

// settle puts the rows of a group whose record is durable into the bets file, and makes its outcome
// known. If the rows cannot be written that is left to the committer.
func (s *store) settle(g *group) {
	err := s.ledger.write(g.rows)
	s.took.observe(time.Since(g.began))
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Broadcast()
	if err != nil {
		s.groups.unwritten = err
		return
	}
	s.groups.settled()
	if s.health.fatal != nil { // failed was told of it
		g.end(s.health.fatal)
		return
	}
	s.settleDone(g)
}

// settleDone brings the state to where g leaves it. s.mu is held.
func (s *store) settleDone(g *group) {
	s.moveOn(g.sequence, &g.redo)
	s.groups.expected, s.groups.answered = s.groups.open.messages+g.messages, time.Now()
	s.commits++
	s.batches += uint64(g.messages)
	for _, src := range g.senders {
		s.part(src, g)
	}
	g.end(nil)
}

// moveOn brings the state to where a record leaves it. s.mu is held.
func (s *store) moveOn(sequence uint64, rec *redo) {
	for _, m := range rec.marks {
		agency, sources := m.key.agency, &s.state.sources
		if m.at.stored > 0 && sources.at(m.key).stored == 0 && sources.kept(agency)+1 >= sourceWarn {
			s.log.Warn(actStore, success, "agency", agency, "sources", sources.kept(agency)+1, "most", sourceShare,
				"reason", "the agency sends under ever new names (data.source): once all places are taken, new ones "+
					"are refused",
				"todo", "use few names, or stop the server and have it forget old ones (-mode=forget)")
		}
	}
	before := s.state.draw.drawn
	s.state.apply(sequence, rec)
	if s.state.draw.drawn != before {
		s.log.Info(actSorteo, success)
		s.running.Go(s.findWinners)
	}
	if s.isShared() {
		s.tenure.follow(&s.state)
		s.follower.looked = time.Now()
	}
}

// refuse takes back and refuses all groups that are under way, since one of them met err: what
// follows a refused batch of a source must not overtake it. Where they could not be taken back yet
// nothing may be said of them. s.mu is held, but not while that is done.
func (s *store) refuse(err error) {
	s.mu.Unlock()
	err = s.ledger.takeBack(err)
	s.mu.Lock()
	defer s.changed.Broadcast()
	for isFatal(err) && s.health.fatal == nil { // whoever met it is about to tell failed
		s.changed.Wait()
	}
	failed := s.groups.clear(&s.state)
	if s.health.fatal != nil { // failed was told of it
		for _, g := range failed {
			g.end(s.health.fatal)
		}
		return
	}
	outcome, need := errUnavailable, 0
	if s.ledger.isStuck() {
		outcome = &fatalError{err}
	}
	for _, g := range failed {
		if g == failed[len(failed)-1] {
			outcome = errUnavailable // nothing of the open group was written
		}
		need += len(g.buf)
		for _, src := range g.senders {
			src.submitted = s.state.sources.at(src.key) // back to what is durable
			// Else its connection might submit more before it reads of the refusal.
			src.owner = nil
			s.part(src, g)
		}
		g.end(outcome)
	}
	// Whoever finished in these groups must say it again; the draw is the committer's to make.
	s.resetDrawing()
	switch {
	case s.isShared():
		s.standDown(err, need)
		return
	case s.health.trouble == nil:
		s.log.Error(actStore, fail, "file", s.ledger.path, "reason", err, "todo",
			"make room (or lift the quota or the limit on file size): until then bets get ACK 5, then they are "+
				"taken again")
	}
	s.health.trouble, s.health.need = err, need
}

// standDown has the server stand by from now on, until there is room for so many bytes. The
// sessions end: while another server takes bets their sources move on without them. s.mu is held.
func (s *store) standDown(why error, need int) {
	s.health.standby = why
	s.follower.standDown(why, need)
	for key, src := range s.live {
		if src.owner != nil {
			src.owner.fence()
			src.owner = nil
		}
		delete(s.live, key)
	}
}

// standBy is one turn of a server that stands by. s.mu is held, but not meanwhile.
func (s *store) standBy() {
	s.health.turns++
	s.mu.Unlock()
	err := s.follower.step(s.ctx)
	s.mu.Lock()
	s.health.standby = err
}

// stillHolds looks now and then whether a server that has nothing to write could still do it, and
// stands down if not. It returns true if it has not looked: else s.mu was not held meanwhile.
func (s *store) stillHolds() bool {
	f := s.follower
	if !f.isDue() {
		return true
	}
	s.mu.Unlock()
	err := f.look(s.ctx)
	s.mu.Lock()
	if err != nil && !s.health.closing && s.health.fatal == nil {
		s.refuse(err)
	}
	return false
}

// advance is moveOn for a record that a server takes in which stands by.
func (s *store) advance(sequence uint64, rec *redo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.turns++
	s.moveOn(sequence, rec)
	s.resetDrawing()
}

// signLoop gives the signs of life. A server that has no room, or cannot reach the shared log, is
// silent as a holder, so that another takes over.
func (s *store) signLoop() {
	for pause(s.ctx, s.tenure.pace.sign) {
		s.mu.Lock()
		holding := s.health.refuses(nil) == nil
		s.changed.Broadcast() // the committer looks whether it still holds the term
		s.mu.Unlock()
		s.follower.shared.sign(s.tenure.sign(holding))
	}
}

// failed ends the store because of a fatal error that the ledger met: nothing is answered any more.
func (s *store) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.fatal = err
	todo := "check the disk, then start the server again: it recovers what was acknowledged"
	if isShared(err) {
		todo = "keep this server's store, it has all that was answered here; then see Healing in docs/replication.md"
	}
	s.log.Error(actStore, fail, "file", s.ledger.path, "reason", err, "todo", todo)
	close(s.dead)
	s.groups.open.end(err)
	s.groups.open = newGroup(nil)
	s.changed.Broadcast()
}

// snapshot is what the ledger puts into a checkpoint.
func (s *store) snapshot() (data []byte, sequence uint64, length int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return appendState(nil, &s.state), s.state.sequence, s.state.length
}

// probe waits a little and looks whether there is room again, for as much as was refused. s.mu
// is held, but not meanwhile.
func (s *store) probe() {
	s.mu.Unlock()
	pause(s.ctx, probeEvery)
	err := s.ledger.hasRoom(s.health.need)
	s.mu.Lock()
	if err == nil {
		s.health.trouble = nil
		s.log.Info(actStore, success, "file", s.ledger.path, "reason", "there is room again: bets are taken")
	}
}

// findWinners surveys the bets file, which is final since the draw; then the winners are known.
// A bets file that is not what was stored does not keep them from being told, but it is said.
func (s *store) findWinners() {
	s.mu.Lock()
	length, crc, number := s.state.length, s.state.crc, s.state.draw.drawn
	s.mu.Unlock()
	found, err := surveyBets(s.ctx, s.ledger.bets, length, number)
	if s.ctx.Err() != nil {
		return
	}
	if err != nil {
		s.log.Error(actSorteoSello, fail, "file", s.ledger.path, "reason", err,
			"todo", "check the disk, then start the server again: it tells the winners once it can read the bets")
		return
	}
	found.report(s.log, s.ledger.path, crc)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drawing.found = found
	close(s.drawn)
}

// close commits what is under way, writes a checkpoint and closes the files. Everything that
// was submitted is answered for before it returns. It fails with the failure that ended the
// store, if one did.
func (s *store) close() error {
	s.mu.Lock()
	s.health.closing = true
	s.changed.Broadcast()
	s.mu.Unlock()
	s.stop()
	s.running.Wait()
	err := s.ledger.close()
	return cmp.Or(s.health.fatal, err)
}

// facts returns what the store says of itself.
func (s *store) facts() storeFacts {
	s.mu.Lock()
	defer s.mu.Unlock()
	var term *termFacts
	if s.isShared() {
		term = s.tenure.facts()
	}
	return storeFacts{Bets: s.state.bets, Bytes: s.state.length, Sources: s.state.sources.count(), Segments: s.segments,
		term: term, trouble: s.health.why(), fatal: s.health.fatal, finished: s.state.draw.finished,
		drawn: s.state.draw.drawn != noNumber, found: s.drawing.found, commits: &s.took}
}
