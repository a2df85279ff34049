package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// wantFastRow looks at the BET at offset at of m as fastRows does and as the plain way does, which
// has the last word. It returns whether fastRows took it.
func wantFastRow(t *testing.T, r rule, agency uint8, m []byte, at int) (taken bool) {
	t.Helper()
	before := []byte("before")
	dst := append(make([]byte, 0, len(before)+fastRow), before...)
	array := bytes.Clone(m[:cap(m)])
	fast := newFastRows(r, agency)
	rows, next := fast.appendRow(dst, m, at)
	if !bytes.Equal(array, m[:cap(m)]) {
		t.Fatalf("%q: the message has changed", m)
	}
	if next == 0 {
		if string(rows) != "before" {
			t.Fatalf("%q: not taken, and the rows are %q", m, rows)
		}
		return false
	}
	var b Bet
	end, err := parseBatchBet(m, at, 0, 1, &b)
	if err != nil || end != next {
		t.Fatalf("%q: taken, ends at %d; got %d, %v", m, next, end, err)
	}
	if why := r.check(&b); why != accepted {
		t.Fatalf("%q: taken, want refused: %s", m, why.reason())
	}
	if want := string(appendRow(before, &b)); string(rows) != want {
		t.Fatalf("%q: got row %q, want %q", m, rows, want)
	}
	return true
}

// fastMessage returns b as a BET with so much behind it in the array: what a buffer may hold.
func fastMessage(b Bet, behind string) []byte {
	m := appendBet(nil, &b)
	return append(append(make([]byte, 0, len(m)+len(behind)), m...), behind...)[:len(m)]
}

// wantFast wants b to be dealt with as it should, whatever stands behind it; taken says whether it
// looks as nearly all bets do and is good.
func wantFast(t *testing.T, b Bet, taken bool) {
	t.Helper()
	for _, c := range []string{"\x00", ",", "\xff", "a", "\xc3", "\xa9", "\x01"} {
		m := fastMessage(b, strings.Repeat(c, fastBet))
		if got := wantFastRow(t, rule{maxNumber: 9998}, b.Agency, m, 0); got != taken {
			t.Fatalf("%q: taken: got %v, want %v", b, got, taken)
		}
	}
}

