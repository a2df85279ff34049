package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tp0/tools/proc"
)

// The run past one machine: three engines keep the shared log, two offices take the bets in turn.
// While the clients send, the office in use is killed and its folder wiped, then the engine that
// leads is killed; both come back. At the end everything is counted as without, and the offices'
// files are compared byte by byte.

const (
	// clusterPeriod is the clients' pause after each batch: it makes the run long enough to watch.
	clusterPeriod = 25 * time.Millisecond
	// catchUpTimeout is how long an office may take to have all that the other has.
	catchUpTimeout = 60 * time.Second
)

// A cluster is what a run past one machine starts besides the clients.
type cluster struct {
	*lottery
	engines *proc.Engines
	offices []*office
}

// An office is one of the servers.
type office struct {
	name    string
	dir     string // its store alone
	port    string // "0" until it has listened once
	started int
	server  *proc.Process
}

// store names the office's file of bets.
func (o *office) store() string { return filepath.Join(o.dir, "bets.csv") }

// runCluster is run past one machine.
func (l *lottery) runCluster(ctx context.Context) error {
	if _, err := proc.InstallEngine(ctx); err != nil {
		return fmt.Errorf("%w: set NATS_SERVER to the engine's program, or install it where the Go proxy is reached", err)
	}
	if err := l.freshFolder(); err != nil {
		return err
	}
	c := &cluster{lottery: l}
	defer c.stop() // on every way out
	if err := c.start(ctx); err != nil {
		return err
	}
	l.period, l.killed = clusterPeriod, true
	faults := make(chan error, 1)
	go func() { faults <- c.harm(ctx) }()
	results, took, err := l.sendAll(ctx, c.addresses(), nil)
	if err = errors.Join(err, <-faults); err != nil {
		return err
	}
	if err := c.compare(); err != nil {
		return err
	}
	if err := c.stop(); err != nil {
		return err
	}
	l.bets = c.offices[0].store()
	return l.settle(results, took)
}

// start starts the engines, puts an empty store into a new stream, and starts the offices.
func (c *cluster) start(ctx context.Context) (err error) {
	dir, err := filepath.Abs(c.runDir)
	if err != nil {
		return err
	}
	if c.engines, err = proc.StartEngines(filepath.Join(dir, "engines"), 3); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "three engines run: %s\n", c.engines.Servers())
	for _, name := range []string{"a", "b"} {
		o := &office{name: name, dir: filepath.Join(c.runDir, "office-"+name), port: "0"}
		c.offices = append(c.offices, o)
		if err := os.Mkdir(o.dir, 0o700); err != nil {
			return err
		}
	}
	first := c.offices[0]
	replicate, err := proc.Start(ctx, filepath.Join(c.runDir, "replicate.log"), c.env(), c.program,
		"-mode=replicate", "-config="+c.configFile(), "-store.path="+first.store())
	if err == nil {
		err = replicate.Wait()
	}
	for _, o := range c.offices {
		if err == nil {
			err = c.open(ctx, o)
		}
	}
	return err
}

// env is what the servers find in their environment.
func (c *cluster) env() []string {
	return append(os.Environ(), "STREAM_SERVERS="+c.engines.Servers(), "STREAM_MONITOR="+c.engines.Monitors(),
		"STREAM_USER="+proc.EngineUser, "STREAM_PASSWORD="+proc.EnginePassword)
}

// open starts an office, at the port that it had before.
func (c *cluster) open(ctx context.Context, o *office) (err error) {
	o.started++
	log := filepath.Join(c.runDir, fmt.Sprintf("office-%s-%d.log", o.name, o.started))
	if o.server, o.port, err = c.startServer(ctx, log, o.store(), o.port, c.env()); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "office %s listens on port %s, its log is %s\n", o.name, o.port, log)
	return nil
}

// addresses is what the clients are given.
func (c *cluster) addresses() string {
	var all []string
	for _, o := range c.offices {
		all = append(all, "127.0.0.1:"+o.port)
	}
	return strings.Join(all, ",")
}

// harm kills the office that takes the bets, with its folder, and then the engine that leads, as
// soon as a third and half of all bets are stored. It returns when both are there again.
func (c *cluster) harm(ctx context.Context) error {
	all := 0
	for id := range c.sizes {
		records, err := countFile(c.dataFile(id + 1))
		if err != nil {
			return err
		}
		all += records
	}
	if err := c.awaitRows(ctx, c.offices[1], all/3); err != nil {
		return err
	}
	o := c.offices[0]
	if held := c.offices[1]; logHas(held.server.Log, "action: term | result: success") {
		o = held
	}
	o.server.Kill()
	if err := os.RemoveAll(o.dir); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "killed office %s, and wiped its folder\n", o.name)
	other := c.offices[0]
	if other == o {
		other = c.offices[1]
	}
	if err := c.awaitRows(ctx, other, all/2); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(o.dir, 0o700), c.open(ctx, o)); err != nil {
		return err
	}
	leader := c.engines.Leader("TP0")
	if leader == nil {
		return errors.New("no engine leads the stream")
	}
	leader.Kill()
	fmt.Fprintf(c.out, "killed %s, which led\n", leader.Name)
	if err := c.awaitRows(ctx, other, 2*all/3); err != nil {
		return err
	}
	if err := leader.Start(); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "started %s again\n", leader.Name)
	return c.engines.Ready()
}

// awaitRows waits until an office has stored that many bets.
func (c *cluster) awaitRows(ctx context.Context, o *office, rows int) error {
	for end := time.Now().Add(catchUpTimeout); ; time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(o.store())
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && bytes.Count(data, []byte{'\n'}) >= rows:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("office %s has not got %s bets within %v: see %s", o.name, grouped(rows), catchUpTimeout,
				o.server.Log)
		}
	}
}

// logHas reports whether a log has a line with text.
func logHas(path, text string) bool {
	data, err := os.ReadFile(path)
	return err == nil && strings.Contains(string(data), text)
}

// compare waits until the files of all offices are the same, byte by byte.
func (c *cluster) compare() error {
	var sums []string
	for end := time.Now().Add(catchUpTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		sums = sums[:0]
		for _, o := range c.offices {
			sum, err := sumOf(o.store())
			if err != nil {
				return err
			}
			sums = append(sums, sum)
		}
		if sums[0] == sums[1] {
			fmt.Fprintf(c.out, "the bets of both offices are the same: SHA-256 %s\n", sums[0])
			return nil
		}
	}
	return fmt.Errorf("the bets of the offices differ: SHA-256 %s and %s", sums[0], sums[1])
}

// sumOf returns the SHA-256 of a file.
func sumOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// stop stops what runs.
func (c *cluster) stop() (err error) {
	for _, o := range c.offices {
		if o.server != nil && !o.server.Ended() {
			err = errors.Join(err, o.server.Stop())
		}
	}
	if c.engines != nil {
		c.engines.Stop()
	}
	return err
}
