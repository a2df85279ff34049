//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tp0/tools/proc"
)

// A cluster is several offices whose log is in one stream of real engines.
type cluster struct {
	t       *testing.T
	engines *proc.Engines
	stream  string
	args    []string // of each office and of mode replicate
	offices []*office
	longest string // the longest bets.csv that was seen: nothing of it may ever change
}

// openEngines starts n engines, with streams of any name, or skips the test where there are none.
func openEngines(t *testing.T, n int) *proc.Engines {
	t.Helper()
	if _, err := proc.NATSServer(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	es, err := proc.StartEngines(t.TempDir(), n, proc.WithOperator)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(es.Kill)
	return es
}

// newCluster makes offices that are not started yet; nor is there their stream. Offices of
// the stream TP0 have the rights that deploy/nats gives them, others those that any name takes.
func newCluster(t *testing.T, es *proc.Engines, stream string, offices int, args ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, engines: es, stream: stream}
	user, password := proc.EngineOperator, proc.EngineOperatorPass
	if stream == "TP0" {
		user, password = proc.EngineUser, proc.EnginePassword
	}
	c.args = append([]string{"-stream.servers=" + es.Servers(), "-stream.name=" + stream, "-stream.user=" + user,
		"-stream.password=" + password}, args...)
	for range offices {
		c.offices = append(c.offices, &office{dir: t.TempDir(), port: freePort(t), args: c.args})
	}
	return c
}

// openCluster is newCluster with a stream, of an empty store, and offices that run.
func openCluster(t *testing.T, es *proc.Engines, stream string, offices int, args ...string) *cluster {
	t.Helper()
	c := newCluster(t, es, stream, offices, args...)
	c.open()
	return c
}

// open puts the first office's store into a stream, and starts the offices.
func (c *cluster) open() {
	c.t.Helper()
	launch(c.t, c.offices[0].dir, "replicate", append([]string{"-mode=replicate"}, c.args...)...).wantExit(exitDone)
	for _, o := range c.offices {
		o.begin(c.t)
	}
	for _, o := range c.offices {
		o.waitFor("action: listen | result: success")
	}
}

// addresses is what a client is given: from office first on, in their order.
func (c *cluster) addresses(first int) string {
	var all []string
	for i := range c.offices {
		all = append(all, c.offices[(first+i)%len(c.offices)].address())
	}
	return strings.Join(all, ",")
}

// client starts a client that tries office first first.
func (c *cluster) client(dir string, agency, first int, args ...string) *process {
	c.t.Helper()
	return startClient(c.t, dir, agency, c.addresses(first), append([]string{"-retry.timeout=5m"}, args...)...)
}

// holder waits until an office has begun to take bets, and returns it: the one whose claim is of
// the highest term.
func (c *cluster) holder() (held *office) {
	c.t.Helper()
	highest := -1
	c.until("a term that an office holds", func() bool {
		for _, o := range c.offices {
			for _, line := range o.lines("action: term | result: success") {
				if term := numberIn(c.t, line, "term"); term > highest && !o.Ended() {
					held, highest = o, term
				}
			}
		}
		return held != nil
	})
	return held
}

// other returns the office, of two, that is not o.
func (c *cluster) other(o *office) *office {
	if c.offices[0] == o {
		return c.offices[1]
	}
	return c.offices[0]
}

// until waits until something is so.
func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	for end := time.Now().Add(2 * patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("still waiting for %s", what)
		}
	}
}

// look compares bets.csv of all offices, at any time: each is the beginning of the longest, and
// what was in one once never changes.
func (c *cluster) look() {
	c.t.Helper()
	for i, o := range c.offices {
		text, err := os.ReadFile(filepath.Join(o.dir, "bets.csv"))
		if err != nil && !os.IsNotExist(err) {
			c.t.Fatal(err)
		}
		shorter, longer := string(text), c.longest
		if len(shorter) > len(longer) {
			shorter, longer = longer, shorter
			c.longest = longer
		}
		if !strings.HasPrefix(longer, shorter) {
			at := 0
			for shorter[at] == longer[at] {
				at++
			}
			c.t.Fatalf("office %d: bets.csv differs at byte %d from what an office had before: got %.80q and %.80q", i, at,
				shorter[at:], longer[at:])
		}
	}
}

// same waits until all offices have the same bets.csv, of size bytes, and returns it.
func (c *cluster) same(size int) string {
	c.t.Helper()
	c.until(fmt.Sprintf("%d bytes of bets in all offices", size), func() bool {
		for _, o := range c.offices {
			if info, err := os.Stat(filepath.Join(o.dir, "bets.csv")); err != nil || info.Size() < int64(size) {
				return false
			}
		}
		return true
	})
	c.look()
	for i, o := range c.offices {
		if text := o.stored(c.t); text != c.longest {
			c.t.Fatalf("office %d: got %d bytes of bets, want %d", i, len(text), len(c.longest))
		}
	}
	return c.longest
}

// stop stops all offices.
func (c *cluster) stop() {
	c.t.Helper()
	for _, o := range c.offices {
		o.process.stop()
	}
}

// wipe takes all that an office has; its process has ended.
func (o *office) wipe(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(o.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(o.dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// rowBytes counts the bytes of the rows of lots.
func rowBytes(lots ...*lot) (n int) {
	for _, l := range lots {
		for _, row := range l.rows {
			n += len(row)
		}
	}
	return n
}

// A memory is what clients of one source have heard, in all their lives: what was answered is there
// whenever an office says how far it got.
type memory struct {
	decided int // bets
	seen    int // bytes of the log of the client that runs
}

// follow reads what a client has logged since.
func (m *memory) follow(t *testing.T, p *process) {
	t.Helper()
	lines, end, _ := p.out.from(m.seen)
	m.seen = end
	for line := range strings.Lines(lines) {
		switch {
		case strings.Contains(line, "action: resume | result: fail"):
			t.Errorf("%s: got %q", p.Name, line)
		case strings.Contains(line, "action: resume | result: success"):
			bets := numberIn(t, strings.TrimSuffix(line, "\n"), "bets")
			if bets < m.decided {
				t.Errorf("%s: an office says that it has %d bets of the source, and %d were answered", p.Name, bets, m.decided)
			}
			m.decided = bets
		case strings.Contains(line, "action: apuestas_enviadas | result: success"),
			strings.Contains(line, "action: apuestas_enviadas") && strings.Contains(line, "| estado: #"):
			m.decided += numberIn(t, strings.TrimSuffix(line, "\n"), "cantidad")
		}
	}
}

// answers counts the answers that a client has had.
func answers(p *process) int {
	text, _, _ := p.out.from(0)
	return strings.Count(text, "action: apuestas_enviadas")
}

// awaitAnswers waits for n more answers, and returns how long that took.
func (c *cluster) awaitAnswers(p *process, n int) time.Duration {
	c.t.Helper()
	began, have := time.Now(), answers(p)
	c.until("answers", func() bool { return answers(p) >= have+n || p.Ended() })
	return time.Since(began)
}
