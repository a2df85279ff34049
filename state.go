package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A sourceKey names what one agency's file is known by.
type sourceKey struct {
	agency uint8
	name   string // 1 to 255 bytes of UTF-8
}

// A state is all that the store knows beside the bets themselves, as of one record of the redo log: it changes only by whole records, so that it and
// the bets file can't disagree. A snapshot of it is the file PATH.state.
type state struct {
	sequence uint64 // number of the last record that is in
	length   int64  // bytes of the bets file
	bets     uint64 // rows of the bets file
	sources  map[sourceKey]Resume
	lottery  lottery
}

// The payload of a record of the redo log, integers little-endian:
//
//	u64 length of the bets file before this record
//	u32 rows, u32 bytes of the rows, then the rows as they stand in the bets file
//	u16 sources, for each: u8 agency, u8 length, name, u64 records, u32 crc: how far it got with this record
//	u32 winners, for each: u8 agency, u8 length, document
//	u8 agencies that finished with this record, for each: u8 agency
//	u8 1: the draw took place, after all of the above
//
// The rows come first so that a group can be filled while it is open; what precedes them has a fixed size.
const recordRowsAt = 8 + 4 + 4

// A redo is a payload, parsed. Its slices alias the payload.
type redo struct {
	length   int64
	count    uint32
	rows     []byte
	sources  []sourceMark
	winners  []byte // as in the payload
	finished []byte
	draw     bool
}

// A sourceMark says how far a source got.
type sourceMark struct {
	key sourceKey
	at  Resume
}

// errPayload says that a payload or a snapshot does not have the form that its checksum vouches for.
var errPayload = errors.New("state: not in the form of this version")

// A decoder reads integers and bytes from data; once it has run short, bad stays set and all it returns is zero.
type decoder struct {
	data []byte
	bad  bool
}

// bytes returns the next n bytes, which alias the data; nil if there are fewer. A length that the data claims is compared with what is there before anything is made of it.
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

// mark reads a source and how far it got.
func (d *decoder) mark() sourceMark {
	agency := d.u8()
	name := string(d.bytes(int(d.u8())))
	records := d.integer(8) // statements of their own: the order is that of the bytes
	crc := d.u32()
	return sourceMark{sourceKey{agency, name}, Resume{records, crc}}
}

// appendMark is the reverse of mark.
func appendMark(dst []byte, m sourceMark) []byte {
	dst = append(dst, m.key.agency, byte(len(m.key.name)))
	dst = append(dst, m.key.name...)
	dst = binary.LittleEndian.AppendUint64(dst, m.at.Records)
	return binary.LittleEndian.AppendUint32(dst, m.at.CRC)
}

// appendPacked appends one winner of a record.
func appendPacked(dst []byte, agency uint8, document []byte) []byte {
	return append(append(dst, agency, byte(len(document))), document...)
}

// parseRedo reads a payload.
func parseRedo(payload []byte) (redo, error) {
	d := decoder{data: payload}
	r := redo{length: int64(d.integer(8)), count: d.u32()}
	r.rows = d.bytes(int(d.u32()))
	for range d.integer(2) {
		r.sources = append(r.sources, d.mark())
	}
	winners := d.data
	for n := d.u32(); n > 0 && !d.bad; n-- {
		d.u8()
		d.bytes(int(d.u8()))
	}
	r.winners = winners[:len(winners)-len(d.data)] // with its count; apply reads it again
	r.finished = d.bytes(int(d.u8()))
	r.draw = d.u8() == 1
	if d.bad || len(d.data) > 0 {
		return r, errPayload
	}
	return r, nil
}

// apply brings the state to where the record leaves it.
func (s *state) apply(sequence uint64, r *redo) {
	s.sequence = sequence
	s.length = r.length + int64(len(r.rows))
	s.bets += uint64(r.count)
	for _, m := range r.sources {
		s.sources[m.key] = m.at
	}
	d := decoder{data: r.winners}
	for n := d.u32(); n > 0 && !d.bad; n-- {
		agency := d.u8()
		s.lottery.addWinner(agency, d.bytes(int(d.u8())))
	}
	for _, agency := range r.finished {
		s.lottery.finished.add(agency)
	}
	s.lottery.drawn = s.lottery.drawn || r.draw
}

