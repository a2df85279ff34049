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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Mode verify: whether all that a store holds agrees. It writes, locks and makes nothing, and a
// server may be at work meanwhile. It reads in an order in which each thing must hold at least what
// was read before: the length of the bets file, the snapshot, the log, then the bets file up to
// where the log ends.

const (
	verifyPause = 10 * time.Millisecond // between two looks at a store that may be changing
	verifyLooks = 1000                  // so many of them for rows whose record is in the log already
	verifyIdle  = 30                    // so many pauses, for a sign that a server is at work
	verifyTries = 60                    // readings in which the snapshot was replaced; any other counts as 20
)

// errReplaced says that a checkpoint took place while the log was read: what was read of it may be
// of several uses of a segment.
var errReplaced = errors.New("the server makes checkpoints faster than its log can be read: try again later")

// A verifier is one reading of a store.
type verifier struct {
	disk  disk
	path  string // of the bets file
	pause time.Duration

	bets     file
	began    int64  // length of the bets file when the reading began
	snapshot []byte // PATH.state
	old      state  // what it says
	state    state  // with the log's records
	records  int    // of these
	pending  *redo  // the last one, if it may not be in the log that servers share; in buf
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

// verifyStore reads a store until it agrees, or does not and nobody changes it. Its error is the
// first disagreement, in one line.
func verifyStore(d disk, path string, r rule, pause time.Duration) (*verifier, error) {
	for tries := 1; ; tries++ {
		v := &verifier{disk: d, path: path, pause: pause, rows: rowCheck{rule: r}, sums: betsSums{seal: sha256.New()}}
		err := v.run()
		if err != errReplaced {
			tries += 19
		}
		if err == nil || tries >= verifyTries || err != errReplaced && !v.changed() {
			return v, err
		}
	}
}

// run reads the store once.
func (v *verifier) run() error {
	if err := v.look(); err != nil {
		return err
	}
	defer v.bets.Close()
	err := v.readLog()
	if now, again := readFile(v.disk, v.path+".state"); again != nil || !bytes.Equal(now, v.snapshot) {
		return cmp.Or(again, errReplaced)
	}
	switch {
	case err != nil:
		return err
	}
	if err := v.settle(); err != nil {
		return err
	}
	if v.state.length < v.began {
		return fmt.Errorf("%s goes on for %d bytes behind byte %d, where snapshot and log end: the log has "+
			"lost records, or a hand has added rows: %s", v.path, v.began-v.state.length, v.state.length, restoreAdvice)
	}
	if err := v.awaitRows(); err != nil {
		return err
	}
	return v.readBets()
}

// look opens the bets file, and reads how long it is and the snapshot.
func (v *verifier) look() (err error) {
	if v.bets, err = v.disk.open(v.path, os.O_RDONLY); err != nil {
		return fmt.Errorf("there is no bets file to be read: %w: put it back, or set store.path", err)
	}
	if v.began, err = v.bets.size(); err == nil {
		v.snapshot, err = readFile(v.disk, v.path+".state")
	}
	if err != nil {
		v.bets.Close()
		return fmt.Errorf("there is no store: %w: set store.path, or start a server: it makes one of a bets file", err)
	}
	return nil
}

// changed reports whether a server is at work on the store, as it seems.
func (v *verifier) changed() bool {
	time.Sleep(verifyIdle * v.pause)
	now := &verifier{disk: v.disk, path: v.path}
	if now.look() != nil {
		return false
	}
	now.bets.Close()
	return now.began != v.began || !bytes.Equal(now.snapshot, v.snapshot)
}

// readLog finds out what the store should hold. A second reading tells damage from what a server
// wrote during the first: it must come at least as far as the first one saw records.
func (v *verifier) readLog() error {
	old, version, err := parseState(v.snapshot)
	if err == nil && version == 1 {
		err = errors.New("version 1 says nothing of the bets file's bytes: start the server once, it makes it 2")
	}
	if err != nil {
		return fmt.Errorf("%s.state: %w", v.path, err)
	}
	v.old = old
	for seen := uint64(0); ; {
		v.state, _, _ = parseState(v.snapshot) // with maps of its own
		v.pending = nil
		report, last, top, err := readWAL(v.disk, v.path, v.state.sequence, v.replay)
		v.records = report.replayed
		switch {
		case last == top:
			return err
		case seen > 0 && last >= seen:
			return nil
		case seen > 0:
			return cmp.Or(err, fmt.Errorf("%s.wal.*: record %d is not intact, and record %d is: a power cut "+
				"leaves that where store.sync is not always: a start cuts it off", v.path, last+1, top))
		}
		seen = top
	}
}

// replay looks at a record, and brings the state to where it leaves it: where servers share the
// log, once the next one has come (pending).
func (v *verifier) replay(version uint32, payload []byte) error {
	v.takeIn()
	rec, err := parseRedo(version, payload)
	if err != nil {
		return err
	}
	counts, err := v.state.admit(rec)
	if err == nil && counts {
		err = v.compare(version, rec)
	}
	switch {
	case errors.Is(err, errUnchained):
		return fmt.Errorf("%w (its stamp names the CRC-32C %08x, and that of the record before is %08x): keep this "+
			"store as it is, and have the server begin with an empty folder: docs/replication.md",
			err, rec.prev, v.state.chain)
	case errors.Is(err, errForeign):
		return fmt.Errorf("%w (%v, and this one is %v): %s", err, rec.identity, v.state.identity, restoreAdvice)
	case err != nil:
		return err
	case rec.identity == storeID{}:
		v.state.apply(v.state.sequence+1, rec)
		return nil
	}
	v.buf = append(v.buf[:0], payload...)
	v.pending, err = parseRedo(version, v.buf)
	return err
}

// takeIn takes in the record that is pending, if there is one: it stands in the shared log.
func (v *verifier) takeIn() {
	if v.pending != nil {
		v.state.apply(v.state.sequence+1, v.pending)
		v.pending = nil
	}
}

// compare compares the rows of a record with the bets file as far as that has them: its server may
// be about to write them.
func (v *verifier) compare(version uint32, rec *redo) error {
	if version == 1 || !v.state.precedes(rec) {
		return fmt.Errorf("it does not follow on the first %d bytes of %s: log and %s.state are not of one store: %s",
			v.state.length, v.path, v.path, restoreAdvice)
	}
	v.buf = slices.Grow(v.buf[:0], len(rec.rows))[:len(rec.rows)]
	n, err := v.bets.ReadAt(v.buf, rec.length)
	if err != nil && err != io.EOF {
		return err
	}
	for i, c := range v.buf[:n] {
		if c != rec.rows[i] {
			return fmt.Errorf("its rows are not those of %s, which differs at byte %d: a power cut leaves that, and a "+
				"start puts it right; if there was none, a disk or a hand changed a bet", v.path, rec.length+int64(i))
		}
	}
	return nil
}

// settle takes in the pending record where the bets file has of its rows: those are written once it
// is known to stand in the shared log. One without rows stays pending.
func (v *verifier) settle() error {
	size, err := v.bets.size()
	if err == nil && size > v.state.length {
		v.takeIn()
	}
	return err
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
			return fmt.Errorf("%s ends at byte %d, and the log has its rows up to byte %d: a crash leaves that, and a "+
				"start writes them; if there was none, a hand has removed rows", v.path, size, v.state.length)
		}
		time.Sleep(v.pause)
	}
}

