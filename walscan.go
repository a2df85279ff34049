package main

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

// The start of the redo log: which records are intact, which are replayed, and what damage is
// more than a crash can have left.

// A walReport says what openWAL found.
type walReport struct {
	replayed int    // records
	bytes    int64  // their payloads
	found    bool   // there is a segment with an intact header
	cut      int    // intact records behind a gap that were dropped; only ever in a relaxed log
	relaxed  bool   // where the records end, they need not have been synced before they were answered
	file     string // where the intact records end: the damage, if there is evidence for any
	offset   int64
}

// A corruptError is damage that no crash leaves: acknowledged records would be lost by going on.
type corruptError struct {
	file   string
	offset int64
	what   string
}

// Error names the file and the byte, and what can be done.
func (e *corruptError) Error() string {
	return fmt.Sprintf("wal: %s: damaged at byte %d: %s", e.file, e.offset, e.what)
}

// restoreAdvice is what can be done about damage.
const restoreAdvice = "restore the store's files from a copy; or move all of them but the bets file away: " +
	"the bets that only they hold are lost then"

// openWAL opens the log of the bets file path, and replays in order each record whose sequence
// number is over after. payload is valid during the call of replay.
//
// Replay ends at the first record that is not intact: in a log that is synced record by record
// it cannot have been acknowledged, unless an intact one stands behind it, which is corruption.
// The caller then makes what was replayed durable, writes a checkpoint of sequence number
// next-1, and calls release.
func openWAL(d disk, path string, relaxed bool, segmentSize int64, after uint64,
	replay func(version uint32, payload []byte) error) (*wal, walReport, error) {
	w := &wal{disk: d, path: path, relaxed: relaxed, size: segmentSize, next: after + 1, zeros: make([]byte, 64<<10)}
	w.release(after)
	scan := walScan{next: after + 1, replay: replay, flag: os.O_RDWR, buf: make([]byte, walMaxRecord)}
	if err := scan.run(w); err != nil {
		w.close()
		return nil, scan.walReport, err
	}
	w.next = max(scan.next, scan.highest+1) // numbers of dropped records are not used again
	w.latest, w.start = scan.latest, scan.start
	return w, scan.walReport, nil
}

// readWAL goes through a log as openWAL does, and changes, makes and syncs nothing: its server may
// be writing to it meanwhile. last is the number of the last record that was replayed, and top that
// of the last intact one. Where top is larger records between are damaged (err says so, unless the
// log is relaxed) or were written meanwhile: a second call tells, which gets as far as the first
// one's top if nothing is damaged.
func readWAL(d disk, path string, after uint64,
	replay func(version uint32, payload []byte) error) (report walReport, last, top uint64, err error) {
	w := &wal{disk: d, path: path}
	defer w.close()
	scan := walScan{next: after + 1, replay: replay, flag: os.O_RDONLY, buf: make([]byte, walMaxRecord)}
	err = scan.run(w)
	last = scan.next - 1
	return scan.walReport, last, max(last, scan.highest), err
}

// A walScan goes through the segments of a log.
type walScan struct {
	walReport
	next    uint64   // sequence number of the record to replay next
	highest uint64   // of all intact records
	stop    *segment // where the intact records end
	latest  *segment // of the last record that was replayed
	start   int64    // where that starts in there
	beyond  string   // an intact record behind a gap that no crash leaves: "byte 8192 of FILE"
	replay  func(version uint32, payload []byte) error
	flag    int // that the segments are opened with: os.O_RDWR, or os.O_RDONLY only to look
	buf     []byte
}

// run opens the segments of w and replays those with intact headers in the order in which they
// were begun. Then it looks for intact records that were not reached.
func (r *walScan) run(w *wal) error {
	var valid, blank []*segment
	for i := range w.slots {
		s, err := r.openSegment(w, i)
		if err != nil {
			return err
		}
		if w.slots[i] = s; s == nil {
			continue
		}
		if s.version == 0 {
			blank = append(blank, s)
			continue
		}
		valid = append(valid, s)
		r.found, w.epoch = true, max(w.epoch, s.epoch)
	}
	slices.SortFunc(valid, func(a, b *segment) int { // the epochs of version 1 do not tell, but for equal numbers
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.epoch, b.epoch))
	})
	for _, s := range valid {
		if err := r.follow(s); err != nil {
			return err
		}
	}
	for _, s := range append(valid, blank...) {
		if err := r.search(s); err != nil {
			return err
		}
	}
	if r.beyond == "" {
		return nil
	}
	return &corruptError{r.file, r.offset, fmt.Sprintf("record %d is not intact, and one that was written "+
		"after it was synced is (at %s): %s", r.next, r.beyond, restoreAdvice)}
}

