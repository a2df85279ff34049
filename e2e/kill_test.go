package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A siege is a server and six clients that send one file after the other, each under another
// data.source, while one of them is killed again and again. What it holds them to at each moment:
// answered ⊆ stored ⊆ sent, nothing twice, each agency's order, no part of a batch.
type siege struct {
	t        *testing.T
	random   *rand.Rand
	office   *office
	dir      string // of the clients
	agents   []*agent
	verified int64 // bytes of bets.csv that have been compared
	ended    bool  // no further rounds
	done     siegeCount
}

// A siegeCount is what a siege did.
type siegeCount struct {
	serverKills, recoveryKills, clientKills, rounds, rows, rejects int
}

// An agent is one agency's client through all its lives.
type agent struct {
	*lot
	args     []string
	bounds   map[int]bool // rows stored after each batch; nil: each life has batches of another size
	client   *process
	round    int // data.source and rejects file
	answered int // bets of the round that killed clients had answers for
	stored   int // rows in bets.csv
}

// agentWays are the settings of the clients: amount of a batch (0: another one in each life),
// then the rest.
var agentWays = []struct {
	amount int
	args   []string
}{
	{3, []string{"-loop.period=1ms"}},
	{150, nil},
	{20, []string{"-batch.window=1"}},
	{65535, []string{"-loop.period=1ms", "-batch.window=8"}},
	{10, []string{"-loop.period=1ms", "-batch.window=1"}},
	{0, []string{"-loop.period=1ms"}},
}

// newSiege starts the server and the clients, whose files have that many records.
func newSiege(t *testing.T, seed uint64, records int, serverArgs ...string) *siege {
	t.Helper()
	s := &siege{t: t, random: rand.New(rand.NewPCG(seed, 11)), dir: t.TempDir()}
	s.office = &office{dir: t.TempDir(), port: freePort(t), args: serverArgs}
	s.office.start(t)
	for i, l := range makeLots(t, s.dir, len(agentWays), records, seed) {
		way := agentWays[i]
		a := &agent{lot: l, args: way.args}
		if way.amount > 0 {
			a.bounds, a.args = l.boundaries(way.amount), append([]string{"-batch.maxAmount=" +
				strconv.Itoa(way.amount)}, way.args...)
		}
		s.agents = append(s.agents, a)
		s.launch(a)
	}
	return s
}

// rejects is where an agent's client writes what is refused in this round.
func (s *siege) rejects(a *agent) string {
	return filepath.Join(s.dir, fmt.Sprintf("rejects-%d-%d.csv", a.agency, a.round))
}

// launch starts an agent's client.
func (s *siege) launch(a *agent) {
	s.t.Helper()
	args := append([]string{"-data.source=round " + strconv.Itoa(a.round), "-data.rejects=" + s.rejects(a)}, a.args...)
	if a.bounds == nil {
		args = append(args, fmt.Sprintf("-batch.maxAmount=%d", []int{1, 2, 5, 13, 20, 150}[s.random.IntN(6)]))
	}
	a.client = s.office.client(s.t, s.dir, a.agency, args...)
}

// killServer kills the server and starts it again. Now and then a server is killed that has only
// just been started, too.
func (s *siege) killServer() {
	s.t.Helper()
	s.office.kill()
	s.done.serverKills++
	for s.random.IntN(4) == 0 { // another that dies while it recovers
		p := launch(s.t, s.office.dir, "recovering server", append([]string{"-mode=server", "-server.host=127.0.0.1",
			"-server.port=0"}, s.office.args...)...)
		time.Sleep(time.Duration(s.random.IntN(30_000)) * time.Microsecond)
		p.kill()
		s.done.recoveryKills++
	}
	if s.random.IntN(2) == 0 { // look at what recovery leaves, which no client can reach to change
		p := launch(s.t, s.office.dir, "quiet server", append([]string{"-mode=server", "-server.host=127.0.0.1",
			"-server.port=0"}, s.office.args...)...)
		p.waitFor("action: listen | result: success")
		p.stop()
		s.compare(true)
	} else {
		s.compare(false)
	}
	s.office.start(s.t)
}

// killClient kills one of the clients and starts it again.
func (s *siege) killClient() {
	s.t.Helper()
	a := s.agents[s.random.IntN(len(s.agents))]
	a.client.kill()
	s.done.clientKills++
	if a.client.Cmd.ProcessState.Exited() { // it had been quicker
		s.finishRound(a)
	} else {
		a.answered += answeredBets(s.t, a.client)
	}
	s.launch(a)
}

// answeredBets counts the bets that a client has had an answer for, stored or refused.
func answeredBets(t *testing.T, p *process) (n int) {
	t.Helper()
	for _, line := range p.lines("action: apuestas_enviadas") {
		if strings.Contains(line, "| result: success") || strings.HasPrefix(field(line, "estado"), "#") {
			n += numberIn(t, line, "cantidad")
		}
	}
	return n
}

