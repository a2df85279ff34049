package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// What the store keeps beside the bets: its state, the record of the redo log that moves the state
// on, and the snapshot that a checkpoint makes of it. Each form stands above its writer and parser.
//
// To change a form: raise its version, read the older ones too, freeze a store of the new one in
// testdata/store.

// A state is all that the store knows beside the bets themselves, as of one record of the redo log.
// It changes only by whole records, so that it and the bets file cannot disagree.
type state struct {
	sequence uint64  // number of the last record that is in
	length   int64   // bytes of the bets file
	bets     uint64  // rows of the bets file
	crc      uint32  // CRC-32C of the bets file up to length
	sources  sources // how far each got
	draw     draw    // who has finished, and whether it has taken place
	tenancy
}

// A tenancy is what a state has where servers share the store's log; else it is zero.
type tenancy struct {
	identity storeID // of the store
	term     uint64  // number of the term, 1 for the first
	holder   uint64  // the writer that holds it: its records count, and no other's
	chain    uint32  // CRC-32C of the last record's payload
}

// The payload of a record of the redo log, integers little-endian:
//
//	u64 length of the bets file before this record
//	u32 rows, u32 bytes of the rows, then the rows as they stand in the bets file
//	u32 CRC-32C of the bets file up to behind these rows
//	u16 sources, for each, how far it got with this record:
//	    u8 agency, u8 length, name, u64 records, u32 crc, u64 bets stored
//	u8 agencies that finished with this record, for each: u8 agency
//	u32 winning number of the draw, which took place behind all of the above; 0xffffffff: no draw
//	16 bytes identity of the store; zeros: its log is not shared, and what follows is zeros too
//	u64 writer, u64 number of its term
//	u32 CRC-32C of the payload of the record before; 0 where there is none
//
// The rows come first so that a group can be filled while it is open: what precedes them has a
// fixed size. Version 2 ends before the identity. Version 1 is read as well (parseRedo); the
// segment tells the version, and records of a shared log are of version 3.

// sharedVersion is the version of the records of a shared log.
const sharedVersion = 3

// redoRowsAt is where the rows start in a record with its head.
const redoRowsAt = walRecordHead + 8 + 4 + 4

// A redo is what a record says. Its slices alias the record.
type redo struct {
	length   int64 // of the bets file before it
	count    uint32
	rows     []byte
	crc      uint32 // of the bets file with them
	rowsSum  uint32 // of the rows alone; not in the record
	marks    []sourceMark
	finished []byte
	drawn    int // as in a draw
	stamp
	sum uint32 // CRC-32C of the payload, where it has an identity
}

// A stamp says whose record this is, and which one it follows.
type stamp struct {
	identity storeID
	writer   uint64 // random, of a process that takes bets
	term     uint64
	prev     uint32 // CRC-32C of the payload of the record before
}

// stampSize is what a stamp takes in a record, in bytes.
const stampSize = len(storeID{}) + 8 + 8 + 4

// A sourceMark says how far a source got.
type sourceMark struct {
	key sourceKey
	at  mark
}

// seal completes the record in buf, whose rows have been appended from redoRowsAt on, and fills
// r in from it. The bets file has length bytes before it, of that crc.
func (r *redo) seal(buf []byte, length int64, crc uint32, by stamp) []byte {
	le := binary.LittleEndian
	r.rows, r.stamp = buf[redoRowsAt:], by
	r.rowsSum = crc32.Checksum(r.rows, castagnoli)
	r.length, r.crc = length, joinCRC(crc, r.rowsSum, len(r.rows))
	le.PutUint64(buf[walRecordHead:], uint64(length))
	le.PutUint32(buf[walRecordHead+8:], r.count)
	le.PutUint32(buf[walRecordHead+12:], uint32(len(r.rows)))
	// A CRC that follows on what it is of cancels it: so the record's own does not depend on
	// which rows these are, as long as r.crc fits them. See takeBack; the next version is to have
	// something in between.
	buf = le.AppendUint32(buf, r.crc)
	buf = le.AppendUint16(buf, uint16(len(r.marks)))
	for _, m := range r.marks {
		buf = appendMark(buf, m.key, m.at)
	}
	buf = append(append(buf, byte(len(r.finished))), r.finished...)
	buf = le.AppendUint32(buf, uint32(r.drawn))
	buf = append(buf, by.identity[:]...)
	buf = le.AppendUint64(buf, by.writer)
	buf = le.AppendUint64(buf, by.term)
	buf = le.AppendUint32(buf, by.prev)
	r.sum = r.sumOf(buf[walRecordHead:])
	return buf
}

// sumOf returns the CRC-32C of r's payload, if it is one of a shared log; else nobody asks for it.
func (r *redo) sumOf(payload []byte) uint32 {
	if r.identity == (storeID{}) {
		return 0
	}
	return crc32.Checksum(payload, castagnoli)
}

