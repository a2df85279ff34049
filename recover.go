package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"time"
)

// storeOptions are what the settings say of the store.
type storeOptions struct {
	path     string
	sync     time.Duration // syncAlways, syncNever, or an interval
	agencies int           // draw.agencies
	winner   int           // draw.winner
	segment  int64         // bytes of a segment of the redo log; 0: walSegment. Small ones make tests small
}

// openStore recovers the store and starts to take bets. Each error is one line that names the file,
// what is wrong, and what can be done. Once ctx is done it fails with ctx's error, and the files are
// as after a crash.
func openStore(ctx context.Context, d disk, options storeOptions, log *slog.Logger) (*store, error) {
	r := &recovery{ctx: ctx, options: options, log: log}
	r.ledger = &ledger{disk: d, path: options.path, log: log}
	if err := r.run(); err != nil {
		r.ledger.closeFiles()
		return nil, err
	}
	return newStore(r.ledger, r.state, options.sync, log), nil
}

// errNoSnapshot says that there is a log without the snapshot that goes with it.
var errNoSnapshot = errors.New("store: there is no snapshot")

// A recovery is the start of a store: from whatever a crash has left to a state that a crash can
// leave again. docs/durability.md goes through it step by step.
type recovery struct {
	ctx     context.Context
	options storeOptions
	log     *slog.Logger
	ledger  *ledger // what is recovered, with the state
	state   state
	version int   // of the snapshot; 0: there is none, and so no log
	size    int64 // of the bets file, as it was found
	adopted bool  // there was a bets file and nothing of ours
	stale   bool  // the snapshot on disk is not the state
	report  walReport
}

