package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// seen renders what next returned in one line: the line and the offset, then
// the fields, or the reason and the text. What is long is only counted.
func seen(line int, offset int64, fields []string, reason, text string) string {
	short := func(s string) string {
		if len(s) > 60 {
			return fmt.Sprintf("%d bytes", len(s))
		}
		return fmt.Sprintf("%q", s)
	}
	if reason != "" {
		return fmt.Sprintf("%d@%d %s: %s", line, offset, reason, short(text))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d@%d", line, offset)
	for _, f := range fields {
		b.WriteString(" " + short(f))
	}
	return b.String()
}

// readRest returns all that r has still to give, rendered, with offsets that
// count from origin, and the error that ended it. It checks that texts are
// what stands in data.
func readRest(t *testing.T, r *reader, data []byte, origin int) (all []string, err error) {
	t.Helper()
	for {
		rec, err := r.next()
		if err != nil {
			return all, err
		}
		if at := int(rec.offset); at+len(rec.text) > len(data) || !bytes.Equal(rec.text, data[at:at+len(rec.text)]) {
			t.Fatalf("text of the record at %d: got %q, want what stands there", at, rec.text)
		}
		if rec.fields == nil && rec.broken == "" {
			t.Fatalf("record at %d: got neither fields nor the reason", rec.offset)
		}
		var fields []string
		for _, f := range rec.fields {
			fields = append(fields, string(f))
		}
		reason := ""
		if rec.fields == nil {
			reason = rec.broken
		}
		all = append(all, seen(rec.line, rec.offset-int64(origin), fields, reason, string(rec.text)))
	}
}

// chunked gives its bytes n at a time, with some empty reads between them, and
// the error with the last ones.
type chunked struct {
	data  []byte
	n     int
	empty int // empty reads still to come before the next bytes
	err   error
}

func (c *chunked) Read(p []byte) (int, error) {
	if c.empty--; c.empty >= 0 {
		return 0, nil
	}
	c.empty = c.n % 3
	n := copy(p, c.data[:min(c.n, len(c.data))])
	if c.data = c.data[n:]; len(c.data) == 0 {
		return n, c.err
	}
	return n, nil
}

// check reads data in several ways and wants the same of each.
func check(t *testing.T, data []byte, want []string) {
	t.Helper()
	for name, src := range map[string]io.Reader{
		"whole":         bytes.NewReader(data),
		"byte by byte":  iotest.OneByteReader(bytes.NewReader(data)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(data)),
		"by 7":          &chunked{data: data, n: 7, err: io.EOF},
		"by 4099":       &chunked{data: data, n: 4099, err: io.EOF},
	} {
		got, err := readRest(t, newReader(src), data, 0)
		if err != io.EOF || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q, EOF", name, got, err, want)
		}
	}
}