// appendMark appends how far a source got.
func appendMark(dst []byte, key sourceKey, at mark) []byte {
	dst = append(dst, key.agency, byte(len(key.name)))
	dst = append(dst, key.name...)
	dst = binary.LittleEndian.AppendUint64(dst, at.Records)
	dst = binary.LittleEndian.AppendUint32(dst, at.CRC)
	return binary.LittleEndian.AppendUint64(dst, at.stored)
}

// errPayload says that a payload or a snapshot does not have the form that its checksum vouches
// for.
var errPayload = errors.New("state: not in the form of this version")

// parseRedo reads a payload of a log of that version. In version 1 what stands behind the rows is:
//
//	u16 sources, for each: u8 agency, u8 length, name, u64 records, u32 crc
//	u32 winners, for each: u8 agency, u8 length, document
//	u8 agencies that finished with this record, for each: u8 agency
//	u8 1: the draw took place, after all of the above
//
// Its winners may be of another number than the draw's: they are found in the bets file instead.
func parseRedo(version uint32, payload []byte) (*redo, error) {
	d := decoder{data: payload, version: version}
	r := &redo{length: int64(d.u64()), count: d.u32(), rows: d.bytes(int(d.u32())), drawn: noNumber}
	if version > 1 {
		r.crc = d.u32()
	}
	for range d.integer(2) {
		r.marks = append(r.marks, d.mark())
	}
	if version == 1 {
		for n := d.u32(); n > 0 && !d.bad; n-- {
			d.u8()
			d.bytes(int(d.u8()))
		}
	}
	r.finished = d.bytes(int(d.u8()))
	if version > 1 {
		r.drawn = int(int32(d.u32()))
	} else if d.u8() == 1 {
		r.drawn = unknownNumber
	}
	if version >= 3 {
		copy(r.identity[:], d.bytes(len(r.identity)))
		r.writer, r.term = d.u64(), d.u64()
		r.prev = d.u32()
		r.sum = r.sumOf(payload)
	}
	if d.bad || len(d.data) > 0 {
		return nil, errPayload
	}
	return r, nil
}

// What admit refuses: what stands in the shared log is not this store's.
var (
	errForeign   = errors.New("its record is of another store")
	errUnchained = errors.New("its record does not follow on the record before it: records between " +
		"them are missing, or were changed")
)

// admit reports whether r, which is the next record of the log, counts. Where the log is shared it
// counts if its writer holds the term, or takes the next one with it. Else it is void: it has a
// number, the next record follows on it, and nothing that it says has come to pass. The rule is the
// same for whoever replays, follows or has written the record.
func (s *state) admit(r *redo) (counts bool, err error) {
	switch {
	case r.identity != s.identity && (s.identity != storeID{} || s.sequence > 0):
		return false, errForeign
	case r.identity == storeID{}:
		return true, nil
	case r.prev != s.chain:
		return false, errUnchained
	}
	return r.term == s.term && r.writer == s.holder || r.term == s.term+1 && r.isEmpty(), nil
}

// read reads the payload of the next record of a shared log, with the rows that it brings: none if
// it is void.
func (s *state) read(number uint64, payload []byte) (rec *redo, rows []byte, err error) {
	rec, err = parseRedo(sharedVersion, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("record %d of the stream: %w", number, err)
	}
	counts, err := s.admit(rec)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("record %d of the stream: %w", number, err)
	case !counts:
		return rec, nil, nil
	case !s.precedes(rec):
		return nil, nil, fmt.Errorf("record %d of the stream: its rows follow on %d bytes of bets with the "+
			"CRC-32C %08x, and here it would be %d and %08x", number, rec.length, rec.crc, s.length,
			crc32.Update(s.crc, castagnoli, rec.rows))
	}
	return rec, rec.rows, nil
}

// isEmpty reports whether r says nothing. By such a record a server takes a term, or finds out that
// it still holds it.
func (r *redo) isEmpty() bool {
	return len(r.rows) == 0 && r.count == 0 && len(r.marks) == 0 && len(r.finished) == 0 && r.drawn == noNumber
}

// stamp returns what the holder's next record has.
func (s *state) stamp() stamp { return stamp{s.identity, s.holder, s.term, s.chain} }

// claim returns what the record has by which writer takes the next term.
func (s *state) claim(writer uint64) stamp { return stamp{s.identity, writer, s.term + 1, s.chain} }

// precedes reports whether r's rows follow on what the state says of the bets file.
func (s *state) precedes(r *redo) bool {
	return r.length == s.length && r.crc == crc32.Update(s.crc, castagnoli, r.rows)
}

// apply brings the state to where the record leaves it, which admit has let pass.
func (s *state) apply(sequence uint64, r *redo) {
	counts, _ := s.admit(r)
	s.sequence, s.identity, s.chain = sequence, r.identity, r.sum
	if !counts {
		return
	}
	s.term, s.holder = r.term, r.writer
	s.length = r.length + int64(len(r.rows))
	s.bets += uint64(r.count)
	s.crc = r.crc
	for _, m := range r.marks {
		s.sources.put(m.key, m.at)
	}
	for _, agency := range r.finished {
		s.draw.finished.add(agency)
	}
	if r.drawn != noNumber {
		s.draw.drawn = r.drawn
	}
}

