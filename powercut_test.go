package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"tp0/tools/torture"
)

// A cutState is what a crash left: a disk, and what the clients know.
type cutState struct {
	disk   *simDisk
	stream *fakeStream // the log that servers share, with what was on its way to it; nil: there is none
	o      *oracle
	depth  int    // crashes before this state, in a row
	story  string // them
}

// A cutter makes crashes at every moment of a store's life, and starts it again from what they
// leave.
type cutter struct {
	t       *testing.T
	rng     *rand.Rand
	options storeOptions
	mixed   bool       // each start has a store.sync of its own
	shared  bool       // the store is in a shared log
	states  []cutState // not yet looked at
	checked int
	kills   int
	deepest int
}

const (
	// cutSteps is how many messages most lives of a store get at most.
	cutSteps = 40
	// cutDepth is how many crashes follow each other, but for those right after a refusal.
	cutDepth = 12
)

// run looks at that many states.
func (c *cutter) run(states int) {
	for c.checked < states && !c.t.Failed() {
		if len(c.states) == 0 {
			state := cutState{disk: newSimDisk(), o: newOracle(3), story: "new"}
			if c.shared {
				state.stream = newFakeStream(c.t)
			}
			c.states = append(c.states, state)
		}
		last := len(c.states) - 1
		state := c.states[last]
		c.states = c.states[:last]
		c.live(state)
		if state.depth > 0 {
			c.checked++
		}
		c.deepest = max(c.deepest, state.depth)
	}
}

// live starts a store on a state, checks it, gives it work, and collects states that crashes at
// some moments of all that would leave.
func (c *cutter) live(state cutState) {
	d, o := state.disk, state.o
	options := c.options
	if c.mixed {
		options.sync = []time.Duration{syncAlways, syncNever, 2 * time.Millisecond}[c.rng.IntN(3)]
	}
	story := fmt.Sprintf("%s; start with sync %v", state.story, options.sync)
	var mu sync.Mutex // protects o
	chance := 0.3     // at each of 100 to 200 calls
	if state.depth > 0 {
		chance = 0.1 // at each of about 15 calls of a start
	}
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 1)) // used with d locked
	opening, faulty := true, &faultDisk{disk: d}
	crash := func(when string) { // with d locked
		mu.Lock()
		known := o.copy()
		mu.Unlock()
		next := cutState{o: known, depth: state.depth + 1, stream: state.stream.fork()}
		if rng.IntN(3) == 0 {
			next.disk, next.story = d.kill(), story+"; kill at "+when
			c.kills++
		} else {
			next.disk, next.story = d.powerCut(rng), story+"; power cut at "+when
			known.cutPower()
		}
		c.states = append(c.states, next)
	}
	d.before = func() {
		likely := chance
		if faulty.hasFailed() {
			likely = 0.15 // at each of the few calls that take back what failed
		}
		if rng.Float64() >= likely || len(c.states) > 400 || state.depth >= cutDepth {
			return
		}
		when := fmt.Sprintf("call %d", d.calls)
		if opening {
			when += " of the start"
		}
		crash(when)
	}
	if c.shared {
		c.share(&options, state.stream)
	}
	s, err := openStore(context.Background(), faulty, options, quiet)
	if err != nil {
		c.t.Errorf("%s: openStore: got %v, want a start; the disk's last calls:\n%s", story, err, d.history())
		return
	}
	if c.shared { // what was on its way may still arrive until another record has its place
		awaitTaking(c.t, s)
	}
	d.mu.Lock()
	opening = false
	if state.depth > 0 {
		chance = 0.02 / float64(state.depth)
	}
	d.mu.Unlock()
	mu.Lock()
	err = o.verify(s, d.read(s.ledger.path))
	o.started(options.sync)
	mu.Unlock()
	if err != nil {
		c.t.Errorf("%s: %v; the disk's last calls:\n%s", story, err, d.history())
		return
	}
	w := &workload{s: s, o: o, lock: func(change func()) { mu.Lock(); defer mu.Unlock(); change() }}
	steps := c.rng.IntN(cutSteps)
	if w.hurry = c.rng.IntN(8) == 0; w.hurry { // more than one group is under way
		faulty.setSlow(takeTime)
	}
	if w.bare = c.rng.IntN(4) == 0; w.bare { // what is alike is to be in the same place in several lives
		steps = 1 + c.rng.IntN(2)
	} else if c.rng.IntN(6) == 0 {
		steps *= 10 // enough for checkpoints
	}
	if w.bare && c.rng.IntN(2) == 0 {
		faulty.setFault(failWrite(testPath, 1, 1+c.rng.IntN(3), c.rng.IntN(100)))
	} else if c.rng.IntN(4) == 0 || w.hurry && c.rng.IntN(2) == 0 {
		name, n := testPath, 1+c.rng.IntN(8)
		if !w.hurry && c.rng.IntN(2) == 0 {
			name, n = "", 1+c.rng.IntN(100)
		}
		faulty.setFault(failWrite(name, n, 1+c.rng.IntN(3), c.rng.IntN(5000)))
	}
	err = w.run(c.rng, steps)
	if faulty.hasFailed() { // seldom; and all that was refused is known
		d.mu.Lock()
		crash("the refusal")
		d.mu.Unlock()
	}
	if err != nil && !faulty.hasFailed() && !c.shared {
		c.t.Errorf("%s: work after the start: got %v, want answers; the disk's last calls:\n%s", story, err,
			d.history())
	}
	if err != nil && !c.shared && c.rng.IntN(200) == 0 { // seldom: that takes half a second, of waiting
		waitRoom(s)
		w.run(c.rng, steps)
	}
	if c.rng.IntN(2) == 0 {
		d.powerOff()
	}
	s.close()
}

