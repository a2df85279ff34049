package e2e

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A watchedOffice is an office with a status page.
type watchedOffice struct {
	*office
	page string // its address, host:port
}

// openWatched starts a server with a status page.
func openWatched(t *testing.T, args ...string) *watchedOffice {
	t.Helper()
	page := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	return &watchedOffice{openOffice(t, append(args, "-status.address="+page)...), page}
}

// get asks for a path of the status page.
func (o *watchedOffice) get(t *testing.T, path string) (code int, text string) {
	t.Helper()
	answer, err := http.Get("http://" + o.page + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// waitPage asks for a path until its answer is as wanted.
func (o *watchedOffice) waitPage(t *testing.T, path string, code int, part string) (text string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, text := o.get(t, path)
		if got == code && strings.Contains(text, part) {
			return text
		}
		if time.Now().After(end) {
			t.Fatalf("%s: got %d and %.2000q, want %d and %q", path, got, text, code, part)
		}
	}
}

// said is what the tests read of /status.json.
type said struct {
	Sentence string
	Troubles []string
	Store    struct{ Bets, Bytes, Sources int }
	Agencies []struct {
		Agency, Connections, Stored, Records, Winners, Sources int
		State, From, Source, Verified                          string
		Key                                                    string `json:"key_made"`
		Refused                                                map[string]int
		Finished, Expected                                     bool
	}
	Draw struct {
		Agencies, Finished, Winners int
		Done                        bool
		SHA256                      string
		Waiting                     []int `json:"waiting_for"`
	}
	Log struct{ Warnings, Repairs []struct{ Text string } }
}

// json returns the figures.
func (o *watchedOffice) json(t *testing.T) (s said) {
	t.Helper()
	code, text := o.get(t, "/status.json")
	if err := json.Unmarshal([]byte(text), &s); err != nil || code != http.StatusOK {
		t.Fatalf("got %d, %v: %s", code, err, text)
	}
	return s
}

// metric returns the value of a sample of the metrics; -1: there is none.
func (o *watchedOffice) metric(t *testing.T, sample string) float64 {
	t.Helper()
	_, text := o.get(t, "/metrics")
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, sample+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return -1
}

// TestE2EStatus has an evening at the office: nobody, agencies that send, one that is killed and
// comes back, the draw, a restart. What the page says must be what the files say, and never a
// bettor.
func TestE2EStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lots := makeLots(t, dir, 3, 1500, 11)
	o := openWatched(t, "-draw.agencies=3")
	s := o.json(t)
	if s.Sentence != "Taking bets. 0 of 3 agencies have finished. 0 bets stored." || len(s.Agencies) != 3 {
		t.Errorf("nobody yet: got %+v", s)
	}
	var outputs strings.Builder
	look := func() {
		for _, path := range []string{"/", "/status.json", "/metrics", "/readyz", "/healthz", "/livez", "/x"} {
			_, text := o.get(t, path)
			outputs.WriteString(text)
		}
	}
	slow := []string{"-draw.agencies=3", "-batch.maxAmount=10", "-loop.period=1ms"}
	first := o.client(t, dir, 1, slow...)
	o.waitPage(t, "/status.json", 200, `"state": "sending"`)
	look()
	first.kill()
	o.waitPage(t, "/status.json", 200, `"state": "line down"`)
	o.waitPage(t, "/", 200, "Agency 1: its line is down since ")
	if got := o.metric(t, `tp0_agency_line_down{agency="1"}`); got != 1 {
		t.Errorf("agency 1 is gone: got tp0_agency_line_down %g", got)
	}
	clients := []*process{o.client(t, dir, 1, slow...), o.client(t, dir, 2, append(slow, "-resume=false")...)}
	o.waitPage(t, "/", 200, "1 of 3 agencies have finished.")
	clients = append(clients, o.client(t, dir, 3, "-draw.agencies=3"))
	for _, c := range clients {
		c.wantExit(exitDone)
	}
	o.waitPage(t, "/", 200, "The draw took place at ")
	o.waitPage(t, "/status.json", 200, `"sha256"`)
	look()
	s = o.wantFigures(t, lots)
	for i, a := range s.Agencies {
		if a.Agency != i+1 || a.State != "finished" || !a.Finished || a.From != "127.0.0.1" ||
			(a.Verified == "") != (i == 1) {
			t.Errorf("in the end: got %+v", a)
		}
	}
	// A kill and a start later the figures are the same, but for those that start at 0.
	o.kill()
	o.start(t)
	s = o.waitSeal(t)
	o.wantStored(t, s, lots)
	if len(s.Log.Repairs) == 0 || !strings.Contains(s.Log.Repairs[0].Text, "action: recover") {
		t.Errorf("after a kill: got repairs %+v", s.Log.Repairs)
	}
	if got := o.metric(t, `tp0_store_bets`); int(got) != s.Store.Bets {
		t.Errorf("after a kill: got tp0_store_bets %g, want %d", got, s.Store.Bets)
	}
	look()
	o.stop()
	wantNobody(t, outputs.String(), lots)
}

