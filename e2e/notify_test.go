package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A manager plays systemd: it hears what a server tells it.
type manager struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &manager{t, socket, path}
}

// hear returns the next datagram, or "" if none comes within limit.
func (m *manager) hear(limit time.Duration) string {
	m.t.Helper()
	datagram := make([]byte, 4096)
	m.socket.SetReadDeadline(time.Now().Add(limit))
	n, err := m.socket.Read(datagram)
	if err != nil && !os.IsTimeout(err) {
		m.t.Fatal(err)
	}
	return string(datagram[:n])
}

// waitFor returns once a datagram with a text has come.
func (m *manager) waitFor(text string) string {
	m.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if heard := m.hear(time.Until(end)); strings.Contains(heard, text) {
			return heard
		}
	}
	m.t.Fatalf("got no datagram with %q", text)
	return ""
}

// waitForSilence returns once limit has passed without a datagram.
func (m *manager) waitForSilence(limit time.Duration) {
	m.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if m.hear(limit) == "" {
			return
		}
	}
	m.t.Fatalf("got datagrams all the time, want %v without", limit)
}

// watched starts a server with a manager that wants to hear from it each watchdog.
func (m *manager) watched(dir string, watchdog time.Duration) (p *process, port int) {
	m.t.Helper()
	port = freePort(m.t)
	env := []string{"NOTIFY_SOCKET=" + m.path, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds())}
	p = launchCommand(m.t, "server", programCommand(dir, env, "-mode=server", "-server.host=127.0.0.1",
		fmt.Sprintf("-server.port=%d", port)))
	return p, port
}

// TestNotify has a server tell its manager that it recovers, is ready, lives while nothing happens,
// and stops. READY comes when it can be connected to, after what a crash had left was repaired.
func TestNotify(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	dir, _ := clientDir(t, 300)
	o.client(t, dir, 1).wantExit(exitDone)
	o.kill()
	m := newManager(t)
	s, port := m.watched(o.dir, 2*time.Second)
	if first := m.hear(patience); !strings.HasPrefix(first, "STATUS=Recovering") {
		t.Errorf("got %q first, want STATUS=Recovering…", first)
	}
	ready := m.waitFor("READY=1")
	if !strings.Contains(ready, fmt.Sprintf("\nSTATUS=Taking bets on 127.0.0.1:%d.", port)) {
		t.Errorf("got %q, want a STATUS with the address in it", ready)
	}
	s.waitFor("action: recover") // it is in the log already
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Errorf("after READY: %v", err)
	} else {
		conn.Close()
	}
	for range 5 { // more than two of the watchdog's periods, and nothing to do
		if heard := m.hear(patience); heard != "WATCHDOG=1" {
			t.Errorf("got %q from an idle server, want WATCHDOG=1", heard)
		}
	}
	s.stop()
	m.waitFor("STOPPING=1")
}

// TestWatchdog holds up every sync of a running server from outside, by strace: a server whose
// disk hangs feeds its watchdog no more; once the disk goes on, so does the server.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	needs(t, "strace")
	const period = 2 * time.Second
	m := newManager(t)
	dir := t.TempDir()
	s, port := m.watched(dir, period)
	m.waitFor("READY=1")
	m.waitFor("WATCHDOG=1")
	hang := startHang(t, s, time.Hour)
	lots := makeLots(t, dir, 1, 5, 1)
	c := startClient(t, dir, 1, fmt.Sprintf("127.0.0.1:%d", port))
	m.waitForSilence(period)
	hang()
	m.waitFor("WATCHDOG=1")
	c.wantExit(exitDone)
	s.stop()
	stored, err := os.ReadFile(filepath.Join(dir, "bets.csv"))
	if err != nil {
		t.Fatal(err)
	}
	wantRows(t, string(stored), lots...)
}

// startHang makes every sync of p take that much longer, until the function that it returns is
// called. It skips the test where processes may not be traced.
func startHang(t *testing.T, p *process, delay time.Duration) (end func()) {
	t.Helper()
	inject := fmt.Sprintf("inject=fdatasync,fsync:delay_enter=%d", delay.Microseconds())
	cmd := exec.Command("strace", "-f", "-e", "trace=fdatasync,fsync", "-e", inject, "-o", "/dev/null",
		"-p", fmt.Sprint(p.Cmd.Process.Pid))
	var said lineLog
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Skipf("SKIPPED: strace: %v", err)
	}
	end = sync.OnceFunc(func() {
		cmd.Process.Signal(os.Interrupt) // then it lets go of what it holds
		cmd.Wait()
	})
	t.Cleanup(end)
	limit := time.Now().Add(patience)
	for ; !strings.Contains(said.String(), "attached"); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(said.String(), "not permitted") || time.Now().After(limit) {
			t.Skipf("SKIPPED: strace cannot trace here: %s", said.String())
		}
	}
	return end
}
