package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// checkpointAfter is how many full segments of the log start a checkpoint.
	checkpointAfter = 4
	// betsCached is how much of the bets file's end the system is not told to forget after a
	// checkpoint: what somebody who follows the file may still read.
	betsCached = 64 << 20
)

// A ledger keeps the redo log and the bets file in step, and makes the checkpoints. It knows
// nothing of what a record says, but for where its rows are.
//
// Its one invariant: a row is written to the bets file only after the sync that made its record
// durable (unless the log is relaxed), and, where servers share the log, after it is known that the
// record stands in the shared one. So no reader ever sees a row that a power cut or another server
// could take back, and a bets file that goes on behind the log's last intact record proves that the
// log is damaged.
//
// append, share, keep, settleHeld, takeBack and hasRoom are for one goroutine, the committer. write
// is called by one at a time, beside append alone.
type ledger struct {
	disk   disk
	path   string // of the bets file
	log    *slog.Logger
	bets   file
	wal    *wal
	owner  ledgerOwner
	shared *sharing // nil: the log is this server's alone

	full    chan struct{} // asks the checkpointer for a checkpoint
	stop    chan struct{} // ends the helpers
	helpers sync.WaitGroup

	lag
	writing sync.Mutex // held while the committer or syncLoop writes to the log or syncs it

	checkpointing sync.Mutex            // held for one checkpoint
	fatal         atomic.Pointer[error] // nothing is written or synced any more; sticky
}

// A lag is how far the bets file is, and what it lacks of the log.
type lag struct {
	length    int64        // bytes of the bets file with all rows that were written
	spilled   bool         // it may have rows behind, of a write that failed
	unwritten atomic.Int32 // records that the log may have and whose rows the bets file lacks: two at most
	stuck     error        // why those must be undone and could not be yet; the committer's alone
}

// A ledgerOwner is whoever puts records into a ledger, and knows what they say.
type ledgerOwner interface {
	// snapshot returns the state as of a record that was committed, that record's number, and
	// the length of the bets file with its rows.
	snapshot() (state []byte, sequence uint64, length int64)
	// failed is told of the first fatal error, wherever it was met.
	failed(err error)
}

// start starts the checkpointer, and what syncs a relaxed log every interval (store.sync is a
// duration).
func (l *ledger) start(owner ledgerOwner, interval time.Duration) {
	l.owner = owner
	l.full, l.stop = make(chan struct{}, 1), make(chan struct{})
	l.helpers.Go(l.checkpointLoop)
	if interval > 0 {
		l.helpers.Go(func() { l.syncLoop(interval) })
	}
}

// append makes a record durable, of which the first walRecordHead bytes are the log's, and returns
// its number. Its rows have the CRC sum. The rows of the record before it may be on their way to
// the bets file meanwhile if it fits; else they must be there. After an error takeBack must be
// called.
func (l *ledger) append(record, rows []byte, sum uint32) (sequence uint64, err error) {
	// The steps are those of "Commit of a group" in docs/durability.md.
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.unfit(); err != nil {
		return 0, err
	}
	if err := l.makeRoom(len(record)); err != nil {
		return 0, err
	}
	l.unwritten.Add(1)
	if err := l.wal.append(record, redoRowsAt, len(rows), sum); err != nil {
		return 0, l.note(err)
	}
	return l.wal.next - 1, nil
}

// share makes a record durable here and in the shared log, where it is sent while the own log
// syncs, and writes its rows. It returns the record's number. After an error that is not fatal
// nothing has anything of it, as with a conflictError: another record has its place. Or nothing may
// be said of it: then the ledger is stuck, and holds record, which belongs to it from then on.
// settleHeld finds out what stands in the shared log, hasRoom takes back what was not sent.
func (l *ledger) share(record, rows []byte, sum uint32) (sequence uint64, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	number, err := l.begin(record, redoRowsAt, len(rows), sum)
	if err != nil {
		return 0, err
	}
	l.shared.held = &heldRecord{number: number, payload: record[walRecordHead:], rows: rows}
	l.shared.log.begin(number, record[walRecordHead:])
	if err := l.wal.sync(); err != nil {
		return 0, l.note(err)
	}
	return number, l.settle(context.Background())
}

// keep takes in the next record of the shared log, with its rows; none if it is void. Of the record
// the first walRecordHead bytes are the log's. Its errors are those of share.
func (l *ledger) keep(record, rows []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	number, err := l.begin(record, len(record), 0, 0)
	if err != nil {
		return err
	}
	if err := l.wal.sync(); err != nil {
		return l.note(err)
	}
	l.shared.held = &heldRecord{number: number, payload: record[walRecordHead:], rows: rows, stands: true}
	return l.settle(context.Background())
}

