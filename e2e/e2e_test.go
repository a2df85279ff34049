// Package e2e looks at the whole program from outside: real processes, real sockets, real files.
// It knows nothing of the program's inside.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tp0/tools/proc"
)

const (
	// patience is how long a test waits for what must happen. It is generous: no test asserts how
	// long something takes.
	patience = 60 * time.Second
	// shownTail is how much of each log a failed test shows, in bytes.
	shownTail = 4 << 10
)

// processesLeft counts the processes that were started and have not ended.
var processesLeft atomic.Int32

func TestMain(m *testing.M) {
	status := m.Run()
	os.RemoveAll(programDir)
	machinesMade.Range(func(dir, _ any) bool { return os.RemoveAll(dir.(string)) == nil })
	if left := processesLeft.Load(); left != 0 {
		fmt.Fprintf(os.Stderr, "got %d processes left behind, want 0\n", left)
		status = 1
	}
	os.Exit(status)
}

// A lineLog keeps what a process writes, and wakes those that wait for it.
type lineLog struct {
	mu      sync.Mutex // protects following
	text    []byte
	changed chan struct{} // closed when text has grown
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return len(p), nil
}

// from returns the whole lines from offset on, where they end, and what is closed when there are
// more.
func (l *lineLog) from(offset int) (lines string, end int, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	end = max(offset, bytes.LastIndexByte(l.text, '\n')+1)
	return string(l.text[offset:end]), end, l.changed
}

func (l *lineLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// A process is the program, running. All its log lines are checked when the test ends.
type process struct {
	*proc.Process
	t     *testing.T
	out   lineLog
	errs  lineLog
	shot  bool // it was sent SIGKILL: its last line may be torn
	plain bool // its output is no log
}

// programCommand returns the command that runs the program in dir with nothing in its environment
// but env.
func programCommand(dir string, env []string, args ...string) *exec.Cmd {
	path, err := program()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	env = append(keyVariables(args), env...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0 " + os.Getenv("GORACE")}, env...)
	return cmd
}

// launchCommand starts the program by cmd. At the end of the test it is stopped if it has not
// been, and its log is checked.
func launchCommand(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t}
	if cmd.Stderr = &p.errs; cmd.Stdout == nil {
		cmd.Stdout = &p.out
	}
	running, err := proc.Run(name, cmd)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p.Process = running
	processesLeft.Add(1)
	t.Cleanup(p.finish)
	return p
}

// launch starts the program in dir.
func launch(t *testing.T, dir, name string, args ...string) *process {
	t.Helper()
	return launchCommand(t, name, programCommand(dir, nil, args...))
}

// finish ends the process if the test has not, and looks at what it has written.
func (p *process) finish() {
	select {
	case <-p.Done:
	default:
		p.kill()
	}
	processesLeft.Add(-1)
	if !p.plain {
		p.checkLog()
	}
	errs := p.errs.String()
	for _, bad := range []string{"DATA RACE", "goroutine ", "panic", "fatal error"} {
		if strings.Contains(errs, bad) {
			p.t.Errorf("%s: got %q on standard error:\n%s", p.Name, bad, errs[:min(len(errs), shownTail)])
			break
		}
	}
	if p.t.Failed() {
		p.t.Logf("%s (%v) wrote:\n%s%s", p.Name, p.Cmd.ProcessState, tail(p.out.String()), tail(errs))
	}
}

// checkLog checks every line of the log.
func (p *process) checkLog() {
	text := p.out.String()
	if whole := strings.LastIndexByte(text, '\n') + 1; whole < len(text) {
		if !p.shot {
			p.t.Errorf("%s: got %q without a line break at the end", p.Name, text[whole:])
		}
		text = text[:whole]
	}
	for line := range strings.Lines(text) {
		checkLogLine(p.t, strings.TrimSuffix(line, "\n"))
	}
}

// tail returns the end of a text, in whole lines.
func tail(text string) string {
	if len(text) <= shownTail {
		return text
	}
	text = text[len(text)-shownTail:]
	return "…" + text[strings.IndexByte(text, '\n')+1:]
}

// kill ends the process as a crash would.
func (p *process) kill() {
	p.shot = true
	p.Kill()
}

// signal sends a signal.
func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("%s: sending %v: %v", p.Name, sig, err)
	}
}

// wantExit waits for the end of the process and compares its exit status.
func (p *process) wantExit(status int) {
	p.t.Helper()
	select {
	case <-p.Done:
	case <-time.After(patience):
		p.signal(syscall.SIGQUIT) // shows where it hangs
		p.t.Fatalf("%s: still running, want exit status %d", p.Name, status)
	}
	if got := p.Cmd.ProcessState.ExitCode(); got != status {
		p.t.Fatalf("%s: got %v, want exit status %d", p.Name, p.Cmd.ProcessState, status)
	}
}

// stop stops the process with SIGTERM; it must exit with 0.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.wantExit(exitDone)
}

// waitFor waits for a log line that holds all parts, and returns it.
func (p *process) waitFor(parts ...string) string {
	p.t.Helper()
	line, _ := p.waitFrom(0, parts...)
	return line
}

