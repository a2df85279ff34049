package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rejectedFile is an agency file with all kinds of records that are refused, and their rows in
// the rejects file. No bet is refused for what only a server knows: rejectAll takes the odd
// positions for that.
const rejectedFile = "Ana,Paz,1,1999-03-17,7\r\n" +
	"Eva,Paz,2,1999-03-17,8\r\n" +
	"only,three,fields\r\n" +
	"\r\n" +
	"\"two\r\nlines, \"\"quoted\"\"\",Paz,3,1999-03-17,9\r\n" +
	"Leo,Paz,4,1999-03-17,x\n" +
	"stray \"quote,Paz,5,1999-03-17,10\r\n" +
	"Sol,Paz,6,1999-03-17,11\r\n" +
	" ,,,,12\n" +
	"\"never closed,Paz,7,1999-03-17,12"

const rejectedRows = "1,\"because, \"\"so\"\"\",Ana,Paz,1,1999-03-17,7\r\n" +
	"3,3 fields where there should be 5,only,three,fields\r\n" +
	"5,\"because, \"\"so\"\"\",\"two\r\nlines, \"\"quoted\"\"\",Paz,3,1999-03-17,9\r\n" +
	"7,number is not 1 to 5 digits,Leo,Paz,4,1999-03-17,x\r\n" +
	"8,stray quote in field 1,\"stray \"\"quote,Paz,5,1999-03-17,10\"\r\n" +
	"10,\"because, \"\"so\"\"\", ,,,,12\r\n" +
	"11,quote not closed,\"\"\"never closed,Paz,7,1999-03-17,12\"\r\n"

// rejectedBets is how many bets rejectedFile has.
const rejectedBets = 5

// newTestRejects returns a rejects in a file of this name, and its log.
func newTestRejects(path string) (*rejects, *bytes.Buffer) {
	var out bytes.Buffer
	return &rejects{path: path, log: newLogger(&out, 0)}, &out
}

// closeRejects closes the file if there is one.
func closeRejects(r *rejects) error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// rejectAll adds what is malformed in a file, and each odd bet, counting from 1, with a reason
// that needs quotes.
func rejectAll(t *testing.T, r *rejects, data string) {
	t.Helper()
	again := spanReader{file: strings.NewReader(data), agency: 1}
	err := again.each(span{line: 1, end: int64(len(data))}, func(rec *record, position int, _ *Bet,
		malformed string) bool {
		if malformed != "" {
			r.add(rec, malformed)
		} else if position%2 == 1 {
			r.add(rec, `because, "so"`)
		}
		return true
	})
	if err = errors.Join(err, r.flush(), closeRejects(r)); err != nil {
		t.Fatal(err)
	}
}

// recalled returns the rejects at path as a client of this agency file has them
// that has just resumed behind so many bets.
func recalled(t *testing.T, data, path string, decided uint64) *rejects {
	t.Helper()
	a, _ := openTestAgency(t, data, path)
	if _, err := a.recall(context.Background(), Resume{Records: decided}); err != nil {
		t.Fatal(err)
	}
	return &a.rejects
}

// wantFile fails the test if a file has other contents.
func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Fatalf("%s: got %.400q, %v, want %.400q", filepath.Base(path), got, err, want)
	}
}

func TestRejectsRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rejected.csv")
	r, out := newTestRejects(path)
	if err := errors.Join(r.flush(), closeRejects(r)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("before the first refusal: got %v, want no file", err)
	}
	rejectAll(t, r, rejectedFile)
	wantFile(t, path, rejectedRows)
	rows := strings.Count(rejectedRows, "\r\n") - 1 // one has a line break in it
	if r.count != rows {
		t.Errorf("got %d refused, want %d", r.count, rows)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for i, want := range []string{"1 | motivo: because, \"so\"", "3 | motivo: 3 fields where there should be 5"} {
		if !strings.HasSuffix(lines[i], "WARNING  action: apuesta_rechazada | result: fail | linea: "+want) {
			t.Errorf("got %q, want it to end in linea: %s", lines[i], want)
		}
	}
	for _, line := range lines {
		checkLogLine(t, line)
	}
	if len(lines) != rows {
		t.Errorf("got %d lines of the log, want %d", len(lines), rows)
	}
}

// TestRejectsTorn kills the client at each byte of its rejects file: what the next one leaves
// is the same file.
func TestRejectsTorn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rejected.csv")
	for n := range len(rejectedRows) + 1 {
		if err := os.WriteFile(path, []byte(rejectedRows[:n]), 0o600); err != nil {
			t.Fatal(err)
		}
		rejectAll(t, recalled(t, rejectedFile, path, rejectedBets), rejectedFile)
		wantFile(t, path, rejectedRows)
		if got := recalled(t, rejectedFile, path, rejectedBets).upTo; got != 11 { // started once more: all is there
			t.Fatalf("torn at %d: got up to line %d, want 11", n, got)
		}
	}
}

