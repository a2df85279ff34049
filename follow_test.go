package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A pair is two servers on one stream, of which the first takes bets, and a client at it.
type pair struct {
	stream *fakeStream
	disks  [2]*faultDisk
	links  [2]*fakeLink
	stores [2]*store
	o      *oracle
	w      *workload
}

// newPair starts a pair, which ends with the test: then both have the same, and all that was
// answered.
func newPair(t *testing.T, change func(*storeOptions)) *pair {
	t.Helper()
	p := &pair{stream: newFakeStream(t), o: newOracle(2)}
	for i := range p.stores {
		p.disks[i], p.links[i] = &faultDisk{disk: newSimDisk()}, p.stream.link()
		options := sharedOptions(p.links[i])
		if change != nil {
			change(&options)
		}
		p.stores[i] = openTest(t, p.disks[i], options)
	}
	awaitTaking(t, p.stores[0])
	p.w = &workload{s: p.stores[0], o: p.o}
	p.work(t)
	t.Cleanup(func() { p.end(t) })
	return p
}

// work sends some batches, which must be answered.
func (p *pair) work(t *testing.T) {
	t.Helper()
	if err := p.w.run(newRNG(1), 12); err != nil {
		t.Fatal(err)
	}
}

// takeOver cuts the first server off and has the client go on at the second.
func (p *pair) takeOver(t *testing.T) {
	t.Helper()
	p.stream.change(func() { p.links[0].cut = true })
	awaitTaking(t, p.stores[1])
	p.w.s = p.stores[1]
}

// end compares.
func (p *pair) end(t *testing.T) {
	p.stream.change(func() {
		for _, k := range p.links {
			k.cut, k.fault = false, nil
		}
		p.stream.down = false
		p.stream.late = nil
	})
	for i, s := range p.stores {
		awaitSame(t, p.stream, s)
		if err := p.o.copy().verify(s, p.disks[i].disk.(*simDisk).read(testPath)); err != nil {
			t.Errorf("server %d: %v", i, err)
		}
		if err := s.close(); err != nil {
			t.Errorf("server %d: close: %v", i, err)
		}
	}
	if !bytes.Equal(p.disks[0].disk.(*simDisk).read(testPath), p.disks[1].disk.(*simDisk).read(testPath)) {
		t.Error("the bets files differ")
	}
}

// fault has the next so many messages of server i meet a fault.
func (p *pair) fault(i int, f sendFault, messages int) {
	p.stream.change(func() {
		p.links[i].fault = func(uint64) sendFault {
			if messages--; messages < 0 {
				return sendArrives
			}
			return f
		}
	})
}

// TestConflict has another server's record come first: the group is refused, its session ends, and
// the server stands by.
func TestConflict(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	p.stream.change(func() { p.links[0].deaf = true })
	fenced := make(chan struct{})
	idle := &session{fence: func() { close(fenced) }}
	if _, g, err := p.stores[0].hello(idle, sourceKey{9, "idle"}); err != nil || g.wait() != nil {
		t.Fatal(err)
	}
	p.fault(0, sendOvertaken, 1)
	err := p.w.submit(0)
	if err == nil {
		err = p.w.settleTo(0)
	}
	if err != errUnavailable {
		t.Errorf("the group: got %v, want errUnavailable: nothing of it is stored", err)
	}
	<-fenced
	if f := p.stores[0].facts(); f.term == nil || f.term.Conflict.IsZero() {
		t.Errorf("the conflict is not in the facts: %+v", f.term)
	}
}

