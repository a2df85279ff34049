package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// wantShutdown wants a process that was sent sig to end in good order: exit status 0, the signal
// in the log, then a line for each thing closed, then shutdown.
func (p *process) wantShutdown(sig syscall.Signal, closed ...string) {
	p.t.Helper()
	p.wantExit(exitDone)
	if errs := p.errs.String(); errs != "" {
		p.t.Errorf("%s: got %q on standard error, want nothing", p.Name, errs)
	}
	text, _, _ := p.out.from(0)
	signal := fmt.Sprintf("action: receive_signal | result: success | signal_number: %d\n", int(sig))
	_, after, found := strings.Cut(text, signal)
	if !found {
		p.t.Errorf("%s: got no line %q", p.Name, signal)
	}
	if !strings.HasSuffix(after, "action: shutdown | result: success\n") {
		p.t.Errorf("%s: got %q after the signal, want shutdown as the last line", p.Name, after)
	}
	for _, action := range closed {
		if !strings.Contains(after, "action: "+action+" | result: success") {
			p.t.Errorf("%s: got %q after the signal, want a line of %q", p.Name, after, action)
		}
	}
}

// A silentServer takes connections and bytes and never answers.
type silentServer struct {
	address string
	came    chan struct{} // something has come
}

func openSilentServer(t *testing.T) *silentServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &silentServer{listener.Addr().String(), make(chan struct{}, 100)}
	var running sync.WaitGroup
	beside(&running, func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			beside(&running, func() {
				defer conn.Close()
				conn.Read(make([]byte, 1))
				s.came <- struct{}{}
				io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return s
}

// bothSignals runs a test with SIGTERM and with SIGINT, side by side.
func bothSignals(t *testing.T, name string, test func(t *testing.T, sig syscall.Signal)) {
	t.Run(name, func(t *testing.T) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			t.Run(sig.String(), func(t *testing.T) {
				t.Parallel()
				test(t, sig)
			})
		}
	})
}

// clientDir is a folder with an agency file of that many records.
func clientDir(t *testing.T, records int) (dir string, l *lot) {
	t.Helper()
	dir = t.TempDir()
	return dir, makeLots(t, dir, 1, records, 6)[0]
}

// TestE2EClientSignals stops clients in every state.
func TestE2EClientSignals(t *testing.T) {
	t.Parallel()
	bothSignals(t, "refused port", func(t *testing.T, sig syscall.Signal) {
		dir, _ := clientDir(t, 10)
		c := startClient(t, dir, 1, fmt.Sprintf("127.0.0.1:%d", freePort(t)), "-retry.timeout=1h")
		c.waitFor("action: connect | result: in_progress")
		c.signal(sig)
		c.wantShutdown(sig, "close_file")
	})
	for _, args := range [][]string{{"-resume=true"}, {"-resume=false"}} {
		bothSignals(t, "no answer "+args[0], func(t *testing.T, sig syscall.Signal) {
			dir, _ := clientDir(t, 10)
			s := openSilentServer(t)
			c := startClient(t, dir, 1, s.address, args...)
			<-s.came
			c.signal(sig)
			c.wantShutdown(sig, "close_socket", "close_file")
		})
	}
	bothSignals(t, "loop.period", func(t *testing.T, sig syscall.Signal) {
		dir, _ := clientDir(t, 1000)
		o := openOffice(t)
		c := o.client(t, dir, 1, "-loop.period=1h")
		c.waitFor("action: apuestas_enviadas")
		c.signal(sig)
		c.wantShutdown(sig, "close_socket", "close_file")
		o.signal(sig)
		o.wantShutdown(sig, "close_listener", "close_store")
	})
	bothSignals(t, "the draw", func(t *testing.T, sig syscall.Signal) {
		dir, l := clientDir(t, 1000)
		o := openOffice(t, "-draw.agencies=2")
		c := o.client(t, dir, 1, "-draw.agencies=2")
		c.waitFor("action: verify | result: success")
		c.signal(sig)
		c.wantShutdown(sig, "close_socket", "close_file")
		wantRows(t, o.stored(t), l)
		o.signal(sig)
		o.wantShutdown(sig, "close_listener", "close_store")
	})
	bothSignals(t, "mode bet", func(t *testing.T, sig syscall.Signal) {
		s := openSilentServer(t)
		env := []string{"NOMBRE=Ana", "APELLIDO=Paz", "DOCUMENTO=1", "NACIMIENTO=2000-01-01", "NUMERO=1"}
		b := launchCommand(t, "bet", programCommand(t.TempDir(), env, "-mode=bet", "-id=1",
			"-server.address="+s.address))
		<-s.came
		b.signal(sig)
		b.wantShutdown(sig)
	})
}