// waitSeal waits until the winners are known.
func (o *watchedOffice) waitSeal(t *testing.T) said {
	t.Helper()
	o.waitPage(t, "/status.json", 200, `"sha256"`)
	return o.json(t)
}

// wantStored wants the page to say what bets.csv says.
func (o *watchedOffice) wantStored(t *testing.T, s said, lots []*lot) {
	t.Helper()
	stored := o.stored(t)
	winners, rows := 0, 0
	for i, a := range s.Agencies {
		l := lots[a.Agency-1]
		if a.Stored != len(l.rows) && a.Source != "" || a.Winners != len(l.winners) {
			t.Errorf("agency %d: got %d stored and %d winners, want %d and %d", i+1, a.Stored, a.Winners, len(l.rows),
				len(l.winners))
		}
		winners, rows = winners+len(l.winners), rows+len(l.rows)
	}
	seal := fmt.Sprintf("%x", sha256.Sum256([]byte(stored)))
	if s.Store.Bets != rows || s.Store.Bytes != len(stored) || s.Draw.Winners != winners || s.Draw.SHA256 != seal ||
		!s.Draw.Done {
		t.Errorf("got %+v and %+v, want %d bets, %d bytes, %d winners, %s", s.Store, s.Draw, rows, len(stored), winners,
			seal)
	}
}

// wantFigures wants page and metrics to say what was stored and refused since the start.
func (o *watchedOffice) wantFigures(t *testing.T, lots []*lot) said {
	t.Helper()
	s := o.json(t)
	o.wantStored(t, s, lots)
	for _, a := range s.Agencies {
		l := lots[a.Agency-1]
		refused := 0
		for _, n := range a.Refused {
			refused += n
		}
		// The lines of the rejects that the server refused: a client refuses the others itself.
		if want := len(l.sizes) - len(l.rows); refused != want {
			t.Errorf("agency %d: got %d refused (%v), want %d", a.Agency, refused, a.Refused, want)
		}
		if got := o.metric(t, fmt.Sprintf(`tp0_bets_stored_total{agency="%d"}`, a.Agency)); int(got) != len(l.rows) {
			t.Errorf("agency %d: got tp0_bets_stored_total %g, want %d", a.Agency, got, len(l.rows))
		}
		for reason, n := range a.Refused {
			if got := o.metric(t, fmt.Sprintf(`tp0_bets_refused_total{agency="%d",reason="%s"}`, a.Agency,
				reason)); int(got) != n {
				t.Errorf("agency %d: got tp0_bets_refused_total %g of %q, want %d", a.Agency, got, reason, n)
			}
		}
	}
	for sample, want := range map[string]float64{"tp0_available": 1, "tp0_draw_done": 1, "tp0_agencies_finished": 3,
		"tp0_agencies_expected": 3} {
		if got := o.metric(t, sample); got != want {
			t.Errorf("%s: got %g, want %g", sample, got, want)
		}
	}
	if got := o.metric(t, "tp0_disk_written_bytes_total"); int(got) < 2*s.Store.Bytes {
		t.Errorf("got %g bytes written, want more than the log and bets.csv have: %d", got, 2*s.Store.Bytes)
	}
	return s
}

