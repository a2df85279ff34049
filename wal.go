package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sync"
	"time"
)

// The redo log. A record is durable, and so may be answered, once the sync that follows its write has returned. The log knows nothing of what a
// record says; docs/durability.md tells what it is for and why it is safe.
//
// It lives in up to 16 segment files PATH.wal.00 to PATH.wal.15 of 4 MiB. A segment is filled with zeros once, when it is made, so that a commit writes
// over blocks that the file already has: one data write and one fdatasync, nothing for the file system's own journal to do.
//
// A segment is pages of 4,096 bytes. Page 0 is its header, integers little-endian here and below:
//
//	 0  8  magic "tp0 wal\n"
//	 8  4  version, 1
//	12  4  flags: bit 0: records may be answered before they are synced (store.sync is not always)
//	16  8  epoch: drawn at random each time the segment is begun, so that no record of an earlier use can pass for one of this
//	24  8  sequence number of the segment's first record
//	32  4  size of the segment in bytes: the file has had it since before this header was written
//	36  4  CRC-32C of bytes 0 to 35
//
// Each record starts on a page, so that no page ever holds bytes of two commits and a torn page harms none but the last:
//
//	 0  4  CRC-32C of all that follows: bytes 4 to 24+length
//	 4  4  length of the payload
//	 8  8  epoch of the segment
//	16  8  sequence number: 1 more than that of the record before
//	24     payload
//
// To change any of this: raise walVersion, read both versions in openWAL, freeze a file of the new one in testdata/store.
const (
	walMagic      = "tp0 wal\n"
	walVersion    = 1
	walRelaxed    = 1 // flag
	walPage       = 4096
	walSegment    = 4 << 20
	walSlots      = 16
	walHead       = 40      // bytes of the header
	walRecordHead = 24      // bytes before a record's payload
	walMaxRecord  = 1 << 20 // bytes of a record with its head; what recovery needs as memory
)

// errLogFull says that every segment holds records that no checkpoint covers yet.
var errLogFull = errors.New("wal: every segment is in use")