// TestE2ESignalUnderLoad stops clients and then the server in the middle of it. Started again,
// they finish as if nothing had been.
func TestE2ESignalUnderLoad(t *testing.T) {
	t.Parallel()
	bothSignals(t, "load", func(t *testing.T, sig syscall.Signal) {
		dir := t.TempDir()
		lots := makeLots(t, dir, 5, 8000, 8)
		o := openOffice(t)
		rejects := func(l *lot) string {
			return "-data.rejects=" + filepath.Join(dir, fmt.Sprintf("rejects-%d.csv", l.agency))
		}
		var clients []*process
		for _, l := range lots {
			c := o.client(t, dir, l.agency, "-batch.maxAmount=5", "-loop.period=1ms", rejects(l))
			c.waitFor("action: apuestas_enviadas")
			clients = append(clients, c)
		}
		for _, c := range clients[:3] { // the others lose their server
			c.signal(sig)
			c.wantExit(exitDone)
		}
		o.signal(sig)
		o.wantShutdown(sig, "close_listener", "close_store")
		o.start(t)
		for i := range 3 {
			clients[i] = o.client(t, dir, i+1, rejects(lots[i]))
		}
		for i, c := range clients {
			c.wantExit(exitDone)
			c.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(lots[i].sizes)))
			lots[i].wantRejects(t, filepath.Join(dir, fmt.Sprintf("rejects-%d.csv", i+1)))
		}
		wantRows(t, o.stored(t), lots...)
	})
}

// TestE2EServerSignals stops servers in every state.
func TestE2EServerSignals(t *testing.T) {
	t.Parallel()
	bothSignals(t, "idle", func(t *testing.T, sig syscall.Signal) {
		o := openOffice(t)
		o.signal(sig)
		o.wantShutdown(sig, "close_listener", "close_store")
	})
	bothSignals(t, "idle connection", func(t *testing.T, sig syscall.Signal) {
		o := openOffice(t)
		w := o.dial(t)
		w.send(wireBatch())
		w.wantAck(0, "")
		o.signal(sig)
		w.wantEnd()
		o.wantShutdown(sig, "close_listener", "close_connection", "close_store")
	})
	bothSignals(t, "message that comes whole", func(t *testing.T, sig syscall.Signal) {
		o := openOffice(t)
		w := o.dial(t)
		m := wireBatch(wireBet(1, "Ana", "Paz", "1", "2000-01-01", 1))
		// one write is read at once: the answer to the first message tells that the second has
		// begun
		w.send(append(wireBatch(), m[:10]...))
		w.wantAck(0, "")
		o.signal(sig)
		o.waitFor("action: close_listener | result: success")
		w.send(m[10:])
		w.wantAck(0, "")
		w.wantEnd()
		o.wantShutdown(sig, "close_listener", "close_connection", "close_store")
		if got, want := o.stored(t), "1,Ana,Paz,1,2000-01-01,1\r\n"; got != want {
			t.Errorf("bets.csv: got %q, want %q", got, want)
		}
	})
	t.Run("message that never ends", func(t *testing.T) {
		o := openOffice(t)
		w := o.dial(t)
		w.send([]byte{3, 0, 1, 1})
		o.waitFor("action: accept_connections | result: success")
		o.signal(syscall.SIGTERM)
		o.wantShutdown(syscall.SIGTERM, "close_listener", "close_connection", "close_store")
	})
}

// TestE2ESecondSignal ends a program at once that has things to wait for.
func TestE2ESecondSignal(t *testing.T) {
	t.Parallel()
	dir, _ := clientDir(t, 10)
	s := openSilentServer(t)
	c := startClient(t, dir, 1, s.address)
	<-s.came
	o := openOffice(t)
	w := o.dial(t)
	w.send([]byte{3, 0, 1, 1})
	o.waitFor("action: accept_connections | result: success")
	for _, p := range []*process{c, o.process} {
		p.signal(syscall.SIGTERM)
		p.waitFor("action: receive_signal | result: success | signal_number: 15")
		p.signal(syscall.SIGINT)
		p.wantExit(exitFailed)
		if lines := p.lines("action: shutdown"); len(lines) > 0 {
			t.Errorf("%s: got %q, want it to end at once", p.Name, lines)
		}
	}
}

