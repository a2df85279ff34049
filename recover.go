package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
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
	shared   sharedLog     // that servers share; nil: the log is this server's alone
	name     string        // of this server, among those
	pace     *pace         // of these; nil: commonPace
	alone    bool          // a store that is in a shared log is recovered without it: for mode replicate
}

// isShared reports whether servers share the log.
func (o *storeOptions) isShared() bool { return canShare && o.shared != nil }

// openStore recovers the store and starts to take bets. Each error is one line that names the
// file, what is wrong, and what can be done. Once ctx is done it fails with ctx's error, and
// the files are as after a crash.
func openStore(ctx context.Context, d disk, options storeOptions, log *slog.Logger) (*store, error) {
	r, err := recoverStore(ctx, d, options, log)
	if err != nil {
		return nil, err
	}
	return newStore(r.ledger, r.state, r.tenure, options.sync, log), nil
}

// forgetSource is mode forget: a store that no server has forgets a source. One that is in a shared
// log cannot: the others, and each server that begins anew, would know the source still.
func forgetSource(ctx context.Context, d disk, options storeOptions, key sourceKey, log *slog.Logger) error {
	r, err := recoverStore(ctx, d, options, log)
	if errors.Is(err, errInStream) {
		return errNoForgetting(options.path)
	}
	if err != nil {
		return err
	}
	defer r.ledger.closeFiles()
	at, known := r.state.sources[key.agency][key.name]
	if !known {
		return fmt.Errorf("forget: %s has no source %q of agency %d: set id and data.source",
			options.path, key.name, key.agency)
	}
	// The snapshot covers the log: no record brings the source back.
	delete(r.state.sources[key.agency], key.name)
	if err := r.ledger.writeSnapshot(appendState(nil, &r.state)); err != nil {
		return err
	}
	log.Info(actForget, success, "agency", key.agency, "source", key.name, "bets", at.stored,
		"reason", "sent again, its bets would be stored once more")
	return nil
}

// A recovery is the start of a store: from whatever a crash has left to a state that a crash can
// leave again. docs/durability.md goes through it step by step.
type recovery struct {
	ctx     context.Context
	options storeOptions
	log     *slog.Logger
	ledger  *ledger // what is recovered, with the state
	state   state
	version uint32 // of the snapshot; 0: there is none, and so no log
	size    int64  // of the bets file, as it was found
	report  walReport
	held    []byte  // payload of the log's last record, if the log is shared and it is not known to be there
	tenure  *tenure // nil: the log is this server's alone
}

// recoverStore recovers a store.
func recoverStore(ctx context.Context, d disk, options storeOptions, log *slog.Logger) (*recovery, error) {
	options.pace = cmp.Or(options.pace, &commonPace)
	r := &recovery{ctx: ctx, options: options, log: log}
	r.ledger = &ledger{disk: d, path: options.path, log: log}
	r.state.draw.drawn = noNumber
	if options.isShared() {
		r.ledger.shared = &sharing{log: options.shared, patience: options.pace.patience}
	}
	for _, step := range []func() error{
		// What a process that was killed had renamed or created must not come undone when something
		// has been built on it.
		r.ledger.disk.syncDir,
		r.readSnapshot,
		r.openBets,
		r.replayLog, // on top of the snapshot: the state as of the last durable record
		r.cutBets,   // what the bets file has behind that was never answered, or proves damage
		r.joinShared,
		r.syncBets,
		r.writeState,
		r.begin,
	} {
		if err := step(); err != nil {
			r.ledger.closeFiles()
			return nil, err
		}
	}
	return r, nil
}

// readSnapshot reads PATH.state.
func (r *recovery) readSnapshot() error {
	name := r.options.path + ".state"
	data, err := readFile(r.ledger.disk, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		r.state, r.version, err = parseState(data)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	// Before anything is replayed: the log's last record may be void.
	if r.state.identity != (storeID{}) && !r.options.isShared() && !r.options.alone {
		return errShared(r.options.path)
	}
	return nil
}

// readFile reads a whole file.
func readFile(d disk, name string) ([]byte, error) {
	f, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64))
}

