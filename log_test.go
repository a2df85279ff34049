package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"tp0/tools/proc"
)

// checkLogLine fails the test if line, without the line break at its end, is no line of the log.
func checkLogLine(t testing.TB, line string) {
	t.Helper()
	if reason := proc.LineFault(line); reason != "" {
		t.Errorf("log line %q: %s", line, reason)
	}
}

// A logStringer has a text of its own, as errors and durations have.
type logStringer struct{}

func (logStringer) String() string { return "text | of\nits own" }

func TestLogLineGolden(t *testing.T) {
	at := time.Date(2024, 9, 3, 16, 15, 58, 999e6, time.UTC)
	tests := []struct {
		level slog.Level
		res   slog.Attr
		more  []any
		want  string
	}{
		{slog.LevelInfo, success, nil, "INFO     action: config | result: success"},
		{slog.LevelDebug, inProgress, nil, "DEBUG    action: config | result: in_progress"},
		{slog.LevelWarn, fail, []any{"linea", 17}, "WARNING  action: config | result: fail | linea: 17"},
		{slog.LevelError, fail, []any{"n", -1, "s", ""}, "ERROR    action: config | result: fail | n: -1 | s: "},
		{slog.LevelInfo, success, []any{"records", uint64(1 << 63), "is", true, "d", 1500 * time.Millisecond, "f",
			0.25},
			"INFO     action: config | result: success | records: 9223372036854775808 | is: true | d: 1.5s | f: 0.25"},
		{slog.LevelInfo, success, []any{"err", errors.New("a | b\nc"), "any", logStringer{}},
			`INFO     action: config | result: success | err: a \x7c b\x0ac | any: text \x7c of\x0aits own`},
	}
	for _, tt := range tests {
		record := slog.NewRecord(at, tt.level, "config", 0)
		record.Add(append([]any{tt.res}, tt.more...)...)
		line := string(appendLine([]byte(at.Format(lineTime)), record))
		if want := "2024-09-03 16:15:58 " + tt.want; line != want {
			t.Errorf("got  %q\nwant %q", line, want)
		}
		checkLogLine(t, line)
	}
}

func TestLogLevels(t *testing.T) {
	for _, tt := range []struct {
		level slog.Level
		want  string
	}{
		{slog.LevelDebug, "DEBUG INFO WARNING ERROR"}, {slog.LevelInfo, "INFO WARNING ERROR"},
		{slog.LevelWarn, "WARNING ERROR"}, {slog.LevelError, "ERROR"},
	} {
		var out bytes.Buffer
		log := newLogger(&out, tt.level)
		log.Debug("a", success)
		log.Info("a", success)
		log.Warn("a", fail)
		log.Error("a", fail)
		var got []string
		for line := range strings.Lines(out.String()) {
			got = append(got, strings.Fields(line)[2])
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("level %v: got %q, want %q", tt.level, got, tt.want)
		}
	}
}

// TestLogBatch: the line of a batch is like that of Info, and heeds the level as well.
func TestLogBatch(t *testing.T) {
	var out bytes.Buffer
	for _, level := range []slog.Level{slog.LevelInfo, slog.LevelWarn} {
		logBatch(newLogger(&out, level), actApuestaRecibida, success, slog.Int("cantidad", 150))
	}
	line := strings.TrimSuffix(out.String(), "\n")
	checkLogLine(t, line)
	if !strings.HasSuffix(line, " INFO     action: apuesta_recibida | result: success | cantidad: 150") {
		t.Errorf("got %q, want one line at INFO and none at WARNING", out.String())
	}
}

