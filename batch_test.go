package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand"
	"slices"
	"strings"
	"testing"
)

// A cutBatch is what next returned.
type cutBatch struct {
	m []byte
	s span
}

// cutFile cuts the rest of a file into batches; the last one is the span that came with io.EOF.
func cutFile(t *testing.T, b *batcher) (all []cutBatch) {
	t.Helper()
	for {
		m, s, err := b.next([]byte("before"))
		if string(m[:6]) != "before" {
			t.Fatalf("got %q in front of the batch, want what was there", m[:6])
		}
		all = append(all, cutBatch{m[6:], s})
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A seenRecord is a record of a file as it is rejected or sent.
type seenRecord struct {
	line      int
	malformed string
	bet       []byte // as a BET
}

// seenRecords reads a file record by record.
func seenRecords(t *testing.T, data []byte, agency uint8) (all []seenRecord) {
	t.Helper()
	r := newReader(bytes.NewReader(data))
	for {
		rec, err := r.next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var b Bet
		seen := seenRecord{line: rec.line, malformed: toBet(rec, 0, agency, &b)}
		if seen.malformed == "" {
			seen.bet = appendBet(nil, &b)
		}
		all = append(all, seen)
	}
}

// randomFile returns an agency file with all that may be in one.
func randomFile(rnd *rand.Rand) []byte {
	name := func() string { return strings.Repeat("Añá", 1+rnd.Intn(4)) }
	var data []byte
	if rnd.Intn(4) == 0 {
		data = append(data, byteOrderMark...)
	}
	long := rnd.Intn(3) == 0
	for range rnd.Intn(60) {
		row := fmt.Sprintf("%s,%s,%d,1999-03-17,%d", name(), name(), rnd.Intn(1e8), rnd.Intn(10000))
		switch rnd.Intn(24) {
		case 0:
			row = ""
		case 1:
			row = "only,three,fields"
		case 2:
			row += "x"
		case 3:
			row = fmt.Sprintf("a,b,1,1999-03-17,%d", 65530+rnd.Intn(12))
		case 4:
			row = `"a, ""b""` + "\r\n" + `c",b,1,1999-03-17,7`
		case 5:
			row = `stray "quote,b,1,1999-03-17,7`
		case 6:
			row = `"never closed,b,1,1999-03-17,7`
		case 7:
			row = strings.Repeat("\n", rnd.Intn(4)) + `a,"b",1,1999-03-17,`
		case 8:
			if long {
				row = strings.Repeat("x", rnd.Intn(9000)) + ",b,1,1999-03-17,8"
			}
		case 9:
			if long && rnd.Intn(10) == 0 {
				row = strings.Repeat("y", maxRecord-3+rnd.Intn(6))
			}
		}
		data = append(append(data, row...), []string{"\n", "\r\n"}[rnd.Intn(2)]...)
	}
	if rnd.Intn(3) == 0 {
		data = append(data, "a,b,1,1999-03-17,7"...)
	}
	return data
}

func TestBatcherRandom(t *testing.T) {
	t.Parallel()
	for seed := range int64(300) {
		rnd := rand.New(rand.NewSource(seed))
		data := randomFile(rnd)
		amount := []int{1, 2, 3, 7, 150, 65535}[rnd.Intn(6)]
		file := bytes.NewReader(data)
		all := cutFile(t, newBatcher(file, 9, amount, 0))
		t.Run(fmt.Sprintf("seed %d, batches of %d", seed, amount), func(t *testing.T) {
			records := seenRecords(t, data, 9)
			checkBatches(t, all, records, amount)
			checkSpans(t, file, all, records)
			for i := range all {
				b := newBatcher(file, 9, amount, 0)
				b.next(nil) // wherever it stood
				b.goOn(all[i].s)
				again := cutFile(t, b)
				for j, got := range again {
					want := all[min(i+1+j, len(all)-1)]
					if i == len(all)-1 { // behind the end there is nothing more
						want.s.index, want.s.malformed = want.s.index+1, 0
						want.s.offset, want.s.line = want.s.end, want.s.endLine
					}
					if !bytes.Equal(got.m, want.m) || got.s != want.s {
						t.Fatalf("went on behind batch %d: batch %d: got %+v, want %+v", i, j, got.s, want.s)
					}
				}
			}
		})
	}
}

// checkBatches wants all bets in order, in batches that are full but the last, with their
// counts and CRC.
func checkBatches(t *testing.T, all []cutBatch, records []seenRecord, amount int) {
	t.Helper()
	var bets [][]byte
	malformed := 0
	for _, r := range records {
		if r.malformed != "" {
			malformed++
		} else {
			bets = append(bets, r.bet)
		}
	}
	want := span{endLine: 1, index: -1}
	for i, c := range all {
		s := c.s
		if s.offset != want.end || s.line != want.endLine || s.index != want.index+1 || s.end < s.offset ||
			s.endLine < s.line {
			t.Fatalf("batch %d: got %+v behind %+v, want it to start where that ends", i, s, want)
		}
		malformed -= s.malformed
		if i == len(all)-1 {
			if s.bets != 0 || len(c.m) != 0 || s.after != want.after {
				t.Fatalf("at the end: got %+v and %d bytes, want no bet and nothing", s, len(c.m))
			}
			break
		}
		if s.bets < 1 || s.bets > min(amount, len(bets)) || len(c.m) > maxMessage {
			t.Fatalf("batch %d: got %d bets, %d bytes, want 1 to %d in at most %d", i, s.bets, len(c.m), amount,
				maxMessage)
		}
		body := bytes.Join(bets[:s.bets], nil)
		if got := c.m; got[0] != opBatch || int(binary.BigEndian.Uint16(got[1:])) != s.bets ||
			!bytes.Equal(got[batchHead:], body) {
			t.Fatalf("batch %d: got %x, want the next %d bets", i, got, s.bets)
		}
		bets = bets[s.bets:]
		if s.bets < amount && len(bets) > 0 && len(c.m)+len(bets[0]) <= maxMessage {
			t.Fatalf("batch %d: got %d bets, %d bytes, want it full: the next one has %d", i, s.bets, len(c.m),
				len(bets[0]))
		}
		crc := crc32.Update(want.after.CRC, castagnoli, body)
		if wantAfter := (Resume{want.after.Records + uint64(s.bets), crc}); s.after != wantAfter {
			t.Fatalf("batch %d: got %+v, want %+v", i, s.after, wantAfter)
		}
		want = s
	}
	if len(bets) > 0 || malformed != 0 {
		t.Fatalf("got %d bets less, and %d malformed records less, than the file has", len(bets), malformed)
	}
}

// checkSpans wants the spans to visit all records again, each with its line and its position in
// its batch.
func checkSpans(t *testing.T, file io.ReaderAt, all []cutBatch, records []seenRecord) {
	t.Helper()
	again := spanReader{file: file, agency: 9}
	for i := range all {
		var got []seenRecord
		position, malformed := 0, 0
		err := again.each(all[i].s, func(rec *record, at int, b *Bet, reason string) bool {
			seen := seenRecord{line: rec.line, malformed: reason}
			if reason != "" {
				malformed++
			} else {
				position++
				seen.bet = appendBet(nil, b)
				if at != position {
					t.Errorf("batch %d, line %d: got position %d, want %d", i, rec.line, at, position)
				}
			}
			got = append(got, seen)
			return true
		})
		if err != nil || position != all[i].s.bets || malformed != all[i].s.malformed || len(got) > len(records) {
			t.Fatalf("batch %d: got %d bets, %d malformed, %v, want as in %+v", i, position, malformed, err, all[i].s)
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", records[:len(got)]) {
			t.Fatalf("batch %d: got %.300q, want %.300q", i, got, records[:len(got)])
		}
		records = records[len(got):]
	}
	if len(records) > 0 {
		t.Fatalf("got %d records less than the file has", len(records))
	}
}

// TestBatcherBytes has bets at the limit of bytes.
func TestBatcherBytes(t *testing.T) {
	row := func(size int) string { return strings.Repeat("x", size-minBet-1-1-10) + ",y,1,1999-03-17,7\n" }
	tests := []struct {
		name, file string
		want       string // bets:bytes of each batch, malformed
	}{
		{"8189", row(8189), "1:8192 m0"},
		{"8190", row(8190), "m1"},
		{"8190 between", row(100) + row(8190) + row(100), "2:203 m1"},
		{"8189 between", row(100) + row(8189) + row(100), "1:103 1:8192 1:103 m0"},
		{"two that fill", row(4000) + row(4189) + row(100), "2:8192 1:103 m0"},
		{"two that do not fit", row(4000) + row(4190) + row(100), "1:4003 2:4293 m0"},
		{"65536", strings.Repeat("x", maxRecord) + "\n" + row(100), "1:103 m1"},
		{"nothing", "", "m0"},
		{"blank lines", "\n\r\n\n", "m0"},
		{"byte order mark", byteOrderMark, "m0"},
		{"only malformed", "a\nb\n", "m2"},
	}
	for _, tt := range tests {
		var got []string
		malformed := 0
		for _, c := range cutFile(t, newBatcher(strings.NewReader(tt.file), 1, 150, 0)) {
			malformed += c.s.malformed
			if c.s.bets > 0 {
				got = append(got, fmt.Sprintf("%d:%d", c.s.bets, len(c.m)))
			}
		}
		if got = append(got, fmt.Sprintf("m%d", malformed)); strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestToBet(t *testing.T) {
	tests := []struct{ record, want string }{
		{"a|b|1|1999-03-17|7", ""}, {"||||0", ""}, {"a|b|1|x|00007", ""}, {"a|b|1|x|65535", ""},
		{"a|b|1|x", "4 fields where there should be 5"}, {"a|b|1|x|7|", "6 fields where there should be 5"},
		{"", "1 fields where there should be 5"},
		{"a|b|1|x|", "number is not 1 to 5 digits"}, {"a|b|1|x|000007", "number is not 1 to 5 digits"},
		{"a|b|1|x|-1", "number is not 1 to 5 digits"},
		{"a|b|1|x| 7", "number is not 1 to 5 digits"}, {"a|b|1|x|7 ", "number is not 1 to 5 digits"},
		{"a|b|1|x|7.0", "number is not 1 to 5 digits"},
		{"a|b|1|x|99999999999999999999", "number is not 1 to 5 digits"},
		{"a|b|1|x|7\xd9\xa1", "number is not 1 to 5 digits"},
		{"a|b|1|x|65536", "number is over 65535"}, {"a|b|1|x|99999", "number is over 65535"},
		{strings.Repeat("x", 8176) + "|||b|7", ""},
		{strings.Repeat("x", 8177) + "|||b|7",
			"longer than a batch holds: 8190 bytes as a BET, and 8189 are the limit"},
	}
	for _, tt := range tests {
		var b Bet
		if got := toBet(&record{fields: bytes.Split([]byte(tt.record), []byte("|"))}, 0, 1, &b); got != tt.want {
			t.Errorf("%.40q: got %q, want %q", tt.record, got, tt.want)
		}
	}
	var b Bet
	toBet(&record{fields: bytes.Split([]byte("a|b|1|x|00042"), []byte("|"))}, 0, 7, &b)
	if got, want := fmt.Sprintf("%q", b), fmt.Sprintf("%q", rowBet(7, "a", "b", "1", "x", 42)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A brokenFile fails from some offset on.
type brokenFile struct {
	data []byte
	err  error
}

func (f brokenFile) ReadAt(p []byte, offset int64) (int, error) {
	n := copy(p, f.data[min(offset, int64(len(f.data))):])
	if n < len(p) {
		return n, f.err
	}
	return n, nil
}

func TestBatcherReadError(t *testing.T) {
	file := brokenFile{[]byte("a,b,1,1999-03-17,7\nc,d,2,1999"), errors.New("input/output error")}
	b := newBatcher(file, 1, 1, 0)
	if m, s, err := b.next(nil); err != nil || s.bets != 1 || len(m) == 0 {
		t.Fatalf("got %d bets, %v, want the one before the error", s.bets, err)
	}
	for range 2 {
		if m, s, err := b.next(nil); err != file.err || len(m) != 0 || s.bets != 0 {
			t.Errorf("got %d bytes, %d bets, %v, want %v and nothing", len(m), s.bets, err, file.err)
		}
	}
	b = newBatcher(file, 1, 2, 0) // the error comes within a batch
	if m, s, err := b.next(nil); err != file.err || len(m) != 0 || s.bets != 0 {
		t.Errorf("within a batch: got %d bytes, %d bets, %v, want %v and nothing", len(m), s.bets, err, file.err)
	}
	again := spanReader{file: file, agency: 1}
	visits := 0
	err := again.each(span{line: 1, end: 40}, func(*record, int, *Bet, string) bool { visits++; return true })
	if err != file.err || visits != 1 {
		t.Errorf("each: got %v after %d records, want %v after 1", err, visits, file.err)
	}
}

// TestBatcherSame: the batches of a file do not depend on how often one went on in between.
func TestBatcherSame(t *testing.T) {
	var file bytes.Buffer
	if err := writeSample(&file, 3, 2000); err != nil {
		t.Fatal(err)
	}
	src := bytes.NewReader(file.Bytes())
	all := cutFile(t, newBatcher(src, 3, 150, 0))
	b := newBatcher(src, 3, 150, 0)
	for i := range all {
		m, s, _ := b.next(nil)
		if !slices.Equal(m, all[i].m) || s != all[i].s {
			t.Fatalf("batch %d: got %+v, want %+v", i, s, all[i].s)
		}
		b.goOn(s)
	}
}
