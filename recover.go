package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
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

// errNoSnapshot says that there is a log without the snapshot that goes with it.
var errNoSnapshot = errors.New("store: there is no snapshot")

// A recovery is the start of a store: from whatever a crash has left to a state that a crash can leave again. docs/durability.md goes through it step by step.
type recovery struct {
	*store
	options storeOptions
	size    int64 // of the bets file as it was found
	adopted bool  // there was a bets file and nothing of ours
	report  walReport
	stale   bool // the snapshot on disk is not the state
}

// openStore recovers the store and starts to take bets. Each error is one line that names the file, what is wrong, and what can be done.
func openStore(d disk, options storeOptions, log *slog.Logger) (*store, error) {
	s := &store{log: log, dead: make(chan struct{}), stopped: make(chan struct{}), drawn: make(chan struct{}),
		wake: make(chan struct{}), live: map[sourceKey]*source{}}
	s.ledger = &ledger{disk: d, path: options.path, log: log, interval: options.sync, snapshot: s.snapshot, died: s.failed}
	s.changed.L = &s.mu
	r := &recovery{store: s, options: options}
	if err := r.run(); err != nil {
		s.ledger.closeFiles()
		return nil, err
	}
	s.open = newGroup(nil)
	s.pending, s.drawing = s.state.lottery.finished, s.state.lottery.drawn
	if s.drawing {
		close(s.drawn)
	}
	s.start()
	return s, nil
}

// start starts the committer and its helpers.
func (s *store) start() {
	s.ledger.start()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.lottery.due(&s.pending) { // draw.agencies is lower than it was
		s.drawIfDue(s.join())
	}
	go s.commitLoop()
}

// run goes through the steps of a start.
func (r *recovery) run() error {
	// What a process that was killed had renamed or created must not come undone when something has been built on it.
	if err := r.ledger.disk.syncDir(r.ledger.path); err != nil {
		return fmt.Errorf("store: sync of the folder of %s: %w", r.ledger.path, err)
	}
	known, err := r.readSnapshot()
	if err != nil {
		return err
	}
	if err = r.openBets(known); err != nil {
		return err
	}
	// The log on top of the snapshot gives the state as of the last durable record.
	if err = r.replayLog(known); err != nil {
		return err
	}
	// What the bets file has behind that was never answered, or proves damage.
	if err = r.settleBets(); err != nil {
		return err
	}
	if err = r.settleDraw(); err != nil {
		return err
	}
	// Segments are given back only when a snapshot that covers them is durable: the old one here, the new one in settleSnapshot.
	r.ledger.wal.release(r.ledger.checkpointed)
	if err = r.settleSnapshot(known); err != nil {
		return err
	}
	if err = r.ledger.wal.voidEmpty(); err != nil {
		return err
	}
	return r.begin()
}

