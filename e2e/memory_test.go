package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tp0/tools/torture"
)

// plain is the program of this machine without the race detector, whose memory is another.
var plain = &machine{name: runtime.GOARCH, env: []string{"GOARCH=" + runtime.GOARCH}}

// limited makes cmd run in a control group of its own with so many bytes of memory, as a container
// or a unit does, where this user may make one. Elsewhere the collector is told by GOMEMLIMIT what
// the program would have told it. It returns what was done.
func limited(t *testing.T, cmd *exec.Cmd, bytes int) string {
	t.Helper()
	for _, kind := range []struct{ root, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, // version 1
		{"/sys/fs/cgroup", "memory.max"},                   // version 2
	} {
		group := filepath.Join(kind.root, fmt.Sprintf("tp0-test-%d-%s", os.Getpid(), t.Name()))
		if _, err := os.Stat(kind.root); err != nil || os.Mkdir(group, 0o755) != nil && !isDir(group) {
			continue
		}
		remove := func() { // it is busy for a moment after its last process
			for end := time.Now().Add(5 * time.Second); os.Remove(group) != nil && time.Now().Before(end); {
				time.Sleep(50 * time.Millisecond)
			}
		}
		t.Cleanup(remove)
		if os.WriteFile(filepath.Join(group, kind.limit), []byte(strconv.Itoa(bytes)), 0) != nil {
			remove()
			continue
		}
		args := []string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, group, cmd.Path}
		cmd.Path, cmd.Args = "/bin/sh", append(args, cmd.Args[1:]...)
		return "a control group"
	}
	t.Log("SKIPPED: no control group of memory can be made here: GOMEMLIMIT instead")
	cmd.Env = append(cmd.Env, fmt.Sprintf("GOMEMLIMIT=%d", bytes/4*3))
	return "GOMEMLIMIT"
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.Done:
		return true
	default:
		return false
	}
}

// peak waits for the end of a process, at most so long, and returns the most memory that it was
// seen to have had at a time, in MiB. (What wait4 tells counts the parent's memory before exec.)
func (p *process) peak(limit time.Duration) float64 {
	p.t.Helper()
	most := 0
	for end := time.Now().Add(limit); !p.ended() && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		most = max(most, p.highWater())
	}
	p.wantExit(exitDone)
	return float64(most) / (1 << 10)
}

// highWater returns the most memory that a running process has had at a time, in KiB.
func (p *process) highWater() int { return p.memory("VmHWM") }

// memory returns what the kernel says of a running process's memory under a name, in KiB.
func (p *process) memory(name string) (kib int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if _, rest, found := strings.Cut(string(status), name+":"); found {
		fmt.Sscan(rest, &kib)
	}
	return kib
}

// TestSmallMemory has many agencies send at once to a server with 24 MiB. All finish, and no
// client has more either.
func TestSmallMemory(t *testing.T) {
	t.Parallel()
	smallMemory(t, 40, 500)
}

// TestTortureSmallMemory is the same with all agencies that there can be.
func TestTortureSmallMemory(t *testing.T) {
	smallMemory(t, torture.Count(t, "AGENCIES", 255), torture.Number(t, "BETS", 20_000))
}

