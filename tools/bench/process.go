package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tp0/tools/proc"
)

const (
	// startTimeout is how long a server may take until it listens.
	startTimeout = 60 * time.Second
	// pollPeriod is the pause between two looks at something that another process does.
	pollPeriod = time.Millisecond
	// memoryPeriod is the pause between two looks at a process's memory.
	memoryPeriod = 20 * time.Millisecond
)

// A process is a running tp0 whose memory is watched.
type process struct {
	*proc.Process
	memory *proc.Watch
}

// start starts the program, which ends with ctx.
func (b *bench) start(ctx context.Context, log string, args ...string) (*process, error) {
	p, err := proc.Start(ctx, log, clean(os.Environ()), b.program, append(args, "-config="+b.config)...)
	if err != nil {
		return nil, err
	}
	return &process{p, p.Watch(memoryPeriod)}, nil
}

// clean leaves the program's own settings out of an environment: what is measured is what the
// flags say.
func clean(environ []string) (kept []string) {
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		ours := false
		for _, prefix := range []string{"CLI_", "SERVER_", "BETS_", "STORE_", "CONN_", "DRAW_", "LOGGING_", "TLS_",
			"STREAM_"} {
			ours = ours || strings.HasPrefix(name, prefix)
		}
		if !ours {
			kept = append(kept, e)
		}
	}
	return kept
}

// findNumber returns the number of the first of keys that a line about action has: versions of
// the program differ in them.
func (p *process) findNumber(action string, keys ...string) (float64, error) {
	for _, key := range keys {
		if e, err := p.Find(action, key); err == nil {
			return strconv.ParseFloat(e.Values[key], 64)
		}
	}
	return 0, fmt.Errorf("%s: no number %q in a line about %s", p.Log, keys, action)
}

// A server is a process with its store in a folder of its own.
type server struct {
	*process
	dir     string
	address string
	ready   time.Duration // from its start until it listened
}

// bets names the server's bets file.
func (s *server) bets() string { return filepath.Join(s.dir, "bets.csv") }

// startServer starts a server in a fresh folder.
func (b *bench) startServer(ctx context.Context) (*server, error) {
	b.serial++
	dir := filepath.Join(b.dir, fmt.Sprintf("store-%d", b.serial))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if b.stream == nil {
		return b.restartServer(ctx, dir)
	}
	fresh := !b.streamed
	if fresh {
		if err := b.replicate(ctx, filepath.Join(dir, "bets.csv")); err != nil {
			return nil, err
		}
		b.streamed = true
	}
	s, err := b.restartServer(ctx, dir)
	if err == nil && fresh {
		err = b.awaitTerm(ctx, dir, s.address)
	}
	return s, err
}

// restartServer starts a server on the store that is in dir, and returns once it listens.
func (b *bench) restartServer(ctx context.Context, dir string) (*server, error) {
	s := &server{dir: dir}
	var err error
	args := append([]string{"-mode=server", "-server.host=127.0.0.1", "-server.port=0", "-store.path=" + s.bets()},
		b.stream...)
	s.process, err = b.start(ctx, filepath.Join(dir, "server.log"), b.withKeys("server.pem", args...)...)
	if err != nil {
		return nil, err
	}
	port, err := s.WaitFor("listen", "port", startTimeout)
	s.ready = time.Since(s.Began)
	if err != nil {
		s.Kill()
		return nil, fmt.Errorf("the server does not start: %w", err)
	}
	s.address = "127.0.0.1:" + port
	return s, nil
}

// drop removes the server's folder.
func (s *server) drop() error { return os.RemoveAll(s.dir) }