// The snapshot, integers little-endian:
//
//	"tp0state", u32 version 1
//	u64 sequence, u64 length, u64 bets
//	u8 1: drawn, u32 winning number (0xffffffff: winners are not kept), 4 × u64 agencies that finished, as a set of bits
//	u32 sources, for each as in a record
//	u16 agencies with winners, for each: u8 agency, u32 count, u32 bytes, then the documents as strings of the wire
//	u32 CRC-32C of all before it
//
// To change it: raise stateVersion, read both versions in parseState, freeze a file of the new one in testdata/store.
const (
	stateMagic   = "tp0state"
	stateVersion = 1
)

// appendState appends the snapshot of s.
func appendState(dst []byte, s *state) []byte {
	le := binary.LittleEndian
	start := len(dst)
	dst = le.AppendUint32(append(dst, stateMagic...), stateVersion)
	dst = le.AppendUint64(dst, s.sequence)
	dst = le.AppendUint64(dst, uint64(s.length))
	dst = le.AppendUint64(dst, s.bets)
	drawn := byte(0)
	if s.lottery.drawn {
		drawn = 1
	}
	dst = le.AppendUint32(append(dst, drawn), uint32(s.lottery.number))
	for _, word := range s.lottery.finished {
		dst = le.AppendUint64(dst, word)
	}
	dst = le.AppendUint32(dst, uint32(len(s.sources)))
	for key, at := range s.sources {
		dst = appendMark(dst, sourceMark{key, at})
	}
	dst = appendWinnerLists(dst, &s.lottery)
	return le.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// appendWinnerLists appends the snapshot's lists of winners.
func appendWinnerLists(dst []byte, l *lottery) []byte {
	le := binary.LittleEndian
	count := len(dst)
	dst = append(dst, 0, 0)
	for agency, list := range l.winners {
		if list == nil {
			continue
		}
		le.PutUint16(dst[count:], le.Uint16(dst[count:])+1)
		dst = le.AppendUint32(append(dst, byte(agency)), uint32(list.count))
		dst = le.AppendUint32(dst, uint32(len(list.packed)))
		dst = append(dst, list.packed...)
	}
	return dst
}

// parseState reads a snapshot.
func parseState(data []byte) (*state, error) {
	le := binary.LittleEndian
	end := len(data) - 4
	if end < len(stateMagic)+4 || string(data[:len(stateMagic)]) != stateMagic || crc32.Checksum(data[:end], castagnoli) != le.Uint32(data[end:]) {
		return nil, errors.New("damaged (its checksum does not match): restore it from a copy")
	}
	d := decoder{data: data[len(stateMagic):end]}
	if version := d.u32(); version != stateVersion {
		return nil, fmt.Errorf("version %d is newer than this program, which knows %d: start a newer program", version, stateVersion)
	}
	s := &state{sequence: d.integer(8), length: int64(d.integer(8)), bets: d.integer(8), sources: map[sourceKey]Resume{}}
	s.lottery.drawn = d.u8() == 1
	s.lottery.number = int(int32(d.u32()))
	for i := range s.lottery.finished {
		s.lottery.finished[i] = d.integer(8)
	}
	for n := d.u32(); n > 0 && !d.bad; n-- {
		m := d.mark()
		s.sources[m.key] = m.at
	}
	for n := d.integer(2); n > 0 && !d.bad; n-- {
		agency, count := d.u8(), int(d.u32())
		packed := append([]byte(nil), d.bytes(int(d.u32()))...)
		s.lottery.winners[agency] = &winnerList{count, packed}
	}
	if d.bad || len(d.data) > 0 {
		return nil, errPayload
	}
	return s, nil
}
