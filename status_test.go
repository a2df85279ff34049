//go:build !nohttp && !notls

package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A fakeStore says what it is told to.
type fakeStore struct {
	mu       sync.Mutex // protects following
	said     storeFacts
	agencies [256]agencyFacts
}

func (f *fakeStore) facts() storeFacts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said
}

func (f *fakeStore) agencyFacts(agency uint8, source string) agencyFacts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.agencies[agency]
}

// A fakeOffice is an office without a server.
type fakeOffice struct {
	office
	fake   *fakeStore
	shared *fakeShared // nil: the log is this server's alone
	stops  bool
	before func() // is called ahead of each request; nil: nothing is
	page   *statusServer
}

// newFakeOffice returns an office whose store has recovered and is empty.
func newFakeOffice() *fakeOffice {
	f := &fakeOffice{fake: &fakeStore{said: storeFacts{commits: new(histogram)}}}
	f.cfg = &config{drawAgencies: 5, connMax: 1024, storePath: "bets.csv", statusAddress: "127.0.0.1:0"}
	f.counts, f.stopping = newCounts(), func() bool { return f.stops }
	f.opened.Store(&openOffice{store: f.fake})
	return f
}

// fakeKeys are keys, made when the map says.
type fakeKeys map[uint8]time.Time

func (k fakeKeys) keyFacts() (made map[uint8]time.Time, handshakes map[string]uint64) {
	return k, map[string]uint64{"accepted": 2, "refused": 1}
}

// serve serves the page of f and returns its address.
func (f *fakeOffice) serve(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", f.cfg.statusAddress)
	if err != nil {
		t.Fatal(err)
	}
	f.page = newStatusServer(f.cfg, &f.office, listener.Addr())
	if f.before != nil {
		f.page.http.Handler = hook(f.before, f.page)
	}
	go f.page.http.Serve(listener)
	t.Cleanup(func() { f.page.http.Close() })
	return listener.Addr().String()
}

// pass lets time go by: the figures of each agency grow at its rate for some seconds.
func (f *fakeOffice) pass(seconds int, rates ...int) {
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Now().Add(-time.Duration(seconds) * time.Second)
	f.page.mu.Lock()
	defer f.page.mu.Unlock()
	w := f.page.watch
	for i := range seconds {
		for agency, rate := range rates {
			n := rate * (80 + random.IntN(40)) / 100 * min(i, 30) / 30
			f.counts.batch(ackStored, tally{agency: uint8(agency + 1), source: true, stored: n})
			f.fake.said.Bets += uint64(n)
			f.fake.said.Bytes += int64(n) * 52
			a := &f.fake.agencies[agency+1]
			a.Files, a.Source = 1, fmt.Sprintf("agency-%d.csv", agency+1)
			a.Records, a.Stored = a.Records+uint64(n), a.Stored+uint64(n)
		}
		f.fake.said.Sources = len(rates)
		f.fake.said.commits.observe(time.Duration(800+random.IntN(900)) * time.Microsecond)
		w.sample(now.Add(time.Duration(i) * time.Second))
	}
}

