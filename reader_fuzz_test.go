package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"strings"
	"testing"
)

// plainModel is the same reader in its plainest form, with all of the file
// before it. It returns what readRest should.
func plainModel(data []byte) (all []string) {
	at, line := 0, 1
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		at = 3
	}
	for at < len(data) {
		n := modelBreak(data[at:])
		if n == 0 {
			fields, reason, textLen := modelRecord(data[at:])
			all = append(all, seen(line, int64(at), fields, reason, string(data[at:at+textLen])))
			n = textLen
			for modelBreak(data[at+n:]) == 0 && at+n < len(data) {
				n++ // only of a record that is too long
			}
			n += modelBreak(data[at+n:])
		}
		line += bytes.Count(data[at:at+n], []byte("\n"))
		at += n
	}
	return all
}

// modelBreak returns the length of the line break with which d starts, or 0.
func modelBreak(d []byte) int {
	switch {
	case bytes.HasPrefix(d, []byte("\n")), len(d) == 1 && d[0] == '\r':
		return 1
	case bytes.HasPrefix(d, []byte("\r\n")):
		return 2
	}
	return 0
}

// modelRecord splits the record with which d starts, which is not empty.
func modelRecord(d []byte) (fields []string, reason string, textLen int) {
	lineEnd := func(i int) int {
		for i < len(d) && modelBreak(d[i:]) == 0 {
			i++
		}
		return i
	}
	var i int
	for i = 0; ; i++ {
		open, field := i, []byte{}
		if i < len(d) && d[i] == '"' {
			for i++; i < min(len(d), maxRecord) && (d[i] != '"' || bytes.HasPrefix(d[i:], []byte(`""`))); i++ {
				field = append(field, d[i])
				if d[i] == '"' {
					i++
				}
			}
			if i++; i > min(len(d), maxRecord) {
				i, reason = lineEnd(open), "quote not closed"
				break
			}
		} else {
			for ; i < len(d) && d[i] != ',' && d[i] != '"' && modelBreak(d[i:]) == 0; i++ {
				field = append(field, d[i])
			}
		}
		fields = append(fields, string(field))
		if i == len(d) || modelBreak(d[i:]) > 0 {
			break
		}
		if d[i] != ',' {
			i, reason = lineEnd(i), fmt.Sprintf("stray quote in field %d", len(fields))
			break
		}
	}
	if i > maxRecord {
		return nil, "record longer than 65536 bytes", maxRecord
	}
	return fields, reason, i
}

// TestReaderRandom compares with the model on files of several buffers, made
// of what matters: long and short pieces, quotes, line breaks.
func TestReaderRandom(t *testing.T) {
	t.Parallel()
	pieces := []string{",", ",", "\n", "\r\n", "\n", "\"", "\"\"", "\",\"", "\r", "a", "(*.", "\n\"", "\"\n",
		strings.Repeat("long ", 20)}
	for seed := range int64(40) {
		rnd := rand.New(rand.NewSource(seed))
		odds := 1 + rnd.Intn(200) // one long run in so many pieces
		var data []byte
		for len(data) < 3*readBuffer {
			if rnd.Intn(odds*20) == 0 {
				data = append(data, strings.Repeat("x", rnd.Intn(maxRecord*5/4))...)
			}
			if rnd.Intn(odds) != 0 {
				data = append(data, "Ana,Paz,30904465,1999-03-17,2201\r\n"...)
			} else {
				data = append(data, pieces[rnd.Intn(len(pieces))]...)
			}
		}
		src := &chunked{data: data, n: 1 + rnd.Intn(2*readBuffer), err: io.EOF}
		got, err := readRest(t, newReader(src), data, 0)
		want := plainModel(data)
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("seed %d, record %d: got %s, want %s", seed, i, got[i], want[i])
			}
		}
		if len(got) != len(want) || err != io.EOF {
			t.Fatalf("seed %d: got %d records, %v, want %d, EOF", seed, len(got), err, len(want))
		}
	}
}

// FuzzReader compares, for any way in which the bytes may come, with the model
// (and so checks that each record starts where the last one ended), and with
// encoding/csv up to the first record that it refuses. There it differs:
// it takes a byte order mark for data, turns CRLF in quotes into LF, has no
// limit of 64 KiB, and does not go on after an error.
func FuzzReader(f *testing.F) {
	for i, tt := range readerTests {
		f.Add([]byte(tt.in), uint16(i))
	}
	f.Fuzz(func(t *testing.T, data []byte, n uint16) {
		src := &chunked{data: data, n: int(n) + 1, err: io.EOF}
		got, err := readRest(t, newReader(src), data, 0)
		if want := plainModel(data); err != io.EOF || !slices.Equal(got, want) {
			t.Fatalf("got %q, %v, want %q, EOF", got, err, want)
		}
		if len(data) <= maxRecord {
			compareCSV(t, data)
		}
	})
}

// compareCSV wants of next what encoding/csv makes of data.
func compareCSV(t *testing.T, data []byte) {
	t.Helper()
	theirs := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte(byteOrderMark))))
	theirs.FieldsPerRecord = -1
	ours := newReader(bytes.NewReader(data))
	for {
		want, wantErr := theirs.Read()
		got, err := ours.next()
		if wantErr == io.EOF && err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("got %v, want as encoding/csv %q, %v", err, want, wantErr)
		}
		if wantErr != nil {
			if got.fields != nil {
				t.Fatalf("got %q, want a record that cannot be split, as encoding/csv: %v", got.fields, wantErr)
			}
			return
		}
		var fields []string
		for _, field := range got.fields {
			fields = append(fields, strings.ReplaceAll(string(field), "\r\n", "\n"))
		}
		line, _ := theirs.FieldPos(0)
		if got.line != line || !slices.Equal(fields, want) {
			t.Fatalf("got line %d, %q, want as encoding/csv line %d, %q", got.line, fields, line, want)
		}
	}
}
