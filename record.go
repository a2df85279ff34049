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
//
// The rows come first so that a group can be filled while it is open: what precedes them has a
// fixed size. Version 1 is read as well (parseRedo); the segment tells the version.

// redoRowsAt is where the rows start in a record with its head.
const redoRowsAt = walRecordHead + 8 + 4 + 4

// A redo is what a record says. Its slices alias the record.
type redo struct {
	length   int64 // of the bets file before it
	count    uint32
	rows     []byte
	crc      uint32 // of the bets file with them
	sum      uint32 // of the rows alone; not in the record
	marks    []sourceMark
	finished []byte
	drawn    int // as in a draw
}

// A sourceMark says how far a source got.
type sourceMark struct {
	key sourceKey
	at  mark
}

// seal completes the record in buf, whose rows have been appended from redoRowsAt on, and fills
// r in from it. The bets file has length bytes before it, of that crc.
func (r *redo) seal(buf []byte, length int64, crc uint32) []byte {
	le := binary.LittleEndian
	r.rows = buf[redoRowsAt:]
	r.sum = crc32.Checksum(r.rows, castagnoli)
	r.length, r.crc = length, joinCRC(crc, r.sum, len(r.rows))
	le.PutUint64(buf[walRecordHead:], uint64(length))
	le.PutUint32(buf[walRecordHead+8:], r.count)
	le.PutUint32(buf[walRecordHead+12:], uint32(len(r.rows)))
	buf = le.AppendUint32(buf, r.crc)
	buf = le.AppendUint16(buf, uint16(len(r.marks)))
	for _, m := range r.marks {
		buf = appendMark(buf, m.key, m.at)
	}
	buf = append(append(buf, byte(len(r.finished))), r.finished...)
	return le.AppendUint32(buf, uint32(r.drawn))
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
	if d.bad || len(d.data) > 0 {
		return nil, errPayload
	}
	return r, nil
}

// precedes reports whether r's rows follow on what the state says of the bets file.
func (s *state) precedes(r *redo) bool {
	return r.length == s.length && r.crc == crc32.Update(s.crc, castagnoli, r.rows)
}

// apply brings the state to where the record leaves it.
func (s *state) apply(sequence uint64, r *redo) {
	s.sequence = sequence
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
//	"tp0state", u32 version 2
//	u64 sequence, u64 length, u64 bets, u32 CRC-32C of the bets file up to length
//	u32 number that was drawn; 0xffffffff: the draw has not taken place
//	4 × u64 agencies that finished, as a set of bits
//	u32 sources, for each as in a record
//	u32 CRC-32C of all before it
//
// Version 1 is read as well (parseState).
const (
	stateMagic   = "tp0state"
	stateVersion = 2
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
	case stateVersion:
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
