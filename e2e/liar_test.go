package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A liar is a server that does to clients what no server should.
type liar struct {
	address string
	conns   atomic.Int32 // connections taken
}

// A visit is one connection to a liar.
type visit struct {
	net.Conn
	in *bufio.Reader
	n  int // of the connection, from 0
}

// openLiar starts a server that deals with each connection by serve.
func openLiar(t *testing.T, serve func(v *visit)) *liar {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{address: listener.Addr().String()}
	var running sync.WaitGroup
	beside(&running, func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			n := int(l.conns.Add(1)) - 1
			beside(&running, func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				serve(&visit{conn, bufio.NewReader(conn), n})
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return l
}

// hello takes a HELLO and says that the server has so many bets, with this CRC.
func (v *visit) hello(bets uint64, crc uint32) {
	head := make([]byte, 5)
	io.ReadFull(v.in, head)
	io.CopyN(io.Discard, v.in, int64(binary.BigEndian.Uint16(head[3:])))
	v.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64([]byte{7}, bets), crc))
}

// batch takes a BATCH and returns how many bets it has and their bytes.
func (v *visit) batch() (bets int, body []byte) {
	head := make([]byte, 3)
	if _, err := io.ReadFull(v.in, head); err != nil || head[0] != 3 {
		return 0, nil
	}
	var taken bytes.Buffer
	in := io.TeeReader(v.in, &taken)
	bets = int(binary.BigEndian.Uint16(head[1:]))
	for range bets {
		readBet(in)
	}
	return bets, taken.Bytes()
}

// TestE2ENoLife has servers that answer something, but get nowhere: each client gives up after
// retry.timeout, and does not come back faster and faster on the way.
func TestE2ENoLife(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(v *visit){
		"closes":              func(v *visit) {},
		"RESUME, then close":  func(v *visit) { v.hello(0, 0) },
		"RESUME, then ACK 5":  func(v *visit) { v.hello(0, 0); v.batch(); v.Write(ackOf(5, "full")) },
		"answers and forgets": func(v *visit) { v.hello(0, 0); v.batch(); v.Write(ackOf(0, "")) },
		"ACK 5 to HELLO":      func(v *visit) { v.in.ReadByte(); v.Write(ackOf(5, "starting")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, _ := clientDir(t, 3000)
			l := openLiar(t, serve)
			c := startClient(t, dir, 1, l.address, "-retry.timeout=1s", "-conn.idle=500ms")
			c.wantExit(exitFailed)
			wantOneLine(t, "standard error", c.errs.String(), l.address, "gave up after 1s", "retry.timeout")
			// Pauses of 25 ms and more that double leave room for about 10 in a second.
			if got := l.conns.Load(); got > 30 {
				t.Errorf("got %d connections, want few", got)
			}
		})
	}
}

// TestE2ELifeGoesOn has a server that closes after each answer and remembers: however short
// retry.timeout is, the file gets there, and is verified.
func TestE2ELifeGoesOn(t *testing.T) {
	t.Parallel()
	dir, lot := clientDir(t, 2000)
	var mu sync.Mutex // held for a visit: they come one after the other, and the next may begin as the last one ends
	var bets uint64
	var crc uint32
	l := openLiar(t, func(v *visit) {
		mu.Lock()
		defer mu.Unlock()
		v.hello(bets, crc)
		if op, _ := v.in.Peek(1); len(op) == 1 && op[0] == 6 { // the client verifies
			v.hello(bets, crc)
			return
		}
		n, body := v.batch()
		bets, crc = bets+uint64(n), crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), body)
		v.Write(ackOf(0, ""))
	})
	c := startClient(t, dir, 1, l.address, "-retry.timeout=0s", "-batch.maxAmount=10", "-batch.window=1")
	c.wantExit(exitDone)
	c.waitFor("action: verify | result: success", "apuestas: "+strconv.Itoa(len(lot.sizes)))
}