// begin writes a record to the log, without its sync. After an error that has nothing of it, or the
// ledger is stuck.
func (l *ledger) begin(record []byte, at, n int, sum uint32) (number uint64, err error) {
	if err := l.unfit(); err != nil {
		return 0, err
	}
	if err := l.makeRoom(len(record)); err != nil {
		return 0, err
	}
	number = l.wal.next
	l.unwritten.Add(1)
	if l.stuck = l.wal.write(record, at, n, sum); l.stuck != nil {
		return 0, l.undo()
	}
	return number, nil
}

// settleHeld goes on with the record that the ledger holds, and returns it once it is committed;
// nil where there is none. Its errors are those of share.
func (l *ledger) settleHeld(ctx context.Context) (*heldRecord, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.fatal.Load(); err != nil {
		return nil, *err
	}
	held := l.shared.held
	return held, l.settle(ctx)
}

// settle finds out what stands in the place of the held record, if there is one: that one, and its
// rows go to the bets file, or another, and it is taken back. A record that was sent once is given
// up for nothing else: it may turn up at any time.
func (l *ledger) settle(ctx context.Context) error {
	held := l.shared.held
	if held == nil {
		return nil
	}
	err := l.shared.find(ctx)
	switch {
	case err != nil:
	case held.stands:
		err = l.write(held.rows)
	default:
		if err = l.wal.takeBack(); err == nil {
			l.unwritten.Add(-1)
		}
	}
	if err != nil {
		return l.note(err)
	}
	l.shared.held = nil
	if held.conflict != nil {
		return held.conflict
	}
	return nil
}

// isShared reports whether servers share the log.
func (l *ledger) isShared() bool { return canShare && l.shared != nil }

// isStuck reports whether nothing may be said of the last record. It is for the committer.
func (l *ledger) isStuck() bool { return l.stuck != nil || l.isShared() && l.shared.held != nil }

// fits reports whether a record of n bytes goes into the segment of the one before it. If not, that
// one must have its rows before append: records are taken back in one segment alone.
func (l *ledger) fits(n int) bool { return l.wal.fits(n) }

// unfit returns why nothing may be written: a sync has failed, or records are to be taken back
// first.
func (l *ledger) unfit() error {
	if err := l.fatal.Load(); err != nil {
		return *err
	}
	if l.isShared() && l.shared.held != nil {
		return errUnsettled
	}
	return l.stuck
}

// write puts the rows of the first record that lacks them into the bets file. They are promised: a
// crash before they are written replays them from the log. After an error takeBack must be called.
func (l *ledger) write(rows []byte) error {
	l.spilled = true
	if _, err := l.bets.WriteAt(rows, l.length); err != nil {
		return fmt.Errorf("store: writing %s: %w", l.path, err)
	}
	l.spilled = false
	l.length += int64(len(rows))
	l.unwritten.Add(-1)
	return nil
}

// takeBack undoes all records whose rows the bets file lacks, after append or write failed with
// cause, and returns that. After an error that is not fatal neither the log nor the bets file has
// anything of them, unless the ledger is stuck: they could not be undone yet, for want of room.
// Then part of them, or all, may be on the disk, and nothing may be said of them. hasRoom undoes
// them when there is room. A start after a crash meanwhile finds each whole or not at all.
func (l *ledger) takeBack(cause error) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.unfit(); err != nil || l.unwritten.Load() == 0 {
		return cmp.Or(err, cause)
	}
	l.stuck = cause
	return l.undo()
}

// undo takes back what must be. It returns what that failed with, or why it is stuck. The order is
// what makes a crash in between harmless: as long as a record is in the log it is replayed whole,
// and it is voided only when the bets file is durably without its rows, and the record behind it,
// if there is one, durably void.
func (l *ledger) undo() error {
	cause := l.stuck
	if l.spilled {
		if err := l.bets.truncate(l.length); err != nil {
			return l.note(fmt.Errorf("store: taking back rows: %w", err))
		}
		if err := l.bets.sync(); err != nil {
			return l.note(syncFailed(l.path, err))
		}
		l.spilled = false
	}
	for ; l.unwritten.Load() > 0; l.unwritten.Add(-1) {
		if err := l.wal.takeBack(); err != nil {
			return l.note(err)
		}
	}
	l.stuck = nil
	return cause
}

// hasRoom returns nil if there is room for records of n bytes together, and their rows; of the log
// it tries what the longest one takes. Records that are stuck are undone first.
func (l *ledger) hasRoom(n int) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.stuck != nil {
		l.undo()
	}
	if err := l.unfit(); err != nil {
		return err
	}
	if err := l.bets.reserve(l.length, int64(n)); err != nil {
		return err
	}
	n = min(n, walMaxRecord)
	if err := l.makeRoom(n); err != nil {
		return err
	}
	return l.note(l.wal.probe(n))
}