// share has a store share its log. Each message to that may be lost, late, or not be answered, and
// while the store was down another server may have written.
func (c *cutter) share(options *storeOptions, stream *fakeStream) {
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 2)) // used with the stream locked
	chance := []float64{0, 0.05, 0.4}[c.rng.IntN(3)]
	link, kind := stream.link(), c.rng.IntN(6)
	link.fault = func(uint64) sendFault {
		if rng.Float64() < chance {
			return sendFault(rng.IntN(int(sendFaults)))
		}
		return sendArrives
	}
	stream.change(func() {
		if kind&1 == 0 {
			stream.deliver()
		}
		if kind < 4 {
			stream.put(uint64(len(stream.records))+1, stream.stranger(kind < 2))
		}
	})
	options.shared, options.pace, options.name = link, &cutPace, "office"
}

// cutPace is that of servers that are alone, and take no time.
var cutPace = pace{patience: 10 * time.Millisecond, follow: 50 * time.Microsecond, sign: time.Hour,
	silence: 50 * time.Microsecond, look: time.Hour}

// takeTime makes a disk slow, and some rows take longer than the store reckons with: so it has the
// next group under way, perhaps in the next segment, before they are written.
func takeTime(name string) {
	if name != testPath {
		time.Sleep(20 * time.Microsecond)
	} else if rand.IntN(3) == 0 {
		time.Sleep(time.Millisecond)
	}
}

// failWrite makes the n-th write from now on, to any file or to that one, and those that follow
// it, run of them, fail for lack of room, with so many of their bytes in the file: crashes come
// while it is taken back, and while it cannot be.
func failWrite(name string, n, run, short int) func(diskCall) *diskFault {
	return func(c diskCall) *diskFault {
		if c.kind != "write" || n > 0 && name != "" && c.name != name {
			return nil
		}
		if n--; n > 0 || n <= -run {
			return nil
		}
		return &diskFault{syscall.ENOSPC, short}
	}
}

// cutAll looks at states of each mode of store.sync, always most.
func cutAll(t *testing.T, states int) {
	for _, mode := range []struct {
		name   string
		sync   time.Duration
		mixed  bool
		shared bool
		states int
	}{{"always", syncAlways, false, false, states * 7 / 10},
		{"interval", 2 * time.Millisecond, false, false, states / 10},
		{"never", syncNever, false, false, states / 10}, {"mixed", 0, true, false, states / 10},
		{"shared", syncAlways, false, true, states / 10}} {
		t.Run(mode.name, func(t *testing.T) {
			seed := uint64(torture.Number(t, "SEED", 1+int(time.Now().UnixNano()&0xffffff)))
			c := &cutter{t: t, rng: rand.New(rand.NewPCG(seed, 0)), options: testOptions(), mixed: mode.mixed,
				shared: mode.shared}
			c.options.sync = mode.sync
			began := time.Now()
			c.run(mode.states)
			t.Logf("SEED=%d: %d states, %d kills made, up to %d crashes in a row, in %v",
				seed, c.checked, c.kills, c.deepest, time.Since(began).Round(time.Millisecond))
		})
	}
}

// TestPowerCuts starts the store from what power cuts and kills leave at any moment, over and
// over.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	cutAll(t, 2100)
}

// TestTorturePowerCuts is TestPowerCuts with CUTS states.
func TestTorturePowerCuts(t *testing.T) {
	cutAll(t, torture.Count(t, "CUTS", 100000))
}