// readBets reads the bets file up to where the log ends, row by row.
func (v *verifier) readBets() error {
	v.sums.first, v.rows.drawn = v.old.length, v.state.draw.drawn
	src := io.TeeReader(io.NewSectionReader(v.bets, 0, v.state.length), &v.sums)
	if err := eachRow(src, v.rows.add); err != nil {
		return fmt.Errorf("reading %s: %w", v.path, err)
	}
	odd := v.rows.odd
	if odd == "" && v.rows.end != v.state.length {
		odd = fmt.Sprintf("the last line does not end in CR LF (byte %d)", v.state.length)
	}
	length, got, want, by := v.state.length, v.sums.crc, v.state.crc, "the log"
	if v.sums.firstCRC != v.old.crc {
		length, got, want, by = v.old.length, v.sums.firstCRC, v.old.crc, v.path+".state"
	}
	switch {
	case got != want:
		return fmt.Errorf("%s: the CRC-32C of its first %d bytes is %08x, and %s says %08x: a disk or a hand "+
			"changed one of them (%s): compare it with a copy",
			v.path, length, got, by, want, cmp.Or(odd, "every line is a bet"))
	case odd != "":
		return fmt.Errorf("%s: %s: its bytes are those that were stored, so another program wrote them before a "+
			"server adopted the file, or bets.maxNumber was another", v.path, odd)
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
	agencies [256]struct{ bets, winners uint64 }
}

// add looks at the next row. It returns true: eachRow is to go on.
func (v *rowCheck) add(rec *record) bool {
	v.rows++
	if why := v.check(rec); why != "" && v.odd == "" {
		v.odd = fmt.Sprintf("line %d (byte %d) %s", rec.line, rec.offset, why)
	}
	return true
}

// check returns what is wrong with a row: it is no bet, one that is not accepted, or not written as
// a server writes it. A good one is counted.
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
	// Without quotes the text is what appendRow makes, but for zeros in front.
	plain := len(f[0])+len(f[1])+len(f[2])+len(f[3])+len(f[4])+len(f[5])+agencyFields == len(rec.text) &&
		f[0][0] != '0' && (f[5][0] != '0' || len(f[5]) == 1)
	if !plain && !bytes.Equal(appendRow(nil, &b), append(rec.text, "\r\n"...)) {
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
		for _, name := range slices.SortedFunc(maps.Keys(names), strings.Compare) {
			at := names[name]
			fmt.Fprintf(w, "source: %q | agency: %d | records: %d | stored: %d | crc: %08x\n", name, agency, at.Records,
				at.stored, at.CRC)
		}
	}
	if s := &v.state; s.identity != (storeID{}) {
		pending := "no"
		if v.pending != nil {
			pending = fmt.Sprint(s.sequence + 1)
		}
		fmt.Fprintf(w, "store: %v | term: %d | record: %d | chain: %08x | pending: %s\n", s.identity, s.term,
			s.sequence, s.chain, pending)
	}
	drawn := "no"
	if v.state.draw.drawn != noNumber {
		drawn = fmt.Sprint(v.state.draw.drawn)
	}
	fmt.Fprintf(w, "bets: %d | bytes: %d | crc: %08x | in_log: %d | drawn: %s | sha256: %x\n", v.rows.rows,
		v.state.length, v.sums.crc, v.records, drawn, v.sums.seal.Sum(nil))
	return w.Flush()
}