// scenes are what an evening at the office may look like.
var scenes = []struct {
	name string
	play func(f *fakeOffice)
}{
	{"nothing", func(f *fakeOffice) {}},
	{"sending", func(f *fakeOffice) { f.evening() }},
	{"full", func(f *fakeOffice) {
		f.evening()
		f.fake.said.trouble = fmt.Errorf("wal: writing a record: %w", syscall.ENOSPC)
		f.counts.hear(time.Now(), slog.LevelError, "store", []byte("2026-11-27 22:00:13 ERROR    action: store "+
			"| result: fail | file: bets.csv | reason: wal: writing a record: write bets.csv.wal.00: "+
			"no space left on device | todo: make room (or lift the quota or the limit on file size); "+
			"bets are refused with ACK 5 until then, and taken again by themselves"))
	}},
	{"gone", func(f *fakeOffice) {
		visits := f.evening()
		visits[3].end(endClient)
		f.counts.callers[4].Since = time.Now().Add(-90 * time.Second)
		f.counts.agencies[4].last.Store(time.Now().Add(-90 * time.Second).UnixNano())
	}},
	{"waiting", func(f *fakeOffice) {
		f.finish(f.evening(), 1, 2, 3, 5)
	}},
	{"drawn", func(f *fakeOffice) {
		f.finish(f.evening(), 1, 2, 3, 4, 5)
		f.fake.said.drawn = true
		f.page.watch.sample(time.Now())
		f.fake.said.found = &survey{seal: sha256.Sum256([]byte("bets"))}
		f.fake.said.found.winners[1].count, f.fake.said.found.winners[3].count = 5, 3
	}},
	{"holding", func(f *fakeOffice) {
		f.evening()
		f.share()
		f.fake.said.term.Holder, f.fake.said.term.Mine, f.fake.said.term.Heard = "office-a:12345", true, false
	}},
	{"standby", func(f *fakeOffice) {
		f.share()
		f.fake.said.trouble = errStandby
	}},
	{"no-quorum", func(f *fakeOffice) {
		f.evening()
		f.share()
		f.fake.said.trouble = fmt.Errorf("%w: stream TP0: it has no leader now", errUnsettled)
		f.fake.said.term.Fellows = nil
		f.shared.said.replicas.unchecked = "nobody answers at $SYS.REQ.SERVER.PING.JSZ"
	}},
	{"holes", func(f *fakeOffice) {
		f.evening()
		f.share()
		f.fake.said.term.Conflict, f.fake.said.term.Conflicts = time.Now(), 1
		r := &f.shared.said.replicas
		r.servers = r.servers[:2]
		r.servers[1].records, r.servers[1].missing = 1180, 60
		r.faults = []replicaFault{
			{server: "engine-3", kind: faultAbsent, text: "it does not say what it has of the records"},
			{server: "engine-2", kind: faultHoles, text: "60 of the records up to 1240 are missing in its replica"},
		}
	}},
}

// evening has five agencies send.
func (f *fakeOffice) evening() (visits []*visit) {
	for i := range 5 {
		v := f.counts.visit(fmt.Sprintf("10.20.%d.7", i+1))
		v.hello(uint8(i+1), fmt.Sprintf("agency-%d.csv", i+1))
		visits = append(visits, v)
	}
	f.pass(420, 66, 62, 38, 22, 3)
	f.counts.batch(ackRefused, tally{agency: 2, source: true, refused: &refusals{badBirthdate: 12, badNumber: 3}})
	f.counts.recoveredIn(12 * time.Millisecond)
	f.counts.hear(time.Now(), slog.LevelWarn, "protocol", []byte("2026-11-27 21:58:01 WARNING  action: protocol "+
		"| result: fail | ip: 10.20.9.9 | reason: unknown op 71 "+
		"| todo: the client breaks the protocol: see docs/protocol.md"))
	f.counts.hear(time.Now(), slog.LevelInfo, actRecover, []byte("2026-11-27 20:58:01 INFO     action: recover "+
		"| result: success | file: bets.csv | records: 12 | bytes: 81920"))
	return visits
}

// finish has agencies verify, finish and go.
func (f *fakeOffice) finish(visits []*visit, agencies ...int) {
	for _, agency := range agencies {
		visits[agency-1].hello(uint8(agency), visits[agency-1].source)
		visits[agency-1].end(endClient)
		f.fake.said.finished.add(uint8(agency))
		f.counts.callers[agency].Since = time.Now().Add(-time.Minute)
	}
}

// get asks for a path and returns the status and the body.
func get(t testing.TB, url string) (int, string, http.Header) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body), answer.Header
}

// hook returns a handler that calls before ahead of each request.
func hook(before func(), h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		before()
		h.ServeHTTP(w, r)
	})
}