func TestRejectsRecall(t *testing.T) {
	rows := strings.SplitAfter(rejectedRows, "\r\n")
	long := strings.Repeat("x", maxRecord)
	quotes := `"` + strings.Repeat(`""`, maxRecord/2-1) + `"`
	tests := []struct {
		name, file, rejects string
		decided             uint64
		want                int // line
	}{
		{"all", rejectedFile, rejectedRows, rejectedBets, 11},
		{"empty", rejectedFile, "", rejectedBets, 0},
		{"one", rejectedFile, rows[0], rejectedBets, 1},
		{"nothing is decided", rejectedFile, rejectedRows, 0, 0},
		{"a row of a bet that is not decided", rejectedFile, rejectedRows, 3, 8},
		{"a row before the next bet", rejectedFile, rows[0] + rows[1], 2, 3},
		{"another record on that line", rejectedFile, "3,3 fields where there should be 5,only,three,others\r\n",
			rejectedBets, 0},
		{"no record on that line", rejectedFile, "4,3 fields where there should be 5,only,three,fields\r\n",
			rejectedBets, 0},
		{"a line behind the file", rejectedFile, "99,3 fields where there should be 5,only,three,fields\r\n",
			rejectedBets, 0},
		{"LF", rejectedFile, "3,3 fields where there should be 5,only,three,fields\n", rejectedBets, 3},
		{"rows of another file behind", rejectedFile, rejectedRows + "1,why,a,b,c,d,e\r\n", rejectedBets, 11},
		{"rows of another file between", rejectedFile, rows[0] + "900,why,a,b,c,d,e\r\n" + rows[1], rejectedBets, 3},
		{"another file that began in the same way", "a,b\nA,B,1,2000-01-01,1\n",
			"1,2 fields where there should be 5,a,b\r\n", 0, 0},
		{"no bets at all", "a,b\nc,d,e\n", "1,2 fields where there should be 5,a,b\r\n", 0, 1},
		{"64 KiB", long + "\n", "1,1 fields where there should be 5," + long + "\r\n", 1, 1},
		{"over 64 KiB", long + "y\n", "1,record longer than 65536 bytes," + long + "\r\n", 1, 1},
		{"64 KiB of quotes", quotes + "\n", "1,1 fields where there should be 5," + quotes + "\r\n", 1, 1},
		{"CRLF in quotes at the end of a field", "\"a\r\n\"\n", "1,why,\"a\r\n\"\r\n", 1, 1},
		{"CR", "a\rb,c\n", "1,2 fields where there should be 5,\"a\rb\",c\r\n", 1, 1},
		{"CR before CRLF in quotes", "\"a\r\r\nb\"\n", "1,why,\"a\r\r\nb\"\r\n", 1, 1},
		{"not UTF-8", "\xff,\x00\n", "1,2 fields where there should be 5,\xff,\x00\r\n", 1, 1},
		{"byte order mark", byteOrderMark + "a,b\n", "1,2 fields where there should be 5,a,b\r\n", 1, 1},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "rejected.csv")
		if err := os.WriteFile(path, []byte(tt.rejects), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := recalled(t, tt.file, path, tt.decided).upTo; got != tt.want {
			t.Errorf("%s: got up to line %d, want %d", tt.name, got, tt.want)
		}
		wantFile(t, path, tt.rejects)
	}
}

// TestRejectsRandom: of any file, the rows are recalled from each place where they may end.
func TestRejectsRandom(t *testing.T) {
	t.Parallel()
	for seed := range 40 {
		data := string(randomFile(rand.New(rand.NewSource(int64(seed)))))
		path := filepath.Join(t.TempDir(), "rejected.csv")
		r, _ := newTestRejects(path)
		rejectAll(t, r, data)
		want, err := os.ReadFile(path)
		if r.count == 0 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for try := range 5 {
			n := len(want) * try / 5
			if err := os.WriteFile(path, want[:n], 0o644); err != nil {
				t.Fatal(err)
			}
			rejectAll(t, recalled(t, data, path, 1<<40), data)
			wantFile(t, path, string(want))
		}
	}
}

