package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
)

// wireBet returns a BET, made without the program's own code.
func wireBet(agency int, first, last, document, birthdate string, number int) []byte {
	m := []byte{1, byte(agency)}
	for _, s := range []string{first, last, document, birthdate} {
		m = append(m, wireString(s)...)
	}
	return binary.BigEndian.AppendUint16(m, uint16(number))
}

// wireString returns a string as a message has it.
func wireString(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

// wireBatch returns a BATCH of bets.
func wireBatch(bets ...[]byte) []byte {
	m := binary.BigEndian.AppendUint16([]byte{3}, uint16(len(bets)))
	for _, b := range bets {
		m = append(m, b...)
	}
	return m
}

// wireHello returns a HELLO.
func wireHello(agency int, source string) []byte {
	return append([]byte{6, 1, byte(agency)}, wireString(source)...)
}

// A transcript is one conversation of testdata/wire.txt.
type transcript struct {
	name  string
	args  []string // of the server
	lines []transcriptLine
	rows  string // of bets.csv in the end
}

// A transcriptLine is one line of it.
type transcriptLine struct {
	number    int
	verb, arg string
	old       bool // for the connection before
}

// readTranscripts reads a file of transcripts.
func readTranscripts(t *testing.T, name string) (all []*transcript) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(text), "\n") {
		verb, arg, _ := strings.Cut(line, " ")
		switch verb {
		case "", "#":
		case "==":
			title, args, _ := strings.Cut(arg, " -")
			tr := &transcript{name: title}
			if args != "" {
				tr.args = strings.Fields("-" + args)
			}
			all = append(all, tr)
		case "=":
			row, times := repeated(arg)
			all[len(all)-1].rows += strings.Repeat(row+"\r\n", times)
		default:
			l := transcriptLine{i + 1, verb, arg, verb == "old"}
			if l.old {
				l.verb, l.arg, _ = strings.Cut(arg, " ")
			}
			all[len(all)-1].lines = append(all[len(all)-1].lines, l)
		}
	}
	return all
}

// repeated cuts *N off a token.
func repeated(token string) (text string, times int) {
	at := strings.LastIndexByte(token, '*')
	if n, err := strconv.Atoi(token[at+1:]); at > 0 && err == nil {
		return token[:at], n
	}
	return token, 1
}

// wireBytes returns the bytes that tokens stand for.
func wireBytes(t *testing.T, tokens string) (p []byte) {
	t.Helper()
	for tokens = strings.TrimSpace(tokens); tokens != ""; tokens = strings.TrimSpace(tokens) {
		if tokens[0] == '"' {
			end := 1 + strings.IndexByte(tokens[1:], '"')
			p = append(p, wireString(tokens[1:end])...)
			tokens = tokens[end+1:]
			continue
		}
		end := strings.IndexByte(tokens, ' ')
		if end < 0 {
			end = len(tokens)
		}
		token, times := repeated(tokens[:end])
		tokens = tokens[end:]
		one, err := hex.DecodeString(token)
		if f := strings.Split(strings.ReplaceAll(token, "_", " "), ":"); f[0] == "bet" {
			agency, _ := strconv.Atoi(f[1])
			number, numberErr := strconv.Atoi(f[6])
			one, err = wireBet(agency, f[2], f[3], f[4], f[5], number), numberErr
		}
		if err != nil {
			t.Fatalf("token %q: %v", token, err)
		}
		for range times {
			p = append(p, one...)
		}
	}
	return p
}

// A conversation runs a transcript.
type conversation struct {
	t       *testing.T
	office  *office
	conn    *wire // made at the first use
	before  *wire
	all     []*wire
	pending []byte // to be sent
	pieces  func(left int) int
}