// makeRoom sees to it that the log takes a record of n bytes. Where no further segment can be
// had it waits for a checkpoint, which gives some back (or for the one that has done so while
// this was found out).
func (l *ledger) makeRoom(n int) error {
	before := l.wal.current
	err := l.wal.makeRoom(n)
	if l.wal.current != before && l.wal.waiting() >= checkpointAfter {
		select {
		case l.full <- struct{}{}:
		default: // it has been asked already
		}
	}
	if err == nil || isFatal(err) || err != errLogFull && l.wal.waiting() == 0 {
		return l.note(err)
	}
	if err := l.checkpoint(); err != nil {
		return err
	}
	return l.note(l.wal.makeRoom(n))
}

// note keeps err for good if it is fatal. It returns err.
func (l *ledger) note(err error) error {
	if isFatal(err) && l.fatal.CompareAndSwap(nil, &err) && l.owner != nil { // nil: during a start
		l.owner.failed(err)
	}
	return err
}

// checkpointLoop is the checkpointer: it works beside the committer, which goes on meanwhile.
func (l *ledger) checkpointLoop() {
	said := "" // the reason that was logged last, if the checkpoint before failed as well
	for {
		select {
		case <-l.stop:
			return
		case <-l.full:
		}
		err := l.checkpoint()
		switch {
		case err == nil:
			said = ""
		case !isFatal(err) && err.Error() != said:
			said = err.Error()
			l.warn(err)
		}
	}
}

// warn says that there was no checkpoint.
func (l *ledger) warn(err error) {
	l.log.Warn(actCheckpoint, fail, "file", l.path, "reason", err, "todo",
		"make that possible: nothing is lost, but the log keeps all, and once it is full bets get ACK 5")
}

// checkpoint makes the bets file and a snapshot of the state durable, then gives back the
// segments of the log that they cover.
func (l *ledger) checkpoint() error {
	l.checkpointing.Lock()
	defer l.checkpointing.Unlock()
	if err := l.fatal.Load(); err != nil {
		return *err
	}
	// The snapshot is taken in memory, so the intake waits for no disk. All rows that it counts
	// have been written by then. So the sync that follows covers them, and what is written
	// meanwhile does no harm.
	state, sequence, length := l.owner.snapshot()
	if err := l.bets.datasync(); err != nil {
		return l.note(syncFailed(l.path, err))
	}
	if err := l.writeSnapshot(state); err != nil {
		return l.note(err)
	}
	// Otherwise a system with much memory keeps all that was ever written: on a virtual
	// machine, whose memory is slow to touch for the first time, 20 million bets took 1.4
	// times as long.
	if end := length - betsCached; end > 0 {
		l.bets.forget(end)
	}
	l.wal.release(sequence)
	return nil
}

// writeSnapshot replaces PATH.state, durably: a crash leaves the old one or the new one.
func (l *ledger) writeSnapshot(state []byte) error {
	name, temp := l.path+".state", l.path+".state.new"
	f, err := l.disk.open(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(state, 0); err != nil {
		return fmt.Errorf("store: writing a snapshot: %w", err)
	}
	// Synced before it gets its name: otherwise a power cut could leave the name on a file
	// without its bytes.
	if err := f.sync(); err != nil {
		return syncFailed(temp, err)
	}
	if err := l.disk.rename(temp, name); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	// Only when the name is durable too may segments of the log be given back.
	return syncFailed("the folder of "+name, l.disk.syncDir())
}

// syncLoop syncs the log every interval.
func (l *ledger) syncLoop(interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			l.sync()
		}
	}
}

// sync makes all that was committed durable, in a relaxed log too. It only fails fatally.
func (l *ledger) sync() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.fatal.Load(); err != nil {
		return *err
	}
	return l.note(l.wal.sync())
}

// close makes all that was committed durable, writes a checkpoint, and closes the files.
// Without room for a checkpoint nothing is lost: the next start finds in the log what it would
// have kept.
func (l *ledger) close() error {
	close(l.stop)
	l.helpers.Wait()
	err := l.sync()
	if err == nil {
		if err = l.checkpoint(); err != nil && !isFatal(err) {
			l.warn(err)
			err = nil
		}
	}
	return errors.Join(err, l.closeFiles())
}

// closeFiles closes the files, as far as they are open.
func (l *ledger) closeFiles() (err error) {
	if l.wal != nil {
		err = l.wal.close()
	}
	if l.bets != nil {
		err = errors.Join(err, l.bets.Close())
	}
	return err
}