func smallMemory(t *testing.T, agencies, bets int) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: no limit of memory is known for this system")
	}
	const limit = 24 << 20
	dir, port := t.TempDir(), strconv.Itoa(freePort(t))
	cmd := plain.tp0(t, dir, "-mode=server", "-server.host=127.0.0.1", "-server.port="+port)
	how := limited(t, cmd, limit)
	s := launchCommand(t, "server", cmd)
	s.waitFor("action: listen | result: success")
	rows := 0
	for id := 1; id <= agencies; id++ {
		text := must(t, plain.tp0(t, dir, "-mode=sample", fmt.Sprintf("-id=%d", id), fmt.Sprintf("-bets=%d", bets)))
		rows += strings.Count(text, "\n") - strings.Count(text, ",9999\r\n")
		writeFile(t, dir, fmt.Sprintf("agency-%d.csv", id), text)
	}
	began := time.Now()
	var clients []*process
	for id := 1; id <= agencies; id++ {
		client := plain.tp0(t, dir, "-mode=client", fmt.Sprintf("-id=%d", id), "-server.address=127.0.0.1:"+port,
			"-data.file=agency-{id}.csv", "-retry.timeout=20s")
		clients = append(clients, launchCommand(t, fmt.Sprintf("client %d", id), client))
	}
	most := 0.0
	for _, c := range clients {
		most = max(most, c.peak(10*time.Minute))
		c.waitFor("action: verify | result: success")
		if s.ended() {
			t.Fatalf("the server has ended: %v", s.Cmd.ProcessState)
		}
	}
	took, peak := time.Since(began), float64(s.highWater())/(1<<10)
	s.stop()
	stored, err := os.ReadFile(filepath.Join(dir, "bets.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(stored), "\r\n"); got != rows {
		t.Errorf("got %d rows, want %d", got, rows)
	}
	t.Logf("%d agencies of %d bets in %v: server %.1f MiB of 24 by %s, clients %.1f MiB at most",
		agencies, bets, took.Round(10*time.Millisecond), peak, how, most)
	if peak > limit>>20 || most > limit>>20 {
		t.Errorf("got a server of %.1f and a client of %.1f MiB, want %d at most", peak, most, limit>>20)
	}
}

// TestSmallClient has a client with 16 MiB send a file that is larger.
func TestSmallClient(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: no limit of memory is known for this system")
	}
	const limit, bets = 16 << 20, 400_000
	dir, port := t.TempDir(), strconv.Itoa(freePort(t))
	text := must(t, plain.tp0(t, dir, "-mode=sample", "-id=1", fmt.Sprintf("-bets=%d", bets)))
	writeFile(t, dir, "agency-1.csv", text)
	s := launchCommand(t, "server", plain.tp0(t, dir, "-mode=server", "-server.host=127.0.0.1", "-server.port="+port,
		"-log.level=WARNING"))
	cmd := plain.tp0(t, dir, "-mode=client", "-id=1", "-server.address=127.0.0.1:"+port, "-data.file=agency-1.csv")
	how := limited(t, cmd, limit)
	c := launchCommand(t, "client", cmd)
	peak := c.peak(patience)
	c.waitFor("action: verify | result: success")
	s.stop()
	t.Logf("%d MiB sent by a client of %.1f MiB of 16 by %s", len(text)>>20, peak, how)
	if peak > limit>>20 || len(text) <= limit {
		t.Errorf("got a client of %.1f MiB for a file of %d MiB, want less than 16 for more", peak, len(text)>>20)
	}
}

// TestIdleKeys has many connections with keys send what a file holds, and keep still. Then each
// takes 40 KiB of the server at most: the server has given back what only the work took.
func TestIdleKeys(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: it is not known how to ask this system for a process's memory")
	}
	const agencies, each, most = 16, 32, 40
	k := newKeyring(t, agencies)
	o := &office{dir: t.TempDir(), port: freePort(t)}
	o.process = launchCommand(t, "server", plain.tp0(t, o.dir, "-mode=server", "-server.host=127.0.0.1",
		"-server.port="+strconv.Itoa(o.port), "-tls.cert="+k.file("server.pem"), "-tls.known="+k.file("known")))
	o.waitFor("action: listen | result: success")
	before := 0
	for agency := 1; agency <= agencies; agency++ {
		bet := wireBet(agency, "Santiago Lionel", "Lorca", "30904465", "1999-03-17", 7574)
		batch := wireBatch(slices.Repeat([][]byte{bet}, 150)...)
		config := keyConfig(t, k.file(fmt.Sprintf("agency-%d.pem", agency)))
		for range each {
			w := o.dialTLS(t, config)
			for range 4 {
				w.send(slices.Concat(batch, batch)) // a record of 15 KB, as the program's clients make them
				w.wantAck(0, "")
				w.wantAck(0, "")
			}
			if before == 0 {
				before = o.memory("VmRSS")
			}
		}
	}
	const others = 1 << 10 // KiB that the work has taken for good, whoever did it
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		now := o.memory("VmRSS") - before - others
		if now <= most*agencies*each {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %d KiB a connection, want %d at most", now/(agencies*each), most)
		}
	}
	o.stop()
}
