package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Mode verify: whether all that a store holds agrees. It writes, locks and makes nothing, and a
// server may be at work meanwhile. It reads in an order in which each thing must hold at least what
// was read before: the length of the bets file, the snapshot, the log, then the bets file up to
// where the log ends.

const (
	verifyPause = 10 * time.Millisecond // between two looks at a store that may be changing
	verifyLooks = 1000                  // so many of them for rows whose record is in the log already
	verifyIdle  = 30                    // so many for a sign that a server is at work
	verifyRaces = 100                   // snapshots that were replaced while the log was read
	verifyTries = 4                     // whole readings that found a store that disagrees, and changes
)

// errReplaced says that a checkpoint took place while the log was read: what was read of it may be
// of several uses of a segment.
var errReplaced = errors.New("the server makes checkpoints faster than this reads its log: try again when it has less to do")

// A verifier is one reading of a store.
type verifier struct {
	disk  disk
	path  string // of the bets file
	rule  rule   // what the server would accept
	pause time.Duration

	bets     file
	began    int64  // length of the bets file when the reading began
	snapshot []byte // PATH.state
	old      state  // what it says
	state    state  // with the log's records
	records  int    // of these
	buf      []byte

	sums betsSums // of the bets file
	rows rowCheck
}

// runVerify is mode verify.
func runVerify(cfg *config, out io.Writer) error {
	path := cfg.storePath
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	v, err := verifyStore(new(osDisk), path, rule{maxNumber: uint16(cfg.maxNumber)}, verifyPause)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return v.print(out)
}

// verifyStore reads a store until it agrees, or does not and nobody changes it. Its error is the first
// disagreement, in one line.
func verifyStore(d disk, path string, r rule, pause time.Duration) (*verifier, error) {
	for races, tries := 0, 0; ; {
		v := &verifier{disk: d, path: path, rule: r, pause: pause}
		err := v.run()
		switch {
		case err == nil:
			return v, nil
		case err == errReplaced:
			races++
		default:
			tries++
		}
		if races == verifyRaces || tries == verifyTries || err != errReplaced && !v.changed() {
			return nil, err
		}
	}
}

// run reads the store once.
func (v *verifier) run() (err error) {
	if v.snapshot, err = v.readSnapshot(); err != nil {
		return err
	}
	if v.bets, err = v.disk.open(v.path, os.O_RDONLY); err != nil {
		return err
	}
	defer v.bets.Close()
	if v.began, err = v.bets.size(); err != nil {
		return err
	}
	err = v.readLog()
	if now, again := v.readSnapshot(); again != nil || !bytes.Equal(now, v.snapshot) {
		return cmp.Or(again, errReplaced)
	}
	if err != nil {
		return err
	}
	if v.state.length < v.began {
		return fmt.Errorf("%s goes on for %d bytes behind byte %d, where snapshot and log end: the log has lost records, "+
			"or a hand has added rows; a start says which: %s", v.path, v.began-v.state.length, v.state.length, restoreAdvice)
	}
	if err := v.awaitRows(); err != nil {
		return err
	}
	return v.readBets()
}

