//go:build !nostream && !notls

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// natsPatience is how long a test waits for what must happen.
const natsPatience = 20 * time.Second

// TestNATSTranscripts plays the conversations in testdata/nats: a made up engine on a real socket,
// and the connection under test. Each line is a step:
//
//	payload N           a server must take messages of N bytes
//	servers 2           both servers of the engine stand in the settings, not only the first
//	roots               TLS is wanted; ping: the connection asks often whether the engine is there
//	accept [b]          the first (second) server is connected to
//	S: LINE             the engine sends it; s: TEXT: without an end of line, with Go's escapes
//	C: LINE             the engine gets it; {name} stands for what came there first
//	greet               what comes first in most of them
//	tls [stranger]      from here on the server speaks TLS
//	cut, gone           the server ends the connection, and listens no more
//	closed              the connection ends it
//	> request SUBJECT [BODY]    ask: of many answers; publish, subscribe; elsewhere REASON
//	> header NAME VALUE         goes with the next request
//	= N [STATUS] BODY [FIELD=VALUE]   the next answer to the request N; error TEXT: there is none
//	connected VERSION, down REASON, heard BODY, log TEXT
func TestNATSTranscripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/nats/*.txt")
	if len(files) < 10 {
		t.Fatalf("got %d transcripts, want those of testdata/nats", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := newNATSPlay(t)
			for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
				p.where = fmt.Sprintf("%s:%d: %s", file, i+1, line)
				p.step(line)
			}
		})
	}
}

// A natsPlay is a conversation.
type natsPlay struct {
	t       *testing.T
	where   string
	o       natsOptions
	c       *nats // nil before the first accept
	servers map[string]net.Listener
	cert    tls.Certificate
	conn    net.Conn // the engine's side
	in      *bufio.Reader
	names   map[string]string // what stood where a {name} is
	header  []natsField
	calls   []*natsCall
	many    []bool // of a call: there may be several answers
	heard   chan string
	log     natsLog
}

// A natsLog keeps what the log says.
type natsLog struct {
	mu   sync.Mutex // protects following
	text bytes.Buffer
}

func (l *natsLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *natsLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newNATSPlay(t *testing.T) *natsPlay {
	p := &natsPlay{t: t, servers: map[string]net.Listener{}, names: map[string]string{}, heard: make(chan string, 9)}
	for _, name := range []string{"a", "b"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		p.servers[name], p.names[name] = l, l.Addr().String()
	}
	p.o = natsOptions{servers: []string{p.names["a"]}, user: "office", password: `p|"w`, name: "tp0",
		log: newLogger(&p.log, slog.LevelInfo)}
	t.Cleanup(func() {
		if p.conn != nil {
			p.conn.Close()
		}
		if p.c != nil {
			p.c.close()
		}
	})
	return p
}

func (p *natsPlay) fatalf(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s\n%s\nthe log:\n%s", p.where, fmt.Sprintf(format, args...), p.log.String())
}

// must stops the test at an error.
func (p *natsPlay) must(err error) {
	p.t.Helper()
	if err != nil {
		p.fatalf("got %v", err)
	}
}

// until waits for what must happen.
func (p *natsPlay) until(happened func() (ok bool, got string)) {
	p.t.Helper()
	for end := time.Now().Add(natsPatience); ; time.Sleep(time.Millisecond) {
		ok, got := happened()
		if ok {
			return
		}
		if time.Now().After(end) {
			p.fatalf("got %q", got)
		}
	}
}

// step plays one line.
func (p *natsPlay) step(line string) {
	p.t.Helper()
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "", "#":
	case "servers":
		p.o.servers = append(p.o.servers, p.names["b"])
	case "payload":
		p.o.payload, _ = strconv.Atoi(rest)
	case "ping":
		p.o.ping, p.o.pingWait = 50*time.Millisecond, 1500*time.Millisecond
	case "roots":
		p.cert = natsCertificate(p.t)
		p.o.tls = &tls.Config{RootCAs: x509.NewCertPool()}
		p.o.tls.RootCAs.AddCert(p.cert.Leaf)
	case "accept":
		p.accept(rest)
	case "S:":
		p.say(p.fill(rest) + "\r\n")
	case "s:":
		p.say(strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(p.fill(rest)))
	case "C:":
		p.expect(rest)
	case "greet":
		for _, line := range []string{`S: INFO {"version":"2.15.2","headers":true,"max_payload":1048576}`,
			"C: CONNECT {hello}", "C: PING", "S: PONG", "C: SUB {inbox}* 1", "connected 2.15.2"} {
			p.step(line)
		}
	case "tls":
		if rest == "stranger" {
			p.cert = natsCertificate(p.t)
		}
		p.conn = tls.Server(p.conn, &tls.Config{Certificates: []tls.Certificate{p.cert}})
		p.in = bufio.NewReader(p.conn)
	case "cut":
		p.must(p.conn.Close())
	case "gone":
		p.must(p.servers["a"].Close())
		p.must(p.conn.Close())
	case "closed":
		p.conn.SetReadDeadline(time.Now().Add(natsPatience))
		if _, err := io.Copy(io.Discard, p.in); os.IsTimeout(err) {
			p.fatalf("got a connection that goes on")
		}
	case ">":
		p.act(rest)
	case "=":
		p.compare(rest)
	default:
		p.watch(verb, rest)
	}
}

// watch waits for what is seen of the connection from above.
func (p *natsPlay) watch(verb, want string) {
	p.t.Helper()
	switch want = p.fill(want); verb {
	case "connected":
		p.until(func() (bool, string) {
			_, version, ok := p.c.connected()
			return ok && version == want, version
		})
	case "down":
		p.until(func() (bool, string) {
			err := p.c.publish("x", nil)
			return err != nil && strings.Contains(err.Error(), want), fmt.Sprint(err)
		})
	case "log":
		want = string(appendHarmless(nil, want))
		p.until(func() (bool, string) { return strings.Contains(p.log.String(), want), "" })
	case "heard":
		select {
		case got := <-p.heard:
			if got != want {
				p.fatalf("got %q", got)
			}
		case <-time.After(natsPatience):
			p.fatalf("got nothing")
		}
	default:
		p.fatalf("no such step")
	}
}

func (p *natsPlay) accept(server string) {
	p.t.Helper()
	if p.c == nil {
		p.c = dialNATS(p.o)
	}
	if server == "" {
		server = "a"
	}
	l := p.servers[server].(*net.TCPListener)
	l.SetDeadline(time.Now().Add(natsPatience))
	conn, err := l.Accept()
	p.must(err)
	p.t.Cleanup(func() { conn.Close() })
	p.conn, p.in = conn, bufio.NewReader(conn)
}

func (p *natsPlay) say(text string) {
	p.t.Helper()
	_, err := io.WriteString(p.conn, text)
	p.must(err)
}

var natsName = regexp.MustCompile(`\{[a-z]+[0-9]?\}`)

// fill puts what is known in the place of names.
func (p *natsPlay) fill(text string) string {
	return natsName.ReplaceAllStringFunc(text, func(name string) string { return p.names[name[1:len(name)-1]] })
}

// expect reads a line from the connection. Where it asks often whether the engine is there, that
// may come between any two.
func (p *natsPlay) expect(want string) {
	p.t.Helper()
	p.conn.SetReadDeadline(time.Now().Add(natsPatience))
	line, err := p.in.ReadString('\n')
	p.must(err)
	got, whole := strings.CutSuffix(line, "\r\n")
	if p.o.ping != 0 && got == "PING" && want != "PING" {
		p.expect(want)
		return
	}
	pattern, end := "", 0
	var fresh []string
	for _, at := range natsName.FindAllStringIndex(want, -1) {
		pattern += regexp.QuoteMeta(want[end:at[0]])
		end = at[1]
		name := want[at[0]+1 : at[1]-1]
		if known, ok := p.names[name]; ok && name != "hello" && name != "inbox" {
			pattern += regexp.QuoteMeta(known)
			continue
		}
		pattern += `(.+)`
		fresh = append(fresh, name)
	}
	match := regexp.MustCompile("^" + pattern + regexp.QuoteMeta(want[end:]) + "$").FindStringSubmatch(got)
	if match == nil || !whole {
		p.fatalf("got %q", line)
	}
	for i, name := range fresh {
		if name == "inbox2" && match[i+1] == p.names["inbox"] {
			p.fatalf("got the inbox of the connection before")
		}
		p.names[name] = match[i+1]
	}
}

// act does something with the connection under test.
func (p *natsPlay) act(text string) {
	p.t.Helper()
	verb, rest, _ := strings.Cut(text, " ")
	subject, body, _ := strings.Cut(rest, " ")
	switch verb {
	case "header":
		p.header = append(p.header, natsField{subject, body})
	case "request", "ask":
		k, err := p.c.send(subject, p.header, []byte(body))
		if err != nil {
			k = &natsCall{of: &natsCalls{}, err: err}
		}
		p.calls, p.many, p.header = append(p.calls, k), append(p.many, verb == "ask"), nil
	case "elsewhere":
		p.c.elsewhere(rest)
	case "publish":
		p.must(p.c.publish(subject, []byte(body)))
	case "subscribe":
		p.c.subscribe(subject, func(m natsMessage) { p.heard <- string(m.body) })
	default:
		p.fatalf("no such act")
	}
}

// compare waits for an answer.
func (p *natsPlay) compare(want string) {
	p.t.Helper()
	number, want, _ := strings.Cut(want, " ")
	var n int
	fmt.Sscan(number, &n)
	ctx, cancel := context.WithTimeout(context.Background(), natsPatience)
	defer cancel()
	take := p.calls[n-1].wait
	if p.many[n-1] {
		take = p.calls[n-1].next
	}
	m, err := take(ctx)
	if text, failure := strings.CutPrefix(want, "error "); failure || err != nil {
		if err == nil || !failure || !strings.Contains(err.Error(), text) {
			p.fatalf("got %q, %v", m.body, err)
		}
		return
	}
	got := string(m.body)
	if m.status != 0 {
		got = fmt.Sprint(m.status, " ", got)
	}
	if n := len(m.fields); n > 0 {
		name := m.fields[n-1].name
		got += " " + name + "=" + m.field(name)
	}
	if got != want {
		p.fatalf("got %q", got)
	}
}

// natsCertificate makes a certificate for this machine, which is its own authority.
func natsCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key, Leaf: leaf}
}

// TestNATSTakesNothing: an engine that reads nothing any more makes nobody wait. What it is to be
// sent is bounded, and it is left in the end.
func TestNATSTakesNothing(t *testing.T) {
	p := newNATSPlay(t)
	p.step("accept")
	p.step("greet")
	body := make([]byte, 1<<20)
	var err error
	for n := 0; err == nil; n++ {
		if err = p.c.publish("a.b", body); n > 200 {
			t.Fatalf("got %d MiB taken by an engine that reads nothing", n)
		}
	}
	if !errors.Is(err, errNATSLost) {
		t.Errorf("got %v, want errNATSLost", err)
	}
	p.conn.Close()
	p.step("accept")
	p.step("greet")
}

// TestNATSUnread: answers for somebody who does not take them are bounded. What is there is still
// to be had.
func TestNATSUnread(t *testing.T) {
	calls := natsCalls{all: map[uint64]*natsCall{}}
	k, err := calls.begin("a.b")
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 1<<20)
	for range 100 {
		calls.answer(k.id, natsMessage{body: body})
	}
	n := 0
	for ; err == nil; n++ {
		_, err = k.next(context.Background())
	}
	if !errors.Is(err, errNATSLost) || n > maxNATSUnread>>20+1 {
		t.Errorf("got %d answers of 1 MiB and %v, want at most %d bytes and errNATSLost", n, err, maxNATSUnread)
	}
	k.abandon()
	if calls.waiting() != 0 {
		t.Errorf("got %d requests outstanding, want none", calls.waiting())
	}
}

// TestNATSClose: close ends whatever is outstanding, wherever the connection stands.
func TestNATSClose(t *testing.T) {
	for _, steps := range [][]string{{"accept"},
		{"accept", "greet", "> request a.b", "= 1 error the engine cannot be reached"}} {
		p := newNATSPlay(t)
		for _, step := range steps {
			if strings.HasPrefix(step, "=") {
				go p.c.close()
			}
			p.step(step)
		}
		p.c.close()
		if _, err := p.c.send("a.b", nil, nil); !errors.Is(err, errNATSLost) {
			t.Errorf("%q, closed: got %v, want errNATSLost", steps, err)
		}
	}
}

// TestNATSCandidates: each server of the settings has its turn, those that the engine named follow,
// and the one that was used last is the last.
func TestNATSCandidates(t *testing.T) {
	c := newNATS(natsOptions{servers: []string{"a:1", "b:1", "c:1"}})
	c.found = []natsServer{{"d:1", "a"}, {"b:1", "a"}}
	for _, tt := range []struct {
		turn int
		used string
		want string
	}{{0, "", "a:1 b:1 c:1 d:1"}, {1, "a:1", "b:1 c:1 d:1 a:1"}, {2, "b:1", "c:1 a:1 d:1 b:1"},
		{3, "c:1", "a:1 b:1 d:1 c:1"}} {
		host, _, _ := strings.Cut(tt.used, ":")
		c.turn, c.used = tt.turn, natsServer{tt.used, host}
		var got []string
		for _, at := range c.candidates() {
			got = append(got, at.address)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("after %q: got %q, want %q", tt.used, got, tt.want)
		}
	}
	link := newNATSLink(nil, natsServer{"b:1", "b"}, &c.o)
	c.o.log = newLogger(io.Discard, slog.LevelError)
	if c.adopt(link); c.turn != 2 || c.used != link.at {
		t.Errorf("connected to b: got turn %d after %v, want c's", c.turn, c.used)
	}
}

// TestNATSTell: why no server can be used is said once, when it changes, and again after a while.
func TestNATSTell(t *testing.T) {
	var log natsLog
	c := newNATS(natsOptions{log: newLogger(&log, slog.LevelInfo)})
	for i, tt := range []struct {
		reason string
		later  time.Duration
		lines  int
	}{{"x", 0, 1}, {"x", 0, 1}, {"y", 0, 2}, {"y", natsTell / 2, 2}, {"y", natsTell / 2, 3}} {
		c.toldAt = c.toldAt.Add(-tt.later)
		c.tell(tt.reason)
		if got := strings.Count(log.String(), "\n"); got != tt.lines {
			t.Errorf("call %d: got %d lines, want %d", i+1, got, tt.lines)
		}
	}
}
