package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// peakMemory returns the most memory that a process has had, in KiB.
func (p *process) peakMemory() int {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// flood sends m over several connections until the server takes no more, and reads no answer.
func (o *office) flood(t *testing.T, connections int, m []byte) {
	t.Helper()
	done := make(chan net.Conn)
	for range connections {
		conn := o.dial(t).Conn
		go func() {
			conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
			conn.Write(m)
			done <- conn
		}()
	}
	var held []net.Conn
	for range connections {
		held = append(held, <-done)
	}
	w := o.dial(t)
	for range 500 { // the server goes on, and has time to take what it will take
		w.send(wireBatch())
		w.wantAck(0, "")
	}
	for _, conn := range held {
		conn.Close()
	}
}

// TestE2EAnswersNotRead: what strangers ask for and do not read takes little of the server's
// memory.
func TestE2EAnswersNotRead(t *testing.T) {
	t.Parallel()
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const most = 16 << 10 // KiB more than before
	o := openOffice(t, "-draw.agencies=1", "-draw.winner=7574")
	w := o.dial(t)
	for i := range 40 {
		var bets [][]byte
		for j := range 125 {
			bets = append(bets, wireBet(1, "Ana", "Paz", strconv.Itoa(10_000_000+i*125+j), "2000-01-01", 7574))
		}
		w.send(wireBatch(bets...))
		w.wantAck(0, "")
	}
	w.send([]byte{4, 1, 0})
	for code := 0; code != 4; {
		w.send([]byte{4, 1, 1})
		code, _ = w.receiveAck()
	}
	before := o.peakMemory()
	o.flood(t, 10, bytes.Repeat([]byte{4, 1, 1}, 1024))
	if grown := o.peakMemory() - before; grown > most {
		t.Errorf("winners: got %d KiB more, want %d at most", grown, most)
	}
	bad := append([]byte{3, 1, 0xf4}, bytes.Repeat(wireBet(1, "", "", "", "", 0), 500)...)
	before = o.peakMemory()
	o.flood(t, 10, bytes.Repeat(bad, 2000))
	if grown := o.peakMemory() - before; grown > most {
		t.Errorf("refused batches: got %d KiB more, want %d at most", grown, most)
	}
}

// startLimited starts a server that may open so many files.
func startLimited(t *testing.T, files int) *office {
	t.Helper()
	o := &office{dir: t.TempDir(), port: freePort(t)}
	cmd := programCommand(o.dir, nil, "-mode=server", "-server.host=127.0.0.1", "-server.port="+strconv.Itoa(o.port))
	cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files), cmd.Path},
		cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	o.process = launchCommand(t, "server", cmd)
	o.waitFor("action: listen | result: success")
	return o
}

// TestE2EFewDescriptors has more connections than the server may open files: it takes as many as
// leave enough for its store, and the rest wait for their turn.
func TestE2EFewDescriptors(t *testing.T) {
	t.Parallel()
	for _, files := range []int{64, 256} {
		t.Run(strconv.Itoa(files), func(t *testing.T) {
			t.Parallel()
			o := startLimited(t, files)
			most := numberIn(t, o.waitFor("action: listen", "conn_max: "), "conn_max")
			if most < 1 || most > files-20 {
				t.Errorf("got conn_max %d with %d files", most, files)
			}
			busy := o.dial(t)
			busy.send(wireBatch())
			busy.wantAck(0, "")
			var idle []*wire
			for range files + 20 {
				w := o.dial(t)
				w.send(wireBatch())
				idle = append(idle, w)
			}
			for _, w := range idle[:most-1] {
				w.wantAck(0, "")
			}
			// So much that checkpoints are made meanwhile, which open files.
			batch := append([]byte{3, 0, 150},
				bytes.Repeat(wireBet(1, "Ana", "Paz", "12345678", "2000-01-01", 1), 150)...)
			const window, batches = 32, 4000
			for n := range batches + window {
				if n < batches {
					busy.send(batch)
				}
				if n >= window {
					busy.wantAck(0, "")
				}
			}
			for i, w := range idle { // each leaves, and lets the next one in
				if i >= most-1 {
					w.wantAck(0, "")
				}
				w.Close()
			}
			busy.Close()
			o.stop()
			o.wantNoFail()
			if got := strings.Count(o.stored(t), "\n"); got != 150*batches {
				t.Errorf("got %d rows, want %d", got, 150*batches)
			}
		})
	}
}

// limitFiles sets how many files a running process may open.
func (p *process) limitFiles(n uint64) {
	p.t.Helper()
	limit := syscall.Rlimit{Cur: n, Max: 1024}
	_, _, err := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(p.Cmd.Process.Pid), syscall.RLIMIT_NOFILE,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if err != 0 {
		p.t.Fatalf("prlimit: %v", err)
	}
}

// TestE2EDescriptorsRunOut takes away the right to open more files while a server runs. It waits
// until it may again, says so once, and answers those that it has meanwhile.
func TestE2EDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	o := startLimited(t, 1024)
	w := o.dial(t)
	w.send(wireBatch())
	w.wantAck(0, "")
	o.limitFiles(3)
	late := o.dial(t)
	late.send(wireBatch())
	o.waitFor("action: accept_connections | result: fail")
	for i := range 100 {
		w.send(wireBatch(wireBet(1, "Ana", "Paz", "1", "2000-01-01", i)))
		w.wantAck(0, "")
	}
	time.Sleep(500 * time.Millisecond) // it would say it again now
	o.limitFiles(1024)
	late.wantAck(0, "")
	late.Close()
	w.Close()
	o.stop()
	if got := len(o.lines("action: accept_connections | result: fail")); got != 1 {
		t.Errorf("got %d lines that say that no connection could be accepted, want 1", got)
	}
}
