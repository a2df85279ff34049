package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sampleBytes returns what writeSample writes.
func sampleBytes(t testing.TB, id, bets int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := writeSample(&out, id, bets); err != nil {
		t.Fatalf("writeSample(%d, %d): got error %v, want none", id, bets, err)
	}
	return out.Bytes()
}

// The golden values stay as they are in every version: files made by an older one are told from
// other files by their CRC.
func TestWriteSampleGolden(t *testing.T) {
	tests := []struct {
		id   int
		rows string // the first three
		size int    // of 10,000 rows
		crc  uint32 // of 10,000 rows, IEEE
	}{
		{id: 1, size: 465319, crc: 0x364003f0, rows: "" +
			"Mónica,Juárez,28885294,1999-11-16,2855\r\n" +
			"Gabriela Isabel,Mansilla,28719307,1984-08-26,6817\r\n" +
			"Ailén Juana,Cáceres,25738227,1981-07-23,437\r\n"},
		{id: 2, size: 466307, crc: 0x1d5e16ef, rows: "" +
			"Mónica Noelia,Figueroa,26932445,1998-09-08,7276\r\n" +
			"Hernán Fernando,Torres,24067819,1985-05-12,2101\r\n" +
			"Javier Facundo,Toledo,34804903,1993-08-01,3008\r\n"},
		{id: 255, size: 465902, crc: 0xc9a48e41, rows: "" +
			"Santiago,Ortiz,21128867,1987-10-07,8435\r\n" +
			"Ariel,Ponce,21275434,1991-03-12,7471\r\n" +
			"Nahuel,Contreras,26501175,2001-04-06,3609\r\n"},
	}
	for _, tt := range tests {
		if got := string(sampleBytes(t, tt.id, 3)); got != tt.rows {
			t.Errorf("agency %d, 3 rows: got %q, want %q", tt.id, got, tt.rows)
		}
		file := sampleBytes(t, tt.id, 10_000)
		if got := crc32.ChecksumIEEE(file); got != tt.crc || len(file) != tt.size {
			t.Errorf("agency %d, 10,000 rows: got %d bytes with crc %08x, want %d with %08x", tt.id, len(file), got,
				tt.size, tt.crc)
		}
	}
}

func TestWriteSampleLengths(t *testing.T) {
	long := sampleBytes(t, 3, 5000) // several buffers
	for _, bets := range []int{-1, 0, 1, 2, 1000, 1407, 1408, 1409, 4999} {
		got := sampleBytes(t, 3, bets)
		if want := max(bets, 0); bytes.Count(got, []byte("\r\n")) != want {
			t.Errorf("%d bets: got %d rows, want %d", bets, bytes.Count(got, []byte("\r\n")), want)
		}
		if !bytes.HasPrefix(long, got) {
			t.Errorf("%d bets: got rows that differ from those of the longer file, want its beginning", bets)
		}
	}
}

// sampleFigures counts what TestWriteSampleRows looks at.
type sampleFigures struct {
	rows, sum, over int             // rows, sum of their numbers, numbers over 9998
	twoNames        int             // rows with two first names
	accents         int             // rows with a letter outside ASCII
	years           map[string]int  // rows by year of birth
	documents       map[string]bool // those seen
}

// add checks one row's form and counts it.
func (f *sampleFigures) add(t *testing.T, row []string) {
	t.Helper()
	names := strings.Fields(row[0])
	if len(names) < 1 || len(names) > 2 || len(names) == 2 && names[0] == names[1] || row[1] == "" {
		t.Fatalf("%q: got names %q and %q, want one or two different first names and a last name", row, row[0], row[1])
	}
	if document, err := strconv.Atoi(row[2]); err != nil || document < 20_000_000 || document > 39_999_999 {
		t.Fatalf("%q: got document %s, want 20000000 to 39999999", row, row[2])
	}
	if birth, err := time.Parse("2006-01-02", row[3]); err != nil || birth.Year() < 1980 || birth.Year() > 2005 {
		t.Fatalf("%q: got birthdate %s (%v), want a real date from 1980 to 2005", row, row[3], err)
	}
	number, err := strconv.Atoi(row[4])
	if err != nil || number < 0 || number > 9999 || row[4] != strconv.Itoa(number) {
		t.Fatalf("%q: got number %s, want 0 to 9999 without leading zeros", row, row[4])
	}
	if number > 9998 {
		f.over++
	}
	if strings.ContainsFunc(row[0]+row[1], func(r rune) bool { return r > 127 }) {
		f.accents++
	}
	f.rows++
	f.sum += number
	f.twoNames += len(names) - 1
	f.years[row[3][:4]]++
	f.documents[row[2]] = true
}