// readSnapshot reads PATH.state.
func (v *verifier) readSnapshot() ([]byte, error) {
	f, err := v.disk.open(v.path+".state", os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no store: %w: set store.path; a bets file alone becomes one when a server is started on it", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64))
}

// readLog finds out what the store should hold. A second reading tells damage from what a server
// wrote during the first: it must come at least as far as the first one saw records.
func (v *verifier) readLog() error {
	for seen := uint64(0); ; {
		var version uint32
		var err error
		if v.old, version, err = parseState(v.snapshot); err != nil {
			return fmt.Errorf("%s.state: %w", v.path, err)
		}
		if version == 1 {
			return fmt.Errorf("%s.state is of version 1, which says nothing of the bets file's bytes: start the server "+
				"once, which makes it one of version %d", v.path, stateVersion)
		}
		v.state, _, _ = parseState(v.snapshot) // with maps of its own
		v.records = 0
		_, last, top, err := readWAL(v.disk, v.path, v.state.sequence, v.replay)
		switch {
		case last == top:
			return err
		case seen > 0 && last >= seen:
			return nil
		case seen > 0:
			return cmp.Or(err, fmt.Errorf("%s.wal.*: record %d is not intact, and record %d is: a power cut leaves that "+
				"where store.sync is not always, and a start cuts it off: start the server once", v.path, last+1, top))
		}
		seen = top
	}
}

// replay brings the state to where a record leaves it, and compares the rows in it with the bets file
// as far as that has them: its server may be about to write them.
func (v *verifier) replay(version uint32, payload []byte) error {
	rec, err := parseRedo(version, payload)
	if err != nil {
		return err
	}
	if version == 1 || !v.state.precedes(rec) {
		return fmt.Errorf("it is about %d bytes of %s with the CRC-32C %08x behind its rows, and does not follow on the %d "+
			"before: log and %s.state are not of one store: %s", rec.length, v.path, rec.crc, v.state.length, v.path, restoreAdvice)
	}
	v.buf = slices.Grow(v.buf[:0], len(rec.rows))[:len(rec.rows)]
	n, err := v.bets.ReadAt(v.buf, rec.length)
	if err != nil && err != io.EOF {
		return err
	}
	for i, c := range v.buf[:n] {
		if c != rec.rows[i] {
			return fmt.Errorf("its rows are not those of %s, which differs at byte %d: a power cut leaves that, and a start "+
				"puts it right from the log; if there was none, a disk or a hand has changed a bet", v.path, rec.length+int64(i))
		}
	}
	v.state.apply(v.state.sequence+1, rec)
	v.records++
	return nil
}

// awaitRows waits until the bets file is as long as the log says. A server writes rows right after
// their record.
func (v *verifier) awaitRows() error {
	for looks := 0; ; looks++ {
		size, err := v.bets.size()
		switch {
		case err != nil || size >= v.state.length:
			return err
		case size < v.old.length:
			return fmt.Errorf("%s has %d bytes, and %s.state says that %d were in it: bets that were acknowledged are "+
				"gone: restore it from a copy", v.path, size, v.path, v.old.length)
		case looks == verifyLooks:
			return fmt.Errorf("%s ends at byte %d, and the log has its rows up to byte %d: a crash leaves that, and a start "+
				"writes them; if there was none, a hand has removed rows", v.path, size, v.state.length)
		}
		time.Sleep(v.pause)
	}
}

// readBets reads the bets file up to where the log ends, row by row.
func (v *verifier) readBets() error {
	v.sums = betsSums{seal: sha256.New(), first: v.old.length}
	v.rows = rowCheck{rule: v.rule, drawn: v.state.draw.drawn}
	src := io.TeeReader(io.NewSectionReader(v.bets, 0, v.state.length), &v.sums)
	err := eachRow(src, func(rec *record) bool {
		v.rows.add(rec)
		return true
	})
	if err != nil {
		return fmt.Errorf("reading %s: %w", v.path, err)
	}
	odd := v.rows.odd
	if odd == "" && v.rows.end != v.state.length {
		odd = fmt.Sprintf("the last line does not end in CR LF (byte %d)", v.state.length)
	}
	for _, part := range []struct {
		length    int64
		got, want uint32
		by        string
	}{
		{v.old.length, v.sums.firstCRC, v.old.crc, v.path + ".state"},
		{v.state.length, v.sums.crc, v.state.crc, "the log"},
	} {
		if part.got != part.want {
			if odd != "" {
				odd = "; what no server writes: " + odd
			}
			return fmt.Errorf("%s: the CRC-32C of its first %d bytes is %08x, and %s says %08x: a disk or a hand has changed "+
				"a byte of them%s; compare it with a copy", v.path, part.length, part.got, part.by, part.want,
				odd)
		}
	}
	switch {
	case odd != "":
		return fmt.Errorf("%s: %s: its bytes are those that were stored, so another program wrote them before a server "+
			"adopted the file, or bets.maxNumber was another", v.path, odd)
	case v.rows.rows != v.state.bets:
		return fmt.Errorf("%s has %d rows, and snapshot and log say that there are %d: they are not of one store",
			v.path, v.rows.rows, v.state.bets)
	}
	return nil
}

// A betsSums is the sums of a bets file, which is written to it in order.
type betsSums struct {
	seal     hash.Hash // SHA-256
	crc      uint32
	length   int64
	first    int64 // bytes of which firstCRC is the CRC-32C
	firstCRC uint32
}

// Write takes the next bytes.
func (s *betsSums) Write(p []byte) (int, error) {
	s.seal.Write(p)
	if left := s.first - s.length; left >= 0 && left <= int64(len(p)) {
		s.firstCRC = crc32.Update(s.crc, castagnoli, p[:left])
	}
	s.crc = crc32.Update(s.crc, castagnoli, p)
	s.length += int64(len(p))
	return len(p), nil
}

// A rowCheck looks at the rows of a bets file, and counts them.
type rowCheck struct {
	rule     rule // what the server would accept
	drawn    int  // the winning number; noNumber: there is none
	rows     uint64
	end      int64  // where the last row ends
	odd      string // what a server would not write; empty: there is nothing
	row      []byte
	agencies [256]struct{ bets, winners uint64 }
}

// add looks at the next row.
func (v *rowCheck) add(rec *record) {
	v.rows++
	if why := v.check(rec); why != "" && v.odd == "" {
		v.odd = fmt.Sprintf("line %d (byte %d) %s", rec.line, rec.offset, why)
	}
}

// check returns what is wrong with a row: it is no bet, one that is not accepted, or not written as a
// server writes it. A good one is counted.
func (v *rowCheck) check(rec *record) string {
	if rec.offset != v.end {
		v.end = rec.offset
		return "does not stand right behind the CR LF of the line before"
	}
	v.end += int64(len(rec.text) + len("\r\n"))
	f := rec.fields
	if len(f) != agencyFields+1 {
		return fmt.Sprintf("has %d fields that can be split, and a bet has %d", len(f), agencyFields+1)
	}
	agency, isAgency := parseNumber(f[0])
	number, isNumber := parseNumber(f[5])
	if !isAgency || !isNumber || agency > 255 || number > 65535 {
		return "has an agency that is not 0 to 255, or a number that is not 0 to 65535"
	}
	b := Bet{uint8(agency), f[1], f[2], f[3], f[4], uint16(number)}
	if why := v.rule.check(&b); why != accepted {
		return "is no bet that a server accepts: " + why.reason()
	}
	if v.row = appendRow(v.row[:0], &b); !bytes.Equal(v.row[:len(v.row)-len("\r\n")], rec.text) {
		return "is not as a server writes this bet: quotes where none are needed, or zeros in front"
	}
	count := &v.agencies[b.Agency]
	count.bets++
	if int(b.Number) == v.drawn {
		count.winners++
	}
	return ""
}

// print says what the store holds.
func (v *verifier) print(out io.Writer) error {
	w := bufio.NewWriter(out)
	for agency, count := range v.rows.agencies {
		if count.bets > 0 {
			fmt.Fprintf(w, "agency: %d | bets: %d | winners: %d\n", agency, count.bets, count.winners)
		}
	}
	for agency, names := range v.state.sources {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			at := names[name]
			fmt.Fprintf(w, "source: %q | agency: %d | records: %d | stored: %d | crc: %08x\n", name, agency, at.Records,
				at.stored, at.CRC)
		}
	}
	drawn := "no"
	if v.state.draw.drawn != noNumber {
		drawn = strconv.Itoa(v.state.draw.drawn)
	}
	fmt.Fprintf(w, "bets: %d | bytes: %d | crc: %08x | in_log: %d | drawn: %s | sha256: %x\n", v.rows.rows, v.state.length, v.sums.crc,
		v.records, drawn, v.sums.seal.Sum(nil))
	return w.Flush()
}

// changed waits for a sign that a server is at work on the store.
func (v *verifier) changed() bool {
	for range verifyIdle {
		time.Sleep(v.pause)
		bets, err := v.disk.open(v.path, os.O_RDONLY)
		if err != nil {
			return false
		}
		size, err := bets.size()
		bets.Close()
		snapshot, again := v.readSnapshot()
		if err != nil || again != nil {
			return false
		}
		if size != v.began || !bytes.Equal(snapshot, v.snapshot) {
			return true
		}
	}
	return false
}
