package e2e

import (
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// launchStuck starts the program with a standard output that is full: it takes nothing until the
// pipe is read. What was in it before the program's lines are '#'s.
func launchStuck(t *testing.T, dir, name string, args ...string) (p *process, reader *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	writer.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil {
		_, err = writer.Write([]byte(strings.Repeat("#", 4096)))
	}
	cmd := programCommand(dir, nil, args...)
	cmd.Stdout = writer
	p = launchCommand(t, name, cmd)
	p.plain = true
	writer.Close()
	return p, reader
}

// openStuckOffice starts a server whose log nobody reads, and waits until it answers.
func openStuckOffice(t *testing.T) (o *office, reader *os.File) {
	t.Helper()
	o = &office{dir: t.TempDir(), port: freePort(t)}
	o.process, reader = launchStuck(t, o.dir, "server", "-mode=server", "-server.host=127.0.0.1",
		"-server.port="+strconv.Itoa(o.port))
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", o.address())
		if err == nil {
			conn.Close()
			return o, reader
		}
		if time.Now().After(deadline) {
			t.Fatalf("a server whose log nobody reads: %v, want it to listen", err)
		}
	}
}

// wantTold wants standard error to say once that the log is not written.
func (p *process) wantTold() {
	p.t.Helper()
	wantOneLine(p.t, "standard error", p.errs.String(), "tp0: standard output: ", "goes on without its log")
}

// TestE2ELogThatNobodyReads: a server goes on, counts the lines that it drops, and says so where
// they are missing once somebody reads again.
func TestE2ELogThatNobodyReads(t *testing.T) {
	t.Parallel()
	o, reader := openStuckOffice(t)
	w := o.dial(t)
	sent := 0
	send := func(n int) {
		for range n {
			w.send(wireBatch(wireBet(1, "Ana", "Paz", "1", "2000-01-01", sent%1000)))
			w.wantAck(0, "")
			sent++
		}
	}
	for deadline := time.Now().Add(patience); o.errs.String() == ""; {
		send(10)
		if time.Now().After(deadline) {
			t.Fatal("nothing on standard error, want it to say that the log is not written")
		}
	}
	send(1500)
	said := func(text string) bool { return strings.Contains(text, "action: log | result: fail") }
	var text string // read until it is said how many lines are missing: those of the stop are none of them
	for chunk := make([]byte, 64<<10); !said(text); {
		n, err := reader.Read(chunk)
		if err != nil {
			t.Fatal(err)
		}
		text += string(chunk[:n])
	}
	read := make(chan string)
	go func() {
		rest, _ := io.ReadAll(reader)
		read <- strings.TrimLeft(text+string(rest), "#")
	}()
	send(1)
	o.signal(syscall.SIGTERM)
	o.wantExit(exitDone)
	text = <-read
	o.wantTold()
	if !strings.HasSuffix(text, "action: shutdown | result: success\n") {
		t.Errorf("got %q at the end of the log, want shutdown", tail(text))
	}
	lines, missing := 0, 0
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		checkLogLine(t, line)
		switch {
		case strings.Contains(line, "action: apuesta_recibida | result: success"):
			lines++
		case said(line):
			missing += numberIn(t, line, "lines")
		}
	}
	if missing == 0 || lines+missing != sent {
		t.Errorf("got %d lines of batches, and that %d are missing; want some missing, and %d in all", lines, missing,
			sent)
	}
	if got := strings.Count(o.stored(t), "\n"); got != sent {
		t.Errorf("bets.csv: got %d rows, want %d", got, sent)
	}
}

// TestE2ELogThatIsGone: nobody will ever read what a server or a client says, and they work on.
func TestE2ELogThatIsGone(t *testing.T) {
	t.Parallel()
	o, reader := openStuckOffice(t)
	reader.Close()
	dir, l := clientDir(t, 400)
	c, clientLog := launchStuck(t, dir, "client", "-mode=client", "-id=1", "-data.file=agency-1.csv",
		"-server.address="+o.address(), "-batch.maxAmount=2")
	clientLog.Close()
	c.wantExit(exitDone)
	c.wantTold()
	o.stop()
	o.wantTold()
	wantRows(t, o.stored(t), l)
}

// TestE2EClientLogThatNobodyReads has more lines than a client keeps for a reader that may come
// back.
func TestE2EClientLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	dir, l := clientDir(t, 2500)
	c, _ := launchStuck(t, dir, "client", "-mode=client", "-id=1", "-data.file=agency-1.csv",
		"-server.address="+o.address(), "-batch.maxAmount=1")
	c.wantExit(exitDone)
	c.wantTold()
	o.stop()
	wantRows(t, o.stored(t), l)
}

// TestE2ESecondSignalAndNobodyReads: the second signal ends the program whatever the log does.
func TestE2ESecondSignalAndNobodyReads(t *testing.T) {
	t.Parallel()
	o, _ := openStuckOffice(t)
	w := o.dial(t)
	w.send(append(wireBatch(), 3, 0, 1, 1)) // the server waits for the rest of a message
	w.wantAck(0, "")
	for ended := false; !ended; {
		o.Cmd.Process.Signal(syscall.SIGTERM) // two of them at once may be seen as one
		select {
		case <-o.Done:
			ended = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	o.wantExit(exitFailed)
	if errs := o.errs.String(); strings.Count(errs, "\n") > 1 {
		t.Errorf("got %q on standard error, want a line at most", errs)
	}
}
