package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// stopTimeout is how long a process may take after SIGTERM: more than tp0 takes to let its work finish (5 s).
	stopTimeout = 10 * time.Second

	// pollPeriod is the pause between two looks at a log. A log is a file from the start, not a pipe: it must
	// be there in full when something fails, and the program must not depend on a reader.
	pollPeriod = 10 * time.Millisecond

	// tailLines is how much of its log is shown of a process that failed.
	tailLines = 8
)

// A process is a running tp0. Its standard output and error go into one file.
type process struct {
	name string // "server", "client-1": its log's name without the ending
	log  string // path of the log
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; to be read after done is closed
}

// start runs a program until it ends or ctx does: then it gets SIGTERM, and is killed when that does not help.
func start(ctx context.Context, log, program string, args ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the child has its own
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w (make build first?)", program, err)
	}
	base := log[strings.LastIndexByte(log, os.PathSeparator)+1:]
	p := &process{name: strings.TrimSuffix(base, ".log"), log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// wait returns nil if the process ended with status 0, else an error with the end of its log.
func (p *process) wait() error {
	<-p.done
	if p.cmd.ProcessState != nil && p.cmd.ProcessState.Success() {
		return nil // p.err may be the context's although the process ended as it was asked to
	}
	return p.failed(p.err)
}

// stop asks the process to end and waits until it has. It may be called again.
func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended already
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		// The error of wait says "signal: killed": that it had to be is a failure.
		p.cmd.Process.Kill()
	}
	return p.wait()
}

// waitFor returns the value of a key in the first line of the log that reports success of an action.
func (p *process) waitFor(action, key string, timeout time.Duration) (string, error) {
	for end := time.Now().Add(timeout); ; time.Sleep(pollPeriod) {
		ended := p.ended() // before the look: a line that was written last is still seen
		text, err := os.ReadFile(p.log)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			e := parseEvent(line)
			if value, found := e.values[key]; found && e.action == action && e.result == "success" {
				return value, nil
			}
		}
		if ended {
			return "", p.failed(errors.New("ended too early"))
		}
		if time.Now().After(end) {
			return "", p.failed(fmt.Errorf("no `action: %s | result: success` with %s within %v", action, key, timeout))
		}
	}
}

// ended says whether the process is over.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// failed says what went wrong with the process, where to look, and what its log says last. It is the one error
// here of several lines: it is for a person at a terminal.
func (p *process) failed(reason error) error {
	return fmt.Errorf("%s: %v; the end of %s:\n%s", p.name, reason, p.log, tail(p.log))
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