// finishRound looks at what a client that has ended left.
func (s *siege) finishRound(a *agent) {
	s.t.Helper()
	a.client.wantExit(exitDone)
	a.client.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(a.sizes)))
	a.wantRejects(s.t, s.rejects(a))
	s.done.rejects += len(a.lot.rejects)
	s.done.rounds++
	a.round++
	a.answered = 0
}

// goOn starts the next round of each client that has ended.
func (s *siege) goOn() {
	s.t.Helper()
	for _, a := range s.agents {
		select {
		case <-a.client.Done:
			s.finishRound(a)
			s.launch(a)
		default:
		}
	}
}

// compare compares bets.csv with what was sent and what was answered. The server is down. If it
// has recovered there is no part of a batch.
func (s *siege) compare(recovered bool) {
	s.t.Helper()
	answered := map[*agent]int{}
	for _, a := range s.agents { // an agent that ended meanwhile has all its answers
		answered[a] = a.answered + answeredBets(s.t, a.client)
	}
	s.readRows()
	for _, a := range s.agents {
		stored := a.stored - a.round*len(a.rows)
		if want := a.taken[min(answered[a], len(a.sizes))]; stored < want {
			s.t.Errorf("agency %d, round %d: got %d rows stored, and %d bets were answered, of which %d are good",
				a.agency, a.round, stored, answered[a], want)
		}
		if recovered && a.bounds != nil && !a.bounds[stored] {
			s.t.Errorf("agency %d, round %d: got %d rows stored, which is no end of a batch", a.agency, a.round, stored)
		}
	}
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// readRows compares the rows of bets.csv that are new: each must be the next of its agency.
func (s *siege) readRows() {
	s.t.Helper()
	f, err := os.Open(filepath.Join(s.office.dir, "bets.csv"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, s.verified, 1<<40))
	if err != nil {
		s.t.Fatal(err)
	}
	for row := range strings.SplitAfterSeq(string(text), "\r\n") {
		if !strings.HasSuffix(row, "\r\n") {
			return // a write was cut: recovery completes it, and it is looked at then
		}
		agency, _, _ := strings.Cut(row, ",")
		n, err := strconv.Atoi(agency)
		if err != nil || n < 1 || n > len(s.agents) {
			s.t.Fatalf("bets.csv: got row %q at byte %d", row, s.verified)
		}
		a := s.agents[n-1]
		if want := a.rows[a.stored%len(a.rows)]; row != want {
			s.t.Fatalf("bets.csv: got row %q at byte %d, want %q, number %d of agency %d", row, s.verified, want,
				a.stored, n)
		}
		a.stored++
		s.done.rows++
		s.verified += int64(len(row))
	}
}

// end lets the clients finish, stops the server and compares all.
func (s *siege) end() siegeCount {
	s.t.Helper()
	for _, a := range s.agents {
		s.finishRound(a)
	}
	s.office.stop()
	s.verified, s.done.rows = 0, 0
	for _, a := range s.agents {
		a.stored = 0
	}
	s.readRows()
	for _, a := range s.agents {
		if want := a.round * len(a.rows); a.stored != want {
			s.t.Errorf("agency %d: got %d rows in %d rounds, want %d", a.agency, a.stored, a.round, want)
		}
	}
	if info, err := os.Stat(filepath.Join(s.office.dir, "bets.csv")); err != nil || info.Size() != s.verified {
		s.t.Errorf("got %v bytes and %v, want %d", info.Size(), err, s.verified)
	}
	return s.done
}

// besiege kills the server and a client each kills times.
func besiege(t *testing.T, seed uint64, records, kills int, serverArgs ...string) siegeCount {
	t.Helper()
	s := newSiege(t, seed, records, serverArgs...)
	for s.done.serverKills < kills || s.done.clientKills < kills {
		time.Sleep(time.Duration(s.random.IntN(60_000)) * time.Microsecond)
		s.goOn()
		if s.done.clientKills >= kills || s.done.serverKills < kills && s.random.IntN(2) == 0 {
			s.killServer()
		} else {
			s.killClient()
		}
	}
	return s.end()
}

// TestE2EKills kills the server 20 times and clients 20 times, at random instants.
func TestE2EKills(t *testing.T) {
	t.Parallel()
	t.Logf("%+v", besiege(t, 1, 3000, 20))
}

// TestE2EKillsRelaxed does less of it with a server that syncs now and then: a kill loses nothing
// there either.
func TestE2EKillsRelaxed(t *testing.T) {
	t.Parallel()
	t.Logf("%+v", besiege(t, 2, 1000, 4, "-store.sync=20ms"))
	t.Logf("%+v", besiege(t, 3, 1000, 4, "-store.sync=never"))
}