// TestE2EAnswersUnread has a server that answers and reads nothing: a client does not hang on what
// it cannot write.
func TestE2EAnswersUnread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "agency-1.csv", strings.Repeat("Ana,Paz,1,2000-01-01,1\n", 600_000)) // more than sockets hold
	l := openLiar(t, func(v *visit) {
		if v.n > 0 {
			v.Write(ackOf(6, "seen enough"))
			io.Copy(io.Discard, v.in)
			return
		}
		v.hello(0, 0)
		for {
			if _, err := v.Write(ackOf(0, "")); err != nil {
				return
			}
		}
	})
	c := startClient(t, dir, 1, l.address, "-conn.idle=100ms", "-log.level=ERROR")
	c.wantExit(exitFailed)
	wantOneLine(t, "standard error", c.errs.String(), "seen enough")
}

// TestE2ESlowAnswer has an ACK that comes a byte at a time: it must be whole in conn.idle.
func TestE2ESlowAnswer(t *testing.T) {
	t.Parallel()
	dir, _ := clientDir(t, 100)
	l := openLiar(t, func(v *visit) {
		v.hello(0, 0)
		v.batch()
		for _, b := range ackOf(0, strings.Repeat("x", 60_000)) {
			if _, err := v.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	c := startClient(t, dir, 1, l.address, "-retry.timeout=0s", "-conn.idle=300ms")
	c.wantExit(exitFailed)
	wantOneLine(t, "standard error", c.errs.String(), "conn.idle", l.address)
}

// TestE2EFalseWinners has servers whose WINNERS are none, or have no end.
func TestE2EFalseWinners(t *testing.T) {
	t.Parallel()
	full := binary.BigEndian.AppendUint16([]byte{5}, 65535)
	full = append(full, bytes.Repeat(wireString("7"), 65535)...)
	for name, winners := range map[string]func(w io.Writer) error{
		"long documents": func(w io.Writer) error {
			_, err := w.Write([]byte{5, 255, 255})
			for n := 0; n < 5000 && err == nil; n++ { // 300 MiB
				_, err = w.Write(wireString(strings.Repeat("9", 65535)))
			}
			return err
		},
		"no digits": func(w io.Writer) error {
			_, err := w.Write(append([]byte{5, 0, 1}, wireString("1 | 2\n")...))
			return err
		},
		"empty document": func(w io.Writer) error {
			_, err := w.Write(append([]byte{5, 0, 1},
				wireString("")...))
			return err
		},
		"another op": func(w io.Writer) error { _, err := w.Write(ackOf(0, "")); return err },
		"no end": func(w io.Writer) error {
			for {
				if _, err := w.Write(full); err != nil {
					return err
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writeFile(t, dir, "agency-1.csv", "")
			l := openLiar(t, func(v *visit) {
				v.hello(0, 0)
				v.hello(0, 0)
				io.ReadFull(v.in, make([]byte, 6))
				v.Write(ackOf(4, ""))
				winners(v)
			})
			c := startClient(t, dir, 1, l.address, "-draw.agencies=1", "-retry.timeout=0s", "-log.level=ERROR")
			memory := c.Watch(5 * time.Millisecond)
			c.wantExit(exitFailed)
			wantOneLine(t, "standard error", c.errs.String(), l.address)
			if peak := memory.Peak() >> 20; peak > 100 { // the race detector takes much of it
				t.Errorf("got %d MiB of memory, want little", peak)
			}
		})
	}
}

// TestE2ESignalWhilePolling stops clients that ask for the winners again and again, in the pause
// and in between: a server that holds the question, one that answers it, one that then closes.
func TestE2ESignalWhilePolling(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(v *visit){
		"closes": func(v *visit) { io.ReadFull(v.in, make([]byte, 6)); v.Write(ackOf(3, "not yet")) },
		"answers": func(v *visit) {
			for {
				if _, err := io.ReadFull(v.in, make([]byte, 3)); err != nil {
					return
				}
				v.Write(ackOf(3, "not yet")) // to NOTIFY 0 as well: one answer more than there should be
			}
		},
		"holds": func(v *visit) { io.Copy(io.Discard, v.in) },
	} {
		bothSignals(t, name, func(t *testing.T, sig syscall.Signal) {
			dir := t.TempDir()
			writeFile(t, dir, "agency-1.csv", "")
			polled := make(chan struct{}, 1000)
			l := openLiar(t, func(v *visit) { polled <- struct{}{}; serve(v) })
			c := startClient(t, dir, 1, l.address, "-draw.agencies=1", "-resume=false", "-retry.timeout=0s")
			<-polled
			if name == "closes" {
				<-polled
				<-polled
				time.Sleep(750 * time.Millisecond) // likely in a pause
			}
			c.signal(sig)
			c.wantShutdown(sig, "close_file")
		})
	}
}

// TestE2EStrangePort has ports that speak something else: the client says where and what to do.
func TestE2EStrangePort(t *testing.T) {
	t.Parallel()
	for _, says := range []string{"HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
		"220 mail.example.org\r\n"} {
		dir, _ := clientDir(t, 10)
		l := openLiar(t, func(v *visit) { io.WriteString(v, says); io.Copy(io.Discard, v.in) })
		c := startClient(t, dir, 1, l.address)
		c.wantExit(exitFailed)
		wantOneLine(t, "standard error", c.errs.String(), l.address, "server.address")
		_, errs, status := runProgram(t, dir, nil, "-mode=health", "-server.address="+l.address)
		if status != exitFailed {
			t.Errorf("health: got status %d, want 1", status)
		}
		wantOneLine(t, "health", errs, l.address)
	}
}

// TestE2EHarmlessStatus has a server that refuses bets with all kinds of reasons: they do nothing
// to a terminal, in the log and in the rejects file.
func TestE2EHarmlessStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "agency-1.csv", strings.Repeat("Ana,Paz,1,2000-01-01,1\n", 3))
	status := "#1 \x1b[2J\x07; #2 a\r\nb; #3 " + strings.Repeat("z", 60_000)
	s := openCourseServer(t, false, func(int) []byte { return ackOf(1, status) })
	c := startClient(t, dir, 1, s.address(), "-resume=false")
	c.wantExit(exitDone)
	rejects, err := os.ReadFile(filepath.Join(dir, "agency-1.rejected.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsAny(rejects, "\x1b\x07") || bytes.Count(rejects, []byte("\r\n")) != 3 || len(rejects) > 2000 {
		t.Errorf("rejects file: got %.300q of %d bytes, want three short rows without control characters", rejects,
			len(rejects))
	}
	for _, line := range c.lines("") {
		if len(line) > 2000 {
			t.Errorf("log: got a line of %d bytes, want what a server says cut", len(line))
		}
	}
}

// TestE2EAnswersInPieces has answers that come in pieces of all sizes, several and halves at once:
// each goes to its batch.
func TestE2EAnswersInPieces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "agency-1.csv", strings.Repeat("Ana,Paz,1,2000-01-01,1\n", 500))
	l := openLiar(t, func(v *visit) {
		v.hello(0, 0)
		var bets uint64
		var crc uint32
		var answers []byte
		for i := 0; bets < 500; i++ {
			n, body := v.batch()
			bets, crc = bets+uint64(n), crc32.Update(crc, crc32.MakeTable(crc32.Castagnoli), body)
			answers = append(answers, ackOf(1, fmt.Sprintf("#%d batch %d", i%n+1, i))...)
			if size := i * 7 % len(answers); i%3 == 0 {
				v.Write(answers[:size])
				answers = answers[size:]
			}
		}
		v.Write(answers)
		v.hello(bets, crc)
	})
	c := startClient(t, dir, 1, l.address, "-batch.maxAmount=5", "-batch.window=16")
	c.wantExit(exitDone)
	text, _ := os.ReadFile(filepath.Join(dir, "agency-1.rejected.csv"))
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintf(&want, "%d,batch %d,Ana,Paz,1,2000-01-01,1\r\n", 5*i+i%5+1, i)
	}
	if string(text) != want.String() {
		t.Errorf("rejects file: got %.300q, want %.300q", text, want.String())
	}
}