// openBets opens the bets file, and makes it where the store is new.
func (r *recovery) openBets() error {
	path, flag := r.options.path, os.O_RDWR
	if r.state.length == 0 {
		flag |= os.O_CREATE
	}
	f, err := r.ledger.disk.open(path, flag)
	if errors.Is(err, os.ErrNotExist) && r.state.length > 0 {
		return fmt.Errorf("%s is gone, and %s.state knows of %d bets in it: put it back; "+
			"or, to begin anew, move %s.state and %s.wal.* away too", path, path, r.state.bets, path, path)
	}
	if err == nil {
		r.ledger.bets = f
		err = f.lock()
	}
	if err == nil {
		r.size, err = f.size()
	}
	switch {
	case err != nil:
		return err
	case r.version == 0 && r.size > 0 && r.options.isShared():
		return errNotShared(path)
	case r.version == 0 && r.size > 0:
		return r.adopt()
	case r.size < r.state.length:
		return fmt.Errorf("%s has %d bytes, and %s.state says that %d were in it: bets that were acknowledged "+
			"are gone: restore it from a copy; or, to go on with what it has, move %s.state and %s.wal.* away",
			path, r.size, path, r.state.length, path, path)
	case r.version == 1: // its snapshot says nothing of the bytes
		return r.survey()
	}
	return nil
}

// adopt takes over a bets file that another program made: as it stands, with its last line ended if
// it was not.
func (r *recovery) adopt() error {
	last := make([]byte, 1)
	if _, err := r.ledger.bets.ReadAt(last, r.size-1); err != nil {
		return err
	}
	if last[0] != '\n' {
		end := "\r\n"
		if last[0] == '\r' { // half of what an earlier start wrote here
			end = "\n"
		}
		if _, err := r.ledger.bets.WriteAt([]byte(end), r.size); err != nil {
			return err
		}
		r.size += int64(len(end))
	}
	r.state.length = r.size
	return r.survey()
}

// survey reads the bets file for what the state should say of it.
func (r *recovery) survey() error {
	r.log.Info(actAdopt, inProgress, "file", r.options.path, "bytes", r.state.length, "reason", "its CRC is unknown")
	found, err := surveyBets(r.ctx, r.ledger.bets, r.state.length, noNumber)
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.options.path, err)
	}
	r.state.bets, r.state.crc = found.rows, found.crc
	return nil
}

// replayLog opens the redo log and writes the rows of its records to where they belong, whether
// they are there already or not.
func (r *recovery) replayLog() (err error) {
	path := r.options.path
	r.ledger.wal, r.report, err = openWAL(r.ledger.disk, path, r.options.sync != syncAlways,
		cmp.Or(r.options.segment, walSegment), r.state.sequence, r.replay)
	if r.version == 0 && r.report.found { // a snapshot is durable before the first segment is begun
		return fmt.Errorf("%s.state is gone, and the log that goes with it (%s.wal.*) is not: put it back; "+
			"or, to take %s as it stands, move %s.wal.* away", path, path, path, path)
	}
	if err == nil && r.held == nil && r.ledger.wal.next > r.state.sequence+1 { // numbers of dropped records
		r.state.sequence = r.ledger.wal.next - 1
	}
	if err == nil && r.held != nil && r.size > r.state.length {
		// It has rows in the bets file, so it was known to stand in the shared log.
		err = r.bring(walVersion, r.held)
		r.held = nil
	}
	// From here on the settings count. A draw that has taken place stays as it was.
	r.state.draw.agencies, r.state.draw.winner = r.options.agencies, r.options.winner
	return err
}

// replay takes in a record of the log. Where that is shared the last one is held back: a record
// counts once it stands in both logs.
func (r *recovery) replay(version uint32, payload []byte) error {
	if !r.options.isShared() || version < sharedVersion {
		return r.bring(version, payload)
	}
	if r.held != nil {
		if err := r.bring(version, r.held); err != nil {
			return err
		}
	}
	r.held = append(r.held[:0], payload...)
	return nil
}

// bring brings the bets file and the state to where a record leaves them.
func (r *recovery) bring(version uint32, payload []byte) error {
	rec, err := parseRedo(version, payload)
	if err != nil || r.version == 0 { // without a snapshot nothing is replayed: replayLog says so
		return cmp.Or(err, errPayload)
	}
	counts, err := r.state.admit(rec)
	if err != nil {
		return fmt.Errorf("%w: log and %s.state are not of one store: %s", err, r.options.path, restoreAdvice)
	}
	if !counts {
		r.state.apply(r.state.sequence+1, rec)
		return nil
	}
	if version == 1 {
		rec.crc = crc32.Update(r.state.crc, castagnoli, rec.rows)
		if rec.drawn == unknownNumber {
			rec.drawn = r.state.draw.winner // that in force at the last snapshot
		}
	}
	if !r.state.precedes(rec) {
		return fmt.Errorf("it does not follow on the first %d bytes of %s: log and %s.state are not of one store: %s",
			r.state.length, r.options.path, r.options.path, restoreAdvice)
	}
	// Written again even if they are there: what the page cache shows need not be what the disk
	// has.
	if _, err := r.ledger.bets.WriteAt(rec.rows, rec.length); err != nil {
		return err
	}
	r.state.apply(r.state.sequence+1, rec)
	return nil
}