// wantNobody wants no name and no document of the lots in text. Short ones may be part of anything.
func wantNobody(t *testing.T, text string, lots []*lot) {
	t.Helper()
	looked := 0
	for _, l := range lots {
		rows, err := csv.NewReader(strings.NewReader(strings.Join(l.rows, ""))).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, reject := range l.rejects {
			if len(reject) == 7 {
				rows = append(rows, append([]string{""}, reject[2:]...))
			}
		}
		for _, row := range rows {
			for _, personal := range row[1:5] {
				if len(personal) > 5 && strings.Contains(text, personal) {
					t.Errorf("the page says %q", personal)
				}
				looked++
			}
		}
	}
	if looked < 1000 || len(text) < 10_000 {
		t.Errorf("looked for %d fields in %d bytes: too few", looked, len(text))
	}
}

// wantHealthy wants /livez and /readyz to be as said, with the reason, and -mode=health to agree.
func (o *watchedOffice) wantHealthy(t *testing.T, live, ready int, reason string) {
	t.Helper()
	o.waitPage(t, "/readyz", ready, reason)
	o.waitPage(t, "/healthz", ready, reason)
	o.waitPage(t, "/livez", live, "ok")
	status := exitFailed
	if ready == 200 {
		status = exitDone
	}
	wantHealth(t, o.address(), status)
}

// TestE2EHealthOfFullDisk has the health answers before, while and after the disk is full.
func TestE2EHealthOfFullDisk(t *testing.T) {
	t.Parallel()
	d := mountSmallDisk(t, "tmpfs", 24<<20)
	d.stop()
	o := &watchedOffice{d.office, fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	o.args = append(o.args, "-status.address="+o.page)
	o.start(t)
	o.wantHealthy(t, 200, 200, "ok")
	dir := t.TempDir()
	makeSample(t, dir, 1, 200_000)
	d.fill()
	c := o.client(t, dir, 1, "-retry.timeout=1s")
	o.wantHealthy(t, 200, 503, "the disk is full")
	o.waitPage(t, "/", 200, "NOT taking bets: the disk is full since ")
	if got := o.metric(t, "tp0_available"); got != 0 {
		t.Errorf("got tp0_available %g, want 0", got)
	}
	c.wantExit(exitFailed)
	d.free()
	o.wantHealthy(t, 200, 200, "ok")
	if got := o.json(t).Log.Warnings; len(got) == 0 || !strings.Contains(got[0].Text, "no space left on device") {
		t.Errorf("got the warnings %+v, want the full disk among them", got)
	}
	o.stop()
}

// TestE2EHealthOfStop has the health answers while the server stops: a message that has begun to
// come is waited for, so the page is still there.
func TestE2EHealthOfStop(t *testing.T) {
	t.Parallel()
	o := openWatched(t)
	conn, err := net.Dial("tcp", o.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte{3, 0, 1})
	o.waitFor("action: accept_connections | result: success")
	o.signal(os.Interrupt)
	o.waitPage(t, "/readyz", 503, "the server is stopping")
	o.waitPage(t, "/livez", 200, "ok")
	o.waitFor("action: close_listener")
	wantHealth(t, o.address(), exitFailed)
	conn.Close()
	o.wantExit(exitDone)
	o.waitFor("action: close_status | result: success")
}

// TestE2EHealthOfRecovery has a server that recovers for as long as the test likes: its snapshot is
// a pipe to which nobody has written yet.
func TestE2EHealthOfRecovery(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := exec.Command("mkfifo", filepath.Join(dir, "bets.csv.state")).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no pipe can be made: %v: %s", err, out)
	}
	o := &watchedOffice{&office{dir: dir, port: freePort(t)}, fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	o.process = launch(t, dir, "server", "-mode=server", "-server.host=127.0.0.1",
		fmt.Sprintf("-server.port=%d", o.port),
		"-status.address="+o.page)
	o.process.waitFor("action: status | result: success | address: " + o.page)
	o.wantHealthy(t, 200, 503, "the store is recovering")
	o.waitPage(t, "/", 200, "NOT taking bets: the store is recovering since ")
	if got := o.metric(t, "tp0_available"); got != 0 {
		t.Errorf("got tp0_available %g, want 0", got)
	}
	o.kill()
}

// TestE2EStatusOfKeys has a server with keys: it expects those that it knows, says when their keys
// were made, and counts handshakes.
func TestE2EStatusOfKeys(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, 3)
	page := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	o := &watchedOffice{k.office("-status.address=" + page), page}
	for _, a := range o.json(t).Agencies {
		if a.State != "not here yet" || !a.Expected || !strings.HasPrefix(a.Key, "20") {
			t.Errorf("nobody yet: got %+v", a)
		}
	}
	o.waitPage(t, "/", 200, "key made 20")
	if got := o.metric(t, "tp0_agencies_expected"); got != 3 {
		t.Errorf("got %g agencies expected, want those 3 whose keys are known", got)
	}
	conn, err := net.Dial("tcp", o.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte{3, 0, 0})
	o.waitPage(t, "/metrics", 200, `tp0_handshakes_total{result="refused"} 1`)
	lots := makeLots(t, k.dir, 1, 100, 13)
	c := o.client(t, k.dir, 1, "-tls.cert="+k.file("agency-1.pem"))
	c.wantExit(exitDone)
	o.waitPage(t, "/metrics", 200, `tp0_handshakes_total{result="accepted"} 1`)
	wantRows(t, o.stored(t), lots...)
	o.stop()
}

