//go:build !nostream && !notls

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// TestNATSReader: each thing that an engine may say, and what is none. Nothing else is taken, and
// no length is believed before it was looked at.
func TestNATSReader(t *testing.T) {
	tests := []struct{ text, want string }{
		{"INFO {}\r\n", `INFO "{}" 0 {  0 [] }`},
		{"PING\r\n", `PING "" 0 {  0 [] }`},
		{"PONG \r\n", `PONG "" 0 {  0 [] }`},
		{"+OK\r\n", `+OK "" 0 {  0 [] }`},
		{"-ERR 'Stale Connection'\r\n", `-ERR "Stale Connection" 0 {  0 [] }`},
		{"-ERR\r\n", `-ERR "" 0 {  0 [] }`},
		{"MSG a 1 0\r\n\r\n", `MSG "" 1 {a  0 [] }`},
		{"MSG a  7\tb 2\r\n\r\n\r\n", `MSG "" 7 {a b 0 [] ` + "\r\n}"},
		{"HMSG a 1 12 13\r\nNATS/1.0\r\n\r\nx\r\n", `MSG "" 1 {a  0 [] x}`},
		{"HMSG a 1 b 12 12\r\nNATS/1.0\r\n\r\n\r\n", `MSG "" 1 {a b 0 [] }`},
		{"HMSG a 1 0 1\r\nx\r\n", `MSG "" 1 {a  0 [] x}`},
		{"HMSG a 1 16 16\r\nNATS/1.0 404\r\n\r\n\r\n", `MSG "" 1 {a  404 [] }`},
		{"HMSG a 1 15 15\r\nNATS/1.0 40\r\n\r\n\r\n", `MSG "" 1 {a  0 [] }`},
		{"HMSG a 1 3 3\r\n\x00\xff:\r\n", `MSG "" 1 {a  0 [] }`},

		{"", "EOF"},
		{"PING", "EOF"},
		{"PING\n", "a line does not end with CR LF"},
		{"ping\r\n", `"ping" is nothing that an engine says`},
		{"\r\n", `"" is nothing that an engine says`},
		{"PUB a 0\r\n\r\n", `"PUB" is nothing that an engine says`},
		{"INFO " + strings.Repeat("x", maxNATSLine), "a line has more than 4096 bytes"},
		{"MSG\r\n", "a message has 0 arguments"},
		{"MSG a 1\r\n", "a message has 2 arguments"},
		{"MSG a 1 b c 1\r\n", "a message has 5 arguments"},
		{"HMSG a 1 1\r\n", "a message has 3 arguments"},
		{"HMSG a 1 b c 1 1\r\n", "a message has 6 arguments"},
		{"MSG a x 1\r\n", "a number of a message is none"},
		{"MSG a 1 -1\r\n", "a number of a message is none"},
		{"MSG a 1 +1\r\n", "a number of a message is none"},
		{"MSG a 1 0x1\r\n", "a number of a message is none"},
		{"MSG a 1 1_0\r\n", "a number of a message is none"},
		{"MSG a 1 99999999999999999999\r\n", "a number of a message is none"},
		{"MSG a 1 2147483647\r\n", "a message has 2147483647 bytes, more than the 8388608 that are taken"},
		{"MSG a 1 8388609\r\n", "a message has 8388609 bytes, more than the 8388608 that are taken"},
		{"MSG a 1 8388608\r\n", "EOF"},
		{"HMSG a 1 2 1\r\n", "a header has 2 bytes in a message of 1"},
		{"HMSG a 1 65537 65537\r\n", "a header has 65537 bytes, more than the 65536 that are taken"},
		{"HMSG a 1 -1 1\r\n", "a number of a message is none"},
		{"MSG a 1 1\r\nxy\r\n", "after the 1 bytes of a message there is no CR LF"},
		{"MSG a 1 3\r\nx\r\n", "unexpected EOF"},
	}
	for _, tt := range tests {
		op, err := newNATSReader(strings.NewReader(tt.text)).next()
		m := op.message
		got := fmt.Sprintf("%s %q %d {%s %s %d %v %s}", op.verb, op.text, op.sid, m.subject, m.reply, m.status,
			m.fields, m.body)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want && (err == nil || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%.60q:\ngot  %s\nwant %s", tt.text, got, tt.want)
		}
	}
}