// run goes through the steps of a start.
func (r *recovery) run() error {
	// What a process that was killed had renamed or created must not come undone when something has
	// been built on it.
	if err := r.ledger.disk.syncDir(); err != nil {
		return fmt.Errorf("store: sync of the folder of %s: %w", r.options.path, err)
	}
	for _, step := range []func() error{
		r.readSnapshot,
		r.openBets,
		r.replayLog, // on top of the snapshot: the state as of the last durable record
		r.cutBets,   // what the bets file has behind that was never answered, or proves damage
		r.setDraw,
		r.writeState,
		r.begin,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// readSnapshot reads PATH.state.
func (r *recovery) readSnapshot() error {
	name := r.options.path + ".state"
	data, err := readWhole(r.ledger.disk, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	s, version, err := parseState(data)
	if err != nil {
		return fmt.Errorf("store: %s: %w", name, err)
	}
	r.state, r.version = *s, version
	return nil
}

// readWhole reads a file of a disk.
func readWhole(d disk, name string) ([]byte, error) {
	f, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return nil, err
	}
	return data, nil
}

// openBets opens the bets file, and makes it where the store is new.
func (r *recovery) openBets() error {
	path := r.options.path
	f, err := r.ledger.disk.open(path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		if r.state.length > 0 {
			return fmt.Errorf("store: %s is gone, and %s.state knows of %d bets in it: put it back; "+
				"or, to begin anew, move %s.state and %s.wal.* away too", path, path, r.state.bets, path, path)
		}
		if f, err = r.ledger.disk.open(path, os.O_RDWR|os.O_CREATE); err == nil {
			err = r.ledger.disk.syncDir()
		}
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	r.ledger.bets = f
	if err = f.lock(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if r.size, err = f.size(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	switch {
	case r.version == 0 && r.size > 0:
		return r.adopt()
	case r.size < r.state.length:
		return fmt.Errorf("store: %s has %d bytes, and %s.state says that %d were in it: bets that were acknowledged "+
			"are gone: restore it from a copy; or, to go on with what it has, move %s.state and %s.wal.* away",
			path, r.size, path, r.state.length, path, path)
	case r.version == 1: // it says nothing of the bytes
		return r.survey()
	}
	return nil
}

// adopt takes over a bets file that another program made: as it stands, with its last line ended if
// it was not.
func (r *recovery) adopt() error {
	r.adopted = true
	last := make([]byte, 1)
	if _, err := r.ledger.bets.ReadAt(last, r.size-1); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if last[0] != '\n' {
		end := "\r\n"
		if last[0] == '\r' { // half of what an earlier start wrote here
			end = "\n"
		}
		if _, err := r.ledger.bets.WriteAt([]byte(end), r.size); err != nil {
			return fmt.Errorf("store: %w", err)
		}
		r.size += int64(len(end))
	}
	r.state.length = r.size
	return r.survey()
}

// survey reads the bets file for what the state should say of it.
func (r *recovery) survey() error {
	r.log.Info(actAdopt, inProgress, "file", r.options.path, "bytes", r.state.length, "reason", "its bytes are not known yet")
	found, err := surveyBets(r.ctx, r.ledger.bets, r.state.length, noNumber)
	if err != nil {
		return fmt.Errorf("store: reading %s: %w", r.options.path, err)
	}
	r.state.bets, r.state.crc, r.stale = found.rows, found.crc, true
	return nil
}

// replayLog opens the redo log and writes the rows of its records to where they belong, whether they
// are there already or not.
func (r *recovery) replayLog() (err error) {
	path := r.options.path
	r.ledger.wal, r.report, err = openWAL(r.ledger.disk, path, r.options.sync != syncAlways,
		cmp.Or(r.options.segment, walSegment), r.state.sequence, r.replay)
	var damage *corruptError
	if r.version == 0 && r.report.found && (err == nil || errors.As(err, &damage)) {
		err = errNoSnapshot // a snapshot is durable before the first segment is begun
	}
	if errors.Is(err, errNoSnapshot) {
		return fmt.Errorf("store: %s.state is gone, and the log that goes with it (%s.wal.*) is not: put it back; "+
			"or, to take %s as it stands, move %s.wal.* away", path, path, path, path)
	}
	if err == nil && r.ledger.wal.next > r.state.sequence+1 { // numbers of dropped records
		r.state.sequence = r.ledger.wal.next - 1
		r.stale = true
	}
	return err
}

// replay brings the bets file and the state to where a record leaves them.
func (r *recovery) replay(payload []byte) error {
	rec, err := parseRedo(payload)
	if err != nil {
		return err
	}
	if r.version == 0 {
		return errNoSnapshot
	}
	if rec.length != r.state.length {
		return fmt.Errorf("its rows start at byte %d of %s, and those before end at %d",
			rec.length, r.options.path, r.state.length)
	}
	crc := crc32.Update(r.state.crc, castagnoli, rec.rows)
	if rec.first {
		rec.crc = crc
	}
	if rec.crc != crc {
		return fmt.Errorf("with its rows the CRC-32C of %s is %08x, and should be %08x: "+
			"the log and %s.state are not of the same store: %s", r.options.path, crc, rec.crc, r.options.path, restoreAdvice)
	}
	// Written again even if they are there: what the page cache shows need not be what the disk has.
	if _, err := r.ledger.bets.WriteAt(rec.rows, rec.length); err != nil {
		return err
	}
	r.state.apply(r.state.sequence+1, rec)
	r.stale = true
	return nil
}

// cutBets cuts what the bets file has behind the last record. Rows are written only after the sync of
// their record: unless the log is relaxed they prove that an acknowledged record was there, and has
// been damaged.
func (r *recovery) cutBets() error {
	path := r.options.path
	if r.size > r.state.length {
		if !r.report.relaxed {
			what := fmt.Sprintf("%s goes on for %d bytes behind the last intact record, and only acknowledged bets "+
				"are written there: restore the files from a copy; or, to take %s as it stands, move %s.state and %s.wal.* away",
				path, r.size-r.state.length, path, path, path)
			if r.report.file == "" {
				r.report.file = r.ledger.wal.slotName(0)
			}
			return &corruptError{r.report.file, r.report.offset, what}
		}
		if err := r.ledger.bets.truncate(r.state.length); err != nil {
			return fmt.Errorf("store: cutting %s: %w", path, err)
		}
		r.stale = true
	}
	// Also where nothing was repaired: an earlier start may have been killed before its sync.
	if err := r.ledger.bets.sync(); err != nil {
		return fmt.Errorf("store: sync of %s: %w", path, err)
	}
	return nil
}

// setDraw brings the draw in line with the settings. One that has taken place stays as it was.
func (r *recovery) setDraw() error {
	d := &r.state.draw
	d.agencies = r.options.agencies
	if !d.done || d.number == noNumber { // a snapshot of version 1 may not know what was drawn
		d.number = r.options.winner
	}
	if d.agencies > 0 && d.number != r.options.winner {
		r.log.Warn(actSorteoAnterior, success, "numero", d.number,
			"motivo", "the draw of this store has taken place with this number: draw.winner counts no more")
	}
	return nil
}

// writeState makes what was recovered durable, and says what it was. Without room for a snapshot an
// old store goes on: its log still has all.
func (r *recovery) writeState() error {
	if r.version > 0 && !r.stale {
		return nil
	}
	switch err := r.ledger.writeSnapshot(appendState(nil, &r.state)); {
	case err == nil:
		r.ledger.wal.release(r.state.sequence)
	case r.version == 0 || isFatal(err) || r.report.cut > 0:
		return err
	default:
		r.log.Warn(actCheckpoint, fail, "file", r.options.path, "reason", err,
			"todo", "make room: nothing is lost, but bets are refused with ACK 5 once the log is full")
	}
	r.logRepairs()
	return nil
}

// logRepairs says what a crash had left.
func (r *recovery) logRepairs() {
	const unsynced = "was not synced before the crash (store.sync is not always)"
	path := r.options.path
	if r.report.replayed > 0 {
		r.log.Info(actRecover, success, "file", path, "records", r.report.replayed, "bytes", r.report.bytes,
			"reason", "they are in the log, and the last start of the server ended before a checkpoint")
	}
	if cut := r.size - r.state.length; cut > 0 {
		r.log.Warn(actRecover, success, "file", path, "cut_bytes", cut, "reason", "their record "+unsynced)
	}
	if r.report.cut > 0 {
		r.log.Warn(actRecover, success, "file", r.report.file, "from_byte", r.report.offset,
			"cut_records", r.report.cut, "reason", "a record before them "+unsynced)
	}
	if r.adopted {
		r.log.Info(actAdopt, success, "file", path, "bets", r.state.bets,
			"reason", "there were no files of the store beside it")
	}
}

// begin begins a segment of the log, and says what the store has and what an answer is worth.
func (r *recovery) begin() error {
	r.log.Info(actStore, success, "file", r.options.path, "bets", r.state.bets, "bytes", r.state.length,
		"sources", r.state.sources.count())
	for agency := range r.state.sources {
		warnOfShare(r.log, uint8(agency), r.state.sources.kept(uint8(agency)))
	}
	r.ledger.length = r.state.length
	err := r.ledger.wal.makeRoom(walPage)
	if isFatal(err) {
		return err
	}
	survives := "an answered bet survives a crash of the process and a power cut"
	switch {
	case r.options.sync == syncNever:
		survives = "an answered bet survives a crash of the process; a power cut may take all since the last checkpoint"
	case r.options.sync > 0:
		survives = fmt.Sprintf("an answered bet survives a crash of the process; a power cut may take the last %s",
			r.options.sync)
	}
	r.log.Info(actDurability, success, "promise", survives)
	return nil
}

// forgetSource is mode forget: it opens a store that no server has, makes it forget a source, and
// closes it.
func forgetSource(ctx context.Context, d disk, options storeOptions, key sourceKey, log *slog.Logger) error {
	s, err := openStore(ctx, d, options, log)
	if err != nil {
		return err
	}
	if at := s.state.sources.at(key); at == (mark{}) {
		err = fmt.Errorf("forget: the store knows no source %q of agency %d: set id and data.source", key.name, key.agency)
	} else if err = s.forgetSource(key); err == nil {
		log.Info(actStore, success, "agency", key.agency, "source", key.name, "bets", at.stored,
			"reason", "forgotten: whoever sends it again stores its bets once more")
	}
	return errors.Join(err, s.close())
}

// catStore prints the stored bets.
func catStore(path string, out io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cat: there is no store: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// The size at the start is the end of a group or lies in one that is being written; stopping at a
	// line break keeps rows whole.
	_, err = io.Copy(out, io.LimitReader(f, wholeLines(f, info.Size())))
	return err
}

// wholeLines returns how many of the first size bytes of f are whole lines; all of them if the last
// line is longer than any of ours.
func wholeLines(f io.ReaderAt, size int64) int64 {
	tail := make([]byte, min(size, 2*maxMessage))
	n, _ := f.ReadAt(tail, size-int64(len(tail)))
	if i := bytes.LastIndexByte(tail[:n], '\n'); i >= 0 {
		return size - int64(len(tail)) + int64(i) + 1
	}
	return size
}
