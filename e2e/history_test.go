//go:build unix

package e2e

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"tp0/tools/proc"
	"tp0/tools/torture"
)

// A history is what happens to two or three offices with one stream, and to clients that have the
// addresses of all in any order: offices are killed, wiped, and stopped for a while, clients are
// killed, and the engines, which several histories share, have weather of their own. Each holds to:
//
//   - each bets.csv is at any time the beginning of the longest one, byte for byte;
//   - an office that says how far a source got never says less than was answered;
//   - at the end all offices have all bets once, in the order of each agency's file.
type history struct {
	*cluster
	random *rand.Rand
	dir    string // of the clients
	agents []*agency
	done   historyCount
}

// A historyCount is what histories did.
type historyCount struct{ histories, kills, wipes, stops, clientKills, rounds, rows int }

func (n *historyCount) add(m historyCount) {
	n.histories += m.histories
	n.kills += m.kills
	n.wipes += m.wipes
	n.stops += m.stops
	n.clientKills += m.clientKills
	n.rounds += m.rounds
	n.rows += m.rows
}

// An agency sends its file again and again, each time under another data.source. Some have a twin
// that sends the same at the same time.
type agency struct {
	*lot
	dirs    []string // one for each twin, with its file and its rejects
	clients []*process
	heard   []memory // of the clients
	round   int
}

// newHistory starts the offices and the clients.
func newHistory(t *testing.T, es *proc.Engines, seed uint64) *history {
	t.Helper()
	h := &history{random: rand.New(rand.NewPCG(seed, 12))}
	h.cluster = openCluster(t, es, fmt.Sprintf("H%d", seed), 2+h.random.IntN(2))
	dir := t.TempDir()
	for _, l := range makeLots(t, dir, 2, 150+h.random.IntN(250), seed) {
		a := &agency{lot: l, dirs: []string{t.TempDir()}}
		if h.random.IntN(3) == 0 {
			a.dirs = append(a.dirs, t.TempDir())
		}
		for i, dir := range a.dirs {
			writeFile(t, dir, fmt.Sprintf("agency-%d.csv", l.agency), l.file.String())
			a.clients, a.heard = append(a.clients, nil), append(a.heard, memory{})
			h.launch(a, i)
		}
		h.agents = append(h.agents, a)
	}
	return h
}

// launch starts one of an agency's clients.
func (h *history) launch(a *agency, i int) {
	h.t.Helper()
	a.heard[i].seen = 0
	a.clients[i] = h.client(a.dirs[i], a.agency, h.random.IntN(len(h.offices)),
		fmt.Sprintf("-data.source=round %d", a.round),
		fmt.Sprintf("-data.rejects=rejects-%d.csv", a.round), fmt.Sprintf("-batch.maxAmount=%d", 1+h.random.IntN(5)),
		fmt.Sprintf("-batch.window=%d", 1+h.random.IntN(16)), fmt.Sprintf("-loop.period=%dms", 5+h.random.IntN(40)))
}

// finishRound waits until an agency's clients have sent all, and looks at what they left.
func (h *history) finishRound(a *agency) {
	h.t.Helper()
	for i, p := range a.clients {
		select {
		case <-p.Done:
		case <-time.After(3 * patience):
		}
		p.wantExit(exitDone)
		p.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(a.sizes)))
		a.heard[i].follow(h.t, p)
		a.heard[i] = memory{}
		if len(a.clients) == 1 { // twins share the refusals
			a.wantRejects(h.t, filepath.Join(a.dirs[i], fmt.Sprintf("rejects-%d.csv", a.round)))
		}
	}
	a.round++
	h.done.rounds++
}

// goOn begins the next round of each agency whose clients have ended.
func (h *history) goOn() {
	h.t.Helper()
	for _, a := range h.agents {
		over := true
		for i, p := range a.clients {
			a.heard[i].follow(h.t, p)
			over = over && p.Ended()
		}
		if over {
			h.finishRound(a)
			for i := range a.clients {
				h.launch(a, i)
			}
		}
	}
}

