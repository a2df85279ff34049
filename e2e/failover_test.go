//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tp0/tools/proc"
	"tp0/tools/torture"
)

// TestE2ECluster has what happens to offices on three engines, one thing beside the other where
// the engines allow it: they wait far more than they work.
func TestE2ECluster(t *testing.T) {
	t.Parallel()
	one, two := openEngines(t, 3), openEngines(t, 3)
	var ended sync.WaitGroup
	side := func(name string, run func(*testing.T, *proc.Engines), es *proc.Engines, then func()) {
		beside(&ended, func() {
			t.Run(name, func(t *testing.T) { run(t, es) })
			then()
		})
	}
	side("histories", histories, one, func() {
		t.Run("holes", func(t *testing.T) { holes(t, one) })
	})
	var refused, drawn sync.WaitGroup
	refused.Add(1)
	drawn.Add(1)
	side("refused", func(t *testing.T, es *proc.Engines) { refusesAll(t, es, "R", false, spoiled) }, two, refused.Done)
	side("draw", drawFailover, two, drawn.Done)
	side("failover", failover, two, func() {
		refused.Wait()
		drawn.Wait()
		t.Run("quorum", func(t *testing.T) { quorum(t, two) })
	})
	beside(&ended, func() { t.Run("partition", func(t *testing.T) { partitions(t, 5, 1) }) })
	ended.Wait()
}

// failover kills the office in use and wipes its folder, and once more with the engine that leads:
// the clients go on at the other office, and the wiped one comes back from nothing.
func failover(t *testing.T, es *proc.Engines) {
	c := openCluster(t, es, "F", 2)
	dir := t.TempDir()
	lots := makeLots(t, dir, 3, 1500, 21)
	var clients []*process
	memories := make([]memory, len(lots))
	for i, l := range lots {
		clients = append(clients, c.client(dir, l.agency, i%2, "-batch.maxAmount=3", "-batch.window=4", "-loop.period=10ms"))
	}
	c.awaitAnswers(clients[0], 10)
	held := c.holder()
	for _, withEngine := range []bool{false, true} {
		if withEngine {
			c.withoutLeader(func() { c.wipeHolder(held, clients, memories) })
		} else {
			c.wipeHolder(held, clients, memories)
		}
		held.start(t)
		held = c.holder()
		c.awaitAnswers(clients[0], 5)
		c.until("the wiped office to catch up", func() bool {
			c.look()
			return len(c.other(held).stored(t)) > len(c.longest)/2
		})
	}
	for i, p := range clients {
		p.wantExit(exitDone)
		p.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(lots[i].sizes)))
		p.wantSummary(lots[i])
		memories[i].follow(t, p)
	}
	wantRows(t, c.same(rowBytes(lots...)), lots...)
	c.stop()
}

// wipeHolder kills the office that takes the bets and wipes it: the clients go on at the other one.
func (c *cluster) wipeHolder(held *office, clients []*process, memories []memory) {
	c.t.Helper()
	held.kill()
	for i := range memories {
		memories[i].follow(c.t, clients[i])
	}
	held.wipe(c.t)
	took := c.awaitAnswers(clients[0], 1)
	c.t.Logf("office killed and wiped: intake went on after %v", took)
}

