package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"sync/atomic"
)

// The redo log. A record is durable, and so may be answered, once the sync that follows its
// write has returned. The log knows nothing of what a record says; docs/durability.md tells
// what it is for and why it is safe.
//
// It lives in up to 16 segment files PATH.wal.00 to PATH.wal.15 of 4 MiB. A segment is filled
// with zeros once, when it is made, so that a commit writes over blocks that the file already
// has: one data write and one fdatasync, nothing for the file system's own journal to do.
//
// A segment is pages of 4,096 bytes. Page 0 is its header, integers little-endian here and
// below:
//
//	 0  8  magic "tp0 wal\n"
//	 8  4  version, 3
//	12  4  flags: bit 0: records may be answered before they are synced (store.sync is not always)
//	16  8  epoch: larger than that of every segment begun before
//	24  8  sequence number of the segment's first record
//	32  4  size of the segment in bytes: the file has had it since before this header was written
//	36  4  CRC-32C of bytes 0 to 35
//
// An epoch is of one use of a segment, so that no record of an earlier use can pass for one of
// this. (An epoch that a torn header took along may be given once more: then the numbers tell,
// since a checkpoint covers all that the segment had.) Since epochs grow, the segment with the
// largest one is where the log ends, whatever else crashes have left. The first one of a log is
// random: nobody who sends bets can know an epoch, and make bytes of a name look like a record.
//
// Each record starts on a page, so that no page ever holds bytes of two commits and a torn page
// harms none but the last:
//
//	 0  4  CRC-32C of all that follows: bytes 4 to 24+length
//	 4  4  length of the payload
//	 8  8  epoch of the segment
//	16  8  sequence number: 1 more than that of the record before
//	24     payload
//
// Version 2 had shorter payloads (record.go). Version 1 had others, and random epochs.
//
// To change any of this: raise walVersion, read all versions in openWAL, freeze a file of the
// new one in testdata/store.
const (
	walMagic      = "tp0 wal\n"
	walVersion    = 3
	walRelaxed    = 1 // flag
	walPage       = 4096
	walSegment    = 4 << 20
	walSlots      = 16
	walHead       = 40      // bytes of the header
	walRecordHead = 24      // bytes before a record's payload
	walMaxRecord  = 1 << 20 // bytes of a record with its head; what recovery needs as memory
)

// This does not compile unless the longest record fits into a segment.
const _ = uint(walSegment - walPage - walMaxRecord)

// errLogFull says that every segment holds records that no checkpoint covers yet.
var errLogFull = errors.New("wal: every segment is in use")

// A wal is an open redo log. Its methods are for one goroutine, the committer, but for release.
// After a fatalError none may be called but close: the system may have dropped what it could
// not write, and say yes to the next sync.
type wal struct {
	disk    disk
	path    string   // of the bets file
	relaxed bool     // a record is written but not synced by append
	size    int64    // bytes of a segment: walSegment, but in tests
	next    uint64   // sequence number of the next record
	epoch   uint64   // of the segment that was begun last, or was to be
	latest  *segment // where the last record is
	start   int64    // where it starts in there
	before  int64    // where the one before it does, if that is in the same segment
	dirty   bool     // records were written since the last sync
	zeros   []byte   // for new segments
	slots   [walSlots]*segment
	current *segment      // where append writes; nil: makeRoom begins one
	covered atomic.Uint64 // a durable checkpoint covers the records up to this one
}

// A segment is one file of the log.
type segment struct {
	name    string
	file    file
	size    int64  // bytes of the file
	version uint32 // of the header; 0: it is not intact
	relaxed bool   // the header's flag
	epoch   uint64 // of the header
	first   uint64 // of the header
	last    uint64 // sequence number of the last record, first-1 if there is none
	end     int64  // where the next record goes
}

// append writes record and makes it durable unless the log is relaxed. Its errors are those of
// write and sync.
func (w *wal) append(record []byte, at, n int, sum uint32) error {
	if err := w.write(record, at, n, sum); err != nil || w.relaxed {
		return err
	}
	return w.sync()
}

