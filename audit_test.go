package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// checkText runs mode check on a file with this text.
func checkText(t *testing.T, text string, change func(*config)) (summary string, err error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "agency-1.csv")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := &config{id: 1, dataFile: name, dataRejects: "rejects.csv", batchMaxAmount: 2, maxNumber: 9998}
	if change != nil {
		change(cfg)
	}
	var out bytes.Buffer
	err = runCheck(cfg, &out)
	_, summary, _ = strings.Cut(out.String(), "\n") // without the file's name
	return summary, err
}

func TestCheck(t *testing.T) {
	bet := "Ana,Paz,1,1999-03-17,7\n"
	for _, tt := range []struct {
		name, file, want, err string
		change                func(*config)
	}{
		{"good", bet + bet + bet, "bets     3\nbatches  2\nrefused  0\n", "", nil},
		{"every kind", rejectedFile, "bets     5\nbatches  3\nrefused  6\n" +
			"         3 fields where there should be 5: 1, first in lines 3\n" +
			"         first name has a control character: 1, first in lines 5\n" +
			"         number is not 1 to 5 digits: 1, first in lines 7\n" +
			"         stray quote in field 1: 1, first in lines 8\n" +
			"         last name is empty: 1, first in lines 10\n" +
			"         quote not closed: 1, first in lines 11\n", "6 records would be refused", nil},
		{"many of one", bet + strings.Repeat("a,b\n", 1234) + strings.Replace(bet, ",7", ",9999", 1),
			"bets     2\nbatches  1\nrefused  1,235\n" +
				"         2 fields where there should be 5: 1,234, first in lines 2 3 4 5 6\n" +
				"         number is over the highest that is valid: 1, first in lines 1236\n", "1,235 records", nil},
		{"no bets", "a,b\n", "bets     0\nbatches  0\nrefused  1\n" +
			"         2 fields where there should be 5: 1, first in lines 1\n", "1 records", nil},
		{"fields skipped", "7,why," + bet + "8\n", "bets     1\nbatches  1\nrefused  1\n" +
			"         0 fields where there should be 5: 1, first in lines 2\n", "1 records",
			func(c *config) { c.dataSkip = 2 }},
		{"Windows-1252 far behind", strings.Repeat(bet, 30) + "Jos\xe9,Paz,1,1999-03-17,7\n",
			"bets     31\nbatches  16\nrefused  1\n         first name is not valid UTF-8: 1, first in lines 31\n" +
				"hint     " + windows1252 + "\n", "1 records", nil},
		{"empty", "", "bets     0\nbatches  0\nrefused  0\nhint     it has no records: see that it is the right file\n",
			"", nil},
		{"hopeless", strings.Repeat("a;b;c;d;e\n", 3), "bets     0\nbatches  0\nrefused  3\n" +
			"         1 fields where there should be 5: 3, first in lines 1 2 3\n" +
			"hint     its fields seem to be separated by semicolons: save it with commas\n",
			"a client sends nothing", nil},
	} {
		got, err := checkText(t, tt.file, tt.change)
		if got != tt.want {
			t.Errorf("%s: got\n%swant\n%s", tt.name, got, tt.want)
		}
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got error %v, want %q", tt.name, err, tt.err)
		}
	}
}

// TestCheckReasons: a file that gives any number of reasons has few told apart.
func TestCheckReasons(t *testing.T) {
	var text strings.Builder
	for n := range 1000 {
		text.WriteString(strings.Repeat(",", n+5) + "\n")
	}
	got, _ := checkText(t, text.String(), nil)
	other := "other reasons: 900, first in lines 101 "
	if n := strings.Count(got, "\n"); n != auditReasons+4 || !strings.Contains(got, other) {
		t.Errorf("got %d lines, want %d and other reasons:\n%.400s", n, auditReasons+4, got)
	}
}

// repeated is a file of the same text again and again.
type repeated struct {
	text string
	size int64
}

func (f repeated) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) && at < f.size {
		part := copy(p[n:], f.text[at%int64(len(f.text)):])
		n, at = n+part, at+int64(part)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// TestCheckMemory: memory does not grow with the file.
func TestCheckMemory(t *testing.T) {
	size := int64(len(rejectedFile)+1) * 100_000
	a := &audit{rule: rule{agency: 1}, found: map[string]finding{}}
	file := repeated{rejectedFile[:len(rejectedFile)-34] + "\n", size}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := a.read(file, &config{id: 1, batchMaxAmount: 150}); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); a.bets < 400_000 || grown > 1<<20 {
		t.Errorf("got %d bets and %d bytes more that are held, want 400,000 and at most 1 MiB", a.bets, grown)
	}
}

// BenchmarkAudit is mode check on a sample file; BenchmarkReader's MB/s are to be compared.
func BenchmarkAudit(b *testing.B) {
	data := benchFile(benchRows, 0)
	file, cfg := bytes.NewReader(data), &config{id: 1, batchMaxAmount: 150}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		a := &audit{rule: rule{agency: 1, maxNumber: 9999}, found: map[string]finding{}}
		if a.read(file, cfg) != nil || a.bets != benchRows {
			b.Fatalf("got %d bets, want %d", a.bets, benchRows)
		}
	}
}