// cutBets cuts what the bets file has behind the last record. Rows are written only after the
// sync of their record: unless the log is relaxed they prove that an acknowledged record was
// there, and has been damaged.
func (r *recovery) cutBets() error {
	path := r.options.path
	if r.size > r.state.length {
		if !r.report.relaxed {
			what := fmt.Sprintf("%s goes on for %d bytes behind the last intact record, and only acknowledged bets "+
				"are written there: restore the files from a copy; or, to take %s as it stands, move %s.state and "+
				"%s.wal.* away", path, r.size-r.state.length, path, path, path)
			return &corruptError{cmp.Or(r.report.file, r.ledger.wal.slotName(0)), r.report.offset, what}
		}
		if err := r.ledger.bets.truncate(r.state.length); err != nil {
			return fmt.Errorf("cutting %s: %w", path, err)
		}
	}
	return nil
}

// syncBets makes the bets file durable, also where nothing was repaired: an earlier start may have
// been killed before its sync.
func (r *recovery) syncBets() error {
	if err := r.ledger.bets.sync(); err != nil {
		return fmt.Errorf("sync of %s: %w", r.options.path, err)
	}
	return nil
}

// joinShared looks at the shared log, where there is one.
func (r *recovery) joinShared() error {
	if !r.options.isShared() {
		return nil
	}
	j := &joining{ctx: r.ctx, log: r.log, path: r.options.path, shared: r.options.shared, ledger: r.ledger,
		state: &r.state, bring: func(payload []byte) error { return r.bring(sharedVersion, payload) }}
	err := j.run(r.held, r.options.pace, r.options.name)
	r.tenure = j.tenure
	return err
}

// writeState makes what was recovered durable, and says what it was. Without room for a snapshot an
// old store goes on: its log still has all.
func (r *recovery) writeState() error {
	switch err := r.ledger.writeSnapshot(appendState(nil, &r.state)); {
	case err == nil:
		r.ledger.wal.release(r.state.sequence)
	case r.version == 0 || isFatal(err) || r.report.cut > 0:
		return err
	default:
		r.ledger.warn(err)
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
	if r.version == 0 && r.size > 0 {
		r.log.Info(actAdopt, success, "file", path, "bets", r.state.bets,
			"reason", "there were no files of the store beside it")
	}
}

// begin begins a segment of the log, and says what the store has and what an answer is worth.
func (r *recovery) begin() error {
	r.log.Info(actStore, success, "file", r.options.path, "bets", r.state.bets, "bytes", r.state.length,
		"sources", r.state.sources.count())
	r.ledger.length = r.state.length
	err := r.ledger.wal.makeRoom(walPage)
	if isFatal(err) {
		return err
	}
	r.log.Info(actDurability, success, "promise", promise(r.options.sync, r.options.isShared()))
	return nil
}

// promise says what an answer is worth under store.sync, where servers share the log or do not.
func promise(sync time.Duration, shared bool) string {
	switch {
	case shared:
		return "an answered bet survives the loss of any one machine, its disk included: it is on this disk and on a " +
			"quorum of the engines"
	case sync == syncNever:
		return "an answered bet survives a crash of the process; a power cut may take all since the last checkpoint"
	case sync > 0:
		return fmt.Sprintf("an answered bet survives a crash of the process; a power cut may take the last %s", sync)
	}
	return "an answered bet survives a crash of the process and a power cut"
}

// catStore prints the stored bets. A row that is being written has no end yet, and is left out.
func catStore(path string, out io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cat: there is no store: %w", err)
	}
	defer f.Close()
	rows, printed := bufio.NewReaderSize(f, 64<<10), bufio.NewWriter(out)
	for {
		row, err := rows.ReadSlice('\n')
		switch {
		case err == io.EOF:
			return printed.Flush()
		case err != nil && err != bufio.ErrBufferFull:
			return err
		}
		if _, err := printed.Write(row); err != nil {
			return err
		}
	}
}