// TestUnsettled has a record of which nothing is known. Nobody is answered, no bets are taken. Then
// it turns out that it stands there, or that another one does.
func TestUnsettled(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		before func(p *pair) // what becomes of the record
		after  func(p *pair) // while nobody reaches the stream
		stands bool
	}{
		{"it stands there", func(p *pair) { p.fault(0, sendUnsaid, 1) }, func(*pair) {}, true},
		{"it is not there", func(p *pair) { p.fault(0, sendLost, 1) }, func(*pair) {}, true},
		{"it arrives late", func(p *pair) { p.fault(0, sendLate, 1) }, func(p *pair) { p.stream.deliver() }, true},
		{"another's stands there", func(p *pair) { p.fault(0, sendLate, 1) },
			func(p *pair) { p.stream.put(uint64(len(p.stream.records))+1, p.stream.stranger(true)) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, nil)
			if err := p.w.hello(0); err != nil {
				t.Fatal(err)
			}
			test.before(p)
			p.stream.change(func() { p.links[0].fault, p.links[1].cut = p.withCut(p.links[0]), true })
			at := p.w.ses[0].at.Records
			if err := p.w.submit(0); err != nil {
				t.Fatal(err)
			}
			if err := p.w.settleTo(0); !isFatal(err) {
				t.Errorf("not known: got %v, want no answer", err)
			}
			if err := p.stores[0].available(); err != errStandby {
				t.Errorf("meanwhile: got %v, want errStandby", err)
			}
			p.stream.change(func() { test.after(p); p.links[0].cut, p.links[0].fault = false, nil })
			var s *store
			waitFor(t, "a server that takes bets", func() bool {
				s = taking(p.stores[:], time.Second)
				return s != nil
			})
			if _, reached := mustHello(t, s, sourceOf(0)); (reached.Records > at) != test.stands {
				t.Errorf("got %d records, and there were %d before: want more %v", reached.Records, at, test.stands)
			}
			p.w.s = s
			p.work(t)
		})
	}
}

// withCut returns the link's fault with the server cut off behind it. The stream is locked.
func (p *pair) withCut(k *fakeLink) func(uint64) sendFault {
	fault := k.fault
	return func(number uint64) sendFault {
		f := fault(number)
		k.cut = true
		return f
	}
}

// TestOvertakenIdle has a server overtaken that hears nothing of it. It does not say how far a
// source got.
func TestOvertakenIdle(t *testing.T) {
	t.Parallel()
	p := newPair(t, func(o *storeOptions) { pace := testPace; pace.look = time.Hour; o.pace = &pace })
	p.stream.change(func() { p.links[0].deaf = true })
	p.takeOver(t)
	p.work(t)
	p.stream.change(func() { p.links[0].cut = false })
	if err := p.stores[0].available(); err != nil {
		t.Fatalf("it has noticed: %v", err)
	}
	_, g, err := p.stores[0].hello(&session{fence: func() {}}, sourceOf(0))
	if err == nil {
		err = g.wait()
	}
	if err != errUnavailable {
		t.Errorf("HELLO: got %v, want errUnavailable", err)
	}
}

// TestNoQuorum takes the quorum away from a server that has nothing to write: it says that it takes
// no bets, and goes on by itself, in the same term.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	term := p.stores[0].facts().term.Term
	p.stream.change(func() { p.stream.down = true })
	waitFor(t, "a server that knows", func() bool { return p.stores[0].available() == errStandby })
	if p.stores[0].facts().trouble == nil || p.stores[0].pulse().trouble == nil {
		t.Error("neither page nor supervisor are told")
	}
	p.stream.change(func() { p.links[1].cut = true; p.stream.down = false })
	awaitTaking(t, p.stores[0])
	if now := p.stores[0].facts().term.Term; now != term {
		t.Errorf("got term %d, want %d still", now, term)
	}
	p.work(t)
}

// TestClaimRace has both servers claim at once, over and over: one of them holds the term.
func TestClaimRace(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	for range 5 {
		p.stream.change(func() { p.stream.down = true })
		waitFor(t, "nobody", func() bool {
			return p.stores[0].available() != nil && p.stores[1].available() != nil
		})
		p.stream.change(func() {
			record := p.stream.stranger(true) // whoever held the term does no more
			p.stream.put(uint64(len(p.stream.records))+1, record)
			p.stream.down = false
		})
		var both sync.WaitGroup
		for _, s := range p.stores {
			both.Add(1)
			go func() {
				defer both.Done()
				for s.available() != nil && p.stores[0].available() != nil && p.stores[1].available() != nil {
				}
			}()
		}
		both.Wait()
	}
	waitFor(t, "one server that takes bets", func() bool {
		one, two := p.stores[0].available() == nil, p.stores[1].available() == nil
		return one != two
	})
	p.w.s = taking(p.stores[:], time.Second)
	p.work(t)
}

