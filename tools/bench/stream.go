package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"tp0/tools/proc"
)

// STREAM=1 measures a server whose log is in a stream too, on three engines of this machine, and
// nothing else. Right after each load a bare publisher puts records of the same size into a stream
// of its own on the same engines, each behind the answer to the one before: what is as safe cannot
// be faster with one record in flight.

// streamWindows are the windows that are measured.
var streamWindows = []int{1, 32}

// streamRound measures all of it once.
func (b *bench) streamRound(ctx context.Context) error {
	for _, window := range streamWindows {
		err := b.withEngines(func(es *proc.Engines) error { return b.streamLoad(ctx, es, window) })
		if err != nil {
			return fmt.Errorf("stream, window %d: %w", window, err)
		}
	}
	return b.withEngines(func(*proc.Engines) error { return b.answerTimes(ctx) })
}

// withEngines starts engines whose stream the servers of do have.
func (b *bench) withEngines(do func(es *proc.Engines) error) error {
	dir, err := filepath.Abs(filepath.Join(b.dir, "engines"))
	if err != nil {
		return err
	}
	es, err := proc.StartEngines(dir, 3, proc.WithOperator)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer es.Kill()
	b.stream = []string{"-stream.servers=" + es.Servers(), "-stream.user=" + proc.EngineUser,
		"-stream.password=" + proc.EnginePassword}
	defer func() { b.stream, b.streamed = nil, false }()
	return do(es)
}

// streamLoad measures a window.
func (b *bench) streamLoad(ctx context.Context, es *proc.Engines, window int) error {
	row := func(name, unit string, digits int) metric {
		return metric{name: fmt.Sprintf("stream, window %d: %s", window, name), unit: unit, digits: digits}
	}
	before := engineCPU(es)
	l, err := b.load(ctx, b.data, window)
	if err != nil {
		return err
	}
	cpu := engineCPU(es) - before
	size, bare, err := b.publishBare(es)
	if err != nil {
		return err
	}
	rate := l.rate * b.data.rowBytes()
	of := row("of a bare publisher", "", 2)
	of.goal = 0.8
	b.table.add(row("rate", "M bets/s", 3), l.rate/1e6)
	b.table.add(row("rows", "MB/s", 1), rate/1e6)
	b.table.add(row("bare publisher, one in flight", "MB/s", 1), bare/1e6)
	b.table.add(of, rate/bare)
	b.table.add(row("mean record", "KiB", 1), size/1024)
	b.table.add(row("server CPU", "µs/bet", 2), l.serverCPU)
	b.table.add(row("CPU of three engines", "µs/bet", 2), cpu.Seconds()*1e6/float64(b.data.bets))
	if window == 1 {
		return nil
	}
	took, err := b.catchUp(ctx)
	b.table.add(row("catching up from nothing", "MB/s", 0), float64(b.data.want.bytes)/1e6/took.Seconds())
	return err
}

// replicate puts an empty store, at bets, into the stream. There may be one already.
func (b *bench) replicate(ctx context.Context, bets string) error {
	p, err := b.start(ctx, filepath.Join(filepath.Dir(bets), "replicate.log"),
		append([]string{"-mode=replicate", "-store.path=" + bets}, b.stream...)...)
	if err != nil {
		return err
	}
	return p.Wait()
}

// awaitTerm waits until the server at address takes bets: it waits for a while whether another one
// does.
func (b *bench) awaitTerm(ctx context.Context, dir, address string) error {
	for end := time.Now().Add(startTimeout); ; time.Sleep(100 * time.Millisecond) {
		p, err := b.start(ctx, filepath.Join(dir, "health.log"), "-mode=health", "-server.address="+address)
		if err == nil {
			err = p.Wait()
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// publishBare has a bare publisher put the rows into a stream, in records of the mean size of those
// in the server's, and returns that and bytes a second.
func (b *bench) publishBare(es *proc.Engines) (size, rate float64, err error) {
	facts, err := es.All[0].Stream("TP0")
	if err != nil || facts.State.Messages == 0 {
		return 0, 0, errors.Join(err, fmt.Errorf("a stream of %d records", facts.State.Messages))
	}
	size = float64(facts.State.Bytes) / float64(facts.State.Messages)
	config, err := json.Marshal(map[string]any{"name": "BARE", "subjects": []string{"bare"}, "storage": "file",
		"num_replicas": 3, "discard": "new"})
	if err != nil {
		return 0, 0, err
	}
	if _, err := es.Change("STREAM.CREATE.BARE", string(config)); err != nil {
		return 0, 0, err
	}
	rows, err := os.ReadFile(b.data.expected)
	if err != nil {
		return 0, 0, err
	}
	a, err := es.All[0].Dial()
	if err != nil {
		return 0, 0, err
	}
	defer a.Close()
	began, last := time.Now(), 0
	for record := range slices.Chunk(rows, int(size)) {
		answer, err := a.Ask("bare", fmt.Sprintf("Nats-Expected-Last-Sequence: %d\r\n", last), record)
		if last++; err != nil || !bytes.Contains(answer, []byte(`"seq":`+strconv.Itoa(last))) {
			return 0, 0, errors.Join(err, fmt.Errorf("record %d: %s", last, answer))
		}
	}
	return size, float64(len(rows)) / time.Since(began).Seconds(), nil
}

// catchUp measures how long a server takes from its start until it has all bets of the stream.
func (b *bench) catchUp(ctx context.Context) (took time.Duration, err error) {
	srv, err := b.startServer(ctx)
	if err != nil {
		return 0, err
	}
	for srv.Began.Add(startTimeout).After(time.Now()) {
		if info, err := os.Stat(srv.bets()); err == nil && info.Size() >= b.data.want.bytes {
			break
		}
		time.Sleep(pollPeriod)
	}
	took = time.Since(srv.Began)
	if err := errors.Join(srv.Stop(), b.data.check(srv.bets())); err != nil {
		return 0, err
	}
	return took, srv.drop()
}

// engineCPU returns the processor time that engines have taken.
func engineCPU(es *proc.Engines) (sum time.Duration) {
	for _, e := range es.All {
		sum += proc.CPUTime(e.Cmd.Process.Pid)
	}
	return sum
}