func TestWriteSampleRows(t *testing.T) {
	t.Parallel()
	const bets = 100_000
	file := sampleBytes(t, 7, bets)
	if bytes.IndexByte(file, '"') >= 0 || bytes.Count(file, []byte("\n")) != bytes.Count(file, []byte("\r\n")) {
		t.Error("got quotes or line ends that are no CRLF, want neither")
	}
	reader := csv.NewReader(bytes.NewReader(file))
	reader.FieldsPerRecord = 5
	rows, err := reader.ReadAll()
	if err != nil {
		t.Fatalf("got error %v, want rows that encoding/csv takes", err)
	}
	f := sampleFigures{years: map[string]int{}, documents: map[string]bool{}}
	for _, row := range rows {
		f.add(t, row)
	}
	// The bounds are several standard deviations from what uniform draws give. The bytes are
	// the same in each run.
	for _, tt := range []struct {
		what           string
		got, low, high float64
	}{
		{"rows", float64(f.rows), bets, bets},
		{"mean row in bytes (real files: 46.47)", float64(len(file)) / bets, 46.0, 47.0},
		{"rows with two first names (real files: 0.71)", float64(f.twoNames) / bets, 0.70, 0.74},
		{"rows with accents", float64(f.accents) / bets, 0.25, 0.80},
		{"mean number", float64(f.sum) / bets, 4960, 5040},
		{"numbers over 9998", float64(f.over), 1, 25},
		{"different documents", float64(len(f.documents)), 0.99 * bets, bets},
		{"years", float64(len(f.years)), 26, 26},
		{"born in 1980", float64(f.years["1980"]) / bets * 26, 0.9, 1.1},
		{"born in 2005", float64(f.years["2005"]) / bets * 26, 0.9, 1.1},
	} {
		if tt.got < tt.low || tt.got > tt.high {
			t.Errorf("%s: got %.5g, want %.5g to %.5g", tt.what, tt.got, tt.low, tt.high)
		}
	}
}

func TestSampleAgenciesDiffer(t *testing.T) {
	seen := map[string]int{}
	for id := 1; id <= 255; id++ {
		rows := string(sampleBytes(t, id, 5))
		if other, ok := seen[rows]; ok {
			t.Errorf("agency %d: got the rows of agency %d, want others", id, other)
		}
		seen[rows] = id
	}
}

// The longest row that the names allow stays inside the room that the buffer keeps for it.
func TestSampleRowBytes(t *testing.T) {
	longest := func(names []string) (first, second int) {
		for _, name := range names {
			if strings.ContainsAny(name, "\",\r\n") {
				t.Errorf("got name %q, want one that CSV need not quote", name)
			}
			if len(name) > first {
				first, second = len(name), first
			} else if len(name) > second {
				second = len(name)
			}
		}
		return first, second
	}
	last, _ := longest(sampleLast[:])
	for _, names := range [][]string{sampleMen[:], sampleWomen[:]} {
		first, second := longest(names)
		if got := first + 1 + second + last + len(",,20000000,1980-01-01,9999\r\n"); got > sampleRowBytes {
			t.Errorf("got a longest row of %d bytes, want at most %d", got, sampleRowBytes)
		}
	}
}

// A failingWriter takes so many writes, then fails.
type failingWriter struct {
	writes int
	err    error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.writes == 0 {
		return 0, w.err
	}
	w.writes--
	return len(p), nil
}

func TestWriteSampleError(t *testing.T) {
	errFull := errors.New("no room")
	for _, writes := range []int{0, 1} {
		err := writeSample(&failingWriter{writes, errFull}, 9, 3000)
		if !errors.Is(err, errFull) || !strings.Contains(fmt.Sprint(err), "agency 9") {
			t.Errorf("full after %d writes: got error %v, want one that names agency 9 and wraps %v", writes, err,
				errFull)
		}
	}
}

// The writer's buffer and what fmt and io need are all that a file of any length allocates.
func TestWriteSampleAllocations(t *testing.T) {
	got := testing.AllocsPerRun(5, func() {
		if err := writeSample(io.Discard, 1, 10_000); err != nil {
			t.Fatal(err)
		}
	})
	if got > 2 {
		t.Errorf("got %v allocations for 10,000 rows, want at most 2", got)
	}
}

func BenchmarkWriteSample(b *testing.B) {
	b.SetBytes(int64(len(sampleBytes(b, 1, 100_000))))
	b.ReportAllocs()
	for b.Loop() {
		if err := writeSample(io.Discard, 1, 100_000); err != nil {
			b.Fatal(err)
		}
	}
}
