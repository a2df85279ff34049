package main

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// The committer and what works beside it: the second half of store.go, from the group to the disk.

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
		began := time.Now()
		err := s.commit(g)
		s.settle(g, began, err)
	}
}

// take returns the next group once it has a message; nil while there is trouble; end when the store is closing and nothing is left.
func (s *store) take() (g *group, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open.messages == 0 || s.holdBack() {
		if s.open.messages == 0 {
			if s.closing || s.fatal != nil {
				return nil, true
			}
			if s.trouble != nil {
				return nil, false
			}
		}
		s.changed.Wait()
	}
	g = s.open
	s.committing = g
	s.open, s.spare = newGroup(s.spare), nil
	s.changed.Broadcast()
	return g, false
}

// holdBack tells whether the open group is to wait for company (company.go), and sees to it that the wait ends. s.mu is held.
func (s *store) holdBack() bool {
	now := time.Now()
	held := !s.closing && !s.complete() && !s.company.giveUp(now)
	if held {
		s.patience.Reset(s.company.deadline().Sub(now))
	} else if s.held {
		s.patience.Stop()
	}
	s.held = held
	return held
}

// lookAgain wakes the committer when it has waited for company long enough.
func (s *store) lookAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// commit makes g durable and puts its rows into the bets file. After an error that is not fatal neither the log nor the bets file has anything of it.
func (s *store) commit(g *group) error {
	// The steps are those of "Commit of a group" in docs/durability.md; only this goroutine changes s.state.length, so it is read without the lock.
	s.writing.Lock()
	defer s.writing.Unlock()
	rec, rows := g.seal(s.state.length)
	if err := s.makeRoom(len(rec)); err != nil {
		return err
	}
	if err := s.wal.append(rec); err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil // every bet was refused, or an agency finished: only the state moves
	}
	// From here on the rows are promised: a crash before they are written replays them from the log.
	if _, err := s.bets.WriteAt(rows, s.state.length); err != nil {
		return s.takeBack(fmt.Errorf("store: writing %s: %w", s.path, err))
	}
	return nil
}

// makeRoom sees to it that the log takes a record of n bytes. Where no further segment can be had it waits for a checkpoint, which gives some back
// (or for the one that has done so while this was found out).
func (s *store) makeRoom(n int) error {
	err := s.wal.makeRoom(n)
	if err == nil && s.wal.lowestFree() == nil && s.wal.waiting() > 0 {
		ask(s.scarce) // the log is in heavy use: a store with few bets does with one segment
	}
	if err == nil || isFatal(err) || err != errLogFull && s.wal.waiting() == 0 {
		return err
	}
	if err := s.checkpoint(); err != nil {
		return err
	}
	return s.wal.makeRoom(n)
}

// takeBack undoes a commit whose rows could not be written. The order is what makes a crash in between harmless: as long as the record is in the log it is replayed
// whole, and it is voided only when the bets file is durably without its rows.
func (s *store) takeBack(cause error) error {
	if err := s.bets.truncate(s.state.length); err != nil {
		return &fatalError{fmt.Errorf("store: taking back rows: %w", err)}
	}
	if err := s.bets.sync(); err != nil {
		return &fatalError{fmt.Errorf("store: sync of %s: %w", s.path, err)}
	}
	if err := s.wal.takeBack(); err != nil {
		return err
	}
	return cause
}

// settle makes the outcome of a group known whose commit began at began.
func (s *store) settle(g *group, began time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.committing = nil
	switch {
	case s.fatal != nil || isFatal(err):
		s.die(err)
		g.err = s.fatal
	case err == nil:
		s.company.committed(began, time.Now())
		s.settleDone(g)
	default:
		s.settleTrouble(g, err)
	}
	s.spare = g.buf[:0]
	close(g.done)
	s.changed.Broadcast()
}

// settleDone brings the state to where g leaves it. s.mu is held.
func (s *store) settleDone(g *group) {
	payload := g.buf[walRecordHead:]
	rec, err := parseRedo(payload)
	if err != nil {
		panic(err) // seal and parseRedo contradict each other
	}
	s.state.apply(s.wal.next-1, &rec)
	s.commits++
	s.batches += uint64(g.messages)
	for _, src := range g.sources {
		if src.fresh {
			src.fresh = false
			s.fresh--
		}
		s.part(src, g)
		if src.group == nil && src.owner != nil {
			s.company.answered(&src.companion)
		}
	}
	if g.draw {
		close(s.drawn)
		s.log.Info("sorteo", success)
	}
	if s.wal.waiting() >= checkpointAfter {
		ask(s.full)
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
		s.log.Error("store", fail, "archivo", s.path, "motivo", err, "que_hacer", "make room (or lift the quota or the limit on file size); bets are refused with ACK 5 until then, and taken again by themselves")
	}
	s.trouble, s.need = err, int64(len(g.buf))
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
	s.log.Error("store", fail, "archivo", s.path, "motivo", err, "que_hacer", "check the disk, then start the server again: it recovers what was acknowledged")
	close(s.dead)
	s.open.err = err
	close(s.open.done)
	s.open = newGroup(nil)
	s.changed.Broadcast()
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
	s.writing.Lock()
	err := s.bets.reserve(s.state.length, s.need)
	if err == nil {
		err = s.makeRoom(int(s.need))
	}
	s.writing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if isFatal(err) {
		s.die(err)
	}
	if err == nil {
		s.trouble = nil
		s.log.Info("store", success, "archivo", s.path, "motivo", "there is room again: bets are taken")
	}
}