// TestRejectsForeign has files in the place of the rejects file that hold
// something else: they are refused, and stay as they are.
func TestRejectsForeign(t *testing.T) {
	for name, text := range map[string]string{
		"bets.csv":           "1,Ana,Paz,1,1999-03-17,7\r\n2,Eva,Paz,2,1999-03-17,8\r\n",
		"bets.csv, torn":     "1,Ana,Paz,1,1999-03-17,7\r\n2,Eva,P",
		"an agency file":     "Ana,Paz,1,1999-03-17,7\n",
		"a header":           "line,reason,first\r\n",
		"two fields":         "3,why\r\n",
		"not CSV":            "3,a\"b\"c,d\r\n",
		"a word":             "x",
		"a line break":       "\n",
		"zeros":              strings.Repeat("\x00", 1<<20),
		"something behind":   rejectedRows + "and so on\r\n",
		"something torn":     rejectedRows + "and so on",
		"other columns":      "7,Ana,Paz,1\r\n",
		"a quote in between": "1,\"x,a,b\r\n" + rejectedRows + "2,y,z\r\n",
	} {
		path := filepath.Join(t.TempDir(), "rejected.csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, _ := newTestRejects(path)
		if err := r.read(); err == nil || !strings.HasSuffix(err.Error(), "set data.rejects") ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error that names the file and data.rejects", name, err)
		}
		wantFile(t, path, text)
	}
}

func TestRejectsErrors(t *testing.T) {
	folder := t.TempDir()
	r, out := newTestRejects(filepath.Join(folder, "no", "folder.csv"))
	r.add(&record{line: 1, text: []byte("x")}, "why")
	if err := r.flush(); err == nil || !strings.HasSuffix(err.Error(), "set data.rejects") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("no folder: got %v, want one line that names data.rejects", err)
	}
	if out.Len() > 0 {
		t.Errorf("got %q in the log, want nothing of what was not written", out)
	}
	r, _ = newTestRejects(folder)
	if err := r.read(); err == nil {
		t.Error("a folder as rejects file: got no error, want one")
	}
}

// TestRejectsShared: a torn row is not cut when somebody else has written behind it.
func TestRejectsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rejected.csv")
	torn, other := "7,wh", "y,a,b,c,d,e\r\n"
	if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _ := newTestRejects(path)
	if err := r.read(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(torn+other), 0o600); err != nil {
		t.Fatal(err)
	}
	r.add(&record{line: 1, text: []byte("x")}, "record longer than 65536 bytes")
	if err := errors.Join(r.flush(), closeRejects(r)); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, torn+other+"1,record longer than 65536 bytes,x\r\n")
}

// TestRejectsHarmless: what a server says cannot do anything to a terminal, and is cut.
func TestRejectsHarmless(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rejected.csv")
	r, _ := newTestRejects(path)
	r.add(&record{line: 1, text: []byte("x")}, "a\x1b[2J\r\nb")
	r.add(&record{line: 2, text: []byte("y")}, strings.Repeat("z", 70_000))
	if err := errors.Join(r.flush(), closeRejects(r)); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, `1,a\x1b[2J\x0d\x0ab,x`+"\r\n2,"+strings.Repeat("z", maxValue)+",y\r\n")
}

// TestRowReader reads back rows of all fields of up to four bytes that matter to CSV, and says of a
// quote where none may be that it is one.
func TestRowReader(t *testing.T) {
	fields := []string{""}
	for at := 0; len(fields[at]) < 4; at++ {
		for _, c := range "a,\"\r\n" {
			fields = append(fields, fields[at]+string(c))
		}
	}
	var text []byte
	for _, field := range fields {
		text = append(appendQuoted(append(appendQuoted(text, []byte(field)), ",x,"...), []byte(field)), "\r\n"...)
	}
	in := rowReader{Reader: bufio.NewReader(bytes.NewReader(text))}
	for _, field := range fields {
		row, err := in.next()
		if want := []string{field, "x", field}; err != nil || fmt.Sprintf("%q", row) != fmt.Sprintf("%q", want) {
			t.Fatalf("got %q and %v, want %q", row, err, want)
		}
	}
	if row, err := in.next(); err != io.EOF || in.at != int64(len(text)) {
		t.Errorf("got %q and %v at byte %d, want the end at %d", row, err, in.at, len(text))
	}
	for text, want := range map[string]error{"1,a\"b\n": errStrayQuote, "1,\"a\"b\n": errStrayQuote,
		"1,\"a": errOpenQuote, "1,\"a\"": nil, "1": nil} {
		in := rowReader{Reader: bufio.NewReader(strings.NewReader(text))}
		if row, err := in.next(); err != want {
			t.Errorf("%q: got %q and %v, want %v", text, row, err, want)
		}
	}
}
