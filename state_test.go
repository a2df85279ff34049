package main

import (
	"bytes"
	"encoding/hex"
	"maps"
	"reflect"
	"strings"
	"testing"
)

// fullState returns a state with something of everything.
func fullState() *state {
	s := &state{sequence: 7, length: 300, bets: 9, sources: map[sourceKey]Resume{{3, "agency-3.csv"}: {12, 0xdeadbeef}}}
	s.lottery.number, s.lottery.drawn = 7574, true
	s.lottery.finished.add(1)
	s.lottery.finished.add(255)
	s.lottery.addWinner(3, []byte("30876370"))
	s.lottery.addWinner(3, []byte("1"))
	return s
}

// TestStateFormat pins the bytes of version 1 of the snapshot, both ways.
func TestStateFormat(t *testing.T) {
	want := "7470307374617465" + "01000000" + "0700000000000000" + "2c01000000000000" + "0900000000000000" + "01" + "961d0000" +
		"0200000000000000" + "0000000000000000" + "0000000000000000" + "0000000000000080" +
		"01000000" + "030c" + hex.EncodeToString([]byte("agency-3.csv")) + "0c00000000000000" + "efbeadde" +
		"0100" + "03" + "02000000" + "0d000000" + "0008" + hex.EncodeToString([]byte("30876370")) + "0001" + "31"
	data := appendState(nil, fullState())
	if got := hex.EncodeToString(data[:len(data)-4]); got != want {
		t.Errorf("got %s,\nwant %s", got, want)
	}
	s, err := parseState(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, fullState()) {
		t.Errorf("parsed back: got %+v, want %+v", s, fullState())
	}
	if again := appendState([]byte("before"), s); !bytes.Equal(again[6:], data) {
		t.Errorf("encoded again: got %x, want %x", again[6:], data)
	}
}

// sealed returns the payload of a group with something of everything.
func sealed() []byte {
	g := newGroup(nil)
	g.buf = append(g.buf, "1,a,b,1,1999-01-01,7\r\n"...)
	g.count, g.marks = 1, []sourceMark{{sourceKey{1, "a"}, Resume{2, 3}}}
	g.winners, g.nwinners = appendPacked(nil, 1, []byte("1")), 1
	g.finished, g.draw = []byte{4, 5}, true
	rec, _ := g.seal(300)
	return rec[walRecordHead:]
}

// TestRedoFormat pins the bytes of a record's payload, both ways.
func TestRedoFormat(t *testing.T) {
	const rows = "1,a,b,1,1999-01-01,7\r\n"
	want := "2c01000000000000" + "01000000" + "16000000" + hex.EncodeToString([]byte(rows)) +
		"0100" + "01" + "01" + "61" + "0200000000000000" + "03000000" + "01000000" + "01" + "01" + "31" + "02" + "0405" + "01"
	if got := hex.EncodeToString(sealed()); got != want {
		t.Errorf("got %s,\nwant %s", got, want)
	}
	r, err := parseRedo(sealed())
	if err != nil || r.length != 300 || r.count != 1 || string(r.rows) != rows || len(r.sources) != 1 || !r.draw || string(r.finished) != "\x04\x05" {
		t.Fatalf("got %+v, %v", r, err)
	}
	s := &state{sources: map[sourceKey]Resume{}}
	s.apply(8, &r)
	if want := (map[sourceKey]Resume{{1, "a"}: {2, 3}}); !maps.Equal(s.sources, want) {
		t.Errorf("sources: got %v, want %v", s.sources, want)
	}
	if s.sequence != 8 || s.length != 322 || s.bets != 1 || !s.lottery.drawn || s.lottery.finished.count() != 2 || s.lottery.winnersOf(1).count != 1 {
		t.Errorf("applied: got %+v", s)
	}
}

// TestRedoShort checks that no prefix of a payload passes for one, nor does one with a byte more.
func TestRedoShort(t *testing.T) {
	payload := sealed()
	for n := range payload {
		if _, err := parseRedo(payload[:n]); err == nil {
			t.Errorf("the first %d of %d bytes: got no error", n, len(payload))
		}
	}
	if _, err := parseRedo(append(payload, 0)); err == nil {
		t.Error("a byte more: got no error")
	}
}

// FuzzRedo parses any bytes: it never fails but with an error, and what it takes can be applied.
func FuzzRedo(f *testing.F) {
	f.Add(sealed())
	f.Add([]byte(strings.Repeat("\xff", 40)))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if r, err := parseRedo(payload); err == nil {
			s := &state{sources: map[sourceKey]Resume{}}
			s.apply(1, &r)
		}
	})
}