// write writes record, of which the first walRecordHead bytes are the log's to fill in. There must
// be room: see makeRoom. After an error part of the record, or all of it, may be in the file: see
// takeBack. The CRC of n bytes of the record, from offset at on, is known to be sum.
func (w *wal) write(record []byte, at, n int, sum uint32) error {
	s := w.current
	le := binary.LittleEndian
	le.PutUint32(record[4:], uint32(len(record)-walRecordHead))
	le.PutUint64(record[8:], s.epoch)
	le.PutUint64(record[16:], w.next)
	sum = joinCRC(crc32.Checksum(record[4:at], castagnoli), sum, n)
	le.PutUint32(record, crc32.Update(sum, castagnoli, record[at+n:]))
	w.latest, w.before, w.start = s, w.start, s.end
	_, err := s.file.WriteAt(record, s.end)
	s.end += walAlign(len(record))
	s.last = w.next
	w.next++
	w.dirty = true
	if err != nil {
		return fmt.Errorf("wal: writing a record: %w", err)
	}
	return nil
}

// takeBack makes the last record void: it is zeroed, durably, and the next record will have its
// number. Not the head alone: a head fits every body of its shape (record.go), and that of the next
// record may be all that a power cut leaves of it. After an error that is not fatal it is to be
// called again. Two may be taken back, of one segment.
func (w *wal) takeBack() error {
	s := w.latest
	if err := w.fill(s.file, w.start, s.end); err != nil {
		return fmt.Errorf("wal: taking back a record: %w", err)
	}
	s.end, w.start = w.start, w.before
	s.last--
	w.next--
	w.dirty = false // no record of a segment before this one is
	return s.datasync()
}

// sync makes all records durable. It only fails fatally.
func (w *wal) sync() error {
	if !w.dirty {
		return nil
	}
	w.dirty = false
	return w.current.datasync()
}

// datasync syncs the segment. It only fails fatally.
func (s *segment) datasync() error {
	return syncFailed(s.name, s.file.datasync())
}

// makeRoom sees to it that there is room for a record of n bytes: where the current segment has
// too little another one is begun. It fails with errLogFull if there is none.
func (w *wal) makeRoom(n int) error {
	if n > walMaxRecord {
		return fmt.Errorf("wal: a record of %d bytes, and %d are what a start reads", n, walMaxRecord)
	}
	if w.fits(n) {
		return nil
	}
	if err := w.sync(); err != nil {
		return err
	}
	s, err := w.freeSegment()
	if err != nil {
		return err
	}
	// Nothing may go to the segment before any more, even if this one can't be begun: its
	// header may be in its file all the same, and then says that the log goes on there.
	w.current = nil
	if err := w.begin(s); err != nil {
		s.last = 0 // it holds no record: it is free
		return err
	}
	w.current = s
	return nil
}

// fits reports whether there is room for a record of n bytes in the current segment.
func (w *wal) fits(n int) bool { return w.current != nil && w.current.end+int64(n) <= w.size }

// probe looks whether the next record, for which there is room, could be written: it writes n
// zeros where that goes. Even writing over what a file has needs room on a file system that
// then writes elsewhere.
func (w *wal) probe(n int) error {
	return w.fill(w.current.file, w.current.end, w.current.end+int64(n))
}

// freeSegment returns the free segment with the lowest number, so that few are used and their
// pages are likely still in memory. Where there is none it makes one.
func (w *wal) freeSegment() (*segment, error) {
	for i, s := range w.slots {
		if s != nil && w.free(s) {
			return s, nil
		}
		if s == nil {
			s, err := w.create(w.slotName(i))
			w.slots[i] = s
			return s, err
		}
	}
	return nil, errLogFull
}

// free reports whether s may be begun anew: a durable checkpoint covers all its records.
func (w *wal) free(s *segment) bool { return s != w.current && s.last <= w.covered.Load() }

// waiting returns how many full segments wait for a checkpoint.
func (w *wal) waiting() (n int) {
	for _, s := range w.slots {
		if s != nil && s != w.current && !w.free(s) {
			n++
		}
	}
	return n
}