// TestFastRows has what is taken and what is left, at each limit.
func TestFastRows(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(b *Bet)
		taken bool
	}{
		{"good", func(b *Bet) {}, true},
		{"first names of 1", func(b *Bet) { b.First = []byte("A") }, true},
		{"first names of 24", func(b *Bet) { b.First = bytes.Repeat([]byte("A"), 24) }, true},
		{"first names of 25", func(b *Bet) { b.First = bytes.Repeat([]byte("A"), 25) }, false},
		{"last names of 1", func(b *Bet) { b.Last = []byte("Z") }, true},
		{"last names of 16", func(b *Bet) { b.Last = bytes.Repeat([]byte("Z"), 16) }, true},
		{"last names of 17", func(b *Bet) { b.Last = bytes.Repeat([]byte("Z"), 17) }, false},
		{"names of 257", func(b *Bet) {
			b.First, b.Last = bytes.Repeat([]byte("Z"), 257), bytes.Repeat([]byte("Z"), 257)
		}, false},
		{"no first names", func(b *Bet) { b.First = nil }, false},
		{"no last names", func(b *Bet) { b.Last = nil }, false},
		{"names of 24 and 16 in letters of two bytes", func(b *Bet) {
			b.First, b.Last = []byte(strings.Repeat("ñ", 12)), []byte(strings.Repeat("Á", 8))
		}, true},
		{"half a letter at the end", func(b *Bet) { b.First = append(bytes.Repeat([]byte("A"), 23), 0xc3) }, false},
		{"half a letter at the end of the last names", func(b *Bet) {
			b.Last = append(bytes.Repeat([]byte("A"), 15), 0xc3)
		}, false},
		{"a comma", func(b *Bet) { b.First = []byte("A,B") }, false},
		{"a quote", func(b *Bet) { b.Last = []byte(`"`) }, false},
		{"document of 7", func(b *Bet) { b.Document = []byte("1234567") }, false},
		{"document of 9", func(b *Bet) { b.Document = []byte("123456789") }, false},
		{"document with a letter", func(b *Bet) { b.Document = []byte("1234567a") }, false},
		{"birthdate of 9", func(b *Bet) { b.Birthdate = []byte("1999-12-3") }, false},
		{"birthdate that is none", func(b *Bet) { b.Birthdate = []byte("1999-02-29") }, false},
		{"highest number", func(b *Bet) { b.Number = 9998 }, true},
		{"number too high", func(b *Bet) { b.Number = 9999 }, false},
		{"agency 9", func(b *Bet) { b.Agency = 9 }, true},
		{"agency 10", func(b *Bet) { b.Agency = 10 }, true},
		{"agency 255", func(b *Bet) { b.Agency = 255 }, true},
		{"agency 0", func(b *Bet) { b.Agency = 0 }, false},
	}
	for _, tt := range tests {
		b := goodBet()
		tt.spoil(&b)
		t.Run(tt.name, func(t *testing.T) { wantFast(t, b, tt.taken) })
	}
	longest := Bet{255, bytes.Repeat([]byte("A"), fastFirst), bytes.Repeat([]byte("Z"), fastLast),
		[]byte("12345678"), []byte("1999-12-31"), 9999}
	if !wantFastRow(t, rule{maxNumber: 65535}, 255, fastMessage(longest, "12345678"), 0) {
		t.Error("the longest: not taken")
	}
	for n := range 1 << 16 {
		b := goodBet()
		b.Number = uint16(n)
		taken := wantFastRow(t, rule{maxNumber: 65535}, b.Agency, fastMessage(b, strings.Repeat("x", fastBet)), 0)
		if taken != (n <= 9999) {
			t.Fatalf("number %d: taken: %v", n, taken)
		}
	}
}

// TestFastRowsLeaves has what fastRows must leave because of what is around the bet.
func TestFastRowsLeaves(t *testing.T) {
	b := goodBet()
	m := fastMessage(b, strings.Repeat("x", fastBet))
	for what, f := range map[string]fastRows{
		"another agency":                   newFastRows(rule{maxNumber: 9998}, b.Agency+1),
		"another agency than HELLO's":      newFastRows(rule{agency: b.Agency + 1, maxNumber: 9998}, b.Agency),
		"the highest number is lower":      newFastRows(rule{maxNumber: b.Number - 1}, b.Agency),
		"no agency, because none has come": newFastRows(rule{maxNumber: 9998}, agencyOf([]byte{opBatch, 0, 1, opBet})),
	} {
		if _, next := f.appendRow(make([]byte, 0, fastRow), m, 0); next != 0 {
			t.Errorf("%s: taken, want it left", what)
		}
	}
	fast := newFastRows(rule{maxNumber: 9998}, b.Agency)
	for n := range len(m) { // the rest has not come, though something stands there
		if _, next := fast.appendRow(make([]byte, 0, fastRow), m[:n], 0); next != 0 {
			t.Errorf("%d bytes of %d: taken, want them left", n, len(m))
		}
	}
	if _, next := fast.appendRow(make([]byte, 0, fastRow-1), m, 0); next != 0 {
		t.Error("no room for the row: taken, want it left")
	}
	if _, next := fast.appendRow(make([]byte, 0, fastRow), m[:len(m):fastBet-1], 0); next != 0 {
		t.Error("the buffer ends: taken, want it left")
	}
	late := append(make([]byte, maxMessage-len(m)+1, maxMessage+2*fastBet), m...)
	if _, next := fast.appendRow(make([]byte, 0, fastRow), late, maxMessage-len(m)+1); next != 0 {
		t.Error("it ends behind the longest message: taken, want it left")
	}
	if _, next := fast.appendRow(make([]byte, 0, fastRow), late[1:], maxMessage-len(m)); next != maxMessage {
		t.Error("it ends where the longest message does: left, want it taken")
	}
	notBet := bytes.Clone(m[:cap(m)])[:len(m)]
	notBet[0] = opNotify
	if _, next := fast.appendRow(make([]byte, 0, fastRow), notBet, 0); next != 0 {
		t.Error("not a BET: taken, want it left")
	}
}