// happen lets one thing happen.
func (h *history) happen() {
	h.t.Helper()
	o := h.offices[h.random.IntN(len(h.offices))]
	while := time.Duration(h.random.IntN(5000)) * time.Millisecond
	switch n := h.random.IntN(12); {
	case n < 3: // at once
		o.kill()
		h.done.kills++
	case n < 5:
		o.kill()
		h.done.kills++
		time.Sleep(while)
	case n < 7:
		o.kill()
		o.wipe(h.t)
		h.done.wipes++
		time.Sleep(while)
	case n < 9:
		o.signal(syscall.SIGSTOP)
		time.Sleep(while)
		o.signal(syscall.SIGCONT)
		h.done.stops++
		return
	case n < 10:
		for _, o := range h.offices {
			o.kill()
		}
		for _, o := range h.offices {
			o.begin(h.t)
		}
		h.done.kills += len(h.offices)
		return
	default:
		h.killClient()
		return
	}
	h.look()
	o.begin(h.t)
}

// killClient kills one of the clients and starts it again.
func (h *history) killClient() {
	h.t.Helper()
	a := h.agents[h.random.IntN(len(h.agents))]
	i := h.random.IntN(len(a.clients))
	p := a.clients[i]
	if p.kill(); p.Cmd.ProcessState.Exited() {
		return // it had been quicker
	}
	a.heard[i].follow(h.t, p)
	h.launch(a, i)
	h.done.clientKills++
}

// end lets the clients finish and compares all.
func (h *history) end() {
	h.t.Helper()
	size := 0
	var lots []*lot
	for _, a := range h.agents {
		h.finishRound(a)
		all := &lot{agency: a.agency}
		for range a.round {
			all.rows = append(all.rows, a.rows...)
		}
		lots = append(lots, all)
		size += rowBytes(all)
		h.done.rows += len(all.rows)
	}
	wantRows(h.t, h.same(size), lots...)
	h.stop()
	h.done.histories++
}

// runHistories runs n histories side by side while the engines have that many misfortunes.
func runHistories(t *testing.T, es *proc.Engines, seed uint64, n, misfortunes int) (sum historyCount, w weather) {
	t.Helper()
	calm := make(chan struct{})
	var begun, ended sync.WaitGroup
	var mu sync.Mutex
	for i := range uint64(n) {
		begun.Add(1)
		beside(&ended, func() {
			t.Run(fmt.Sprintf("%d", seed+i), func(t *testing.T) {
				h := func() *history { defer begun.Done(); return newHistory(t, es, seed+i) }()
				begun.Wait() // else some would have a long one
				for over := false; !over; {
					select {
					case <-calm:
						over = true
					case <-time.After(time.Duration(500+h.random.IntN(3000)) * time.Millisecond):
						h.look()
						h.goOn()
						h.happen()
					}
				}
				h.end()
				mu.Lock()
				sum.add(h.done)
				mu.Unlock()
			})
		})
	}
	begun.Wait()
	w = weather{t: t, engines: es, random: rand.New(rand.NewPCG(seed, 13))}
	for range misfortunes {
		w.happen()
	}
	close(calm)
	ended.Wait()
	for i := range uint64(n) {
		if _, err := es.Change(fmt.Sprintf("STREAM.DELETE.H%d", seed+i), ""); err != nil && !t.Failed() {
			t.Error(err)
		}
	}
	return sum, w
}

// A weather is what happens to engines.
type weather struct {
	t       *testing.T
	engines *proc.Engines
	random  *rand.Rand
	done    weatherCount
}

// A weatherCount is what a weather did.
type weatherCount struct{ kills, pairs, all, stops, wipes int }

// happen lets one thing happen, and waits until the engines have recovered: a second one before
// could take what two of three disks have.
func (w *weather) happen() {
	w.t.Helper()
	time.Sleep(time.Duration(500+w.random.IntN(1500)) * time.Millisecond)
	while := time.Duration(w.random.IntN(4000)) * time.Millisecond
	order := w.random.Perm(len(w.engines.All))
	hit := w.engines.All[order[0]]
	switch n := w.random.IntN(10); {
	case n < 4:
		w.away(while, false, hit)
		w.done.kills++
	case n < 6:
		if err := hit.Pause(); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(while)
		if err := hit.Resume(); err != nil {
			w.t.Fatal(err)
		}
		w.done.stops++
	case n < 8:
		w.away(while, false, hit, w.engines.All[order[1]])
		w.done.pairs++
	case n < 9:
		w.away(0, false, w.engines.All...)
		w.done.all++
	default:
		w.away(while, true, hit)
		w.done.wipes++
	}
	w.settle()
}