// TestFullDisk fills the disk of the server that takes bets, and of the one that stands by. It says
// so, loses nothing, and goes on once there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, who := range []int{0, 1} {
		for _, writes := range []int{1, 2, 3} { // the record, its rows, or what follows them
			t.Run(fmt.Sprintf("server %d, write %d", who, writes), func(t *testing.T) {
				t.Parallel()
				p := newPair(t, nil)
				awaitSame(t, p.stream, p.stores[1])
				p.disks[who].setFault(noRoom(writes, 30))
				for step := 0; step < 20 && p.w.run(newRNG(uint64(step)), 4) == nil; step++ {
				}
				waitFor(t, "a full disk", p.disks[who].hasFailed)
				if who == 1 {
					p.work(t)
				}
				p.disks[who].setFault(nil)
				waitFor(t, "bets taken again", func() bool { // the term may pass on once more meanwhile
					p.w.s = taking(p.stores[:], time.Second)
					return p.w.s != nil && p.w.run(newRNG(1), 12) == nil
				})
			})
		}
	}
}

// TestSharedDraw has one server draw. The other one has the same winners, now and when it takes
// over.
func TestSharedDraw(t *testing.T) {
	t.Parallel()
	p := newPair(t, func(o *storeOptions) { o.agencies, o.winner = 2, 7 })
	for _, agency := range []uint8{1, 2} {
		if g, err := p.stores[0].finish(agency); err != nil || g.wait() != nil {
			t.Fatal(err)
		}
	}
	var counts [2]int
	for i, s := range p.stores {
		select {
		case <-s.drawn:
		case <-time.After(30 * time.Second):
			t.Fatalf("server %d: no draw", i)
		}
		counts[i], _, _ = s.winners(1)
	}
	if counts[0] == 0 || counts[0] != counts[1] {
		t.Errorf("winners: got %d and %d, want as many, and some", counts[0], counts[1])
	}
	p.takeOver(t)
	if g, err := p.stores[1].finish(1); err != nil || g != nil {
		t.Errorf("an agency that has finished, said at the other server: got %v, %v, want nothing to wait for", g, err)
	}
	if _, err := p.stores[1].submit(&session{}, anonymousBet(1)); err != errAfterDraw {
		t.Errorf("a bet after the draw: got %v, want errAfterDraw", err)
	}
}

// TestStandbyAnswers sends each message to a server that stands by: ACK 5, and the end.
func TestStandbyAnswers(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	b, _ := testBet(1, 0)
	for name, m := range map[string][]byte{
		"HELLO":             appendHello(nil, Hello{helloVersion, 1, []byte("agency-1.csv")}),
		"BATCH":             appendBet(appendBatchHead(nil, 1), &b),
		"BATCH of no bets":  appendBatchHead(nil, 0),
		"BET":               appendBet(nil, &b),
		"NOTIFY, finished":  appendNotify(nil, Notify{1, notifyFinished}),
		"NOTIFY, winners":   appendNotify(nil, Notify{1, notifyWinners}),
		"two messages more": append(appendBatchHead(nil, 0), appendBatchHead(nil, 0)...),
	} {
		cfg := &config{maxNumber: 9998, connIdle: time.Minute, connMax: 1, drawAgencies: 1}
		srv := newServer(cfg, p.stores[1], newCounts(), quiet)
		ours, theirs := net.Pipe()
		srv.slots <- struct{}{}
		srv.start(newServerConn(srv.svc, theirs, peer{ip: "pipe"}))
		go ours.Write(m)
		got, err := io.ReadAll(ours)
		if want := appendAck(nil, ackUnavailable, standbyStatus); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q and the end", name, got, err, want)
		}
		ours.Close()
		srv.ended.Wait()
	}
	if !p.stores[1].follower.tenure.asked.After(time.Time{}) {
		t.Error("the server does not know that it was asked")
	}
}