var readerTests = []struct {
	name, in string
	want     []string
}{
	{"empty", "", nil},
	{"only a mark", "\xef\xbb\xbf", nil},
	{"part of a mark", "\xef\xbb", []string{`1@0 "\xef\xbb"`}},
	{"mark", "\xef\xbb\xbfa,b\n", []string{`1@3 "a" "b"`}},
	{"two marks", "\xef\xbb\xbf\xef\xbb\xbf\n", []string{`1@3 "\ufeff"`}},
	{"mark before a quote", "\xef\xbb\xbf\"a\"", []string{`1@3 "a"`}},
	{"mark later", "a\n\xef\xbb\xbfb\n", []string{`1@0 "a"`, `2@2 "\ufeffb"`}},
	{"one", "a\n", []string{`1@0 "a"`}},
	{"no line end", "a,b", []string{`1@0 "a" "b"`}},
	{"CR at the end", "a,b\r", []string{`1@0 "a" "b"`}},
	{"two CR at the end", "a,b\r\r", []string{"1@0 \"a\" \"b\\r\""}},
	{"LF and CRLF", "a,b\r\nc,d\ne,f", []string{`1@0 "a" "b"`, `2@5 "c" "d"`, `3@9 "e" "f"`}},
	{"blank lines", "\n\r\na\n\n\n\r\nb\n\n\r", []string{`3@3 "a"`, `7@9 "b"`}},
	{"only CR", "\r", nil},
	{"lone CR", "a\rb,\r,c\r\r\nd", []string{`1@0 "a\rb" "\r" "c\r"`, `2@10 "d"`}},
	{"CR and then a blank", "\r\r\n\n\ra", []string{`1@0 "\r"`, `3@4 "\ra"`}},
	{"empty fields", ",,\n,\n", []string{`1@0 "" "" ""`, `2@3 "" ""`}},
	{"comma at the end", "a,", []string{`1@0 "a" ""`}},
	{"agency", "Ana,Paz,1,1999-03-17,2\r\nÑ.,(*),,,\n", []string{`1@0 "Ana" "Paz" "1" "1999-03-17" "2"`,
		`2@24 "Ñ." "(*)" "" "" ""`}},
	{"like separators", "\b\f\x0e(*.,\xac\x8a\n", []string{`1@0 "\b\f\x0e(*." "\xac\x8a"`}},
	{"NUL and broken UTF-8", "\x00,\xff\xfe\n", []string{`1@0 "\x00" "\xff\xfe"`}},
	{"spaces", " a , \" \"\n", []string{`1@0 stray quote in field 2: " a , \" \""`}},
	{"quoted", `"a","b,c"` + "\n", []string{`1@0 "a" "b,c"`}},
	{"empty quoted", `"",""`, []string{`1@0 "" ""`}},
	{"only an empty quoted", "\"\"\n\"\"\r\n", []string{`1@0 ""`, `2@3 ""`}},
	{"doubled", `"a""b","""",""""""` + "\r\n", []string{`1@0 "a\"b" "\"" "\"\""`}},
	{"line breaks inside", "\"a\nb\r\n\rc\",d\r\ne\n", []string{`1@0 "a\nb\r\n\rc" "d"`, `4@13 "e"`}},
	{"quoted, CR at the end", "\"a\"\r", []string{`1@0 "a"`}},
	{"quoted, CR and more", "\"a\"\rb\nc", []string{`1@0 stray quote in field 1: "\"a\"\rb"`, `2@6 "c"`}},
	{"quoted, two CR", "\"a\"\r\r\nc", []string{`1@0 stray quote in field 1: "\"a\"\r"`, `2@6 "c"`}},
	{"stray inside", "a,b\"c,d\r\ne\n", []string{`1@0 stray quote in field 2: "a,b\"c,d"`, `2@9 "e"`}},
	{"stray hides a quote", "a\"b,\"c\nd\",e\n", []string{`1@0 stray quote in field 1: "a\"b,\"c"`,
		`2@7 stray quote in field 1: "d\",e"`}},
	{"stray after the quote", "\"a\nb\"x,c\nd\n", []string{`1@0 stray quote in field 1: "\"a\nb\"x,c"`, `3@9 "d"`}},
	{"stray, last line", "a\"", []string{`1@0 stray quote in field 1: "a\""`}},
	{"not closed", "\"a,b\r\nc,d\n", []string{`1@0 quote not closed: "\"a,b"`, `2@6 "c" "d"`}},
	{"not closed, last line", "x\n\"a\r", []string{`1@0 "x"`, `2@2 quote not closed: "\"a"`}},
	{"not closed, doubled", "\"a\"\"\nb\n", []string{`1@0 quote not closed: "\"a\"\""`, `2@5 "b"`}},
	{"not closed, second line", "\"a\nb\",\"c\nd\n\ne", []string{`1@0 quote not closed: "\"a\nb\",\"c"`, `3@9 "d"`,
		`5@12 "e"`}},
	{"only a quote", `"`, []string{`1@0 quote not closed: "\""`}},
}

func TestReader(t *testing.T) {
	for _, tt := range readerTests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, []byte(tt.in), tt.want)
			if got := plainModel([]byte(tt.in)); !slices.Equal(got, tt.want) {
				t.Errorf("the model: got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestReaderGolden reads a file with some of everything; what is wanted of it
// stands beside it, a record a line.
func TestReaderGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/csv/mixed.csv")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/csv/mixed.want")
	if err != nil {
		t.Fatal(err)
	}
	check(t, data, strings.Split(strings.TrimSuffix(string(want), "\n"), "\n"))
}