// away kills engines and starts them again after a while.
func (w *weather) away(while time.Duration, wiped bool, hit ...*proc.Engine) {
	w.t.Helper()
	for _, e := range hit {
		e.Kill()
	}
	time.Sleep(while)
	for _, e := range hit {
		if wiped {
			if err := e.Wipe(); err != nil {
				w.t.Fatal(err)
			}
		}
		if err := e.Start(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// settle waits until each engine has all streams, whole, and as much of them as the others had when
// it looked.
func (w *weather) settle() {
	w.t.Helper()
	if err := w.engines.Ready(); err != nil {
		w.t.Fatal(err)
	}
	for end := time.Now().Add(2 * patience); ; time.Sleep(100 * time.Millisecond) {
		reason := w.unsettled()
		if reason == "" {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("the engines have not settled: %s", reason)
		}
	}
}

// unsettled says why the engines may have no misfortune now, or "".
func (w *weather) unsettled() string {
	highest := map[string]uint64{}
	for _, round := range []bool{false, true} {
		for _, e := range w.engines.All {
			var all proc.JSZ
			if err := e.Query("/jsz?accounts=1&streams=1", &all); err != nil {
				return err.Error()
			}
			has := map[string]bool{}
			for _, account := range all.Accounts {
				for _, s := range account.Streams {
					switch {
					case s.State.Deleted > 0:
						w.t.Fatalf("%s: stream %s has %d holes", e.Name, s.Name, s.State.Deleted)
					case !round:
						highest[s.Name] = max(highest[s.Name], s.State.LastSeq)
					case s.State.LastSeq < highest[s.Name]:
						return fmt.Sprintf("%s: stream %s is at %d, and another has %d", e.Name, s.Name, s.State.LastSeq,
							highest[s.Name])
					case s.Cluster.Leader == "":
						return fmt.Sprintf("%s: stream %s has no leader", e.Name, s.Name)
					}
					has[s.Name] = true
				}
			}
			for name := range highest {
				if round && !has[name] {
					return fmt.Sprintf("%s has no stream %s", e.Name, name)
				}
			}
		}
	}
	return ""
}

// histories has HISTORIES random histories. Some are run by `make test`, as many as it has time for.
func histories(t *testing.T, es *proc.Engines) {
	sum, w := runHistories(t, es, 1, torture.Number(t, "HISTORIES", 24), 2)
	t.Logf("%+v %+v", sum, w.done)
}

// TestTortureClusterHistories has HISTORIES of them, a dozen at a time.
func TestTortureClusterHistories(t *testing.T) {
	wanted := torture.Count(t, "HISTORIES", 2000)
	var sum historyCount
	var w weatherCount
	seed := uint64(torture.Number(t, "SEED", 1000))
	for sum.histories < wanted && !t.Failed() {
		t.Run(fmt.Sprintf("from %d", seed), func(t *testing.T) {
			es := openEngines(t, 3)
			for range 5 { // then new ones: it is a matter of disk
				done, more := runHistories(t, es, seed, min(12, wanted), 4)
				sum.add(done)
				w.add(more.done)
				seed += 12
				if t.Failed() || sum.histories >= wanted {
					return
				}
			}
		})
	}
	fmt.Printf("histories, each of 2 or 3 offices      %9d\n", sum.histories)
	fmt.Printf("offices killed, of them with disk      %9d %9d\n", sum.kills+sum.wipes, sum.wipes)
	fmt.Printf("offices stopped for a while            %9d\n", sum.stops)
	fmt.Printf("clients killed                         %9d\n", sum.clientKills)
	fmt.Printf("engines killed, with disk, stopped     %9d %9d %9d\n", w.kills+w.wipes, w.wipes, w.stops)
	fmt.Printf("two of three engines killed, all three %9d %9d\n", w.pairs, w.all)
	fmt.Printf("files sent to their end                %9d\n", sum.rounds)
	fmt.Printf("rows stored, compared                  %9d\n", sum.rows)
	fmt.Printf("lost, twice, out of order, different   %9s\n", verdict(t))
}

func (n *weatherCount) add(m weatherCount) {
	n.kills += m.kills
	n.pairs += m.pairs
	n.all += m.all
	n.stops += m.stops
	n.wipes += m.wipes
}
