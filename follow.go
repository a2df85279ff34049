package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// A server that shares its log with others and does not hold the term stands by: it takes in what
// the holder writes, and when that falls silent it claims the term. Its turns are the committer's,
// in place of commits.

// filledEvery is how often a standby that has far to go says how far it is.
const filledEvery = 10 * time.Second

// A follower keeps a store in step with the shared log. It is the committer's alone.
type follower struct {
	log    *slog.Logger
	ledger *ledger
	shared sharedLog
	tenure *tenure
	shrinkage
	state  *state                           // the store's; read here, and changed by apply alone
	apply  func(sequence uint64, rec *redo) // brings the state to where a record leaves it
	buf    []byte                           // for one record with its head
	need   int                              // bytes of the records for which there was no room; 0: there is room
	looked time.Time                        // when the shared log was last known to be there
	missed int                              // looks since then that failed
	filled time.Time                        // when it was last said how far the store is
	said   string                           // why the server cannot even stand by, as it was last said; empty: it can
	told   string                           // who takes bets, as it was last said
}

// newFollower returns the follower of a store that stands by.
func newFollower(l *ledger, t *tenure, st *state, apply func(uint64, *redo), log *slog.Logger) *follower {
	t.follow(st)
	return &follower{log: log, ledger: l, shared: l.shared.log, tenure: t, state: st, apply: apply,
		shrinkage: shrinkage{path: l.path, lasting: t.pace.shrunk}}
}

// step is one turn of a standby. It returns nil if the server holds the term, and else why it
// stands by still, after a while.
func (f *follower) step(ctx context.Context) error {
	err := f.tryStep(ctx)
	switch {
	case err == nil:
		f.tell(true)
	case pause(ctx, f.tenure.pace.follow):
		f.complain(err)
	}
	return err
}

// pause waits. It returns false if ctx is done meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// tryStep ends what was begun, takes in what there is, and claims the term if that is due.
func (f *follower) tryStep(ctx context.Context) error {
	if err := f.settleHeld(ctx); err != nil {
		return err
	}
	if f.need > 0 {
		if err := f.ledger.hasRoom(f.need); err != nil {
			return err
		}
		f.need = 0
	}
	if err := f.catchUp(ctx); err != nil {
		return err
	}
	if !f.tenure.isMine() && !f.tenure.isDue() {
		return errStandby
	}
	// What was read may have come from a server of the engine that lags, or that is cut off.
	if err := f.atEnd(ctx); err != nil || f.tenure.isMine() {
		return err
	}
	return f.claim()
}

// standDown notes why the server does not take bets any more, and how many bytes must have room
// before it may again.
func (f *follower) standDown(why error, need int) {
	f.told = ""
	if isConflict(why) {
		f.overtaken(why)
		return
	}
	f.need = need
	f.complain(why)
}

// settleHeld goes on with the record that the ledger holds: of a commit whose outcome is not known,
// or that the disk had no room for.
func (f *follower) settleHeld(ctx context.Context) error {
	held, err := f.ledger.settleHeld(ctx)
	if isConflict(err) {
		f.overtaken(err)
		return nil
	}
	if err != nil || held == nil {
		return err
	}
	rec, err := parseRedo(sharedVersion, held.payload)
	if err != nil {
		return f.ledger.note(&fatalError{err})
	}
	f.apply(held.number, rec)
	return nil
}

// overtaken says that a record of this server was not taken: another has its place.
func (f *follower) overtaken(err error) {
	f.tenure.lose()
	f.log.Warn(actTerm, fail, "term", f.state.term, "reason", err, "todo",
		"nothing: nobody was answered, and clients send it again")
}

