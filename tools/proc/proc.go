// Package proc runs tp0 as a process and reads its log. Tools and tests share it.
package proc

import (
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
	// stopTimeout is how long a process may take after SIGTERM: more than tp0 takes to let its
	// work finish (5 s).
	stopTimeout = 10 * time.Second

	// pollPeriod is the pause between two looks at a log. A log is a file from the start, not a
	// pipe: it must be there in full when something fails, and the program must not depend on a
	// reader.
	pollPeriod = time.Millisecond

	// tailLines is how much of its log is shown of a process that failed.
	tailLines = 8
)

// A Process is a program that runs, or ran.
type Process struct {
	Cmd   *exec.Cmd
	Name  string // "server", "client-1"
	Log   string // path of the file that its standard output and error go to; empty where they do not
	Began time.Time
	Done  chan struct{} // closed when it has ended
	Took  time.Duration // from start to end; to be read after Done is closed
	err   error         // how it ended; likewise
}

// Run starts cmd, which ends at the latest with this process.
func Run(name string, cmd *exec.Cmd) (*Process, error) {
	Tie(cmd)
	p := &Process{Cmd: cmd, Name: name, Began: time.Now(), Done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w (make build first?)", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		p.Took = time.Since(p.Began)
		close(p.Done)
	}()
	return p, nil
}

// Start starts a program whose output goes into a log, with env as its environment (nil: this
// process's own). When ctx ends it gets SIGTERM, and is killed if that does not help.
func Start(ctx context.Context, log string, env []string, program string, args ...string) (*Process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the child has its own
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, file, file
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	p, err := Run(strings.TrimSuffix(filepath.Base(log), ".log"), cmd)
	if err == nil {
		p.Log = log
	}
	return p, err
}

// Wait returns nil if the process ended with status 0, else an error with the end of its log.
func (p *Process) Wait() error {
	<-p.Done
	if p.Cmd.ProcessState != nil && p.Cmd.ProcessState.Success() {
		return nil // p.err may be the context's although the process ended as it was asked to
	}
	return p.Failed(p.err)
}

// Stop asks the process to end and waits until it has. It may be called again.
func (p *Process) Stop() error {
	p.Cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended already
	select {
	case <-p.Done:
	case <-time.After(stopTimeout):
		p.Cmd.Process.Kill() // Wait then says "signal: killed": that it had to be is a failure
	}
	return p.Wait()
}

// Kill ends the process as a crash does.
func (p *Process) Kill() {
	p.Cmd.Process.Kill()
	<-p.Done
}

// CPU returns the processor time that the process took, once it has ended.
func (p *Process) CPU() time.Duration {
	return p.Cmd.ProcessState.UserTime() + p.Cmd.ProcessState.SystemTime()
}

// Find returns the first event of the log that reports success of an action and has that key.
func (p *Process) Find(action, key string) (found Event, err error) {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return Event{}, err
	}
	for line := range strings.Lines(string(text)) {
		e := Parse(line)
		if _, ok := e.Values[key]; ok && e.Action == action && e.Result == "success" {
			return e, nil
		}
	}
	return Event{}, fmt.Errorf("%s: no `action: %s | result: success` with %s", p.Log, action, key)
}

// WaitFor waits until Find finds an event, and returns the value of its key.
func (p *Process) WaitFor(action, key string, timeout time.Duration) (string, error) {
	for end := time.Now().Add(timeout); ; time.Sleep(pollPeriod) {
		ended := p.Ended() // before the look: a line that was written last is still seen
		e, err := p.Find(action, key)
		switch {
		case err == nil:
			return e.Values[key], nil
		case ended:
			return "", p.Failed(errors.New("ended too early"))
		case time.Now().After(end):
			return "", p.Failed(fmt.Errorf("%w within %v", err, timeout))
		}
	}
}

// Ended reports whether the process is over.
func (p *Process) Ended() bool {
	select {
	case <-p.Done:
		return true
	default:
		return false
	}
}

// Failed says what went wrong with the process, where to look, and what its log says last. It is
// the one error here of several lines: it is for a person at a terminal.
func (p *Process) Failed(reason error) error {
	return fmt.Errorf("%s: %v; the end of %s:\n%s", p.Name, reason, p.Log, tail(p.Log))
}

// tail returns the last lines of a file, indented.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "    " + err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return "    " + strings.Join(lines, "\n    ")
}

// Sample has program write a synthetic agency file. It gets its name only when it is whole and on
// the disk: what the system has still to write of it would be written while something is
// measured.
func Sample(ctx context.Context, program, path string, id, bets int, args ...string) error {
	part, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer part.Close()
	args = append([]string{"-mode=sample", "-id=" + strconv.Itoa(id), "-bets=" + strconv.Itoa(bets)}, args...)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = part, os.Stderr
	if err := errors.Join(cmd.Run(), part.Sync()); err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	return os.Rename(part.Name(), path)
}