// openSegment opens segment i and reads its header; nil if there is none. What a start reads from
// it later must not be what only the system's memory holds (the last process may have been killed
// before its sync), so it is synced first.
func (r *walScan) openSegment(w *wal, i int) (*segment, error) {
	s := &segment{name: w.slotName(i)}
	f, err := w.disk.open(s.name, r.flag)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	s.file = f
	if s.size, err = f.size(); err == nil && r.flag == os.O_RDWR {
		err = s.datasync()
	}
	if err == nil {
		err = r.readHeader(s)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("wal: %s: %w", s.name, err)
	}
	return s, nil
}

// readHeader reads the header of s. One that is not intact leaves version 0: a crash leaves
// that while a segment is begun, when it holds no record that counts.
func (r *walScan) readHeader(s *segment) error {
	var head [walHead]byte
	if n, err := s.file.ReadAt(head[:], 0); n < len(head) {
		if err == io.EOF {
			return nil
		}
		return err
	}
	le := binary.LittleEndian
	if string(head[:8]) != walMagic || crc32.Checksum(head[:36], castagnoli) != le.Uint32(head[36:]) {
		return nil
	}
	version := le.Uint32(head[8:])
	if version > walVersion {
		return fmt.Errorf("version %d of the log is newer than this program, which knows %d: start a newer program",
			version, walVersion)
	}
	if size := int64(le.Uint32(head[32:])); s.size < size {
		what := fmt.Sprintf("the file ends there, and had %d bytes: %s", size, restoreAdvice)
		return &corruptError{s.name, s.size, what}
	}
	s.version = version
	s.relaxed = le.Uint32(head[12:])&walRelaxed != 0
	s.epoch, s.first = le.Uint64(head[16:]), le.Uint64(head[24:])
	s.last, s.end = s.first-1, walPage
	return nil
}

// follow goes through the records of one segment from its start, and replays those whose turn
// it is.
func (r *walScan) follow(s *segment) error {
	for s.end < s.size {
		payload, epoch, sequence, err := r.read(s, s.end)
		if err != nil {
			return err
		}
		if payload == nil || epoch != s.epoch || sequence != s.last+1 {
			break
		}
		if sequence == r.next {
			if err := r.replay(s.version, payload); err != nil {
				return fmt.Errorf("wal: %s: record at byte %d: %w", s.name, s.end, err)
			}
			r.latest, r.start = s, s.end
			r.next++
			r.replayed++
			r.bytes += int64(len(payload))
		}
		if sequence >= r.next {
			break // records between are missing: search will count this one
		}
		s.last = sequence
		s.end += walAlign(walRecordHead + len(payload))
	}
	if r.stop == nil || s.first <= r.next {
		r.stop, r.relaxed, r.file, r.offset = s, s.relaxed, s.name, s.end
	}
	return nil
}

// search looks at each page of s behind the records that were followed for an intact record
// that should have been replayed, too. Only records of the segment's epoch count: what else
// looks like one may be a name that a client has sent. Where the header is damaged the first
// record tells the epoch.
func (r *walScan) search(s *segment) error {
	epoch := s.epoch
	for at := max(s.end, walPage); at < s.size; {
		payload, of, sequence, err := r.read(s, at)
		if err != nil {
			return err
		}
		if s.version == 0 && at == walPage {
			epoch = of
		}
		if payload == nil || sequence < r.next || of != epoch {
			at += walPage
			continue
		}
		r.stray(s, at, sequence)
		at += walAlign(walRecordHead + len(payload))
	}
	return nil
}

// stray notes an intact record behind a gap. A crash leaves one only in the segment where the
// records end, and only if that is relaxed: a segment's header, and all records of the segment
// before, are synced before its first record is written.
func (r *walScan) stray(s *segment, at int64, sequence uint64) {
	r.highest = max(r.highest, sequence)
	if s == r.stop && s.relaxed {
		r.cut++
		return
	}
	r.beyond = fmt.Sprintf("byte %d of %s", at, s.name)
	if s.version == 0 && sequence == r.next { // what is damaged is this segment's header
		r.file, r.offset = s.name, 0
	}
}

// read returns the record at offset at of s; a nil payload says that there is no intact one.
// Errors are of the disk.
func (r *walScan) read(s *segment, at int64) (payload []byte, epoch, sequence uint64, err error) {
	head := r.buf[:walRecordHead]
	if at+walRecordHead > s.size {
		return nil, 0, 0, nil
	}
	if _, err := s.file.ReadAt(head, at); err != nil {
		return nil, 0, 0, fmt.Errorf("wal: %w", err)
	}
	le := binary.LittleEndian
	size := walRecordHead + int64(le.Uint32(head[4:]))
	epoch, sequence = le.Uint64(head[8:]), le.Uint64(head[16:])
	if sequence == 0 || size > walMaxRecord || at+size > s.size {
		return nil, 0, 0, nil
	}
	record := r.buf[:size]
	if _, err := s.file.ReadAt(record[walRecordHead:], at+walRecordHead); err != nil {
		return nil, 0, 0, fmt.Errorf("wal: %w", err)
	}
	if crc32.Checksum(record[4:], castagnoli) != le.Uint32(record) {
		return nil, 0, 0, nil
	}
	return record[walRecordHead:], epoch, sequence, nil
}
