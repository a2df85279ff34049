package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// startTimeout is how long a server may take until it listens.
	startTimeout = 60 * time.Second
	// pollPeriod is the pause between two looks at something that another process does.
	pollPeriod = time.Millisecond
	// memoryPeriod is the pause between two looks at a process's memory. A look costs some 20 µs.
	memoryPeriod = 20 * time.Millisecond
)

// A process is a running tp0; what it prints goes into a file.
type process struct {
	log   string
	cmd   *exec.Cmd
	began time.Time
	done  chan struct{} // closed when it has ended
	err   error         // how it ended; to be read after done is closed
	took  time.Duration // likewise
	peak  int64         // most resident bytes that watch saw; to be read after done is closed
}

// start starts the program. The end of ctx kills it.
func (b *bench) start(ctx context.Context, log string, args ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the child has its own
	p := &process{log: log, cmd: exec.CommandContext(ctx, b.program, append(args, "-config="+b.config)...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.Env = clean(os.Environ())
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		p.err = p.cmd.Wait()
		p.took = time.Since(p.began)
		close(ended)
	}()
	go p.watch(ended)
	return p, nil
}

// watch looks at the process's peak of memory from time to time until it has ended: a peak of its last few milliseconds may be missed.
//
// The system's own account of an ended process serves only where there is no /proc: on Linux a child begins it with the peak of the process that
// started it, which is this tool's.
func (p *process) watch(ended <-chan struct{}) {
	defer close(p.done)
	look := time.NewTicker(memoryPeriod)
	defer look.Stop()
	for {
		select {
		case <-ended:
			if p.peak == 0 {
				p.peak = peakRSS(p.cmd.ProcessState)
			}
			return
		case <-look.C:
		}
		if peak, known := memory(p.cmd.Process.Pid, "VmHWM"); known {
			p.peak = peak
		}
	}
}

// clean leaves the program's own settings out of an environment: what is measured is what the flags say.
func clean(environ []string) (kept []string) {
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		ours := false
		for _, prefix := range []string{"CLI_", "SERVER_", "BETS_", "STORE_", "CONN_", "DRAW_", "LOGGING_"} {
			ours = ours || strings.HasPrefix(name, prefix)
		}
		if !ours {
			kept = append(kept, e)
		}
	}
	return kept
}

// wait waits for the process to end by itself.
func (p *process) wait() error {
	<-p.done
	if p.err == nil {
		return nil
	}
	text, _ := os.ReadFile(p.log)
	return fmt.Errorf("%s: %w: %s", filepath.Base(p.log), p.err, text[max(0, len(text)-500):])
}

// stop ends the process in good order.
func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended already
	return p.wait()
}

// kill ends the process as a crash does.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// cpu returns the processor time that the process took, once it has ended.
func (p *process) cpu() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// find returns the value of key in the first line about action in the process's log.
func (p *process) find(action, key string) (value string, found bool) {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return "", false
	}
	return findValue(text, action, key)
}

// findValue returns the value of key in the first whole line about action that has it.
func findValue(log []byte, action, key string) (value string, found bool) {
	for line := range bytes.Lines(log) {
		_, event, ours := strings.Cut(string(line), "action: "+action+" | ")
		if !ours || !strings.HasSuffix(event, "\n") { // another action, or still being written
			continue
		}
		for field := range strings.SplitSeq(strings.TrimSuffix(event, "\n"), " | ") {
			if name, value, _ := strings.Cut(field, ": "); name == key {
				return value, true
			}
		}
	}
	return "", false
}

// findNumber is find for a number.
func (p *process) findNumber(action, key string) (float64, error) {
	text, found := p.find(action, key)
	n, err := strconv.ParseFloat(text, 64)
	if !found || err != nil {
		return 0, fmt.Errorf("%s: no number %q in a line about %s", p.log, key, action)
	}
	return n, nil
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
	return b.restartServer(ctx, dir)
}

// restartServer starts a server on the store that is in dir, and returns once it listens.
func (b *bench) restartServer(ctx context.Context, dir string) (*server, error) {
	s := &server{dir: dir}
	var err error
	s.process, err = b.start(ctx, filepath.Join(dir, "server.log"), "-mode=server", "-server.host=127.0.0.1", "-server.port=0", "-store.path="+s.bets())
	if err != nil {
		return nil, err
	}
	for {
		port, found := s.find("listen", "port")
		s.ready = time.Since(s.began)
		if found {
			s.address = "127.0.0.1:" + port
			return s, nil
		}
		select {
		case <-s.done:
			return nil, errors.Join(errors.New("the server does not start"), s.wait())
		case <-time.After(pollPeriod):
		}
		if s.ready > startTimeout {
			s.kill()
			return nil, fmt.Errorf("the server does not listen after %v", startTimeout)
		}
	}
}

// drop removes the server's folder.
func (s *server) drop() error { return os.RemoveAll(s.dir) }
