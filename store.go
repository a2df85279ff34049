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

// companyFrom is the shortest wait for company: where commits are cheap there is none.
const companyFrom = 20 * time.Microsecond

// A store is open from newStore to close. Its methods may be called by many goroutines.
type store struct {
	log     *slog.Logger
	ledger  *ledger         // its commits are the committer's
	dead    chan struct{}   // closed when the store has failed for good
	drawn   chan struct{}   // closed when the draw has taken place and the winners are known
	running sync.WaitGroup  // the committer, and the survey of the draw
	ctx     context.Context // done when the store closes
	stop    context.CancelFunc

	mu      sync.Mutex // protects following
	changed sync.Cond  // the open group got a message or was taken, or the store closes, has trouble or is dead
	state   state      // as of the last group that is durable
	groups  groups
	live    map[sourceKey]*sender
	drawing drawing
	health  health
	work
}

// newStore returns a store over a ledger that was recovered with its state, and starts to take
// bets.
func newStore(l *ledger, st state, interval time.Duration, log *slog.Logger) *store {
	s := &store{log: log, ledger: l, state: st, dead: make(chan struct{}), drawn: make(chan struct{}),
		live: map[sourceKey]*sender{}}
	s.groups.clear(&s.state)
	s.changed.L = &s.mu
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.drawing.finished, s.drawing.begun = st.draw.finished, st.draw.drawn != noNumber
	if s.drawing.begun {
		s.running.Go(s.findWinners)
	}
	l.start(s, interval)
	s.running.Go(s.commitLoop)
	return s
}

// submit puts a decision into the open group. The answer may leave when the group is done; nil: at
// once.
func (s *store) submit(ses *session, d *decision) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A full group makes connections wait, and so, through the network, their clients: memory is
	// bounded by three groups, however many there are.
	for s.health.refuses(ses) == nil && !s.groups.open.takesMore() {
		s.changed.Wait()
	}
	if err := s.health.refuses(ses); err != nil {
		return nil, err
	}
	if s.drawing.begun && d.count > 0 {
		return nil, errAfterDraw
	}
	if d.count == 0 && ses.src == nil {
		return s.groups.underWay(), nil // nothing to remember
	}
	g := s.join()
	g.buf = append(g.buf, d.rows...)
	g.count += uint32(d.count)
	if ses.src != nil {
		ses.src.submit(g, d.at, d.count)
		ses.at = d.at
	}
	return g, nil
}

// join adds a message to the open group. s.mu is held.
func (s *store) join() *group {
	s.groups.open.messages++
	if s.groups.open.messages == 1 || !s.groups.lacksCompany() {
		s.changed.Broadcast()
	}
	return s.groups.open
}

// hello makes ses the owner of a source, taking it from another session if one has it. RESUME may
// leave when the group is done; nil: at once.
func (s *store) hello(ses *session, key sourceKey) (Resume, *group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.health.refuses(ses); err != nil {
		return Resume{}, nil, err
	}
	src := s.live[key]
	if src == nil {
		at := s.state.sources.at(key)
		if at.stored == 0 && s.state.sources.kept(key.agency) >= sourceShare {
			return Resume{}, nil, errSources
		}
		src = &sender{key: key, submitted: at}
		s.live[key] = src
	}
	// The older connection is closed without an answer to what was not taken; what was taken is in
	// submitted.
	if old := src.owner; old != nil && old != ses {
		old.fence()
		s.changed.Broadcast()
	}
	src.owner, ses.src, ses.at = ses, src, src.submitted.Resume
	return ses.at, src.group, nil
}

// leave ends a session.
func (s *store) leave(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := ses.src; src != nil && src.owner == ses {
		src.owner = nil
		s.part(src, nil)
	}
}

// finish notes that agency has sent all its bets; the last one makes the draw. A repeated call
// changes nothing. What hangs on it may be answered when the group is done; nil: at once.
func (s *store) finish(agency uint8) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.health.refuses(nil); err != nil {
		return nil, err
	}
	if !s.drawing.finished.has(agency) {
		s.drawing.finished.add(agency)
		g := s.join()
		g.finished = append(g.finished, agency)
		s.drawIfDue()
	}
	return s.groups.underWay(), nil // others may have put it into a group that is not durable yet
}

// drawIfDue puts the draw into the open group once all have finished. s.mu is held.
func (s *store) drawIfDue() {
	draw := &s.state.draw
	if !s.drawing.begun && draw.agencies > 0 && s.drawing.finished.count() >= draw.agencies {
		s.drawing.begun = true
		s.join().drawn = draw.winner
	}
}

// pending returns the group that must be done before all that was submitted is durable, and reports
// whether the draw has taken place with it: whoever asks for winners then need not wait long.
func (s *store) pending() (g *group, drawn bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups.underWay(), s.drawing.begun
}

// winners returns how many winning bets agency has, and each, which calls yield with their
// documents in stored order until yield returns false. each fails if they cannot be read; it holds
// no lock while yield runs. known is false, and there are none, as long as drawn is not closed.
func (s *store) winners(agency uint8) (count int, each func(yield func(document []byte) bool) error, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.drawing.found
	if found == nil {
		return 0, nil, false
	}
	each = func(yield func([]byte) bool) error { return found.each(agency, yield) }
	return found.winners[agency].count, each, true
}

// available returns nil if bets are taken now.
func (s *store) available() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health.refuses(nil)
}