// step does one line.
func (c *conversation) step(l transcriptLine) {
	c.t.Helper()
	if c.conn == nil {
		first := ""
		if l.verb == ">" {
			first = l.arg
		}
		c.conn = c.office.dialAs(c.t, agencyIn(wireBytes(c.t, first)))
		c.all = append(c.all, c.conn)
	}
	w := c.conn
	if l.old {
		w = c.before
	}
	if l.verb != ">" {
		c.flush()
	}
	switch l.verb {
	case ">":
		c.pending = append(c.pending, wireBytes(c.t, l.arg)...)
	case "<":
		want := wireBytes(c.t, l.arg)
		if got := w.receive(len(want)); string(got) != string(want) {
			c.t.Fatalf("got  %x\nwant %x", got, want)
		}
	case "ack":
		code, part, _ := strings.Cut(l.arg, " ")
		n, _ := strconv.Atoi(code)
		w.wantAck(n, part)
	case "resume":
		count, tokens, _ := strings.Cut(l.arg, " ")
		n, _ := strconv.ParseUint(count, 10, 64)
		w.wantResume(n, wireBytes(c.t, tokens))
	case "end":
		w.wantEnd()
	case "half":
		w.Conn.(interface{ CloseWrite() error }).CloseWrite()
	case "cut":
		w.Close()
	case "new":
		c.before, c.conn = c.conn, nil
	default:
		c.t.Fatalf("unknown verb %q", l.verb)
	}
}

// wantResume wants a RESUME of n records whose BETs are these.
func (w *wire) wantResume(n uint64, bets []byte) {
	w.t.Helper()
	want := binary.BigEndian.AppendUint64([]byte{7}, n)
	want = binary.BigEndian.AppendUint32(want, crc32.Checksum(bets, crc32.MakeTable(crc32.Castagnoli)))
	if got := w.receive(13); string(got) != string(want) {
		w.t.Fatalf("got RESUME %x, want %x", got, want)
	}
}

// close closes all connections.
func (c *conversation) close() {
	for _, w := range c.all {
		w.Close()
	}
}

// flush sends what is pending in pieces.
func (c *conversation) flush() {
	c.t.Helper()
	for len(c.pending) > 0 {
		n := min(c.pieces(len(c.pending)), len(c.pending))
		if _, err := c.conn.Write(c.pending[:n]); err != nil {
			break // the server may have ended it already: the next line tells
		}
		c.pending = c.pending[n:]
	}
	c.pending = nil
}

// TestE2EWire holds every conversation of testdata/wire.txt, however its bytes are cut into writes.
func TestE2EWire(t *testing.T) {
	t.Parallel()
	for i, tr := range readTranscripts(t, "testdata/wire.txt") {
		random := rand.New(rand.NewPCG(3, uint64(i)))
		for _, way := range []struct {
			name   string
			pieces func(left int) int
		}{
			{"at once", func(left int) int { return left }},
			{"byte by byte", func(int) int { return 1 }},
			{"at random", func(int) int { return 1 + random.IntN(40) }},
		} {
			t.Run(tr.name+", "+way.name, func(t *testing.T) {
				t.Parallel()
				if tr.skipOverTLS() {
					t.Skip("a connection speaks for several agencies")
				}
				tr.run(t, way.pieces)
			})
		}
	}
}

// run holds the conversation with a server of its own.
func (tr *transcript) run(t *testing.T, pieces func(left int) int) {
	o := openOffice(t, tr.args...)
	c := &conversation{t: t, office: o, pieces: pieces}
	at := transcriptLine{}
	defer func() {
		if t.Failed() {
			t.Logf("testdata/wire.txt:%d: %s %s", at.number, at.verb, at.arg)
		}
	}()
	for _, at = range tr.lines {
		c.step(at)
	}
	c.flush()
	c.close() // an open connection would be read on for a moment after the server has ended it
	o.stop()
	if got := o.stored(t); got != tr.rows {
		t.Errorf("bets.csv: got\n%swant\n%s", got, tr.rows)
	}
}

// TestE2EManyRefusals has the largest batch of the smallest bets, all refused: the answer is no
// longer than a message may be.
func TestE2EManyRefusals(t *testing.T) {
	t.Parallel()
	w := openOffice(t).dial(t)
	const bets = (8192 - 3) / 12
	var all [][]byte
	for range bets {
		all = append(all, wireBet(1, "", "", "", "", 0))
	}
	w.send(wireBatch(all...))
	code, status := w.receiveAck()
	if code != 1 || len(status) > 8192-4 {
		t.Errorf("got ACK %d of %d bytes, want ACK 1 of at most 8,188", code, len(status))
	}
	entries := strings.Split(status, "; ")
	for i, e := range entries {
		if !strings.HasPrefix(e, fmt.Sprintf("#%d ", i+1)) {
			t.Fatalf("got entry %q as number %d", e, i+1)
		}
	}
	if len(entries) != bets {
		t.Errorf("got %d entries, want %d", len(entries), bets)
	}
}
