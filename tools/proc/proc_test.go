package proc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct{ line, action, result, port string }{
		{"2024-09-03 16:15:58 INFO     action: listen | result: success | ip: ::1 | port: 40123\n", "listen", "success",
			"40123"},
		{"2024-09-03 16:15:58 INFO     action: listen | result: in_progress\n", "listen", "in_progress", ""},
		{"2024-09-03 16:15:58 INFO     action: listen | result: success | port: 40", "", "", ""}, // half a line
		{"tp0: bets.csv: no space left on device\n", "", "", ""},
		{"", "", "", ""},
	}
	for _, test := range tests {
		e := Parse(test.line)
		if e.Action != test.action || e.Result != test.result || e.Values["port"] != test.port {
			t.Errorf("%q: got %q, want %q, %q, port %q", test.line, e, test.action, test.result, test.port)
		}
	}
}

func TestTail(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "    "},
		{"one line", "a\n", "    a"},
		{"no newline at the end", "a\nb", "    a\n    b"},
		{"more than is shown", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "    2\n    3\n    4\n    5\n    6\n    7\n    8\n    9"},
	}
	for _, test := range tests {
		path := filepath.Join(t.TempDir(), "x.log")
		if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := tail(path); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	if got := tail(filepath.Join(t.TempDir(), "none.log")); !strings.Contains(got, "no such file") {
		t.Errorf("no file: got %q, want the reason", got)
	}
}

func TestFind(t *testing.T) {
	log := "x action: listen | result: fail | port: 0\nx action: listen | result: success | port: 1\n" +
		"x action: close_store | result: success | lotes: 30 | commits: 12\nx action: stop | result: success | port: 2"
	p := &Process{Log: filepath.Join(t.TempDir(), "x.log")}
	if err := os.WriteFile(p.Log, []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ action, key, want string }{
		{"listen", "port", "1"},
		{"close_store", "commits", "12"},
		{"close_store", "syncs", "not found"},
		{"stop", "port", "not found"}, // still being written
		{"close", "commits", "not found"},
	}
	for _, test := range tests {
		got := "not found"
		if e, err := p.Find(test.action, test.key); err == nil {
			got = e.Values[test.key]
		}
		if got != test.want {
			t.Errorf("%s of %s: got %q, want %q", test.key, test.action, got, test.want)
		}
	}
}

func TestStatusBytes(t *testing.T) {
	status := []byte("Name:\ttp0\nVmHWM:\t    5120 kB\nVmRSS:\t    4096 kB\n")
	if got, known := statusBytes(status, "VmRSS"); got != 4<<20 || !known {
		t.Errorf("got %d, %v, want 4 MiB", got, known)
	}
	if got, known := statusBytes(status, "VmSwap"); known {
		t.Errorf("got %d, want nothing known", got)
	}
}

func TestLineFault(t *testing.T) {
	const head = "2024-09-03 16:15:58 INFO     action: config | "
	good := []string{
		head + "result: success",
		head + "result: fail | cantidad: 3 | estado: #1 x; #2 y: z",
		"2024-09-03 16:15:58 WARNING  action: connect | result: in_progress | motivo: ",
	}
	for _, line := range good {
		if got := LineFault(line); got != "" {
			t.Errorf("%q: got %q, want no fault", line, got)
		}
	}
	bad := []string{
		"", "hello", "a | b", head + "result: done", head + "client_id: 1 | result: success",
		head + "result: success | no colon",
		head + "result: success | a: b | ", "action: config | result: success",
		"2024-09-03 16:15:58 INFO action: config | result: success",
		"2024-09-03 16:15:58 NOTICE   action: config | result: success",
		"2024-13-03 16:15:58 INFO     action: config | result: success",
		"2024-09-03 16:15:58 INFO     action: exit | result: success",
		head + "result: success | a: b\nc", head + "result: success | a: \xff", head + "result: success | a: \u2028",
		head + "result: success | a: \x1b[K",
		head + "result: success\n",
	}
	for _, line := range bad {
		if LineFault(line) == "" {
			t.Errorf("%q: got no fault, want one", line)
		}
	}
}