// pulse returns what tells a supervisor whether the store is alive.
func (s *store) pulse() pulse {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := s.groups.underWay() == nil && s.health.trouble == nil
	return pulse{turns: s.health.turns, idle: idle, trouble: s.health.trouble}
}

// commitLoop is the committer.
func (s *store) commitLoop() {
	for g := s.nextGroup(); g != nil; g = s.nextGroup() {
		g.buf = g.seal(g.buf, s.groups.length, s.groups.crc)
		s.groups.length, s.groups.crc = g.length+int64(len(g.rows)), g.crc
		if !s.ledger.fits(len(g.buf)) {
			s.awaitSettled()
		}
		g.began = time.Now()
		var err error
		g.sequence, err = s.ledger.append(g.buf, g.rows, g.sum)
		s.awaitSettled()
		s.appended(g, err)
	}
}

// awaitSettled waits until the group before the one in hand is settled, or cannot be.
func (s *store) awaitSettled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.groups.settling() {
		s.changed.Wait()
	}
}

// appended has g settled if its record is durable, while the committer goes on. If it is not, or
// the group before could not be settled, all are refused here, where nothing else is going on.
func (s *store) appended(g *group, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = s.ledger.wal.waiting() // here, since the log is the committer's
	if err = cmp.Or(s.groups.unwritten, err); err != nil {
		s.refuse(err)
		return
	}
	s.groups.committing, s.groups.logged = nil, g
	if s.groups.open.messages > 0 {
		go s.settle(g)
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
		case s.health.trouble != nil:
			s.probe()
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

// awaitCompany waits for those who were just answered to come again, for half a commit at most:
// clients that send one batch at a time then share one sync instead of taking turns. s.mu is held.
func (s *store) awaitCompany() {
	patience := time.Duration(s.took.latest.Load()) / 2
	if patience < companyFrom || !s.groups.lacksCompany() {
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
	for _, m := range g.marks {
		agency, sources := m.key.agency, &s.state.sources
		if m.at.stored > 0 && sources.at(m.key).stored == 0 && sources.kept(agency)+1 >= sourceWarn {
			s.log.Warn(actStore, success, "agency", agency, "sources", sources.kept(agency)+1, "most", sourceShare,
				"reason", "the agency sends under ever new names (data.source): once all places are taken, new ones "+
					"are refused",
				"todo", "use few names, or stop the server and have it forget old ones (-mode=forget)")
		}
	}
	s.state.apply(g.sequence, &g.redo)
	s.groups.expected = s.groups.open.messages + g.messages
	s.commits++
	s.batches += uint64(g.messages)
	for _, src := range g.senders {
		s.part(src, g)
	}
	if g.drawn != noNumber {
		s.log.Info(actSorteo, success)
		s.running.Go(s.findWinners)
	}
	g.end(nil)
}

// part ends src's part in g. The store lets go of a sender whose connection is gone and that no
// group under way has a part in: the state knows all of it. s.mu is held.
func (s *store) part(src *sender, g *group) {
	if src.group == g {
		src.group = nil
	}
	if src.owner == nil && src.group == nil && s.live[src.key] == src {
		delete(s.live, src.key)
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
	failed := s.groups.clear(&s.state)
	if s.health.fatal != nil { // failed was told of it
		for _, g := range failed {
			g.end(s.health.fatal)
		}
		return
	}
	if s.health.trouble == nil {
		s.log.Error(actStore, fail, "file", s.ledger.path, "reason", err, "todo",
			"make room (or lift the quota or the limit on file size): until then bets get ACK 5, then they are "+
				"taken again")
	}
	s.health.trouble, s.health.need = err, 0
	outcome := errUnavailable
	if s.ledger.stuck != nil {
		outcome = &fatalError{err}
	}
	for _, g := range failed {
		s.health.need += len(g.buf)
		for _, src := range g.senders {
			src.submitted = s.state.sources.at(src.key) // back to what is durable
			// Its connection may have more to submit before it reads of the refusal: without the
			// source it can't.
			src.owner = nil
			s.part(src, g)
		}
		g.end(outcome)
	}
	// Whoever finished in these groups must say it again; the draw is the committer's to make
	// again.
	s.drawing.finished, s.drawing.begun = s.state.draw.finished, s.state.draw.drawn != noNumber
}

// failed ends the store because of a fatal error that the ledger met: nothing is answered any more.
func (s *store) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.health.fatal = err
	s.log.Error(actStore, fail, "file", s.ledger.path, "reason", err,
		"todo", "check the disk, then start the server again: it recovers what was acknowledged")
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
	select {
	case <-time.After(probeEvery):
	case <-s.ctx.Done():
	}
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
	return storeFacts{Bets: s.state.bets, Bytes: s.state.length, Sources: s.state.sources.count(), Segments: s.segments,
		trouble: s.health.trouble, fatal: s.health.fatal, finished: s.state.draw.finished,
		drawn: s.state.draw.drawn != noNumber, found: s.drawing.found, commits: &s.took}
}

// agencyFacts returns what the store says of an agency, and of its source of that name.
func (s *store) agencyFacts(agency uint8, name string) (f agencyFacts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := s.state.sources[agency]
	for other, at := range names {
		f.Stored += at.stored
		if len(names) == 1 || other == name {
			f.Source, f.Records = other, at.Records
		}
	}
	f.Files = len(names)
	return f
}