// waitFrom is waitFor for a line that starts at offset or behind it; end is where the line was
// seen to end or later.
func (p *process) waitFrom(offset int, parts ...string) (found string, end int) {
	p.t.Helper()
	deadline := time.After(patience)
	for over := false; ; {
		lines, next, changed := p.out.from(offset)
		for line := range strings.Lines(lines) {
			offset += len(line)
			if holdsAll(line, parts) {
				return strings.TrimSuffix(line, "\n"), offset
			}
		}
		offset = next
		if over {
			p.t.Fatalf("%s: it ended (%v) without a line of %q", p.Name, p.Cmd.ProcessState, parts)
		}
		select {
		case <-changed:
		case <-p.Done:
			over = true
		case <-deadline:
			p.t.Fatalf("%s: got no line of %q", p.Name, parts)
		}
	}
}

func holdsAll(line string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(line, part) {
			return false
		}
	}
	return true
}

// lines returns the whole log lines that hold all parts.
func (p *process) lines(parts ...string) (found []string) {
	text, _, _ := p.out.from(0)
	for line := range strings.Lines(text) {
		if holdsAll(line, parts) {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	return found
}

// wantNoFail wants what a normal run promises: no result: fail.
func (p *process) wantNoFail() {
	p.t.Helper()
	if lines := p.lines("result: fail"); len(lines) > 0 {
		p.t.Errorf("%s: got %q, want no result: fail in a normal run", p.Name, lines[0])
	}
}

// field returns the value of a key in a log line, "" where there is none.
func field(line, key string) string {
	for _, part := range strings.Split(line, " | ") {
		if value, ok := strings.CutPrefix(part, key+": "); ok {
			return value
		}
	}
	return ""
}

// numberIn returns a number in a log line.
func numberIn(t *testing.T, line, key string) int {
	t.Helper()
	n, err := strconv.Atoi(field(line, key))
	if err != nil {
		t.Fatalf("%q: got no number %s", line, key)
	}
	return n
}

// An office is a server with its folder. It may be killed and started again at the same port.
type office struct {
	*process
	dir  string
	port int
	args []string
}

// openOffice starts a server in a folder of its own and waits until it listens.
func openOffice(t *testing.T, args ...string) *office {
	t.Helper()
	o := &office{dir: t.TempDir(), port: freePort(t), args: args}
	o.start(t)
	return o
}

// start starts the server, again at the port it had.
func (o *office) start(t *testing.T) {
	t.Helper()
	o.begin(t)
	o.waitFor("action: listen | result: success", "port: "+strconv.Itoa(o.port))
}

// begin is start, but waits for nothing: there may be something in the server's way.
func (o *office) begin(t *testing.T) {
	t.Helper()
	args := append([]string{"-mode=server", "-server.host=127.0.0.1", "-server.port=" + strconv.Itoa(o.port)},
		o.args...)
	o.process = launch(t, o.dir, "server", args...)
}

func (o *office) address() string { return "127.0.0.1:" + strconv.Itoa(o.port) }

// stored returns bets.csv.
func (o *office) stored(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.dir, "bets.csv"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// dial connects to the server.
func (o *office) dial(t *testing.T) *wire {
	t.Helper()
	return o.dialAs(t, 1)
}

// client starts a client of agency in dir, where its file is agency-ID.csv.
func (o *office) client(t *testing.T, dir string, agency int, args ...string) *process {
	t.Helper()
	return startClient(t, dir, agency, o.address(), args...)
}

func startClient(t *testing.T, dir string, agency int, address string, args ...string) *process {
	t.Helper()
	id := strconv.Itoa(agency)
	return launch(t, dir, "client "+id, append([]string{"-mode=client", "-id=" + id, "-server.address=" + address,
		"-data.file=agency-{id}.csv"}, args...)...)
}

// portsGiven has the ports that freePort has returned: tests run side by side.
var portsGiven sync.Map

// freePort returns a port on which nothing listens, which no other test has, and which is below
// those that the system gives to outgoing connections: so it stays free while a server is away.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 18000 + rand.IntN(12000)
		if _, given := portsGiven.LoadOrStore(port, true); given {
			continue
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port found")
	return 0
}

// runProgram runs the program to its end and returns what it wrote and its exit status. Its
// output is not taken for a log.
func runProgram(t *testing.T, dir string, env []string, args ...string) (out, errs string, status int) {
	t.Helper()
	return runCommand(t, "tp0 "+strings.Join(args, " "), programCommand(dir, env, args...))
}

func runCommand(t *testing.T, name string, cmd *exec.Cmd) (out, errs string, status int) {
	t.Helper()
	p := launchCommand(t, name, cmd)
	p.plain = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-p.Done:
	case <-ctx.Done():
		t.Fatalf("%s: still running", p.Name)
	}
	return p.out.String(), p.errs.String(), p.Cmd.ProcessState.ExitCode()
}

// wantOneLine wants text to be one line that holds all parts.
func wantOneLine(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") || !holdsAll(text, parts) {
		t.Errorf("%s: got %q, want one line of %q", what, text, parts)
	}
}

// writeFile writes a file of a test.
func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// beside runs work in a goroutine that group counts.
func beside(group *sync.WaitGroup, work func()) {
	group.Add(1)
	go func() {
		defer group.Done()
		work()
	}()
}

// checkLogLine fails the test if line, without the line break at its end, is no line of the log.
func checkLogLine(t testing.TB, line string) {
	t.Helper()
	if reason := proc.LineFault(line); reason != "" {
		t.Errorf("log line %q: %s", line, reason)
	}
}