// catchUp takes in all records that the shared log has now.
func (f *follower) catchUp(ctx context.Context) error {
	f.filled = time.Now()
	err := f.shared.read(ctx, f.state.sequence+1, func(number uint64, payload []byte) error {
		if err := f.takeIn(number, payload); err != nil {
			return err
		}
		if time.Since(f.filled) >= filledEvery {
			f.filled = time.Now()
			f.log.Info(actFollow, inProgress, "record", number, "bets", f.state.bets)
		}
		return ctx.Err()
	})
	return f.ledger.note(err)
}

// takeIn takes in the next record of the shared log.
func (f *follower) takeIn(number uint64, payload []byte) error {
	f.buf = append(append(f.buf[:0], make([]byte, walRecordHead)...), payload...)
	rec, rows, err := f.state.read(number, f.buf[walRecordHead:])
	if err != nil {
		err = fmt.Errorf("%w: it was changed, or another hand wrote it: see Healing in docs/replication.md", err)
		return f.ledger.note(&fatalError{sharedError{err}})
	}
	if err := f.ledger.keep(f.buf, rows); err != nil {
		f.need, f.buf = len(f.buf), nil // the ledger may hold it
		return err
	}
	f.apply(number, rec)
	return nil
}

// atEnd returns nil if the store has all records that the shared log has; errStandby: there are
// more.
func (f *follower) atEnd(ctx context.Context) error {
	last, err := f.shared.last(ctx)
	if err = f.shrinkage.judge(last, f.state.sequence, err); err != nil {
		return f.ledger.note(err)
	}
	f.looked, f.missed = time.Now(), 0
	if last > f.state.sequence {
		return errStandby
	}
	return nil
}

// claim puts a record into the shared log by which this server takes the next term.
func (f *follower) claim() error {
	rec := redo{drawn: noNumber}
	buf := rec.seal(make([]byte, redoRowsAt), f.state.length, f.state.crc, f.state.claim(f.tenure.me))
	number, err := f.ledger.share(buf, nil, 0)
	if err == nil {
		f.apply(number, &rec)
		return nil
	}
	if isConflict(err) {
		f.overtaken(err)
	}
	return err
}

// isDue reports whether it is time to look whether this server still holds the term.
func (f *follower) isDue() bool {
	return f.tenure.isOvertaken() || time.Since(f.looked) >= f.tenure.pace.look
}

// look is what a holder does that has nothing to write: it looks whether it is still the one that
// could. It fails where nothing may be promised any more.
func (f *follower) look(ctx context.Context) error {
	if f.tenure.isOvertaken() {
		return errStandby
	}
	ctx, done := context.WithTimeout(ctx, f.tenure.pace.look)
	defer done()
	err := f.atEnd(ctx)
	if err == nil || err == errStandby || isFatal(err) {
		return err
	}
	f.looked = time.Now()
	if f.missed++; f.missed > 1 {
		return err
	}
	return nil
}

// complain says why the server cannot even stand by: once, and again when that changes.
func (f *follower) complain(err error) {
	if err == errStandby || isConflict(err) {
		f.tell(false)
		return
	}
	if isFatal(err) || err.Error() == f.said { // the ledger tells of a fatal one
		return
	}
	f.said = err.Error()
	todo := "make room"
	if isShared(err) {
		todo = "see to the engines and the way to them"
	}
	f.log.Warn(actTerm, fail, "term", f.state.term, "reason", err, "todo",
		todo+": until then this server takes no bets, then it goes on by itself")
}

// tell says who takes bets: once, and again when that changes or all is well again.
func (f *follower) tell(holds bool) {
	reason := "this server stands by: it takes bets when no other one does and an agency asks"
	switch facts := f.tenure.facts(); {
	case holds:
		reason = "this server takes bets"
	case facts.Heard:
		reason = "this server stands by: " + facts.Holder + " takes bets"
	}
	if reason == f.told && f.said == "" {
		return
	}
	f.said, f.told = "", reason
	result := inProgress
	if holds {
		result = success
	}
	f.log.Info(actTerm, result, "term", f.state.term, "record", f.state.sequence, "reason", reason)
}
