package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
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
// durable (unless the log is relaxed). So no reader ever sees a row that a power cut could take
// back, and a bets file that goes on behind the log's last intact record proves that the log is
// damaged.
//
// commit and hasRoom are for one goroutine, the committer.
type ledger struct {
	disk     disk
	path     string // of the bets file
	log      *slog.Logger
	interval time.Duration // store.sync: always, never, or how often
	bets     file
	wal      *wal
	length   int64         // bytes of the bets file, as far as it was committed; the committer's
	full     chan struct{} // asks the checkpointer for a checkpoint
	stop     chan struct{} // ends the helpers
	helpers  sync.WaitGroup

	// snapshot returns what a checkpoint is to keep: the state as of a record that was committed,
	// that record's number, and the length of the bets file with its rows; no state if that is the
	// record of number known. died is told of a fatal failure beside the committer.
	snapshot func(known uint64) (state []byte, sequence uint64, length int64)
	died     func(err error)

	writing sync.Mutex // held for a commit, and for a sync of syncLoop

	checkpointing sync.Mutex // held for one checkpoint; protects following
	checkpointed  uint64     // sequence number of the last durable snapshot
	unsynced      error      // a sync for a checkpoint has failed: there is no other try; sticky
}

// start starts the checkpointer, and what syncs a relaxed log.
func (l *ledger) start() {
	l.full, l.stop = make(chan struct{}, 1), make(chan struct{})
	l.helpers.Add(1)
	go l.checkpointLoop()
	if l.interval > 0 {
		l.helpers.Add(1)
		go l.syncLoop()
	}
}

// commit makes a record durable, of which the first walRecordHead bytes are the log's, and puts its
// rows into the bets file. It returns the record's number. After an error that is not fatal neither
// the log nor the bets file has anything of it.
func (l *ledger) commit(record, rows []byte) (sequence uint64, err error) {
	// The steps are those of "Commit of a group" in docs/durability.md.
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.makeRoom(len(record)); err != nil {
		return 0, err
	}
	if err := l.wal.append(record); err != nil {
		return 0, err
	}
	// From here on the rows are promised: a crash before they are written replays them from the log.
	if len(rows) > 0 {
		if _, err := l.bets.WriteAt(rows, l.length); err != nil {
			return 0, l.takeBack(fmt.Errorf("store: writing %s: %w", l.path, err))
		}
		l.length += int64(len(rows))
	}
	return l.wal.next - 1, nil
}

// makeRoom sees to it that the log takes a record of n bytes. Where no further segment can be had it
// waits for a checkpoint, which gives some back (or for the one that has done so while this was
// found out).
func (l *ledger) makeRoom(n int) error {
	err := l.wal.makeRoom(n)
	if l.wal.waiting() >= checkpointAfter {
		ask(l.full)
	}
	if err == nil || isFatal(err) || err != errLogFull && l.wal.waiting() == 0 {
		return err
	}
	if err := l.checkpoint(); err != nil {
		return err
	}
	return l.wal.makeRoom(n)
}

// takeBack undoes a commit whose rows could not be written. The order is what makes a crash in
// between harmless: as long as the record is in the log it is replayed whole, and it is voided only
// when the bets file is durably without its rows.
func (l *ledger) takeBack(cause error) error {
	if err := l.bets.truncate(l.length); err != nil {
		return &fatalError{fmt.Errorf("store: taking back rows: %w", err)}
	}
	if err := l.bets.sync(); err != nil {
		return &fatalError{fmt.Errorf("store: sync of %s: %w", l.path, err)}
	}
	if err := l.wal.takeBack(); err != nil {
		return err
	}
	return cause
}

// hasRoom returns nil if there is room for a record of n bytes and its rows.
func (l *ledger) hasRoom(n int) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.bets.reserve(l.length, int64(n)); err != nil {
		return err
	}
	return l.makeRoom(n)
}

// ask wakes the checkpointer.
func ask(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default: // it has been asked already
	}
}

// checkpointLoop is the checkpointer: it works beside the committer, which goes on meanwhile.
func (l *ledger) checkpointLoop() {
	defer l.helpers.Done()
	for {
		select {
		case <-l.stop:
			return
		case <-l.full:
		}
		if l.wal.waiting() < checkpointAfter {
			continue // the checkpoint before served this commit too
		}
		if err := l.checkpoint(); err != nil {
			l.failedBeside(actCheckpoint, err)
		}
	}
}

// failedBeside notes an error of what works beside the committer.
func (l *ledger) failedBeside(action string, err error) {
	if isFatal(err) {
		l.died(err)
		return
	}
	l.log.Warn(action, fail, "file", l.path, "reason", err,
		"todo", "nothing is lost: the log keeps what it holds, and the next checkpoint tries again")
}

// checkpoint makes the bets file and a snapshot of the state durable, then gives back the segments
// of the log that they cover.
func (l *ledger) checkpoint() error {
	l.checkpointing.Lock()
	defer l.checkpointing.Unlock()
	// The snapshot is taken in memory, so the intake waits for no disk. All rows that it counts have
	// been written by then. So the sync that follows covers them, and what is written meanwhile does
	// no harm.
	state, sequence, length := l.snapshot(l.checkpointed)
	if state != nil {
		if err := l.secure(state); err != nil {
			return err
		}
		l.checkpointed = sequence
		// Otherwise a system with much memory keeps all that was ever written: on a virtual machine,
		// whose memory is slow to touch for the first time, 20 million bets took 1.4 times as long.
		if end := length - betsCached; end > 0 {
			l.bets.forget(end)
		}
	}
	l.wal.release(sequence)
	return nil
}

// secure makes the bets file and then the snapshot durable. A failed sync ends the store before
// anyone can try it again: l.checkpointing is held.
func (l *ledger) secure(snapshot []byte) error {
	if l.unsynced != nil {
		return l.unsynced
	}
	err := l.bets.datasync()
	if err != nil {
		err = &fatalError{fmt.Errorf("store: sync of %s: %w", l.path, err)}
	} else {
		err = l.writeSnapshot(snapshot)
	}
	if isFatal(err) {
		l.unsynced = err
		l.failedBeside(actCheckpoint, err)
	}
	return err
}

// writeSnapshot replaces PATH.state, durably: a crash leaves the old one or the new one.
func (l *ledger) writeSnapshot(snapshot []byte) error {
	name, temp := l.path+".state", l.path+".state.new"
	f, err := l.disk.open(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(snapshot, 0); err != nil {
		return fmt.Errorf("store: writing a snapshot: %w", err)
	}
	// Synced before it gets its name: otherwise a power cut could leave the name on a file without
	// its bytes.
	if err := f.sync(); err != nil {
		return &fatalError{fmt.Errorf("store: sync of %s: %w", temp, err)}
	}
	if err := l.disk.rename(temp, name); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	// Only when the name is durable too may segments of the log be given back.
	if err := l.disk.syncDir(name); err != nil {
		return &fatalError{fmt.Errorf("store: sync of the folder of %s: %w", name, err)}
	}
	return nil
}

// syncLoop syncs the log every interval (store.sync is a duration).
func (l *ledger) syncLoop() {
	defer l.helpers.Done()
	tick := time.NewTicker(l.interval)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		l.writing.Lock()
		if err := l.wal.sync(); err != nil {
			l.failedBeside(actSync, err)
		}
		l.writing.Unlock()
	}
}

// close ends the helpers, writes a checkpoint unless the store has died, and closes the files.
func (l *ledger) close(dead bool) (err error) {
	close(l.stop)
	l.helpers.Wait()
	if !dead {
		err = l.checkpoint()
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