// TestHealth has what /livez, /readyz and /healthz say in each state.
func TestHealth(t *testing.T) {
	f := newFakeOffice()
	at := f.serve(t)
	for _, tt := range []struct {
		state       string
		enter       func()
		live, ready int
		reason      string
	}{
		{"taking", func() {}, 200, 200, "ok\n"},
		{"recovering", func() { f.opened.Store(nil) }, 200, 503, "the store is recovering\n"},
		{"full", func() { f.fake.said.trouble = syscall.ENOSPC }, 200, 503, "the disk is full\n"},
		{"quota", func() { f.fake.said.trouble = fmt.Errorf("wal: %w", syscall.EDQUOT) }, 200, 503,
			"the disk quota is used up\n"},
		{"limit", func() { f.fake.said.trouble = syscall.EFBIG }, 200, 503, "the limit on file size is reached\n"},
		{"trouble", func() { f.fake.said.trouble = errLogFull }, 200, 503, errLogFull.Error() + "\n"},
		{"stopping", func() { f.stops = true }, 200, 503, "the server is stopping\n"},
		{"stopping and full", func() { f.stops, f.fake.said.trouble = true, syscall.ENOSPC }, 200, 503,
			"the server is stopping\n"},
		{"dead", func() { f.fake.said.fatal = syscall.EIO }, 503, 503, "the disk has failed\n"},
		{"dead and stopping", func() { f.stops, f.fake.said.fatal = true, syscall.EIO }, 503, 503,
			"the disk has failed\n"},
		{"drawn", func() { f.fake.said.drawn = true }, 200, 200, "ok\n"},
	} {
		f.stops, f.fake.said = false, storeFacts{commits: new(histogram)}
		f.opened.Store(&openOffice{store: f.fake})
		tt.enter()
		for path, want := range map[string]int{"/livez": tt.live, "/readyz": tt.ready, "/healthz": tt.ready} {
			code, text, _ := get(t, "http://"+at+path)
			reason := tt.reason
			if want == 200 {
				reason = "ok\n"
			}
			if code != want || text != reason {
				t.Errorf("%s: %s: got %d, %q, want %d, %q", tt.state, path, code, text, want, reason)
			}
		}
		for _, path := range []string{"/", "/status.json", "/metrics"} {
			if code, _, _ := get(t, "http://"+at+path); code != 200 {
				t.Errorf("%s: %s: got %d", tt.state, path, code)
			}
		}
	}
}