// TestLogTime: each line has its own time, whatever the one before it had and however long that is.
func TestLogTime(t *testing.T) {
	var out bytes.Buffer
	handler := newLogger(&out, slog.LevelInfo).Handler()
	second := time.Date(2024, 9, 3, 16, 15, 58, 0, time.UTC)
	for _, at := range []time.Time{
		time.Unix(0, 0), second, second, second.Add(time.Second - 1), second.Add(time.Second),
		second.Add(-time.Hour), second.AddDate(9000, 0, 0), second.AddDate(-3000, 0, 0), second,
	} {
		out.Reset()
		record := slog.NewRecord(at, slog.LevelInfo, actConfig, 0)
		record.AddAttrs(success)
		for range 2 {
			handler.Handle(context.Background(), record)
		}
		line := at.Format(lineTime) + " INFO     action: config | result: success\n"
		if want := line + line; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
}

func TestAppendHarmless(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""}, {"Ñandú 漢字 😀 \ufffd", "Ñandú 漢字 😀 \ufffd"}, {`a\b`, `a\b`},
		{"a|b", `a\x7cb`}, {"a\r\nb\tc", `a\x0d\x0ab\x09c`}, {"\x00\x1f \x7f", `\x00\x1f \x7f`},
		{"\x1b[31m", `\x1b[31m`}, {"\u0080\u0085\u009f\u00a0", `\u0080\u0085\u009f` + "\u00a0"},
		{"\u2027\u2028\u2029\u202a", "\u2027" + `\u2028\u2029` + "\u202a"},
		{"\xff", `\xff`}, {"é\xc3", `é\xc3`}, {"\xed\xa0\x80", `\xed\xa0\x80`},
		{"\xf0\x9f\x98", `\xf0\x9f\x98`}, {"\xc0\xaf", `\xc0\xaf`},
	}
	for _, tt := range tests {
		got := string(appendHarmless([]byte("in: "), tt.in))
		if got != "in: "+tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, "in: "+tt.want)
		}
	}
	for char := rune(0); char <= unicode.MaxRune; char++ { // no character of any kind breaks a line
		got := appendHarmless(nil, string(char))
		if !utf8.Valid(got) || bytes.ContainsFunc(got, proc.BreaksLines) || bytes.ContainsRune(got, '|') {
			t.Fatalf("U+%04X: got %q, which is not harmless", char, got)
		}
	}
}

// A slowWriter takes a few bytes at a time and lets others run in between, so that writes which are
// not kept apart mix.
type slowWriter struct{ bytes.Buffer }

func (w *slowWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(7, len(rest))
		w.Buffer.Write(rest[:n])
		rest = rest[n:]
		runtime.Gosched()
	}
	return len(p), nil
}

func TestLogWholeLines(t *testing.T) {
	const writers, rounds = 8, 50
	slow := &slowWriter{}
	out := newLineWriter(slow, io.Discard)
	log := newLogger(out, slog.LevelInfo)
	var all sync.WaitGroup
	for id := range writers {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := range rounds {
				log.Info("single", success, "id", id, "n", n)
				out.share(nil) // as a client does while others write
			}
		}()
	}
	all.Wait()
	out.drain()
	singles := [writers]int{}
	for line := range strings.Lines(slow.String()) {
		line = strings.TrimSuffix(line, "\n")
		checkLogLine(t, line)
		fields := strings.Fields(line)
		id, _ := strconv.Atoi(fields[10])
		if n, want := fields[13], strconv.Itoa(singles[id]); n != want {
			t.Fatalf("writer %d: got line %s, want %s: the lines of a goroutine keep their order", id, n, want)
		}
		singles[id]++
	}
	for id, got := range singles {
		if got != rounds {
			t.Errorf("writer %d: got %d lines, want %d", id, got, rounds)
		}
	}
}

// TestLogHurries: where many lines come nobody waits until logDelay is over, nor at the end. Such
// waits would be the same each time, so one try of five has to do without.
func TestLogHurries(t *testing.T) {
	const queues = 20
	w := newLineWriter(io.Discard, io.Discard)
	line := append(bytes.Repeat([]byte("x"), 99), '\n')
	for what, lines := range map[string]int{"four times what the queue holds": 4 * logQueue / len(line), "lines": 1} {
		fastest := time.Hour
		for range 5 {
			began := time.Now()
			for range queues {
				for range lines {
					w.Write(line)
				}
				w.drain()
			}
			fastest = min(fastest, time.Since(began))
		}
		if fastest >= queues*logDelay {
			t.Errorf("%s: got %v for %d, want less than %v", what, fastest, queues, queues*logDelay)
		}
	}
}

