package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"reflect"
	"strings"
	"testing"
)

// A form is a record or a snapshot as golden bytes: a line an item, hexadecimal, with what it
// is behind #.
func form(t testing.TB, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	data, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sum appends the CRC-32C that a snapshot ends with.
func sum(data []byte) []byte {
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
}

// fullState returns a state with something of everything.
func fullState() state {
	s := state{sequence: 7, length: 300, bets: 9, crc: 0x01020304}
	s.sources.put(sourceKey{3, "agency-3.csv"}, mark{Resume{12, 0xdeadbeef}, 11})
	s.draw.drawn = 7574
	s.draw.finished.add(1)
	s.draw.finished.add(255)
	s.tenancy = tenancy{identity: testStore, term: 5, holder: 0xa1b2, chain: 0x0a0b0c0d}
	return s
}

// testStore is the identity of a store whose log is shared.
var testStore = storeID{0: 0x70, 15: 0x7f}

// snapshotOf returns the snapshot of s.
func snapshotOf(s state) []byte { return appendState(nil, &s) }

const stateGolden = `
7470307374617465            # "tp0state"
03000000                    # version
0700000000000000            # sequence
2c01000000000000            # length
0900000000000000            # bets
04030201                    # CRC
961d0000                    # number that was drawn
0200000000000000 0000000000000000 0000000000000000 0000000000000080 # agencies 1 and 255
01000000                    # one source
03 0c 6167656e63792d332e637376 0c00000000000000 efbeadde 0b00000000000000
7000000000000000000000000000007f # identity
0500000000000000            # term
b2a1000000000000            # holder
0d0c0b0a                    # CRC of the last record's payload`

// The second version is the same without the last four.
const stateGoldenSecond = `
7470307374617465 02000000 0700000000000000 2c01000000000000 0900000000000000 04030201
961d0000 0200000000000000 0000000000000000 0000000000000000 0000000000000080
01000000 03 0c 6167656e63792d332e637376 0c00000000000000 efbeadde 0b00000000000000`

// The first version, with a draw that has not taken place and two winners.
const stateGoldenFirst = `
7470307374617465 01000000 0700000000000000 2c01000000000000 0900000000000000
00 961d0000 0200000000000000 0000000000000000 0000000000000000 0000000000000080
01000000 03 0c 6167656e63792d332e637376 0c00000000000000 efbeadde
0100 03 02000000 0d000000 0008 3330383736333730 0001 31`

// TestStateFormat pins the bytes of the snapshot, both ways, and those of versions 1 and 2.
func TestStateFormat(t *testing.T) {
	want := sum(form(t, stateGolden))
	data := snapshotOf(fullState())
	if !bytes.Equal(data, want) {
		t.Errorf("got %x,\nwant %x", data, want)
	}
	s, version, err := parseState(want)
	if err != nil || version != 3 {
		t.Fatalf("got version %d, %v", version, err)
	}
	if !reflect.DeepEqual(s, fullState()) {
		t.Errorf("parsed back: got %+v, want %+v", s, fullState())
	}
	if again := appendState([]byte("before"), &s); !bytes.Equal(again[6:], data) {
		t.Errorf("encoded again: got %x, want %x", again[6:], data)
	}
	first, version, err := parseState(sum(form(t, stateGoldenFirst)))
	if err != nil || version != 1 {
		t.Fatalf("version 1: got version %d, %v", version, err)
	}
	old := fullState()
	old.tenancy = tenancy{}
	second, version, err := parseState(sum(form(t, stateGoldenSecond)))
	if err != nil || version != 2 || !reflect.DeepEqual(second, old) {
		t.Errorf("version 2: got %+v, version %d, %v, want %+v", second, version, err, old)
	}
	old.crc, old.draw.drawn, old.draw.winner = 0, noNumber, 7574
	old.sources[3]["agency-3.csv"] = mark{Resume{12, 0xdeadbeef}, 12} // all of its bets count as stored
	if !reflect.DeepEqual(first, old) {
		t.Errorf("version 1: got %+v, want %+v", first, old)
	}
	none := fullState()
	none.draw.drawn = noNumber
	if s, _, err := parseState(snapshotOf(none)); err != nil || s.draw.drawn != noNumber {
		t.Errorf("before the draw: got %+v, %v", s, err)
	}
}

const redoRow = "312c612c622c312c313939392d30312d30312c370d0a" // "1,a,b,1,1999-01-01,7\r\n"

const redoGolden = `
2c01000000000000           # length
01000000 16000000 ` + redoRow + `
66b29312                    # CRC of the bets file with the row, filled in by the test
0100 01 01 61 0200000000000000 03000000 0100000000000000
02 0405                     # agencies that finished
07000000                    # number of the draw` + stampGolden

const stampGolden = `
7000000000000000000000000000007f # identity
b2a1000000000000            # writer
0500000000000000            # term
0d0c0b0a                    # CRC of the record before`

const redoGoldenFirst = `
2c01000000000000 01000000 16000000 ` + redoRow + `
0100 01 01 61 0200000000000000 03000000
01000000 01 01 31           # a winner
02 0405 01`

// sealed returns a group's record with something of everything, sealed.
func sealed() *group {
	g := newGroup(nil)
	g.buf = append(g.buf, "1,a,b,1,1999-01-01,7\r\n"...)
	g.count, g.marks = 1, []sourceMark{{sourceKey{1, "a"}, mark{Resume{2, 3}, 1}}}
	g.finished, g.drawn = []byte{4, 5}, 7
	g.buf = g.seal(g.buf, 300, 0x01020304, stamp{testStore, 0xa1b2, 5, 0x0a0b0c0d})
	return g
}

// sealedPayload is the payload of sealed.
func sealedPayload() []byte { return sealed().buf[walRecordHead:] }

// secondPayload is the same of version 2.
func secondPayload() []byte {
	payload := sealedPayload()
	return payload[:len(payload)-stampSize]
}

// TestRedoFormat pins the bytes of a record's payload, both ways, and those of versions 1 and 2.
func TestRedoFormat(t *testing.T) {
	want := form(t, redoGolden)
	crcAt := 16 + len(redoRow)/2
	binary.LittleEndian.PutUint32(want[crcAt:], crc32.Update(0x01020304, castagnoli, want[16:crcAt]))
	g := sealed()
	if got := g.buf[walRecordHead:]; !bytes.Equal(got, want) {
		t.Errorf("got %x,\nwant %x", got, want)
	}
	r, err := parseRedo(3, want)
	if g.rowsSum = 0; err != nil || !reflect.DeepEqual(*r, g.redo) { // rowsSum is not in the record
		t.Fatalf("got %+v, %v,\nwant %+v", r, err, g.redo)
	}
	wantState := state{sequence: 8, length: 322, bets: 1, crc: r.crc}
	wantState.sources.put(sourceKey{1, "a"}, mark{Resume{2, 3}, 1})
	wantState.draw = draw{drawn: 7, finished: agencySet{1<<4 | 1<<5}}
	wantState.tenancy = tenancy{testStore, 5, 0xa1b2, crc32.Checksum(want, castagnoli)}
	s := state{tenancy: tenancy{testStore, 5, 0xa1b2, 0x0a0b0c0d}}
	if s.apply(8, r); !reflect.DeepEqual(s, wantState) {
		t.Errorf("applied: got %+v, want %+v", s, wantState)
	}
	second, err := parseRedo(2, want[:len(want)-stampSize])
	unstamped := g.redo
	unstamped.stamp, unstamped.sum = stamp{}, 0
	if err != nil || !reflect.DeepEqual(*second, unstamped) {
		t.Errorf("version 2: got %+v, %v,\nwant %+v", second, err, unstamped)
	}
	first, err := parseRedo(1, form(t, redoGoldenFirst))
	if err != nil || string(first.finished) != "\x04\x05" || first.drawn != unknownNumber || len(first.marks) != 1 {
		t.Fatalf("version 1: got %+v, %v", first, err)
	}
	s = state{}
	if s.apply(8, first); s.sources.at(sourceKey{1, "a"}).stored != 2 {
		t.Errorf("version 1 applied: got %+v, want all bets as stored", s)
	}
}

// TestRedoShort checks that no prefix of a payload passes for one, nor does one with a byte more.
func TestRedoShort(t *testing.T) {
	payloads := map[uint32][]byte{3: sealedPayload(), 2: secondPayload(), 1: form(t, redoGoldenFirst)}
	for version, payload := range payloads {
		for n := range payload {
			if _, err := parseRedo(version, payload[:n]); err == nil {
				t.Errorf("the first %d of %d bytes: got no error", n, len(payload))
			}
		}
		if _, err := parseRedo(version, append(payload, 0)); err == nil {
			t.Error("a byte more: got no error")
		}
	}
}

// FuzzRedo parses any bytes: it never fails but with an error, what it takes can be applied,
// and there is one way alone to say it.
func FuzzRedo(f *testing.F) {
	f.Add(uint32(3), sealedPayload())
	f.Add(uint32(2), secondPayload())
	f.Add(uint32(1), form(f, redoGoldenFirst))
	f.Add(uint32(2), []byte(strings.Repeat("\xff", 40)))
	f.Fuzz(func(t *testing.T, version uint32, payload []byte) {
		r, err := parseRedo(version, payload)
		if err != nil || version < 1 || version > walVersion { // as that of every segment that is read
			return
		}
		s := &state{}
		s.apply(1, r)
		if version == 1 {
			return
		}
		again := *r
		buf := again.seal(append(make([]byte, redoRowsAt), r.rows...), r.length, 0, r.stamp)
		if version == 2 {
			buf = buf[:len(buf)-stampSize]
		}
		binary.LittleEndian.PutUint32(buf[redoRowsAt+len(r.rows):], r.crc) // of a bets file that is not known here
		if !bytes.Equal(buf[walRecordHead:], payload) {
			t.Errorf("sealed again: got %x, want %x", buf[walRecordHead:], payload)
		}
	})
}

// FuzzState parses any bytes with a checksum that is right: what it takes says the same when it
// is written and read again.
func FuzzState(f *testing.F) {
	f.Add(form(f, stateGolden))
	f.Add(form(f, stateGoldenFirst))
	f.Add(form(f, stateGoldenSecond))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, _, err := parseState(sum(bytes.Clone(data)))
		if err != nil {
			return
		}
		again, version, err := parseState(snapshotOf(s))
		s.draw.winner = 0 // of version 1
		if err != nil || version != stateVersion || !reflect.DeepEqual(withoutEmpty(again), withoutEmpty(s)) {
			t.Errorf("written and read again: got %+v, %v, want %+v", again, err, s)
		}
	})
}