// TestSentences has the page's first line in each state.
func TestSentences(t *testing.T) {
	since := time.Date(2026, 11, 27, 10, 41, 0, 0, time.Local)
	base := report{Time: since.Add(time.Hour), Taking: true, Store: storeFigures{storeFacts: storeFacts{Bets: 78688}},
		Draw: drawFigures{Expected: 5, Finished: 3}}
	for _, tt := range []struct {
		change func(r *report)
		want   string
	}{
		{func(r *report) {}, "Taking bets. 3 of 5 agencies have finished. 78,688 bets stored."},
		{func(r *report) { r.Draw.Expected = 0 }, "Taking bets. 78,688 bets stored."},
		{func(r *report) { r.Taking, r.Reason, r.Since = false, "the disk is full", since },
			"NOT taking bets: the disk is full since 10:41:00."},
		{func(r *report) { r.Draw.Done, r.Draw.Time = true, since }, "The draw took place at 10:41:00. 78,688 " +
			"bets stored."},
		{func(r *report) { r.Draw.Done = true }, "The draw has taken place. 78,688 bets stored."},
	} {
		r := base
		tt.change(&r)
		if got := r.sentence(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestAgencyStates has the word for each agency, and that trouble comes first.
func TestAgencyStates(t *testing.T) {
	f := newFakeOffice()
	f.serve(t)
	visits := f.evening()
	visits[3].end(endClient)
	visits[4].hello(5, visits[4].source)
	visits[4].end(endClient)
	f.fake.said.finished.add(5)
	long := time.Now().Add(-time.Minute)
	f.counts.callers[4].Since, f.counts.callers[5].Since = long, long
	f.counts.agencies[2].last.Store(long.UnixNano())
	f.counts.agencies[4].last.Store(long.UnixNano())
	f.cfg.drawAgencies = 6
	r := f.page.watch.report(time.Now())
	got := ""
	for _, a := range r.Agencies {
		got += fmt.Sprintf("%d %s; ", a.Agency, a.State)
	}
	if want := "4 line down; 6 not here yet; 1 sending; 3 sending; 2 connected; 5 finished; "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !r.Agencies[5].Verified.After(long) || len(r.Troubles) != 1 {
		t.Errorf("got %+v and %q, want agency 5 verified and one trouble", r.Agencies[5], r.Troubles)
	}
	// With keys those are expected whose keys are known.
	made := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	f.opened.Store(&openOffice{store: f.fake, keys: fakeKeys{7: made}})
	r = f.page.watch.report(time.Now())
	for _, a := range r.Agencies {
		if a.Expected != (a.Agency == 7) || a.Expected && (a.State != agencyAwaited || a.Key != made) {
			t.Errorf("with a key of 7 alone: got %+v", a)
		}
	}
}

// askRaw sends raw bytes and returns the first line of the answer; empty: the connection was
// closed.
func askRaw(t *testing.T, at, raw string) string {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, raw)
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

// TestHosts has who may ask under which name.
func TestHosts(t *testing.T) {
	for _, tt := range []struct {
		address, hosts string
		good, bad      []string
	}{
		{"127.0.0.1:0", "", []string{"localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:80"},
			[]string{"", "evil.example", "localhost.evil.example", "10.0.0.1", "[2001:db8::1]",
				"127.0.0.1.evil.example", "[",
				"::1:x"}},
		{"127.0.0.1:0", "office, Page.Example", []string{"office:80", "page.example"}, []string{"officer", "example"}},
		{"0.0.0.0:0", "office", []string{"10.0.0.1", "[2001:db8::1]:9", "office", "localhost"},
			[]string{"evil.example", ""}},
	} {
		f := newFakeOffice()
		f.cfg.statusAddress, f.cfg.statusHosts = tt.address, tt.hosts
		at := f.serve(t)
		for _, hosts := range [][]string{tt.good, tt.bad} {
			for _, host := range hosts {
				if got := f.page.answersFor(host); got != (len(hosts) == len(tt.good) &&
					slices.Contains(tt.good, host)) {
					t.Errorf("%s: %q: got %t", tt.address, host, got)
				}
			}
		}
		if got := askRaw(t, at, "GET / HTTP/1.1\r\nHost: "+
			"evil.example\r\n\r\n"); got != "HTTP/1.1 421 Misdirected Request" {
			t.Errorf("got %q", got)
		}
		if got := askRaw(t, at, "GET http://evil.example/ HTTP/1.1\r\nHost: "+
			"localhost\r\n\r\n"); got != "HTTP/1.1 421 Misdirected Request" {
			t.Errorf("got %q", got)
		}
	}
}

// TestRequests has what is answered to requests that are not a GET of a page.
func TestRequests(t *testing.T) {
	f := newFakeOffice()
	at := f.serve(t)
	var done sync.WaitGroup
	for _, tt := range []struct{ raw, want string }{
		{"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 OK"},
		{"GET /?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 OK"},
		{"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"},
		{"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"},
		{"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"},
		{"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"},
		{"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 Not Found"},
		{"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 Not Found"},
		{"GET //metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 Not Found"},
		{"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request: missing required Host header"},
		{"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 7<<10) + "\r\n\r\n", "HTTP/1.1 200 OK"},
		{"GET / HTTP/1.1\r\nHost: " +
			"localhost\r\nX: " + strings.Repeat("x", 9<<10) + "\r\n\r\n",
			"HTTP/1.1 431 Request Header Fields Too Large"},
		{"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: " +
			"chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK"},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"},
		{"", ""},
		{"GET / HTTP/1.1\r\nHost: lo", ""},
	} {
		done.Add(1)
		go func() { // at the same time: two are silent until they are cut off
			defer done.Done()
			if got := askRaw(t, at, tt.raw); got != tt.want {
				t.Errorf("%.60q: got %q, want %q", tt.raw, got, tt.want)
			}
		}()
	}
	done.Wait()
	code, _, head := get(t, "http://"+at+"/")
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		"Content-Type": "text/html; charset=utf-8"} {
		if got := head.Get(name); got != want || code != 200 {
			t.Errorf("%s: got %d, %q, want %q", name, code, got, want)
		}
	}
	if policy := head.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; ") ||
		strings.Contains(policy, "unsafe") {
		t.Errorf("got the policy %q", policy)
	}
}

// TestStatusCrowd has 32 connections and no more.
func TestStatusCrowd(t *testing.T) {
	f := newFakeOffice()
	at := f.serve(t)
	for range statusConns {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for f.page.open.Load() < statusConns {
		time.Sleep(time.Millisecond)
	}
	if got := askRaw(t, at, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); got != "" {
		t.Errorf("connection 33: got %q, want it closed", got)
	}
	// The silent ones are cut off, and there is room again.
	for askRaw(t, at, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n") != "HTTP/1.1 200 OK" {
		time.Sleep(10 * time.Millisecond)
	}
}