// BenchmarkLogLine writes the line of a batch, as the server and the client do.
func BenchmarkLogLine(b *testing.B) {
	log := newLogger(io.Discard, slog.LevelInfo)
	b.ReportAllocs()
	for b.Loop() {
		logBatch(log, "apuesta_recibida", success, slog.Int("cantidad", 150))
	}
}

// A moodyWriter fails while it is told to.
type moodyWriter struct {
	mu   sync.Mutex // protects following
	text bytes.Buffer
	err  error
}

func (w *moodyWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	return w.text.Write(p)
}

func (w *moodyWriter) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// TestLogGoesOn: lines that could not be written are counted, standard error is told once,
// and the log says how many are missing when it can be written again.
func TestLogGoesOn(t *testing.T) {
	var out, errs moodyWriter
	w := newLineWriter(&out, &errs)
	log := newLogger(w, slog.LevelInfo)
	say := func(n int) {
		for range n {
			log.Info(actConfig, success)
			w.drain()
		}
	}
	say(1)
	out.fail(errors.New("no space | left\n"))
	say(3)
	out.fail(nil)
	say(1)
	w.drain()
	out.fail(errors.New("gone"))
	say(1)
	if got, want := errs.text.String(), "tp0: standard output: no space \\x7c left\\x0a: "+
		"the program goes on without its log\n"; got != want {
		t.Errorf("standard error: got %q, want %q", got, want)
	}
	lines := strings.Split(strings.TrimSuffix(out.text.String(), "\n"), "\n")
	if len(lines) != 3 || !strings.Contains(lines[2], "action: log | result: fail | lines: 3 | ") {
		t.Errorf("got %q, want two lines and one that says that 3 are missing", lines)
	}
	for _, line := range lines {
		checkLogLine(t, line)
	}
}

// TestLogStuck has outputs that take nothing at all: nobody waits for them longer than
// logPatience, whatever is said and by how many.
func TestLogStuck(t *testing.T) {
	t.Parallel()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	w := newLineWriter(out, out)
	log := newLogger(w, slog.LevelInfo)
	var all sync.WaitGroup
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 1000 {
				log.Info(actConfig, success, "key", "value")
			}
		}()
	}
	all.Wait()
	w.mu.Lock()
	if w.dropped == 0 {
		t.Error("got no line dropped, want some")
	}
	w.mu.Unlock()
	go io.Copy(io.Discard, in) // the first drop is said on the same pipe; then all is as before
	waitFor(t, "the writer goes on", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.stuck() && w.dropped == 0
	})
	w.drain()
}

// TestLogValuesAreCut: what a peer says is cut, at the end of a character, whatever it is made of.
func TestLogValuesAreCut(t *testing.T) {
	for _, s := range []string{"x", "é", "漢", "😀", "\x00", "|", "\u2028", "\xff", "a\xff"} {
		for n := 500; n < 1200; n++ {
			text := strings.Repeat(s, n/len(s)) + "end"
			value := string(appendValue(nil, slog.StringValue(text)))
			whole := string(appendHarmless(nil, text))
			switch {
			case len(value) > maxValue || !utf8.ValidString(value):
				t.Fatalf("%q: got %d bytes, %q", s, len(value), value)
			case len(whole) <= maxValue && value != whole:
				t.Fatalf("%q: got %q, want it whole", s, value)
			case len(whole) > maxValue &&
				(len(value) < maxValue-6 || value[:400] != whole[:400] || !strings.HasSuffix(value, "…")):
				t.Fatalf("%q: got %q, want the start of %q", s, value, whole)
			}
		}
	}
	if line := appendValue(nil, slog.AnyValue(errors.New(strings.Repeat("x", 1<<20)))); len(line) > maxValue {
		t.Errorf("an error: got %d bytes", len(line))
	}
}