// ask wakes the checkpointer.
func ask(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default: // it has been asked already
	}
}

// checkpointLoop is the checkpointer: it works beside the committer, which goes on meanwhile.
func (s *store) checkpointLoop() {
	defer s.helpers.Done()
	for {
		select {
		case <-s.stopped:
			return
		case <-s.full:
			if err := s.checkpoint(); err != nil {
				s.failedBeside("checkpoint", err)
			}
			// Each commit meanwhile asked again. If there is still so much to do, the next one asks once more.
			select {
			case <-s.full:
			default:
			}
		case <-s.scarce:
		}
		if err := s.wal.prepare(); isFatal(err) {
			s.failedBeside("checkpoint", err)
		} // any other failure is the committer's to meet, if it comes to that
	}
}

// failedBeside notes an error of what works beside the committer.
func (s *store) failedBeside(action string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isFatal(err) {
		s.die(err)
		return
	}
	s.log.Warn(action, fail, "archivo", s.path, "motivo", err, "que_hacer", "nothing is lost: the log keeps what it holds, and the next checkpoint tries again")
}

// checkpoint makes the bets file and a snapshot of the state durable, then gives back the segments of the log that they cover.
func (s *store) checkpoint() error {
	s.checkpointing.Lock()
	defer s.checkpointing.Unlock()
	// The snapshot is taken in memory, so the intake waits for no disk. All rows that it counts have been written by then: the state moves
	// behind them. So the sync that follows covers them, and what is written meanwhile does no harm.
	s.mu.Lock()
	sequence, length := s.state.sequence, s.state.length
	var snapshot []byte
	if sequence != s.checkpointed {
		snapshot = appendState(nil, &s.state)
	}
	s.mu.Unlock()
	if snapshot != nil {
		if err := s.secure(snapshot); err != nil {
			return err
		}
		s.checkpointed = sequence
		// Otherwise a system with much memory keeps all that was ever written: on a virtual machine, whose memory is slow to touch for the first time, 20 million
		// bets took 1.4 times as long.
		if end := length - betsCached; end > 0 {
			s.bets.forget(end)
		}
	}
	s.wal.release(sequence)
	return nil
}

// secure makes the bets file and then the snapshot durable. A failed sync ends the store before anyone can try it again: s.checkpointing is held.
func (s *store) secure(snapshot []byte) error {
	if s.unsynced != nil {
		return s.unsynced
	}
	err := s.bets.datasync()
	if err != nil {
		err = &fatalError{fmt.Errorf("store: sync of %s: %w", s.path, err)}
	} else {
		err = writeSnapshot(s.disk, s.path, snapshot)
	}
	if isFatal(err) {
		s.unsynced = err
		s.failedBeside("checkpoint", err)
	}
	return err
}

// writeSnapshot replaces PATH.state, durably: a crash leaves the old one or the new one.
func writeSnapshot(d disk, path string, snapshot []byte) error {
	name, temp := path+".state", path+".state.new"
	f, err := d.open(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(snapshot, 0); err != nil {
		return fmt.Errorf("store: writing a snapshot: %w", err)
	}
	// Synced before it gets its name: otherwise a power cut could leave the name on a file without its bytes.
	if err := f.sync(); err != nil {
		return &fatalError{fmt.Errorf("store: sync of %s: %w", temp, err)}
	}
	if err := d.rename(temp, name); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	// Only when the name is durable too may segments of the log be given back.
	if err := d.syncDir(name); err != nil {
		return &fatalError{fmt.Errorf("store: sync of the folder of %s: %w", name, err)}
	}
	return nil
}

// syncLoop syncs the log every interval (store.sync is a duration).
func (s *store) syncLoop() {
	defer s.helpers.Done()
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		select {
		case <-s.stopped:
			return
		case <-tick.C:
		}
		s.writing.Lock()
		if err := s.wal.sync(); err != nil {
			s.failedBeside("sync", err)
		}
		s.writing.Unlock()
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
	s.patience.Stop()
	s.helpers.Wait()
	var err error
	if s.fatal == nil {
		err = s.checkpoint()
	}
	return errors.Join(err, s.wal.close(), s.bets.Close())
}