// TestE2EStatusOpen has pages that are not on loopback alone, and addresses that cannot be had.
func TestE2EStatusOpen(t *testing.T) {
	t.Parallel()
	o := openOffice(t, fmt.Sprintf("-status.address=0.0.0.0:%d", freePort(t)))
	o.waitFor("WARNING", "action: status", "not on loopback alone")
	o.stop()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, errs, status := runProgram(t, t.TempDir(), nil, "-mode=server", "-server.port=0",
		"-status.address="+taken.Addr().String())
	if wantOneLine(t, "taken", errs, "status.address", taken.Addr().String()); status != exitFailed {
		t.Errorf("got status %d, want %d", status, exitFailed)
	}
}

// hostileRequest returns what no browser sends.
func hostileRequest(random *rand.Rand) string {
	lines := []string{
		"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET /%2e%2e/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
		"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 44\r\nContent-Length: 0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("y", 1<<20) + "\r\n\r\n", "GET /" +
			strings.Repeat("a", 1<<16) + " HTTP/1.1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
		"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n" +
			"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "GET / HTTP/0.9\r\n\r\n", "\r\n\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("A: b\r\n", 2000) + "\r\n",
		"HEAD /status.json HTTP/1.0\r\n\r\n", "GET http://[::1 HTTP/1.1\r\n\r\n",
	}
	text := lines[random.IntN(len(lines))]
	if random.IntN(4) == 0 {
		text = text[:random.IntN(len(text))]
	}
	return text
}

// TestE2EHostileRequests sends 1,000 requests that no browser sends while an agency sends its file.
// It and the page go on as if nobody were there.
func TestE2EHostileRequests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lots := makeLots(t, dir, 1, 3000, 12)
	o := openWatched(t)
	c := o.client(t, dir, 1, "-batch.maxAmount=10", "-batch.window=1")
	var next atomic.Int64
	var done sync.WaitGroup
	for worker := range 8 {
		beside(&done, func() {
			random := rand.New(rand.NewPCG(uint64(worker), 3))
			for next.Add(1) <= 1000 {
				conn, err := net.Dial("tcp", o.page)
				if err != nil {
					t.Errorf("the page is gone: %v", err)
					return
				}
				conn.SetDeadline(time.Now().Add(patience))
				io.WriteString(conn, hostileRequest(random))
				conn.(*net.TCPConn).CloseWrite()
				answer, _ := io.ReadAll(conn)
				conn.Close()
				if strings.Contains(string(answer), "root:") {
					t.Error("it serves files")
				}
			}
		})
	}
	done.Wait()
	c.wantExit(exitDone)
	c.wantSummary(lots[0])
	o.waitPage(t, "/readyz", 200, "ok")
	wantRows(t, o.stored(t), lots...)
	if s := o.json(t); len(s.Log.Warnings) != 0 || s.Store.Bets != len(lots[0].rows) {
		t.Errorf("got %+v", s)
	}
	o.stop()
	if errs := o.errs.String(); errs != "" {
		t.Errorf("got on standard error: %q", errs)
	}
}