// TestE2EStoppedClientWaitsForAnswers stops a client whose server answers late: what it is owed
// is taken, and said.
func TestE2EStoppedClientWaitsForAnswers(t *testing.T) {
	t.Parallel()
	dir, l := clientDir(t, 100)
	asked, proceed := make(chan struct{}, 1), make(chan struct{})
	s := openCourseServer(t, false, func(int) []byte {
		asked <- struct{}{}
		<-proceed
		return ackOf(0, "")
	})
	c := startClient(t, dir, 1, s.address(), "-resume=false", "-batch.maxAmount=5")
	<-asked
	c.signal(syscall.SIGTERM)
	c.waitFor("action: receive_signal")
	close(proceed)
	c.wantShutdown(syscall.SIGTERM, "close_socket", "close_file")
	if got := answeredBets(t, c); got != 5 {
		t.Errorf("got %d bets answered, want 5", got)
	}
	if len(s.rows) != 5 || len(l.rows) < 5 {
		t.Errorf("got %d bets sent, want 5", len(s.rows))
	}
}

// TestE2ENothingOnStandardError runs a client whose standard error is no terminal: there is no
// progress bar on it.
func TestE2ENothingOnStandardError(t *testing.T) {
	t.Parallel()
	dir, _ := clientDir(t, 500)
	o := openOffice(t)
	c := o.client(t, dir, 1)
	c.wantExit(exitDone)
	o.stop()
	for _, p := range []*process{c, o.process} {
		if errs := p.errs.String(); errs != "" {
			t.Errorf("%s: got %q, want nothing", p.Name, errs)
		}
	}
	if bytes.ContainsAny(c.out.text, "\r\x1b") {
		t.Errorf("got control characters in the log")
	}
	if _, err := os.Stat(filepath.Join(o.dir, "bets.csv")); err != nil {
		t.Error(err)
	}
}

// TestE2EStopBeginsNoMessage stops a server whose clients go on sending, some as fast as they can,
// some for as long as they are answered. It answers what it has taken and what has begun to come,
// and nothing else.
func TestE2EStopBeginsNoMessage(t *testing.T) {
	t.Parallel()
	const clients, batches = 4, 100
	batch := wireBatch(wireBet(1, "Ana", "Paz", "12", "2000-01-01", 1)) // of a length that fills no buffer
	for _, tt := range []struct {
		name           string
		first, another int // batches that a client sends at once, at the start and for each answer
		owed           int // answers that a client may be owed
	}{
		{"window 1", 1, 1, 1}, {"window 32", 32, 1, 32},
		{"no end", 100_000, 100, 128 << 10 / 100}, // 128 KiB of answers, each of which takes more than 100 bytes
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := openOffice(t)
			warm := make(chan error, 2*clients)
			var running sync.WaitGroup
			for range clients {
				w := o.dial(t)
				beside(&running, func() {
					for range tt.first / batches {
						w.Write(bytes.Repeat(batch, batches))
					}
					w.Write(bytes.Repeat(batch, tt.first%batches))
				})
				beside(&running, func() {
					defer w.Close()
					ack, more := make([]byte, 4), bytes.Repeat(batch, tt.another)
					for n := 0; ; n++ {
						if n == 100 {
							warm <- nil
						}
						_, err := io.ReadFull(w, ack)
						if err == nil {
							_, err = w.Write(more)
						}
						if err != nil {
							warm <- err
							return
						}
					}
				})
			}
			for range clients {
				if err := <-warm; err != nil {
					t.Fatal(err)
				}
			}
			o.signal(syscall.SIGTERM)
			o.wantShutdown(syscall.SIGTERM, "close_listener", "close_connection", "close_store")
			running.Wait()
			_, after, _ := strings.Cut(o.out.String(), "action: close_listener")
			if got, want := strings.Count(after, "action: apuesta_recibida"), clients*(tt.owed+2); got > want {
				t.Errorf("got %d messages answered after the listener was closed, want %d at most", got, want)
			}
		})
	}
}
