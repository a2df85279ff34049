//go:build unix

package e2e

import (
	"fmt"

	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"tp0/tools/proc"
	"tp0/tools/torture"
)

// A cable is the way from one machine to another: a proxy that may carry nothing for a while, in
// either direction. As with a network that is cut nobody is told: connections stay, and what was
// sent arrives late, or never.
type cable struct {
	listener net.Listener
	target   string

	mu      sync.Mutex // protects following
	changed *sync.Cond
	there   bool // what is sent is held back
	back    bool // so are the answers
	conns   map[net.Conn]bool
}

// newCable starts the proxy.
func newCable(t *testing.T, target string) *cable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{listener: listener, target: target, conns: map[net.Conn]bool{}}
	c.changed = sync.NewCond(&c.mu)
	var running sync.WaitGroup
	beside(&running, func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			c.mu.Lock()
			c.conns[near], c.conns[far] = true, true
			c.mu.Unlock()
			beside(&running, func() { c.pass(far, near, &c.there) })
			beside(&running, func() { c.pass(near, far, &c.back) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		c.set(false, false)
		c.tear()
		running.Wait()
	})
	return c
}

func (c *cable) address() string { return c.listener.Addr().String() }

// pass carries bytes one way.
func (c *cable) pass(to, from net.Conn, held *bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		for *held {
			c.changed.Wait()
		}
		c.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// set cuts or heals each direction. What was held back arrives then.
func (c *cable) set(there, back bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.there, c.back = there, back
	c.changed.Broadcast()
}

// tear ends all connections: what was held back is lost.
func (c *cable) tear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

// A web is three engines and two offices, each on a machine of its own, with a cable between any
// two that speak to each other.
type web struct {
	*cluster
	routes [3][3]*cable // from engine to engine; nil from one to itself
	ways   [2][3]*cable // from office to engine
}

// newWeb starts all.
func newWeb(t *testing.T) *web {
	t.Helper()
	if _, err := proc.NATSServer(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	w := &web{}
	var listen [3]string
	for i := range listen {
		listen[i] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	}
	for i := range w.routes {
		for j := range w.routes[i] {
			if i != j {
				w.routes[i][j] = newCable(t, listen[j])
			}
		}
	}
	es, err := proc.StartEngines(t.TempDir(), 3, proc.WithOperator, func(i int, config string) string {
		var routes []string
		for _, c := range w.routes[i] {
			if c != nil {
				routes = append(routes, "nats://"+c.address())
			}
		}
		before, rest, _ := strings.Cut(config, "\ncluster {")
		_, after, _ := strings.Cut(rest, "\n}\n")
		// Nobody is told of another way than through the cables.
		return before + fmt.Sprintf("\nclient_advertise: %q\ncluster {\n  name: tp0\n  listen: %s\n  no_advertise: true\n"+
			"  routes: [ %s ]\n}\n", "127.0.0.1:9", listen[i], strings.Join(routes, ", ")) + after
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(es.Kill)
	w.cluster = newCluster(t, es, "TP0", 2)
	for i, o := range w.offices {
		var ways []string
		for j, e := range es.All {
			w.ways[i][j] = newCable(t, e.Listen)
			ways = append(ways, w.ways[i][j].address())
		}
		o.args = append([]string{"-stream.servers=" + strings.Join(ways, ",")}, w.args[1:]...)
	}
	w.open()
	return w
}

// cut cuts or heals all that engine i has to do with other engines, and the ways of office k to all
// engines but it, and of the other office to it; k -1: the offices reach all.
func (w *web) cut(i, k int, cut bool) {
	for j := range w.routes {
		if j != i {
			w.routes[i][j].set(cut, cut)
			w.routes[j][i].set(cut, cut)
		}
	}
	for office := range w.ways {
		for engine, way := range w.ways[office] {
			if k >= 0 && (office == k) != (engine == i) {
				way.set(cut, cut)
			}
		}
	}
}

// leads returns the number of the engine that leads.
func (w *web) leads() int {
	w.t.Helper()
	leader := w.leader()
	for i, e := range w.engines.All {
		if e == leader {
			return i
		}
	}
	return -1
}

// holds returns the number of the office that holds the term.
func (w *web) holds() int {
	w.t.Helper()
	if w.holder() == w.offices[0] {
		return 0
	}
	return 1
}

// isolate cuts something off in one of four ways, and says what.
func (w *web) isolate(way, leads, held int, random *rand.Rand) (what string) {
	switch way {
	case 0:
		what = "the engine that leads and the office, together"
		w.cut(leads, held, true)
	case 1:
		what = "the engine that leads"
		w.cut(leads, -1, true)
	case 2:
		what = "the office"
		for _, c := range w.ways[held] {
			c.set(true, true)
		}
	case 3:
		what = "answers to the office, again and again"
		for range 10 {
			late := time.Duration(random.IntN(1500)) * time.Millisecond
			for _, c := range w.ways[held] {
				c.set(false, true)
			}
			time.Sleep(late)
			for _, c := range w.ways[held] {
				if random.IntN(2) == 0 {
					c.tear()
				}
				c.set(false, false)
			}
			time.Sleep(late / 2)
		}
	}
	return what
}

// partitions cuts the engine that leads off, alone or with the office that takes the bets; that
// office alone; and answers of the engines, which are lost or late. What is stored is stored once.
func partitions(t *testing.T, seed uint64, rounds int) {
	w := newWeb(t)
	random := rand.New(rand.NewPCG(seed, 14))
	dir := t.TempDir()
	lots := makeLots(t, dir, 2, 1000, seed)
	all := []*lot{{agency: 1}, {agency: 2}}
	for round := range rounds {
		var clients []*process
		memories := make([]memory, len(lots))
		for i, l := range lots {
			clients = append(clients, w.client(dir, l.agency, i, fmt.Sprintf("-data.source=round %d", round),
				fmt.Sprintf("-data.rejects=rejects-%d-%d.csv", i, round), "-batch.maxAmount=3", "-batch.window=4",
				"-loop.period=20ms"))
			all[i].rows = append(all[i].rows, l.rows...)
		}
		w.awaitAnswers(clients[0], 5)
		leads, held := w.leads(), w.holds()
		began := time.Now()
		what := w.isolate(round%4, leads, held, random)
		took := w.awaitAnswers(clients[round%2], 1)
		t.Logf("cut off: %s; intake went on after %v", what, took)
		w.awaitAnswers(clients[round%2], 3)
		w.look()
		time.Sleep(time.Until(began.Add(time.Duration(6+random.IntN(6)) * time.Second)))
		w.cut(leads, held, false)
		for _, way := range w.ways[held] {
			way.set(false, false)
			if random.IntN(2) == 0 {
				way.tear()
			}
		}
		if err := w.engines.Ready(); err != nil {
			t.Fatal(err)
		}
		for i, p := range clients {
			p.wantExit(exitDone)
			p.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(lots[i].sizes)))
			memories[i].follow(t, p)
		}
	}
	wantRows(t, w.same(rowBytes(all...)), all...)
	w.stop()
}

// TestTorturePartitions has PARTITIONS of them.
func TestTorturePartitions(t *testing.T) {
	partitions(t, uint64(torture.Number(t, "SEED", 5)), torture.Count(t, "PARTITIONS", 40))
}