// A fatalError is a failure after which nothing may be answered any more: above all a failed sync, which leaves unknown what is on the disk.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// isFatal tells whether nothing may be answered after err.
func isFatal(err error) bool {
	var fatal *fatalError
	return errors.As(err, &fatal)
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

// A wal is an open redo log. append, takeBack, makeRoom and sync are for one goroutine, the committer; release and prepare may be called by another.
type wal struct {
	disk    disk
	path    string   // of the bets file
	relaxed bool     // a record is written but not synced by append
	next    uint64   // sequence number of the next record
	start   int64    // where the last record was written in the current segment
	dirty   bool     // records were written since the last sync (relaxed)
	broken  error    // a sync has failed: nothing is synced again, since the system may have dropped what it could not write; sticky
	zeros   []byte   // a page run of zeros, for new segments
	segment int64    // bytes of a segment: walSegment, but in tests
	half    *segment // could not be begun, though its header may be in its file: the next record goes there and nowhere else; nil: there is none

	making sync.Mutex // held while a segment is made; protects following
	unmade error      // a sync has failed while one was made; sticky

	mu      sync.Mutex // protects following
	slots   [walSlots]*segment
	current *segment // where append writes; nil: makeRoom begins one
}

// A segment is one file of the log.
type segment struct {
	name    string
	file    file
	size    int64  // bytes of the file
	valid   bool   // the header is intact
	relaxed bool   // the header's flag
	epoch   uint64 // of the header
	first   uint64 // of the header
	last    uint64 // sequence number of the last record, first-1 if there is none
	end     int64  // where the next record goes
	free    bool   // a durable checkpoint covers every record
}

// append writes record, of which the first walRecordHead bytes are the log's to fill in, and makes it durable unless the log is relaxed. There must be
// room: see makeRoom. After an error that is not a fatalError nothing of the record will ever be replayed.
func (w *wal) append(record []byte) error {
	if w.broken != nil {
		return w.broken
	}
	s := w.current
	le := binary.LittleEndian
	le.PutUint32(record[4:], uint32(len(record)-walRecordHead))
	le.PutUint64(record[8:], s.epoch)
	le.PutUint64(record[16:], w.next)
	le.PutUint32(record, crc32.Checksum(record[4:], castagnoli))
	w.start = s.end
	_, err := s.file.WriteAt(record, s.end)
	s.end += walAlign(len(record))
	s.last = w.next
	w.next++
	if err != nil {
		return w.failed(err)
	}
	w.dirty = true
	if w.relaxed {
		return nil
	}
	return w.sync()
}

// failed takes a record back whose write failed: part of it, or all of it, may be in the file.
func (w *wal) failed(err error) error {
	if void := w.takeBack(); void != nil {
		return void
	}
	return fmt.Errorf("wal: writing a record: %w", err)
}

// takeBack makes the last record void: its head is zeroed, durably, and the next record will have its place and number. It only fails fatally.
func (w *wal) takeBack() error {
	s := w.current
	s.end = w.start
	s.last--
	w.next--
	if _, err := s.file.WriteAt(w.zeros[:walRecordHead], w.start); err != nil {
		return &fatalError{fmt.Errorf("wal: taking back a record: %w", err)}
	}
	w.dirty = true
	return w.sync()
}

// sync makes all records durable. It only fails fatally.
func (w *wal) sync() error {
	if w.broken == nil && w.dirty {
		w.dirty = false
		w.broken = w.current.datasync()
	}
	return w.broken
}

// datasync syncs the segment. It only fails fatally.
func (s *segment) datasync() error {
	if err := s.file.datasync(); err != nil {
		return &fatalError{fmt.Errorf("wal: sync of %s: %w", s.name, err)}
	}
	return nil
}

// makeRoom begins another segment if the current one has no room for a record of n bytes. It fails with errLogFull if there is none.
func (w *wal) makeRoom(n int) error {
	if w.half == nil && w.current != nil && w.current.end+int64(n) <= w.segment {
		return nil
	}
	if w.current != nil {
		if err := w.sync(); err != nil {
			return err
		}
	}
	s, err := w.freeSegment()
	if err != nil {
		return err
	}
	w.half = s
	if err := w.begin(s); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.free = false
	w.current, w.half = s, nil
	return nil
}

// freeSegment returns a segment whose records are all checkpointed, or makes one. Two headers that name the same first record would leave the start to guess.
func (w *wal) freeSegment() (*segment, error) {
	if w.half != nil {
		return w.half, nil
	}
	if s := w.lowestFree(); s != nil {
		return s, nil
	}
	if err := w.prepare(); err != nil {
		return nil, err
	}
	return w.lowestFree(), nil
}

// lowestFree returns the free segment with the lowest number, so that few are used and their pages are likely still in memory; nil if there is none.
func (w *wal) lowestFree() *segment {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.slots {
		if s != nil && s.free {
			return s
		}
	}
	return nil
}

// prepare sees to it that there is a free segment, and makes one where there is none. The checkpointer calls it ahead of need, so that the committer does not
// have to wait for 4 MiB of zeros. It fails with errLogFull if there are as many segments as there may be.
func (w *wal) prepare() error {
	w.making.Lock()
	defer w.making.Unlock()
	if w.unmade != nil || w.lowestFree() != nil {
		return w.unmade
	}
	w.mu.Lock()
	slot := slices.Index(w.slots[:], nil)
	w.mu.Unlock()
	if slot < 0 {
		return errLogFull
	}
	s, err := w.create(w.slotName(slot))
	if err != nil {
		if isFatal(err) {
			w.unmade = err
		}
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slots[slot] = s
	return nil
}

// slotName returns the name of segment i's file.
func (w *wal) slotName(i int) string { return fmt.Sprintf("%s.wal.%02d", w.path, i) }

// create makes the file of a new segment, all zeros.
func (w *wal) create(name string) (*segment, error) {
	f, err := w.disk.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	s := &segment{name: name, file: f, free: true}
	if err = w.fillUp(s); err == nil {
		if err = w.disk.syncDir(name); err != nil {
			err = &fatalError{fmt.Errorf("wal: sync of the folder of %s: %w", name, err)}
		}
	}
	if err != nil { // what is left of it is void: the next attempt makes it anew
		f.Close()
		w.disk.remove(name)
		return nil, err
	}
	return s, nil
}

// fillUp writes zeros up to the full size of a segment, durably.
func (w *wal) fillUp(s *segment) error {
	if s.size >= w.segment {
		return nil
	}
	for s.size < w.segment {
		n := min(w.segment-s.size, int64(len(w.zeros)))
		if _, err := s.file.WriteAt(w.zeros[:n], s.size); err != nil {
			return fmt.Errorf("wal: making room for the log: %w", err)
		}
		s.size += n
	}
	return s.datasync()
}

// begin makes a free segment ready for records from w.next on. Its header is durable before any record is written behind it.
func (w *wal) begin(s *segment) error {
	if err := w.fillUp(s); err != nil {
		return err
	}
	var epoch [8]byte
	rand.Read(epoch[:])
	s.epoch, s.first, s.last, s.end = binary.LittleEndian.Uint64(epoch[:]), w.next, w.next-1, walPage
	s.valid, s.relaxed = true, w.relaxed
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
	dst = le.AppendUint32(dst, walVersion)
	dst = le.AppendUint32(dst, flags)
	dst = le.AppendUint64(dst, s.epoch)
	dst = le.AppendUint64(dst, s.first)
	dst = le.AppendUint32(dst, uint32(s.size))
	return le.AppendUint32(dst, crc32.Checksum(dst, castagnoli))
}

// release gives the segments back whose records a durable checkpoint covers, that of all records up to sequence.
func (w *wal) release(sequence uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.slots {
		if s != nil && s != w.current && !s.free && s.last <= sequence {
			s.free = true
		}
	}
}

// waiting returns how many full segments wait for a checkpoint.
func (w *wal) waiting() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.slots {
		if s != nil && s != w.current && !s.free {
			n++
		}
	}
	return n
}

// syncCost measures what a commit of one page costs in this folder: the median of 5. It writes to the last page of the current segment, where no record is yet.
func (w *wal) syncCost() (time.Duration, error) {
	var costs [5]time.Duration
	for i := range costs {
		began := time.Now()
		if _, err := w.current.file.WriteAt(w.zeros[:walPage], w.segment-walPage); err != nil {
			return 0, fmt.Errorf("wal: measuring a sync: %w", err)
		}
		if err := w.current.datasync(); err != nil {
			return 0, err
		}
		costs[i] = time.Since(began)
	}
	slices.Sort(costs[:])
	return costs[len(costs)/2], nil
}

// close closes the files. Records that were not synced are left to the system.
func (w *wal) close() (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.slots {
		if s != nil {
			err = errors.Join(err, s.file.Close())
		}
	}
	return err
}

// walAlign returns the bytes that a record of n bytes takes: whole pages.
func walAlign(n int) int64 { return (int64(n) + walPage - 1) &^ (walPage - 1) }