// TestFastRowsNames has each byte at each place of names, each pair of bytes where a word may end
// between them, and each character that matters.
func TestFastRowsNames(t *testing.T) {
	t.Parallel()
	name := func(n int) []byte { return bytes.Repeat([]byte("m"), n) }
	try := func(first, last []byte) {
		b := goodBet()
		b.First, b.Last = first, last
		wantFastRow(t, rule{maxNumber: 9998}, b.Agency, fastMessage(b, strings.Repeat("x", fastBet)), 0)
	}
	for n := 1; n <= fastFirst; n++ {
		for at := range n {
			for c := range 256 {
				in := name(n)
				in[at] = byte(c)
				try(in, name(3))
				if n <= fastLast {
					try(name(3), in)
				}
			}
		}
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, n := range []int{2, 8, 9, 16, 17, 24} {
		for _, at := range []int{0, 6, 7, 14, 15, 22, n - 2} {
			for pair := 0; pair < 1<<16 && at+2 <= n; pair += step {
				in := name(n)
				in[at], in[at+1] = byte(pair>>8), byte(pair)
				if n <= fastLast && pair&1 == 1 {
					try(name(3), in)
				} else {
					try(in, name(3))
				}
			}
		}
	}
	chars := []string{"", "é", "ñ", "漢", "😀", "\u00a0", "\u2028", "\ufffd", "\ufeff",
		"\u0080", "\u0085", "\u009f", "\u07ff", "\uffff", "\U0010ffff",
		"\xc2", "\xc3", "\xe6\xbc", "\xf0\x9f\x98", "\xed\xa0\x80", "\xed\xbf\xbf",
		"\xc0\x80", "\xc1\xbf", "\xe0\x80\xaf", "\xf4\x90\x80\x80", "\x80", "\xbf", "\x7f", ",", "\""}
	for before := range 18 {
		for after := range 10 {
			for _, char := range chars {
				try([]byte(strings.Repeat("b", before)+char+strings.Repeat("a", after)),
					[]byte(strings.Repeat("é", before/2)+char+strings.Repeat("x", after)+"ñ"))
			}
		}
	}
}

// TestFastRowsTakeNearlyAll: what it is for goes its way.
func TestFastRowsTakeNearlyAll(t *testing.T) {
	var sample bytes.Buffer
	if err := writeSample(&sample, 1, 20_000); err != nil {
		t.Fatal(err)
	}
	b, all, taken := newBatcher(bytes.NewReader(sample.Bytes()), 1, 150, 0), 0, 0
	for {
		m, s, err := b.next(make([]byte, 0, 2*maxMessage))
		if err != nil {
			break
		}
		at := batchHead
		for range s.bets {
			if wantFastRow(t, rule{maxNumber: 9999}, 1, m, at) {
				taken++
			}
			var bet Bet
			at, _ = parseBet(m, at, &bet)
			all++
		}
	}
	if all != 20_000 || taken < all*999/1000 {
		t.Errorf("taken: got %d of %d, want 999 of 1,000", taken, all)
	}
}

// FuzzFastRows holds fastRows to parseBet, check and appendRow for any bytes.
func FuzzFastRows(f *testing.F) {
	for _, tt := range rowTests {
		f.Add(fastMessage(tt.bet, strings.Repeat("\x00", fastBet)), uint16(9998), 0)
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		b := goodBet()
		b.First = fmt.Appendf(nil, "%s %s", sampleMen[random.IntN(len(sampleMen))],
			sampleMen[random.IntN(len(sampleMen))])
		b.Last = []byte(sampleLast[random.IntN(len(sampleLast))])
		f.Add(fastMessage(b, strings.Repeat("\x00", fastBet)), uint16(9998), random.IntN(3))
	}
	f.Fuzz(func(t *testing.T, array []byte, maxNumber uint16, cut int) {
		array = bytes.Clone(array) // its own array: the fuzzer's is very long
		m := array[:len(array)-min(max(cut, 0), len(array))]
		for _, agency := range []uint8{0, 3, 255} {
			wantFastRow(t, rule{maxNumber: maxNumber}, agency, m, 0)
		}
		if len(array) > 1 {
			wantFastRow(t, rule{agency: array[1], maxNumber: maxNumber}, array[1], m, 0)
		}
	})
}

// benchDecide decides on the bets of a sample file as a connection does: in a buffer into which
// they have just been copied, and so many that no processor remembers what comes next.
func benchDecide(b *testing.B, decide func(d *decider, m []byte, count int) (size int, err error)) {
	const batches = 1000
	var sample bytes.Buffer
	if err := writeSample(&sample, 1, batches*150); err != nil {
		b.Fatal(err)
	}
	from := newBatcher(bytes.NewReader(sample.Bytes()), 1, 150, 0)
	var all [][]byte
	for range batches {
		m, _, err := from.next(nil)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, m)
	}
	d := &decider{rule: rule{agency: 1, maxNumber: 9998}}
	buf, bets, i := make([]byte, 2*maxMessage), 0, 0
	b.ReportAllocs()
	for b.Loop() {
		m := buf[:copy(buf, all[i%batches])]
		count, err := parseBatchHead(m)
		if err == nil {
			_, err = decide(d, m, count)
		}
		if err != nil {
			b.Fatal(err)
		}
		bets += count
		i++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(bets), "ns/bet")
}