// release gives the segments back whose records a durable checkpoint covers, that of all
// records up to sequence.
func (w *wal) release(sequence uint64) { w.covered.Store(sequence) }

// slotName returns the name of segment i's file.
func (w *wal) slotName(i int) string { return fmt.Sprintf("%s.wal.%02d", w.path, i) }

// create makes the file of a new segment. begin gives it its size.
func (w *wal) create(name string) (*segment, error) {
	f, err := w.disk.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	return &segment{name: name, file: f}, syncFailed("the folder of "+name, w.disk.syncDir())
}

// fill writes zeros from one offset to another.
func (w *wal) fill(f file, from, to int64) error {
	for ; from < to; from += int64(len(w.zeros)) {
		if _, err := f.WriteAt(w.zeros[:min(to-from, int64(len(w.zeros)))], from); err != nil {
			return err
		}
	}
	return nil
}

// begin makes a free segment ready for records from w.next on. It has its full size, durably,
// before the header says so, and the header is durable before any record is written behind it.
func (w *wal) begin(s *segment) error {
	if s.size < w.size {
		if err := w.fill(s.file, s.size, w.size); err != nil {
			return fmt.Errorf("wal: making room for the log: %w", err)
		}
		if err := s.datasync(); err != nil {
			return err
		}
		s.size = w.size
	}
	if w.epoch == 0 {
		// Nobody can guess it: ChaCha8, seeded by the system. crypto/rand would be 12 KB more of
		// program.
		w.epoch = rand.Uint64() >> 1 // there is no end to its growing
	}
	w.epoch++
	s.version, s.relaxed, s.epoch = walVersion, w.relaxed, w.epoch
	s.first, s.last, s.end = w.next, w.next-1, walPage
	if _, err := s.file.WriteAt(s.appendHeader(nil), 0); err != nil {
		return fmt.Errorf("wal: beginning a segment: %w", err)
	}
	return s.datasync()
}

// appendHeader appends the segment's header.
func (s *segment) appendHeader(dst []byte) []byte {
	flags := uint32(0)
	if s.relaxed {
		flags = walRelaxed
	}
	le := binary.LittleEndian
	dst = append(dst, walMagic...)
	dst = le.AppendUint32(dst, s.version)
	dst = le.AppendUint32(dst, flags)
	dst = le.AppendUint64(dst, s.epoch)
	dst = le.AppendUint64(dst, s.first)
	dst = le.AppendUint32(dst, uint32(s.size))
	return le.AppendUint32(dst, crc32.Checksum(dst, castagnoli))
}

// clear empties the log, durably: a snapshot covers all its records, and they are not to be
// replayed whatever number a later one says. Then it is of no use but to be closed.
func (w *wal) clear() error {
	for _, s := range w.slots {
		if s == nil {
			continue
		}
		if err := s.file.truncate(0); err != nil {
			return fmt.Errorf("wal: emptying %s: %w", s.name, err)
		}
		if err := s.file.sync(); err != nil {
			return &fatalError{fmt.Errorf("wal: sync of %s: %w", s.name, err)}
		}
	}
	return nil
}

// close closes the files. Records that were not synced are left to the system.
func (w *wal) close() (err error) {
	for _, s := range w.slots {
		if s != nil {
			err = errors.Join(err, s.file.Close())
		}
	}
	return err
}

// joinCRC returns the CRC of two pieces from those of each, of which the second has n bytes. A CRC
// is a polynomial's remainder: n more bytes multiply the first by x to the power of 8n.
func joinCRC(first, second uint32, n int) uint32 {
	for power := uint32(1 << 23); n > 0; n >>= 1 { // x^8, x^16, x^32 …
		if n&1 != 0 {
			first = multiplyCRC(first, power)
		}
		power = multiplyCRC(power, power)
	}
	return first ^ second
}

// multiplyCRC multiplies two polynomials, of which the highest bit is that of x^0.
func multiplyCRC(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}

// walAlign returns the bytes that a record of n bytes takes: whole pages.
func walAlign(n int) int64 { return (int64(n) + walPage - 1) &^ (walPage - 1) }