// withoutEmpty returns s without empty maps, which stand for none.
func withoutEmpty(s state) state {
	for agency, names := range s.sources {
		if len(names) == 0 {
			s.sources[agency] = nil
		}
	}
	return s
}

// TestAdmit goes through who may say what in a shared log.
func TestAdmit(t *testing.T) {
	other := storeID{1}
	at := state{sequence: 7, tenancy: tenancy{testStore, 5, 0xa, 0xc}}
	alone := state{sequence: 7}
	blank := state{}
	rows := []struct {
		name   string
		state  state
		empty  bool
		stamp  stamp
		counts bool
		want   error
	}{
		{"the holder's", at, false, stamp{testStore, 0xa, 5, 0xc}, true, nil},
		{"the holder's, which says nothing", at, true, stamp{testStore, 0xa, 5, 0xc}, true, nil},
		{"a claim", at, true, stamp{testStore, 0xb, 6, 0xc}, true, nil},
		{"a claim of the holder's", at, true, stamp{testStore, 0xa, 6, 0xc}, true, nil},
		{"a claim that has rows", at, false, stamp{testStore, 0xb, 6, 0xc}, false, nil},
		{"of the term, by another", at, true, stamp{testStore, 0xb, 5, 0xc}, false, nil},
		{"of a term before", at, false, stamp{testStore, 0xa, 4, 0xc}, false, nil},
		{"of the term after next", at, true, stamp{testStore, 0xb, 7, 0xc}, false, nil},
		{"behind another record", at, false, stamp{testStore, 0xa, 5, 0xd}, false, errUnchained},
		{"late, and behind another record", at, false, stamp{testStore, 0xa, 4, 0xd}, false, errUnchained},
		{"another store's", at, false, stamp{other, 0xa, 5, 0xc}, false, errForeign},
		{"that of a store with a log of its own", at, false, stamp{}, false, errForeign},
		{"of a shared log, here where none is", alone, false, stamp{testStore, 0xa, 1, 0}, false, errForeign},
		{"of a log of its own", alone, false, stamp{}, true, nil},
		{"the first of a log of its own", blank, false, stamp{}, true, nil},
		{"the first claim", blank, true, stamp{testStore, 0xa, 1, 0}, true, nil},
		{"rows without a claim", blank, false, stamp{testStore, 0xa, 1, 0}, false, nil},
	}
	for _, row := range rows {
		r := &redo{drawn: noNumber, stamp: row.stamp, sum: 0xe}
		if !row.empty {
			r.finished = []byte{3}
		}
		counts, err := row.state.admit(r)
		if counts != row.counts || err != row.want {
			t.Errorf("%s: got %v, %v, want %v, %v", row.name, counts, err, row.counts, row.want)
		}
		if err != nil {
			continue
		}
		s := row.state
		s.apply(8, r)
		want := row.state.tenancy
		want.identity, want.chain = row.stamp.identity, 0xe
		if counts {
			want.term, want.holder = row.stamp.term, row.stamp.writer
		}
		if s.sequence != 8 || s.tenancy != want || s.draw.finished.has(3) != (counts && !row.empty) {
			t.Errorf("%s: applied: got %+v", row.name, s)
		}
	}
}