// logLines are the lines of a log that have come so far.
type logLines struct {
	mu   sync.Mutex
	text []byte
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

// await waits for a line that has all parts, and then begins anew behind it.
func (l *logLines) await(t *testing.T, parts ...string) {
	t.Helper()
	waitFor(t, "the line "+strings.Join(parts, "…"), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for rest := string(l.text); rest != ""; {
			line, behind, _ := strings.Cut(rest, "\n")
			rest = behind
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
				l.text = []byte(rest)
				return true
			}
		}
		return false
	})
}

// TestTermLines has the log of a server say that it stands by, takes bets, cannot reach the
// stream and what to do, and that all is well again.
func TestTermLines(t *testing.T) {
	t.Parallel()
	stream, lines := newFakeStream(t), &logLines{}
	link := stream.link()
	s, err := openStore(context.Background(), newSimDisk(), sharedOptions(link), newLogger(lines, slog.LevelInfo))
	if err != nil {
		t.Fatal(err)
	}
	lines.await(t, "action: durability", "survives the loss of any one machine")
	lines.await(t, "action: term | result: in_progress", "this server stands by: it takes bets when no other one does")
	awaitTaking(t, s)
	lines.await(t, "action: term | result: success", "this server takes bets")
	other := openTest(t, newSimDisk(), sharedOptions(stream.link()))
	stream.change(func() { link.cut = true })
	lines.await(t, "WARNING", "action: term | result: fail", "nobody answers", "see to the engines")
	awaitTaking(t, other)
	stream.change(func() { link.cut = false })
	lines.await(t, "action: term | result: in_progress", "this server stands by: office takes bets")
	if err := errors.Join(s.close(), other.close()); err != nil {
		t.Error(err)
	}
}

// TestJoinSaysNothingAtOnce has a start whose engine answers at the second try: nothing is said.
func TestJoinSaysNothingAtOnce(t *testing.T) {
	t.Parallel()
	lines, tries := &logLines{}, 0
	j := &joining{ctx: context.Background(), log: newLogger(lines, slog.LevelInfo)}
	err := j.retry(func() error {
		if tries++; tries == 1 {
			return errCut
		}
		return nil
	})
	if err != nil || tries != 2 || len(lines.text) > 0 {
		t.Errorf("got %v after %d tries, and said %q", err, tries, lines.text)
	}
}

// TestSupervisorStandby has a server that shares its log stand by, take the term, have no room,
// take bets again, and lose the term: its supervisor is told what is so each time, from READY on.
func TestSupervisorStandby(t *testing.T) {
	t.Parallel()
	stream, d := newFakeStream(t), &faultDisk{disk: newSimDisk()}
	link := stream.link()
	s := openTest(t, d, sharedOptions(link))
	hear, getenv := listenNotify(t, 400*time.Millisecond)
	boss, ended := newSupervisor(getenv), make(chan struct{})
	hear()
	boss.watch("Taking bets.", s.pulse, ended)
	const waits = "STATUS=Standing by: no server takes bets now, and this one will as soon as an agency asks."
	if got, want := hear(), "READY=1\n"+waits; got != want {
		t.Errorf("got %q first, want %q", got, want)
	}
	await := func(parts ...string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
			text := hear()
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) }) {
				return
			}
		}
		t.Fatalf("was not told %q", parts)
	}
	awaitTaking(t, s)
	await("STATUS=Taking bets.")
	d.setFault(noRoom(1, 0))
	waitFor(t, "a full disk", func() bool {
		s.submit(&session{}, anonymousBet(0))
		return d.hasFailed()
	})
	await("STATUS=NOT taking bets: ", "no space")
	d.setFault(nil)
	await("STATUS=Taking bets.")
	other := openTest(t, newSimDisk(), sharedOptions(stream.link()))
	stream.change(func() { link.cut = true })
	awaitTaking(t, other)
	stream.change(func() { link.cut = false })
	await("STATUS=Standing by: office takes bets.")
	close(ended)
	if err := errors.Join(s.close(), other.close()); err != nil {
		t.Error(err)
	}
}