// BenchmarkDecide is parse, check and format as the server does it; an operation is a batch.
func BenchmarkDecide(b *testing.B) {
	benchDecide(b, (*decider).batch)
}

// BenchmarkDecidePlain is BenchmarkDecide without fastRows.
func BenchmarkDecidePlain(b *testing.B) {
	benchDecide(b, func(d *decider, m []byte, count int) (size int, err error) {
		d.begin(1)
		at := batchHead
		var bet Bet
		for i := range count {
			if at, err = parseBatchBet(m, at, i, count, &bet); err != nil {
				return 0, err
			}
			d.add(&bet)
		}
		return at, nil
	})
}

// TestRefuseRest: what the draw refuses, and what was refused before it came.
func TestRefuseRest(t *testing.T) {
	var m []byte
	for i := range 5 {
		b := goodBet()
		if i == 1 || i == 4 {
			b.Number = 9999
		}
		m = appendBet(m, &b)
	}
	d := decider{rule: testRule}
	if _, err := d.batch(append(appendBatchHead(nil, 5), m...), 5); err != nil {
		t.Fatal(err)
	}
	if d.decision.count != 3 || len(d.refused) != 2 {
		t.Fatalf("before: got %d stored, %d refused; want 3, 2", d.decision.count, len(d.refused))
	}
	d.decision.at = Resume{5, 7}
	d.refuseRest(afterDraw)
	want := []refusedBet{{1, afterDraw}, {2, badNumber}, {3, afterDraw}, {4, afterDraw}, {5, badNumber}}
	if !slices.Equal(d.refused, want) {
		t.Errorf("got %v, want %v", d.refused, want)
	}
	if dd := d.decision; dd.count != 0 || len(dd.rows) > 0 || dd.total != 5 || dd.at != (Resume{5, 7}) {
		t.Errorf("got %+v, want nothing stored of 5, and where the source stands", dd)
	}
}
