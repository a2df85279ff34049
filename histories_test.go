package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tp0/tools/torture"
)

// A history is what happens to two or three servers that share a log: cuts, crashes, wiped disks, a
// stream that is away, messages and answers that are lost or late, and a client that goes to
// whoever takes its bets. At the end all have the same bets, and what was answered is in them.
type history struct {
	t       *testing.T
	rng     *rand.Rand
	stream  *fakeStream
	o       *oracle
	w       *workload
	servers []*shareServer
	pace    pace
	story   []string
}

// An shareServer is one of the servers.
type shareServer struct {
	disk *simDisk
	link *fakeLink
	s    *store // nil: it is down
}

// newHistory starts the servers.
func newHistory(t *testing.T, seed uint64) *history {
	h := &history{t: t, rng: newRNG(seed), stream: newFakeStream(t), o: newOracle(3)}
	h.w = &workload{o: h.o}
	h.pace = testPace
	if h.rng.IntN(2) == 0 {
		h.pace.look = time.Minute // a holder does not notice that it is cut off
	}
	for i := range 2 + h.rng.IntN(2) {
		h.servers = append(h.servers, &shareServer{disk: newSimDisk()})
		h.start(i)
	}
	return h
}

// note remembers what happened.
func (h *history) note(format string, args ...any) {
	h.story = append(h.story, fmt.Sprintf(format, args...))
}

// start starts server i on what its disk has.
func (h *history) start(i int) {
	v := h.servers[i]
	v.link = h.stream.link()
	if chance := h.rng.Float64() * 0.3; h.rng.IntN(2) == 0 {
		rng := newRNG(h.rng.Uint64()) // used with the stream locked
		h.stream.change(func() {
			v.link.fault = func(uint64) sendFault {
				if rng.Float64() >= chance {
					return sendArrives
				}
				return sendFault(rng.IntN(int(sendFaults)))
			}
		})
	}
	deaf := h.rng.IntN(3) == 0
	h.stream.change(func() { v.link.deaf = deaf })
	options := sharedOptions(v.link)
	options.pace = &h.pace
	s, err := openStore(context.Background(), v.disk, options, quiet)
	if err != nil {
		h.t.Errorf("%v: server %d does not start: %v", h.story, i, err)
		return
	}
	v.s = s
	h.note("start %d", i)
}

// kill ends server i as kill -9 or a power cut does, and leaves its disk, or none of it.
func (h *history) kill(i int) {
	v := h.servers[i]
	v.disk.mu.Lock()
	var after *simDisk
	switch h.rng.IntN(5) {
	case 0:
		after = newSimDisk()
		h.note("wipe %d", i)
	case 1, 2:
		after = v.disk.powerCut(h.rng)
		h.note("power cut %d", i)
	default:
		after = v.disk.kill()
		h.note("kill %d", i)
	}
	v.disk.off = true
	v.disk.mu.Unlock()
	h.stream.change(func() { v.link.cut = true })
	v.s.close()
	v.link.close()
	v.disk, v.s = after, nil
}

// happen lets one thing happen.
func (h *history) happen() {
	i := h.rng.IntN(len(h.servers))
	v := h.servers[i]
	switch n := h.rng.IntN(10); {
	case v.s == nil:
		if h.stream.isUp() {
			h.start(i)
		}
	case n < 3:
		h.kill(i)
	case n < 6:
		h.stream.change(func() { v.link.cut = !v.link.cut })
		h.note("cut or heal %d", i)
	case n < 7:
		h.stream.change(func() { h.stream.down = !h.stream.down })
		h.note("stream up or down")
	case n < 8:
		h.stream.change(h.stream.deliver)
		h.note("late ones arrive")
	}
}

// isUp reports whether servers can start.
func (s *fakeStream) isUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.down
}

// taking returns a server that takes bets, which asks them all in turn for a while; nil: none does.
func taking(stores []*store, patience time.Duration) *store {
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		for _, s := range stores {
			if s.available() == nil {
				return s
			}
		}
	}
	return nil
}

// up returns the servers that are up, in an order of chance.
func (h *history) up() (stores []*store) {
	for _, i := range h.rng.Perm(len(h.servers)) {
		if h.servers[i].s != nil {
			stores = append(stores, h.servers[i].s)
		}
	}
	return stores
}