// The snapshot, integers little-endian:
//
//	"tp0state", u32 version 3
//	u64 sequence, u64 length, u64 bets, u32 CRC-32C of the bets file up to length
//	u32 number that was drawn; 0xffffffff: the draw has not taken place
//	4 × u64 agencies that finished, as a set of bits
//	u32 sources, for each as in a record
//	16 bytes identity, u64 term, u64 holder, u32 CRC-32C of the last record's payload; zeros where
//	    the log is not shared
//	u32 CRC-32C of all before it
//
// Version 2 has no identity and what follows it. Version 1 is read as well (parseState).
const (
	stateMagic   = "tp0state"
	stateVersion = 3
)

// appendState appends the snapshot of s.
func appendState(dst []byte, s *state) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = le.AppendUint32(append(dst, stateMagic...), stateVersion)
	dst = le.AppendUint64(dst, s.sequence)
	dst = le.AppendUint64(dst, uint64(s.length))
	dst = le.AppendUint64(dst, s.bets)
	dst = le.AppendUint32(dst, s.crc)
	dst = le.AppendUint32(dst, uint32(s.draw.drawn))
	for _, word := range s.draw.finished {
		dst = le.AppendUint64(dst, word)
	}
	dst = le.AppendUint32(dst, uint32(s.sources.count()))
	for agency, names := range s.sources {
		for name, at := range names {
			dst = appendMark(dst, sourceKey{uint8(agency), name}, at)
		}
	}
	dst = append(dst, s.identity[:]...)
	dst = le.AppendUint64(dst, s.term)
	dst = le.AppendUint64(dst, s.holder)
	dst = le.AppendUint32(dst, s.chain)
	return le.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// parseState reads a snapshot. One of version 1 says nothing of crc; behind bets it has:
//
//	u8 1: drawn, u32 winning number (0xffffffff: none), 4 × u64 agencies that finished
//	u32 sources, for each as in a record of version 1
//	winners
func parseState(data []byte) (s state, version uint32, err error) {
	le := binary.LittleEndian
	end := len(data) - 4
	if end < len(stateMagic)+4 || string(data[:len(stateMagic)]) != stateMagic ||
		crc32.Checksum(data[:end], castagnoli) != le.Uint32(data[end:]) {
		return s, 0, errors.New("damaged (its checksum does not match): restore it from a copy")
	}
	d := decoder{data: data[len(stateMagic):end]}
	d.version = d.u32()
	s = state{sequence: d.u64(), length: int64(d.u64()), bets: d.u64()}
	switch d.version {
	case 1:
		drawn := d.u8()
		s.draw.winner, s.draw.drawn = int(int32(d.u32())), noNumber
		if drawn == 1 {
			s.draw.drawn = s.draw.winner
		}
	case 2, stateVersion:
		s.crc = d.u32()
		s.draw.drawn = int(int32(d.u32()))
	default:
		return s, 0, fmt.Errorf("version %d is newer than this program, which knows %d: start a newer program",
			d.version, stateVersion)
	}
	for i := range s.draw.finished {
		s.draw.finished[i] = d.u64()
	}
	for n := d.u32(); n > 0 && !d.bad; n-- {
		m := d.mark()
		s.sources.put(m.key, m.at)
	}
	if d.version >= 3 {
		copy(s.identity[:], d.bytes(len(s.identity)))
		s.term, s.holder = d.u64(), d.u64()
		s.chain = d.u32()
	}
	if d.version == 1 {
		d.data = nil // the winners: they are found in the bets file
	}
	if d.bad || len(d.data) > 0 {
		return s, 0, errPayload
	}
	return s, d.version, nil
}

// A decoder reads integers and bytes from data; once it has run short, bad stays set and all it
// returns is zero.
type decoder struct {
	data    []byte
	version uint32 // of the form
	bad     bool
}

// bytes returns the next n bytes, which alias the data; nil if there are fewer. A length that the
// data claims is compared with what is there before anything is made of it.
func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.data) {
		d.bad, d.data = true, nil
		return nil
	}
	b := d.data[:n:n]
	d.data = d.data[n:]
	return b
}

// integer returns the next little-endian integer of size bytes, 8 at most.
func (d *decoder) integer(size int) uint64 {
	var word [8]byte
	copy(word[:], d.bytes(size))
	return binary.LittleEndian.Uint64(word[:])
}

func (d *decoder) u8() uint8   { return uint8(d.integer(1)) }
func (d *decoder) u32() uint32 { return uint32(d.integer(4)) }
func (d *decoder) u64() uint64 { return d.integer(8) }

// mark reads a source and how far it got. Version 1 did not say how many of its bets were
// stored: all of them count.
func (d *decoder) mark() (m sourceMark) {
	m.key.agency = d.u8() // statements of their own: the order is that of the bytes
	m.key.name = string(d.bytes(int(d.u8())))
	m.at.Records = d.u64()
	m.at.CRC = d.u32()
	m.at.stored = m.at.Records
	if d.version > 1 {
		m.at.stored = d.u64()
	}
	return m
}