// readSnapshot reads PATH.state; known is false if there is none.
func (r *recovery) readSnapshot() (known bool, err error) {
	name := r.ledger.path + ".state"
	data, err := readWhole(r.ledger.disk, name)
	if errors.Is(err, os.ErrNotExist) {
		r.state = state{sources: map[sourceKey]Resume{}}
		r.state.lottery.number = noNumber
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("store: %w", err)
	}
	s, err := parseState(data)
	if err != nil {
		return false, fmt.Errorf("store: %s: %w", name, err)
	}
	r.state, r.ledger.checkpointed = *s, s.sequence
	return true, nil
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
func (r *recovery) openBets(known bool) error {
	f, err := r.ledger.disk.open(r.ledger.path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		if known && r.state.length > 0 {
			return fmt.Errorf("store: %s is gone, and %s.state knows of %d bets in it: put it back; or, to begin anew, move %s.state and %s.wal.* away too", r.ledger.path, r.ledger.path, r.state.bets, r.ledger.path, r.ledger.path)
		}
		if f, err = r.ledger.disk.open(r.ledger.path, os.O_RDWR|os.O_CREATE); err == nil {
			err = r.ledger.disk.syncDir(r.ledger.path)
		}
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	r.ledger.bets = f
	if r.size, err = f.size(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if !known && r.size > 0 {
		return r.adopt()
	}
	if r.size < r.state.length {
		return fmt.Errorf("store: %s has %d bytes, and %s.state says that %d were in it: bets that were acknowledged are gone: restore it from a copy; "+
			"or, to go on with what it has, move %s.state and %s.wal.* away", r.ledger.path, r.size, r.ledger.path, r.state.length, r.ledger.path, r.ledger.path)
	}
	return nil
}

// adopt takes over a bets file that another program made: as it stands, with its last line ended if it was not.
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
	return r.eachRow(func([][]byte) { r.state.bets++ })
}

// replayLog opens the redo log and writes the rows of its records to where they belong, whether they are there already or not.
func (r *recovery) replayLog(known bool) (err error) {
	r.ledger.wal, r.report, err = openWAL(r.ledger.disk, r.ledger.path, r.options.sync != syncAlways, cmp.Or(r.options.segment, walSegment), r.state.sequence, func(payload []byte) error {
		rec, err := parseRedo(payload)
		if err != nil {
			return err
		}
		if !known {
			return errNoSnapshot
		}
		if rec.length != r.state.length {
			return fmt.Errorf("its rows start at byte %d of %s, and those before end at %d", rec.length, r.ledger.path, r.state.length)
		}
		// Written again even if they are there: what the page cache shows need not be what the disk has.
		if _, err := r.ledger.bets.WriteAt(rec.rows, rec.length); err != nil {
			return err
		}
		r.state.apply(r.state.sequence+1, &rec)
		r.stale = true
		return nil
	})
	var damage *corruptError
	if !known && r.report.found && (err == nil || errors.As(err, &damage)) { // a snapshot is durable before the first segment is begun
		err = errNoSnapshot
	}
	if errors.Is(err, errNoSnapshot) {
		return fmt.Errorf("store: %s.state is gone, and the log that goes with it (%s.wal.*) is not: put it back; or, to take %s as it stands, move %s.wal.* away", r.ledger.path, r.ledger.path, r.ledger.path, r.ledger.path)
	}
	if err == nil && r.ledger.wal.next > r.state.sequence+1 { // numbers of dropped records
		r.state.sequence = r.ledger.wal.next - 1
		r.stale = true
	}
	return err
}

// settleBets cuts what the bets file has behind the last record. Rows are written only after the sync of their record: unless the log is relaxed they prove that
// an acknowledged record was there, and has been damaged.
func (r *recovery) settleBets() error {
	if r.size > r.state.length {
		if !r.report.relaxed {
			what := fmt.Sprintf("%s goes on for %d bytes behind the last intact record, and only acknowledged bets are written there: restore the files from a copy; "+
				"or, to take %s as it stands, move %s.state and %s.wal.* away", r.ledger.path, r.size-r.state.length, r.ledger.path, r.ledger.path, r.ledger.path)
			if r.report.file == "" {
				r.report.file = r.ledger.wal.slotName(0)
			}
			return &corruptError{r.report.file, r.report.offset, what}
		}
		if err := r.ledger.bets.truncate(r.state.length); err != nil {
			return fmt.Errorf("store: cutting %s: %w", r.ledger.path, err)
		}
		r.stale = true
	}
	if err := r.ledger.bets.sync(); err != nil { // also where nothing was repaired: an earlier start may have been killed before its sync
		return fmt.Errorf("store: sync of %s: %w", r.ledger.path, err)
	}
	return nil
}

// settleDraw brings the lottery in line with the settings. A draw that has taken place stays as it was.
func (r *recovery) settleDraw() error {
	l := &r.state.lottery
	l.agencies = r.options.agencies
	if l.drawn {
		if r.options.agencies > 0 && r.options.winner != l.number {
			r.log.Warn("sorteo_anterior", success, "numero", l.number, "motivo", "the draw of this store has taken place with this number: draw.winner counts no more")
		}
		return nil
	}
	number := r.options.winner
	if r.options.agencies == 0 {
		number = noNumber
	}
	if number == l.number {
		return nil
	}
	l.number, l.winners = number, [256]*winnerList{}
	r.stale = true
	if number == noNumber {
		return nil
	}
	return r.eachRow(func(fields [][]byte) {
		if len(fields) != 6 {
			return
		}
		agency, err := strconv.ParseUint(string(fields[0]), 10, 8)
		if err == nil && string(fields[5]) == strconv.Itoa(number) && len(fields[3]) <= 10 {
			l.addWinner(uint8(agency), fields[3])
		}
	})
}

// eachRow reads the bets file as far as the state knows it.
func (r *recovery) eachRow(row func(fields [][]byte)) error {
	rows := newReader(io.NewSectionReader(r.ledger.bets, 0, r.state.length))
	for {
		rec, err := rows.next()
		var split *recordError
		switch {
		case err == nil:
			row(rec.fields)
		case errors.As(err, &split): // a file that was adopted may have any lines
			row(nil)
		case err == io.EOF:
			return nil
		default:
			return fmt.Errorf("store: reading %s: %w", r.ledger.path, err)
		}
	}
}

// settleSnapshot makes what was recovered durable, and says what it was. Without room for a snapshot an old store goes on: its log still has all.
func (r *recovery) settleSnapshot(known bool) error {
	if known && !r.stale {
		return nil
	}
	snapshot := appendState(nil, &r.state)
	switch err := r.ledger.writeSnapshot(snapshot); {
	case err == nil:
		r.ledger.checkpointed = r.state.sequence
		r.ledger.wal.release(r.ledger.checkpointed)
	case !known || isFatal(err) || r.report.cut > 0:
		return err
	default:
		r.log.Warn("checkpoint", fail, "archivo", r.ledger.path, "motivo", err, "que_hacer", "make room: nothing is lost, but bets are refused with ACK 5 once the log is full")
	}
	r.logRepairs()
	return nil
}

// logRepairs says what a crash had left.
func (r *recovery) logRepairs() {
	if r.report.replayed > 0 {
		r.log.Info("recuperar", success, "archivo", r.ledger.path, "registros_repetidos", r.report.replayed, "bytes", r.report.bytes)
	}
	if cut := r.size - r.state.length; cut > 0 {
		r.log.Warn("recuperar", success, "archivo", r.ledger.path, "bytes_cortados", cut, "motivo", "their record was not synced before the crash (store.sync is not always)")
	}
	if r.report.cut > 0 {
		r.log.Warn("recuperar", success, "archivo", r.report.file, "desde_byte", r.report.offset, "registros_cortados", r.report.cut, "motivo", "a record before them was not synced before the crash (store.sync is not always)")
	}
	if r.adopted {
		r.log.Info("adoptar", success, "archivo", r.ledger.path, "apuestas", r.state.bets, "motivo", "there were no files of the store beside it")
	}
}

// begin begins a segment of the log, and says what the store has and what an answer is worth.
func (r *recovery) begin() error {
	r.log.Info("store", success, "archivo", r.ledger.path, "apuestas", r.state.bets, "bytes", r.state.length, "fuentes", len(r.state.sources))
	r.ledger.length = r.state.length
	err := r.ledger.wal.makeRoom(walPage)
	if isFatal(err) {
		return err
	}
	cost := "unknown"
	if err == nil {
		var took time.Duration
		if took, err = r.ledger.wal.syncCost(); err == nil {
			cost = took.Round(time.Microsecond).String()
		}
	}
	if isFatal(err) {
		return err
	}
	survives := "an answered bet survives a crash of the process and a power cut"
	switch {
	case r.options.sync == syncNever:
		survives = "an answered bet survives a crash of the process; a power cut may take all since the last checkpoint"
	case r.options.sync > 0:
		survives = fmt.Sprintf("an answered bet survives a crash of the process; a power cut may take the last %s", r.options.sync)
	}
	r.log.Info("durabilidad", success, "promesa", survives, "costo_de_sync", cost)
	return nil
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
	// The size at the start is the end of a group or lies in one that is being written; stopping at a line break keeps rows whole.
	_, err = io.Copy(out, io.LimitReader(f, wholeLines(f, info.Size())))
	return err
}

// wholeLines returns how many of the first size bytes of f are whole lines; all of them if the last line is longer than any of ours.
func wholeLines(f io.ReaderAt, size int64) int64 {
	tail := make([]byte, min(size, 2*maxMessage))
	n, _ := f.ReadAt(tail, size-int64(len(tail)))
	if i := bytes.LastIndexByte(tail[:n], '\n'); i >= 0 {
		return size - int64(len(tail)) + int64(i) + 1
	}
	return size
}
