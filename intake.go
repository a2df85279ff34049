package main

import "sync"

// What connections ask of the store: to take bets, how far a source got, who has finished, and who
// has won. It waits for the committer alone (store.go), and that only where a group is full.

// An intake is the part of a store that connections use. Its methods may be called by many
// goroutines.
type intake struct {
	tenure *tenure // what this server knows of the term; nil: the log is this server's alone

	mu      sync.Mutex // protects following
	changed sync.Cond  // the open group got a message or was taken, or the store closes, has trouble or is dead
	state   state      // as of the last group that is durable
	groups  groups
	live    map[sourceKey]*sender
	drawing drawing
	health  health
}

// isShared reports whether servers share the log.
func (s *intake) isShared() bool { return canShare && s.tenure != nil }

// submit puts a decision into the open group. The answer may leave when the group is done; nil: at
// once.
func (s *intake) submit(ses *session, d *decision) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A full group makes connections wait, and so, through the network, their clients: memory is
	// bounded by three groups, however many there are.
	for s.health.refuses(ses) == nil && !s.groups.open.takesMore() {
		s.changed.Wait()
	}
	if err := s.refuses(ses); err != nil {
		return nil, err
	}
	if s.drawing.begun && d.count > 0 {
		return nil, errAfterDraw
	}
	if d.count == 0 && ses.src == nil {
		return s.groups.underWay(), nil // nothing to remember
	}
	g := s.groups.open
	g.buf = append(g.buf, d.rows...)
	g.count += uint32(d.count)
	if ses.src != nil {
		ses.src.submit(g, d.at, d.count)
		ses.at = d.at
	}
	return s.join(), nil // last: the committer may wait for a group of this size
}

// join counts a message in the open group. s.mu is held.
func (s *intake) join() *group {
	s.groups.open.messages++
	if s.groups.open.messages == 1 || !s.groups.lacksCompany() {
		s.changed.Broadcast()
	}
	return s.groups.open
}

// hello makes ses the owner of a source, taking it from another session if one has it. RESUME may
// leave when the group is done; nil: at once.
func (s *intake) hello(ses *session, key sourceKey) (Resume, *group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refuses(ses); err != nil {
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
	if s.isShared() {
		// What this server knows of the source may be old, if another has taken the term. So RESUME
		// leaves only behind a record of this server's own, even if it has nothing else in it.
		return ses.at, s.join(), nil
	}
	return ses.at, src.group, nil
}

// refuses returns why nothing is taken now from ses; nil where it makes no difference whom it is
// from. s.mu is held.
func (s *intake) refuses(ses *session) error {
	err := s.health.refuses(ses)
	if s.isShared() && err == errStandby {
		s.tenure.ask()
	}
	return err
}

// leave ends a session.
func (s *intake) leave(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := ses.src; src != nil && src.owner == ses {
		src.owner = nil
		s.part(src, nil)
	}
}

// finish notes that agency has sent all its bets; the last one makes the draw. A repeated call
// changes nothing. What hangs on it may be answered when the group is done; nil: at once.
func (s *intake) finish(agency uint8) (*group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refuses(nil); err != nil {
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
func (s *intake) drawIfDue() {
	draw := &s.state.draw
	if !s.drawing.begun && draw.agencies > 0 && s.drawing.finished.count() >= draw.agencies {
		s.drawing.begun = true
		s.join().drawn = draw.winner
	}
}

// pending returns the group that must be done before all that was submitted is durable, and reports
// whether the draw has taken place with it: whoever asks for winners then need not wait long.
func (s *intake) pending() (g *group, drawn bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.health.standby != nil {
		err = s.refuses(nil)
	}
	return s.groups.underWay(), s.drawing.begun, err
}

// winners returns how many winning bets agency has, and each, which calls yield with their
// documents in stored order until yield returns false. each fails if they cannot be read; it holds
// no lock while yield runs. known is false, and there are none, as long as drawn is not closed.
func (s *intake) winners(agency uint8) (count int, each func(yield func(document []byte) bool) error, known bool) {
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
func (s *intake) available() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuses(nil)
}

// part ends src's part in g. The store lets go of a sender whose connection is gone and that no
// group under way has a part in: the state knows all of it. s.mu is held.
func (s *intake) part(src *sender, g *group) {
	if src.group == g {
		src.group = nil
	}
	if src.owner == nil && src.group == nil && s.live[src.key] == src {
		delete(s.live, src.key)
	}
}

// resetDrawing brings what is known of the draw back to what is durable. s.mu is held.
func (s *intake) resetDrawing() {
	s.drawing.finished, s.drawing.begun = s.state.draw.finished, s.state.draw.drawn != noNumber
}

// agencyFacts returns what the store says of an agency, and of its source of that name.
func (s *intake) agencyFacts(agency uint8, name string) (f agencyFacts) {
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

// pulse returns what tells a supervisor whether the store is alive.
func (s *intake) pulse() pulse {
	s.mu.Lock()
	defer s.mu.Unlock()
	trouble := s.health.why()
	p := pulse{turns: s.health.turns, idle: s.groups.underWay() == nil && trouble == nil, trouble: trouble}
	if s.isShared() && standsBy(trouble) {
		p.standby = awaits(s.tenure.facts())
	}
	return p
}