// TestNATSPublish: what cannot stand in its line is not sent, and nothing of it.
func TestNATSPublish(t *testing.T) {
	tests := []struct {
		subject, reply string
		header         []natsField
		want           string // of an error: what it begins with
	}{
		{"a", "", nil, "PUB a 1\r\nx\r\n"},
		{"a", "b", nil, "PUB a b 1\r\nx\r\n"},
		{"a", "b", []natsField{{"A", "1"}, {"B", ""}}, "HPUB a b 23 24\r\nNATS/1.0\r\nA: 1\r\nB: \r\n\r\nx\r\n"},
		{"", "", nil, `" " is no subject`},
		{"a b", "", nil, `"a b " is no subject`},
		{"a\r\nPING", "", nil, `"a\r\nPING " is no subject`},
		{"a", "b\t", nil, `"a b\t" is no subject`},
		{strings.Repeat("a", 600), "", nil, `"aaa`},
		{"a", "", []natsField{{"A", "1\r\nB: 2"}}, `"A: 1\r\nB: 2" is no field`},
		{"a", "", []natsField{{"A:", ""}}, `"A:: " is no field`},
		{"a", "", []natsField{{"", ""}}, `": " is no field`},
		{"a", "", []natsField{{"A", strings.Repeat("a", 50)}}, "the message is longer than the engine takes: 68 bytes"},
	}
	for _, tt := range tests {
		out, err := appendNATSPublish([]byte("before"), 64, tt.subject, tt.reply, tt.header, []byte("x"))
		got, found := strings.CutPrefix(string(out), "before")
		if err != nil && got == "" {
			got = err.Error()
		}
		if !found || got != tt.want && (err == nil || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%.20q %q %v: got %q, want %q", tt.subject, tt.reply, tt.header, got, tt.want)
		}
	}
}

// FuzzNATS: whatever an engine sends, the connection neither breaks down nor takes more memory than
// it said it would, and ends every request.
func FuzzNATS(f *testing.F) {
	hello := `INFO {"headers":true,"max_payload":100,"connect_urls":["a:1"]}` + "\r\nPONG\r\n"
	for _, more := range []string{
		"", "PING\r\nMSG _INBOX.x.1 1 2\r\nok\r\n", "HMSG a 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
		"HMSG a 2 b 67 69\r\nNATS/1.0 204 EOB\r\nNats-Sequence: 1\r\nwhat\r\n:\r\nNats-Sequence:  8 \r\n\r\nok\r\n",
		"-ERR 'Permissions Violation for Publish to \"a.b\"'\r\n+OK\r\n", "-ERR 'Stale Connection'\r\n",
		"INFO {\"ldm\":true}\r\nINFO {\"max_payload\":-1,\"connect_urls\":[\":\",\"[::1]:4222\"]}\r\n",
		"MSG a 2 8388608\r\n", "MSG a 18446744073709551615 0\r\n\r\n", "HMSG a 1 5 4\r\n",
	} {
		f.Add([]byte(hello + more))
	}
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n"))
	f.Add([]byte(`INFO {"headers":true,"tls_required":true}` + "\r\n\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newNATS(natsOptions{servers: []string{"engine:4222"}, log: newLogger(io.Discard, slog.LevelInfo)})
		heard := 0
		c.subscribe("a", func(m natsMessage) { heard += len(m.body) })
		var calls []*natsCall
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.serve(ours, natsServer{"engine:4222", "engine"})
		}()
		for half := range bytes.Lines(data) {
			if k, err := c.send("a.b", nil, nil); err == nil {
				calls = append(calls, k)
			}
			theirs.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := theirs.Write(half); err != nil {
				break
			}
		}
		theirs.Close()
		<-done
		for _, k := range calls {
			for err := error(nil); err == nil || errors.Is(err, errNoResponders); {
				_, err = k.next(t.Context())
			}
		}
		if heard > len(data) {
			t.Errorf("got %d bytes in messages of an engine that sent %d", heard, len(data))
		}
	})
}