// work has the client send some batches while things happen. It knows some of the servers alone.
func (h *history) work(events int) {
	stores, rng, steps := h.up(), newRNG(h.rng.Uint64()), 1+h.rng.IntN(25)
	stores = stores[:min(len(stores), 1+h.rng.IntN(3))]
	var client sync.WaitGroup
	client.Add(1)
	go func() {
		defer client.Done()
		if h.w.s = taking(stores, 200*time.Millisecond); h.w.s != nil {
			h.result(h.w.run(rng, steps))
		}
	}()
	for range events {
		time.Sleep(time.Duration(h.rng.IntN(3000)) * time.Microsecond)
		h.happen()
	}
	client.Wait()
}

// result looks at what ended the client's work.
func (h *history) result(err error) (done bool) {
	switch {
	case err == nil:
		return true
	case err != errUnavailable && err != errStandby && err != errFenced && err != errDead && !isFatal(err):
		h.t.Errorf("%v: the client: %v", h.story, err)
	}
	return false
}

// end heals all, and compares.
func (h *history) end() {
	h.stream.change(func() {
		h.stream.down = false
		for _, k := range h.stream.links {
			k.cut, k.deaf, k.fault = false, false, nil
		}
	})
	for i, v := range h.servers {
		if v.s == nil {
			h.start(i)
		}
	}
	if h.t.Failed() {
		return
	}
	limit := time.Now().Add(30 * time.Second)
	for done := false; !done; {
		if time.Now().After(limit) {
			h.t.Errorf("%v: 30 s after all was healed: no server takes bets", h.story)
			return
		}
		if h.w.s = taking(h.up(), time.Second); h.w.s != nil {
			done = h.result(h.w.run(h.rng, 5))
		}
	}
	for i, v := range h.servers {
		for v.s.sequence() < h.stream.length() {
			if time.Now().After(limit) {
				h.t.Errorf("%v: server %d does not catch up", h.story, i)
				return
			}
			time.Sleep(time.Millisecond)
		}
		known := h.o.copy()
		if err := known.verify(v.s, v.disk.read(testPath)); err != nil {
			h.t.Errorf("%v: server %d: %v", h.story, i, err)
		}
	}
	want := h.servers[0].disk.read(testPath)
	for i, v := range h.servers {
		if err := v.s.close(); err != nil {
			h.t.Errorf("%v: server %d: close: %v", h.story, i, err)
		}
		if got := v.disk.read(testPath); !bytes.Equal(got, want) {
			h.t.Errorf("%v: server %d has %d bytes of bets, and server 0 has %d, or others", h.story, i, len(got),
				len(want))
		}
	}
}

// histories lives through so many of them.
func histories(t *testing.T, n int) {
	seed := uint64(torture.Number(t, "SEED", 1+int(time.Now().UnixNano()&0xffffff)))
	began := time.Now()
	var all sync.WaitGroup
	var records, claims, voids atomic.Int64
	slots := make(chan struct{}, 16) // most of the time is waiting
	for i := range n {
		all.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; all.Done() }()
			if t.Failed() {
				return
			}
			h := newHistory(t, seed+uint64(i))
			h.note("SEED=%d", seed+uint64(i))
			for range 10 {
				if h.work(h.rng.IntN(4)); t.Failed() {
					return
				}
			}
			h.end()
			st := h.stream.tail()
			records.Add(int64(st.sequence))
			claims.Add(int64(st.term))
			voids.Add(int64(h.stream.voids()))
		}()
	}
	all.Wait()
	t.Logf("SEED=%d: %d histories in %v: %d records, %d of them claims, %d void", seed, n,
		time.Since(began).Round(time.Millisecond), records.Load(), claims.Load(), voids.Load())
}

// TestHistories lives through some histories of servers that share a log.
func TestHistories(t *testing.T) {
	t.Parallel()
	histories(t, 50)
}

// TestTortureHistories is TestHistories with HISTORIES of them.
func TestTortureHistories(t *testing.T) {
	histories(t, torture.Count(t, "HISTORIES", 2000))
}