// withoutLeader calls f while the engine that leads the stream is killed, and no stream of these
// engines is changed by hand.
func (c *cluster) withoutLeader(f func()) {
	c.t.Helper()
	c.engines.ByHand.Lock()
	defer c.engines.ByHand.Unlock()
	leader := c.leader()
	leader.Kill()
	c.t.Logf("%s, which leads the stream, is killed", leader.Name)
	f()
	err := leader.Start()
	if err == nil {
		err = c.engines.Ready()
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// drawFailover kills the office that takes the bets before the draw and after it: there is one draw,
// each agency has its winners and nobody else's, once, and both offices have the same seal.
func drawFailover(t *testing.T, es *proc.Engines) {
	const draw = "-draw.agencies=3"
	c := openCluster(t, es, "D", 2, draw)
	dir := t.TempDir()
	lots := []*lot{drawLot(t, dir, 1, 3), drawLot(t, dir, 2, 0), drawLot(t, dir, 3, 5)}
	clients := []*process{c.client(dir, 1, 0, draw), c.client(dir, 2, 1, draw)}
	for _, p := range clients {
		p.waitFor("action: consulta_ganadores | result: in_progress")
	}
	held := c.holder()
	held.kill()
	clients = append(clients, c.client(dir, 3, 0, draw, "-batch.maxAmount=5", "-loop.period=5ms"))
	c.awaitAnswers(clients[2], 1)
	held.start(t)
	for i, p := range clients {
		p.wantExit(exitDone)
		p.wantWinners(lots[i].winners)
	}
	size := rowBytes(lots...)
	wantRows(t, c.same(size), lots...)
	var seals []string
	for _, o := range c.offices {
		seals = append(seals, field(o.waitFor("action: sorteo_sello | result: success"), "sha256"))
	}
	if seals[0] != seals[1] {
		t.Errorf("got seals %v, want the same one", seals)
	}
	held = c.holder()
	held.kill()
	for i, l := range lots { // they ask again
		p := c.client(dir, l.agency, i%2, draw)
		p.wantExit(exitDone)
		p.wantWinners(l.winners)
	}
	held.start(t)
	c.same(size)
	c.stop()
}

// leader waits until an engine leads the stream, and returns it.
func (c *cluster) leader() (leader *proc.Engine) {
	c.t.Helper()
	c.until("a leader of the stream", func() bool {
		leader = c.engines.Leader(c.stream)
		return leader != nil && leader.Running()
	})
	return leader
}

// quorum kills two of three engines: no bet is answered, health and /readyz say so, and all goes on
// by itself once one of them is back.
func quorum(t *testing.T, es *proc.Engines) {
	status := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c := openCluster(t, es, "Q", 1, "-status.address="+status)
	dir := t.TempDir()
	lots := makeLots(t, dir, 1, 400, 22)
	p := c.client(dir, 1, 0, "-batch.maxAmount=1", "-batch.window=1", "-loop.period=5ms")
	c.awaitAnswers(p, 5)
	ready := func() (int, error) {
		answer, err := http.Get("http://" + status + "/readyz")
		if err != nil {
			return 0, err
		}
		answer.Body.Close()
		return answer.StatusCode, nil
	}
	is := func(code int) func() bool {
		return func() bool { got, err := ready(); return err == nil && got == code }
	}
	c.until("/readyz 200", is(http.StatusOK))
	down := es.All[:2]
	for _, e := range down {
		e.Kill()
	}
	c.until("/readyz 503", is(http.StatusServiceUnavailable))
	out, errs, code := runProgram(t, dir, nil, "-mode=health", "-server.address="+c.addresses(0))
	if code != exitFailed {
		t.Errorf("health without a quorum: got status %d, %s%s", code, out, errs)
	}
	// A record that was sent before may have been taken; nothing is answered from here on.
	before := answers(p)
	time.Sleep(2 * time.Second)
	if after := answers(p); after != before {
		t.Errorf("got %d answers without a quorum", after-before)
	}
	began := time.Now()
	for _, e := range down {
		if err := e.Start(); err != nil {
			t.Fatal(err)
		}
	}
	leader := c.leader()
	led := time.Now()
	c.awaitAnswers(p, 1)
	t.Logf("two engines back: the stream has a leader, %s, after %v; intake went on %v later", leader.Name, led.Sub(began),
		time.Since(led))
	c.until("/readyz 200", is(http.StatusOK))
	p.wantExit(exitDone)
	wantRows(t, c.same(rowBytes(lots...)), lots...)
	c.stop()
}

// damage takes a block file from an engine that does not lead, and changes a byte of another one,
// while the engine is down. It waits until the engine has found that out.
func (c *cluster) damage() *proc.Engine {
	c.t.Helper()
	e := c.engines.All[0]
	if c.leader() == e {
		e = c.engines.All[1]
	}
	// It was restarted in order one day, so that its raft log does not have all any more, and is not
	// stopped in order now: else it trusts what it noted, and looks at no block.
	e.Stop()
	if err := e.Start(); err != nil {
		c.t.Fatal(err)
	}
	w := weather{t: c.t, engines: c.engines}
	w.settle()
	e.Kill()
	blocks := e.Blocks(c.stream)
	if len(blocks) < 2 {
		c.t.Fatalf("%s has %d blocks of the stream, want several", e.Name, len(blocks))
	}
	if err := os.Remove(blocks[len(blocks)-2]); err != nil {
		c.t.Fatal(err)
	}
	flipMiddle(c.t, blocks[0])
	if err := e.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.until("what the damaged engine says of its replica", func() bool {
		facts, err := e.Stream(c.stream)
		return err == nil && facts.State.Deleted > 0
	})
	return e
}

// holes damages the disk of one engine while it is down: a block file is gone, and a byte of another
// one is changed. The offices name the engine and what to do, an office still builds its store from
// nothing, and what docs/replication.md says heals the engine.
func holes(t *testing.T, es *proc.Engines) {
	if err := es.Ready(); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, es, "TP0", 2, "-stream.monitor="+es.Monitors())
	bets := string(betsFile(500_000)) // several blocks
	writeFile(t, c.offices[0].dir, "bets.csv", bets)
	c.open()
	dir := t.TempDir()
	lots := makeLots(t, dir, 2, 600, 23)
	first := c.client(dir, 1, 0, "-batch.maxAmount=5", "-batch.window=1")
	first.wantExit(exitDone)
	e := c.damage()
	facts, _ := e.Stream("TP0")
	standby := c.other(c.holder())
	standby.stop() // a new connection: else it looks once a minute
	standby.start(t)
	line := standby.waitFor("| result: fail", "server: "+e.Name, "are missing in its replica")
	wantOneLine(t, "what to do", line+"\n", fmt.Sprintf("reason: %d of the records up to", facts.State.Deleted),
		"docs/replication.md")
	third := &office{dir: t.TempDir(), port: freePort(t), args: c.args}
	third.start(t)
	c.offices = append(c.offices, third)
	c.same(len(bets) + rowBytes(lots[0]))

	// Healing: stop it, remove its store's folder jetstream, start it, wait until all agree.
	if leader := c.leader(); leader == e {
		e.Stop()
		c.leader()
	}
	if e.Running() {
		e.Stop()
	}
	if err := os.RemoveAll(e.Store() + "/jetstream"); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	w := weather{t: t, engines: es}
	w.settle()
	standby.stop()
	standby.start(t)
	standby.waitFor("action: "+actionOf(line)+" | result: success", "servers: 3")
	c.client(dir, 2, 1).wantExit(exitDone)
	third.kill()
	third.wipe(t)
	third.start(t)
	wantRows(t, strings.TrimPrefix(c.same(len(bets)+rowBytes(lots...)), bets), lots...)
	c.stop()
}

// actionOf returns the action of a log line.
func actionOf(line string) string {
	_, rest, _ := strings.Cut(line, "action: ")
	action, _, _ := strings.Cut(rest, " |")
	return action
}

// flipMiddle changes a byte in the middle of a file.
func flipMiddle(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 0x20
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wholeReplica returns an engine that has all records of the stream, the leader if it has; nil: none.
func (c *cluster) wholeReplica() (whole *proc.Engine) {
	c.t.Helper()
	leader := c.leader()
	for _, e := range c.engines.All {
		facts, err := e.Stream(c.stream)
		if err != nil {
			c.t.Fatal(err)
		}
		if facts.State.Deleted == 0 && (whole == nil || e == leader) {
			whole = e
		}
	}
	return whole
}

// TestTortureHolesSpread does what must not be done: a damaged engine is left as it is, and the
// others are wiped in turn, so that its holes spread. Nothing that was answered is lost: the offices
// have it, a new one refuses what the stream has become, and a new stream is made from a store.
func TestTortureHolesSpread(t *testing.T) {
	torture.Count(t, "TORTURE", 1)
	es := openEngines(t, 3)
	c := newCluster(t, es, "W0", 2)
	bets := string(betsFile(500_000)) // several blocks
	writeFile(t, c.offices[0].dir, "bets.csv", bets)
	c.open()
	dir := t.TempDir()
	lots := makeLots(t, dir, 2, 600, 24)
	c.client(dir, 1, 0).wantExit(exitDone)
	text := c.same(len(bets) + rowBytes(lots[0]))
	damaged := c.damage()
	for e := c.wholeReplica(); e != nil; e = c.wholeReplica() {
		if err := es.Ready(); err != nil {
			t.Fatal(err)
		}
		e.Stop()
		if err := e.Wipe(); err != nil {
			t.Fatal(err)
		}
		if err := e.Start(); err != nil {
			t.Fatal(err)
		}
		c.until("the wiped engine to have what there is", func() bool {
			facts, err := e.Stream(c.stream)
			other, otherErr := damaged.Stream(c.stream)
			return err == nil && otherErr == nil && facts.State.LastSeq == other.State.LastSeq
		})
	}
	c.stop()
	fresh := &office{dir: t.TempDir(), port: freePort(t), args: c.args}
	fresh.begin(t)
	fresh.wantExit(exitFailed)
	wantOneLine(t, "a new office", fresh.errs.String(), "is missing, and no replica has it", "make a new stream")
	if got := c.same(len(text)); got != text {
		t.Errorf("the offices' bets have changed")
	}

	healed := newCluster(t, es, "W1", 2)
	healed.offices[0].dir = c.offices[0].dir
	healed.open()
	healed.client(dir, 2, 1).wantExit(exitDone)
	wantRows(t, strings.TrimPrefix(healed.same(len(bets)+rowBytes(lots...)), bets), lots...)
	healed.stop()
}