// TestReaderBufferEnd lays each example across the end of the buffer, at every
// byte of it.
func TestReaderBufferEnd(t *testing.T) {
	filler := bytes.Repeat([]byte(strings.Repeat("x", 1023)+"\n"), readBuffer/1024)
	lines := readBuffer / 1024
	for _, tt := range readerTests {
		if strings.HasPrefix(tt.in, "\xef") {
			continue // there is no mark but at the start of the file
		}
		for cut := 0; cut <= len(tt.in)+1; cut++ {
			data := append(bytes.Clone(filler[cut:]), tt.in...)
			r := newReader(bytes.NewReader(data))
			r.line = 1 - lines
			got, err := readRest(t, r, data, readBuffer-cut)
			if err != io.EOF || !slices.Equal(got[lines:], tt.want) {
				t.Errorf("%s, %d bytes before the end of the buffer: got %q, %v, want %q, EOF",
					tt.name, cut, got[lines:], err, tt.want)
			}
		}
	}
}

func TestReaderLimits(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	const long = "record longer than 65536 bytes"
	tests := []struct {
		name, in string
		want     []string
	}{
		{"longest", x(65536) + "\na\n", []string{"1@0 65536 bytes", `2@65537 "a"`}},
		{"longest, CRLF", x(65536) + "\r\na\n", []string{"1@0 65536 bytes", `2@65538 "a"`}},
		{"longest, CR at the end", x(65536) + "\r", []string{"1@0 65536 bytes"}},
		{"longest, no line end", x(65536), []string{"1@0 65536 bytes"}},
		{"too long", x(65537) + "\na\n", []string{"1@0 " + long + ": 65536 bytes", `2@65538 "a"`}},
		{"too long by a CR", x(65536) + "\rx\na\n", []string{"1@0 " + long + ": 65536 bytes", `2@65539 "a"`}},
		{"too long, no line end", x(65537), []string{"1@0 " + long + ": 65536 bytes"}},
		{"too long by two, CR at the end", x(65537) + "\r", []string{"1@0 " + long + ": 65536 bytes"}},
		{"longer than the buffer", x(300000) + "\r\na\n", []string{"1@0 " + long + ": 65536 bytes", `2@300002 "a"`}},
		{"longer, no line end", x(300000), []string{"1@0 " + long + ": 65536 bytes"}},
		{"longest quoted", `"` + x(65534) + "\"\r\na", []string{"1@0 65534 bytes", `2@65538 "a"`}},
		{"longest quoted, at the end", `"` + x(65534) + `"`, []string{"1@0 65534 bytes"}},
		{"closed, then too long", "\"\n" + x(65533) + "\",b\na\n", []string{"1@0 " + long + ": 65536 bytes",
			`3@65539 "a"`}},
		{"closed too late", "\"\n" + x(65534) + "\"\na\n", []string{`1@0 quote not closed: "\""`,
			"2@2 stray quote in field 1: 65535 bytes", `3@65538 "a"`}},
		{"doubled at the limit", "\"\n" + x(65533) + "\"\"\",b\na\n", []string{`1@0 quote not closed: "\""`,
			"2@2 " + long + ": 65536 bytes", `3@65541 "a"`}},
		{"not closed and too long", `"` + x(65536) + "\na", []string{"1@0 " + long + ": 65536 bytes", `2@65538 "a"`}},
		{"stray and too long", `a"` + x(65536) + "\na", []string{"1@0 " + long + ": 65536 bytes", `2@65539 "a"`}},
		{"quote after the limit", x(65536) + ",\"\na\"\n", []string{"1@0 " + long + ": 65536 bytes",
			"2@65539 stray quote in field 1: \"a\\\"\""}},
		{"nothing but commas", strings.Repeat(",", 65536) + "\na", []string{"1@0" + strings.Repeat(` ""`, 65537),
			`2@65537 "a"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check(t, []byte(tt.in), tt.want)
			if got := plainModel([]byte(tt.in)); !slices.Equal(got, tt.want) {
				t.Errorf("the model: got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestReaderReset goes on, after each record, where position says.
func TestReaderReset(t *testing.T) {
	for _, tt := range readerTests {
		data := []byte(tt.in)
		for n := range tt.want {
			r := newReader(bytes.NewReader(data))
			for range n + 1 {
				r.next()
			}
			offset, line := r.position()
			r.reset(bytes.NewReader(data[offset:]), offset, line)
			got, err := readRest(t, r, data, 0)
			if want := tt.want[n+1:]; err != io.EOF || !slices.Equal(got, want) {
				t.Errorf("%s, from %d, line %d: got %q, %v, want %q, EOF", tt.name, offset, line, got, err, want)
			}
		}
	}
}

// TestReaderFails wants what is whole before a read that fails, the error each
// time from then on, and the position of what is lost.
func TestReaderFails(t *testing.T) {
	broken := errors.New("broken")
	long := strings.Repeat("x", 200000)
	tests := []struct {
		name, in string
		records  int
		offset   int64
		line     int
	}{
		{"at once", "", 0, 0, 1},
		{"in a line", "a,b\nc,d", 1, 4, 2},
		{"after CR", "a,b\nc,d\r", 1, 4, 2},
		{"between lines", "a,b\nc,d\n", 2, 8, 3},
		{"in quotes", "a\n\n\"b\nc", 1, 3, 3},
		{"after quotes", "a\n\"b\nc\"", 1, 2, 2},
		{"in a line that is too long", "a\n" + long, 1, 2, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReader(&chunked{data: []byte(tt.in), n: 3, err: broken})
			got, err := readRest(t, r, []byte(tt.in), 0)
			_, again := r.next()
			if len(got) != tt.records || err != broken || again != broken {
				t.Errorf("got %q, %v, then %v, want %d records, %v, the same", got, err, again, tt.records, broken)
			}
			if offset, line := r.position(); offset != tt.offset || line != tt.line {
				t.Errorf("position: got %d, line %d, want %d, line %d", offset, line, tt.offset, tt.line)
			}
		})
	}
}

func TestReaderAllocs(t *testing.T) {
	data := append(benchFile(5000, 20), strings.Repeat("\"a\"\"b\",,,,\n", 100)...)
	src := bytes.NewReader(data)
	r := newReader(src)
	got := testing.AllocsPerRun(3, func() { // the first of four is not counted
		src.Reset(data)
		r.reset(src, 0, 1)
		for {
			if _, err := r.next(); err != nil {
				return
			}
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations in 5100 records, want 0", got)
	}
}

// benchFile returns rows like an agency's, of which quoted percent have all
// their fields in quotes.
func benchFile(rows, quoted int) []byte {
	rnd := rand.New(rand.NewSource(1))
	first := []string{"Santiago Lionel", "Ana", "María José", "Jorge", "Guadalupe", "Milagros de los Ángeles",
		"Juan Ignacio"}
	last := []string{"Lorca", "Fernández", "Paz", "Rodríguez", "de la Fuente", "Sosa"}
	var b bytes.Buffer
	for range rows {
		format := "%s,%s,%08d,%04d-%02d-%02d,%d\r\n"
		if rnd.Intn(100) < quoted {
			format = "\"%s\",\"%s\",\"%08d\",\"%04d-%02d-%02d\",\"%d\"\r\n"
		}
		fmt.Fprintf(&b, format, first[rnd.Intn(len(first))], last[rnd.Intn(len(last))],
			rnd.Intn(30e6)+10e6, 1930+rnd.Intn(75), 1+rnd.Intn(12), 1+rnd.Intn(28), rnd.Intn(10000))
	}
	return b.Bytes()
}

const benchRows = 20000

// benchmark runs read on the same files, whichever reader it measures: the
// ratio of two of them comes from one run. read returns the records it found.
func benchmark(b *testing.B, read func(src *bytes.Reader) (records int)) {
	for _, quoted := range []int{0, 5, 100} {
		b.Run(fmt.Sprintf("quoted=%d%%", quoted), func(b *testing.B) {
			data := benchFile(benchRows, quoted)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if got := read(bytes.NewReader(data)); got != benchRows {
					b.Fatalf("got %d records, want %d", got, benchRows)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/record")
		})
	}
}

func BenchmarkReader(b *testing.B) {
	r := newReader(nil)
	benchmark(b, func(src *bytes.Reader) (records int) {
		r.reset(src, 0, 1)
		for {
			rec, err := r.next()
			if err != nil || len(rec.fields) != agencyFields {
				return records
			}
			records++
		}
	})
}

func BenchmarkEncodingCSV(b *testing.B) {
	benchmark(b, func(src *bytes.Reader) (records int) {
		r := csv.NewReader(src)
		r.ReuseRecord = true
		for {
			rec, err := r.Read()
			if err != nil || len(rec) != agencyFields {
				return records
			}
			records++
		}
	})
}
