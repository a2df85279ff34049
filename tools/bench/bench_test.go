package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary stands in for tp0 when FAKE_TP0 is set, and says what trouble it makes.
func TestMain(m *testing.M) {
	if trouble := os.Getenv("FAKE_TP0"); trouble != "" {
		os.Exit(fake(trouble, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// fake does what the tool sees of tp0: a sample, a server that prints its port and waits, a
// client that stores its file by itself.
func fake(trouble string, args []string) int {
	value := func(key string) string {
		for _, arg := range args {
			if text, found := strings.CutPrefix(arg, "-"+key+"="); found {
				return text
			}
		}
		return ""
	}
	id, _ := strconv.Atoi(value("id"))
	const at = "2026-01-02 03:04:05 INFO     "
	switch value("mode") {
	case "sample":
		bets, _ := strconv.Atoi(value("bets"))
		for i := range bets {
			fmt.Printf("Ana,Díaz,%d,2000-01-02,%d\r\n", 20000000+i, 9990+i)
		}
		return 0
	case "server":
		if trouble == "no server" {
			fmt.Println("no port is free")
			return 1
		}
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		fmt.Println(at + "action: listen | result: success | address: 127.0.0.1:4321 | port: 4321")
		<-stop
		fmt.Println(at + "action: close_store | result: success | file: x | batches: 30 | commits: 12 | syncs: 10")
		return 0
	}
	if trouble == "client fails" && id == 2 {
		return 3
	}
	return storeBy(trouble, id, value("data.file"), filepath.Join(filepath.Dir(value("data.rejects")), "bets.csv"))
}

// storeBy appends an agency file's rows to a bets file.
func storeBy(trouble string, id int, data, bets string) int {
	out, err := os.OpenFile(bets, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 1
	}
	defer out.Close()
	var rows []string
	eachLine(data, func(line []byte) error {
		if row, good := rowOf(nil, id, line); good {
			rows = append(rows, string(row))
		}
		return nil
	})
	switch trouble {
	case "row lost":
		rows = rows[1:]
	case "rows swapped":
		rows[0], rows[1] = rows[1], rows[0]
	}
	for _, row := range rows {
		out.WriteString(row) // one write: clients share the file
	}
	return 0
}

// newBench returns a bench whose program is this test, with the samples of three agencies.
func newBench(t *testing.T, trouble string) *bench {
	t.Helper()
	t.Setenv("FAKE_TP0", trouble)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // a child of the race detector's would sleep a second at its end
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{settings: settings{program: program, rounds: 1, windows: []int{1, 32}}, dir: t.TempDir(),
		table: newTable()}
	b.config = filepath.Join(b.dir, "config.yaml")
	if b.data, err = b.makeSamples(t.Context(), "data", 31, 3); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSamples(t *testing.T) {
	d := newBench(t, "none").data
	// 31 bets of three agencies are 11, 10 and 10; numbers from 9990 on, of which those over 9998
	// are refused.
	if d.bets != 31 || d.want.rows[1] != 9 || d.want.rows[3] != 9 || d.want.total() != 27 {
		t.Errorf("got %d bets, %d rows of agency 1, %d of agency 3, %d in all, want 31, 9, 9, 27", d.bets,
			d.want.rows[1], d.want.rows[3], d.want.total())
	}
	text, err := os.ReadFile(d.expected)
	if err != nil {
		t.Fatal(err)
	}
	if want := "1,Ana,Díaz,20000000,2000-01-02,9990\r\n"; !strings.HasPrefix(string(text), want) ||
		int64(len(text)) != d.want.bytes {
		t.Errorf("got %d bytes that start with %q, want %d and %q", len(text), text[:len(want)], d.want.bytes, want)
	}
}

func TestRound(t *testing.T) {
	b := newBench(t, "none")
	if err := b.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, m := range b.table.metrics {
		figures := b.table.figures[m]
		if len(figures) != 1 || !(figures[0] >= 0) || math.IsInf(figures[0], 0) {
			t.Errorf("%s: got figures %v, want one", m.name, figures)
		}
		// 30 batches in 10 syncs, which count rather than the 12 commits
		if m.name == "window 1: batches a sync" && figures[0] != 3 {
			t.Errorf("%s: got %v, want 3", m.name, figures)
		}
	}
	var out bytes.Buffer
	b.table.print(&out, b.title())
	for _, want := range []string{"31 bets (0.0 MB) of 3 clients, medians of 1 rounds", "L: 512 KiB a sync",
		"window 1: rate of L", "window 32: client CPU", "complete"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got table\n%s\nwant in it %q", &out, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(b.dir, "store-*")); len(left) > 0 {
		t.Errorf("got folders %v left, want none", left)
	}
}

func TestLoadTrouble(t *testing.T) {
	tests := []struct{ trouble, want string }{
		{"no server", "the server does not start"},
		{"client fails", "client-2: exit status 3"},
		{"row lost", "is not complete: got 24 rows"},
		{"rows swapped", "is not complete: got 27 rows"},
	}
	for _, test := range tests {
		t.Run(test.trouble, func(t *testing.T) {
			b := newBench(t, test.trouble)
			_, err := b.load(t.Context(), b.data, 8)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestUnpack(t *testing.T) {
	b := newBench(t, "none")
	b.dataset = filepath.Join(b.dir, "none.zip")
	if d, err := b.unpack(); d != nil || err != nil {
		t.Errorf("without an archive: got %v, %v, want neither", d, err)
	}
	b.dataset = filepath.Join(b.dir, "real.zip")
	file, err := os.Create(b.dataset)
	if err != nil {
		t.Fatal(err)
	}
	archive := zip.NewWriter(file)
	for _, name := range []string{"dataset/agency-2.csv", "dataset/agency-1.csv"} {
		w, err := archive.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "a,b,1,2000-01-02,9999\nc,d,1,2000-01-02,9998")
	}
	if err := errors.Join(archive.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	d, err := b.unpack()
	if err != nil {
		t.Fatal(err)
	}
	if len(d.files) != 2 || d.bets != 4 || d.want.rows[2] != 1 {
		t.Errorf("got %d files, %d bets, %d rows of agency 2, want 2, 4, 1", len(d.files), d.bets, d.want.rows[2])
	}
}

func TestSettings(t *testing.T) {
	tests := []struct {
		environ map[string]string
		want    string // the settings, or the error
	}{
		{nil, "2000000 5 5 [1 8 32 64] false"},
		{map[string]string{"ROWS": "7", "CLIENTS": "255", "ROUNDS": "1", "WINDOWS": "2, 3", "GROWTH": "1"},
			"7 255 1 [2 3] true"},
		{map[string]string{"ROWS": "0"}, `ROWS: got "0", takes 1 to 1073741824`},
		{map[string]string{"CLIENTS": "256"}, `CLIENTS: got "256", takes 1 to 255`},
		{map[string]string{"ROUNDS": "many"}, `ROUNDS: got "many", takes 1 to 1000`},
		{map[string]string{"WINDOWS": "1,,2"}, `WINDOWS: got "", takes 1 to 1000`},
	}
	for _, test := range tests {
		s, err := readSettings(func(name string) string { return test.environ[name] })
		got := fmt.Sprint(s.rows, s.clients, s.rounds, s.windows, s.growth)
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%v: got %s, want %s", test.environ, got, test.want)
		}
	}
}

func TestVerdict(t *testing.T) {
	high, low := metric{goal: 2, beyond: 4}, metric{goal: 4, beyond: 2, lower: true}
	worst := low
	worst.worst = true
	tests := []struct {
		m       metric
		figures []float64
		want    string
	}{
		{high, []float64{1.9, 9, 0}, "missed"},
		{high, []float64{2, 9, 0}, "met"},
		{high, []float64{4, 9, 0}, "beyond"},
		{low, []float64{4.1, 9, 0}, "missed"},
		{low, []float64{4, 9, 0}, "met"},
		{low, []float64{1, 3, 9, 0}, "beyond"},
		{worst, []float64{1, 1, 3}, "met"},
		{worst, []float64{1, 1, 5}, "missed"},
		{metric{goal: 0.9}, []float64{1}, "met"},
		{metric{beyond: 1}, []float64{0.5}, "met"},
		{metric{}, []float64{1}, ""},
	}
	for _, test := range tests {
		if got := test.m.verdict(test.figures); got != test.want {
			t.Errorf("goal %v, beyond %v, figures %v: got %q, want %q", test.m.goal, test.m.beyond, test.figures, got,
				test.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var sorted []time.Duration
	for i := range 100 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for part, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := quantile(sorted, part); got != want {
			t.Errorf("%v: got %d, want %d", part, got, want)
		}
	}
}

func TestPacker(t *testing.T) {
	var p packer
	line := []byte("Ana,D\xc3\xadaz,20000000,2000-01-02,258\r\n")
	bet := "\x01\x07\x00\x03Ana\x00\x05D\xc3\xadaz\x00\x0820000000\x00\x0a2000-01-02\x01\x02"
	var full []byte
	for i := 0; full == nil; i++ {
		var err error
		if full, err = p.add(7, line); err != nil {
			t.Fatal(err)
		}
		if full != nil && i != batchBets {
			t.Errorf("got a full batch at bet %d, want at %d", i, batchBets)
		}
	}
	if want := "\x03\x00\x96" + strings.Repeat(bet, batchBets); string(full) != want {
		t.Errorf("got %q, want %q", full, want)
	}
	if got, want := string(p.take()), "\x03\x00\x01"+bet; got != want {
		t.Errorf("the rest: got %q, want %q", got, want)
	}
	long := []byte(strings.Repeat("n", 3000) + ",b,1,2000-01-02,1")
	for i := range 3 { // two have room in 8,192 bytes
		full, err := p.add(7, long)
		if err != nil || (full != nil) != (i == 2) || len(full) > batchBytes {
			t.Errorf("long bet %d: got a batch of %d bytes, error %v, want one at the third only", i+1, len(full), err)
		}
	}
	if _, err := p.add(7, []byte("a,b,c")); err == nil {
		t.Error("three fields: got no error, want one")
	}
}

func TestReadAck(t *testing.T) {
	tests := []struct{ bytes, want string }{
		{"\x02\x00\x00\x00", ""},
		{"\x02\x01\x00\x05#1 no", ""},
		{"\x02\x05\x00\x00", "got op 2, response 5, want ACK 0 or 1"},
		{"\x07\x00\x00\x00", "got op 7, response 0, want ACK 0 or 1"},
		{"\x02\x00", "unexpected EOF"},
	}
	for _, test := range tests {
		rest := bufio.NewReader(strings.NewReader(test.bytes))
		got := ""
		if err := readAck(rest); err != nil {
			got = err.Error()
		}
		if got != test.want || got == "" && rest.Buffered() > 0 {
			t.Errorf("%q: got error %q with %d bytes left, want %q", test.bytes, got, rest.Buffered(), test.want)
		}
	}
}

func TestClean(t *testing.T) {
	got := clean([]string{"PATH=/bin", "CLI_ID=3", "STORE_SYNC=never", "LOGGING_LEVEL=DEBUG", "HOME=/"})
	if want := "[PATH=/bin HOME=/]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
