package e2e

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// hostileStreams returns 60 byte streams that are not what the protocol says. None of them holds
// a message whose bets are good.
func hostileStreams() (all [][]byte) {
	bet := wireBet(1, "A", "B", "1", "2000-01-01", 1)
	bad := wireBet(1, "A", "B", "", "", 1)
	many := func(n int, p ...byte) []byte { return []byte(strings.Repeat(string(p), n)) }
	join := func(parts ...[]byte) (p []byte) {
		for _, part := range parts {
			p = append(p, part...)
		}
		return p
	}
	all = [][]byte{
		{}, {0}, {1}, {3}, {3, 0}, {3, 0xff}, {3, 0xff, 0xff}, {3, 2, 0xab}, {1, 1, 0xff, 0xff}, {1, 1, 0x20, 0},
		{6}, {6, 1}, {6, 1, 1, 0xff, 0xff}, {6, 9, 9, 9, 9},
		{4}, {4, 1}, {4, 1, 9}, {4, 0, 0}, {2, 0, 0, 0}, {5, 0, 0}, {7}, {8}, {0xff},
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), []byte("SSH-2.0-OpenSSH_9.2\r\n"),
		[]byte("\x16\x03\x01\x02\x00\x01\x00"), []byte("{\"action\": \"bet\"}\n"), []byte("\n\n\n\n"),
		[]byte("1,Santi,Lorca,30904465,1999-03-17,7574\r\n"), []byte("*1\r\n$4\r\nPING\r\n"),
		many(1<<20, 0), many(1<<20, 1), many(1<<20, 3), many(1<<20, 0xff),
		many(100_000, 3, 0, 0), many(2000, 3, 0, 1), many(300_000, 6, 1, 1, 0, 1, 'h'),
		join([]byte{3, 0, 2}, bad, bet[:9]), join([]byte{3, 0, 2}, bad, bet[:1]),
		join([]byte{3, 0, 2}, bad, []byte{2}, bet[1:]), join([]byte{3, 0xff, 0xff}, many(5000, bet...)),
		join([]byte{3, 2, 0xaa}, many(682, wireBet(0, "", "", "", "", 0)...), []byte{3}),
		join(many(3000, wireBatch(bad)...), []byte{99}), join(wireHello(9, "x"), wireHello(9, "y")),
		join(wireHello(9, "x"), []byte{4, 9, 0}), join(wireHello(9, "x"), []byte{9}),
		join(wireHello(9, "x"), many(5000, wireBatch(bad)...)), join(wireBatch(), wireHello(9, "x")),
		wireHello(9, "\xff\xfe"), wireHello(9, ""), wireHello(0, "x"),
		join([]byte{1, 9}, wireString(strings.Repeat("x", 8191))),
		join([]byte{1, 9}, wireString(strings.Repeat("x", 8100)), wireString(strings.Repeat("y", 100))),
	}
	for seed := uint64(0); len(all) < 60; seed++ {
		random := rand.New(rand.NewPCG(seed, 7))
		p := make([]byte, 1+random.IntN(20_000))
		for i := range p {
			p[i] = byte(random.IntN(8) * random.IntN(2))
		}
		p[0] = 9 // so that no good bet can be in it by chance
		all = append(all, p)
	}
	return all
}

// TestE2EHostileStreams sends each of 60 hostile streams several times while a good client sends
// its file.
func TestE2EHostileStreams(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lots := makeLots(t, dir, 1, 4000, 2)
	o := openOffice(t)
	good := o.client(t, dir, 1, "-batch.maxAmount=10", "-batch.window=1", "-loop.period=1ms")
	streams := hostileStreams()
	if len(streams) != 60 {
		t.Fatalf("got %d streams, want 60", len(streams))
	}
	var done sync.WaitGroup
	for worker := range 4 {
		beside(&done, func() {
			for i := worker; i < 3*len(streams); i += 4 {
				if err := sendHostile(o.address(), streams[i%len(streams)], i); err != nil {
					t.Errorf("stream %d: %v", i%len(streams), err)
				}
			}
		})
	}
	done.Wait()
	good.wantExit(exitDone)
	good.wantSummary(lots[0])
	good.waitFor("action: verify | result: success")
	lots[0].wantRejects(t, filepath.Join(dir, "agency-1.rejected.csv"))
	o.stop()
	wantRows(t, o.stored(t), lots...)
}

// sendHostile sends a stream. What the server makes of it must end: an answer or the end of the
// connection, once this side has closed.
func sendHostile(address string, stream []byte, i int) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	go func() {
		conn.Write(stream) // the server may end it in the middle
		conn.(*net.TCPConn).CloseWrite()
	}()
	if i%3 == 0 { // does not read
		return nil
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("got no end of the connection: %v", err)
	}
	return nil
}

// TestE2EHangingConnections has 900 connections that send one byte each and hang: five clients
// finish all the same.
func TestE2EHangingConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lots := makeLots(t, dir, 5, 2000, 3)
	o := openOffice(t)
	for i := range 900 {
		conn, err := net.DialTimeout("tcp", o.address(), patience)
		if err != nil {
			t.Skipf("SKIPPED: only %d of 900 connections could be opened: %v", i, err)
		}
		defer conn.Close()
		conn.Write([]byte{byte(i%7 + 1)})
	}
	var clients []*process
	for _, l := range lots {
		clients = append(clients, o.client(t, dir, l.agency))
	}
	for i, c := range clients {
		c.wantExit(exitDone)
		c.wantSummary(lots[i])
	}
	wantRows(t, o.stored(t), lots...)
	o.kill() // stopping would wait 5 s for the messages that have begun
}

// TestE2EConnMax has a server that takes two connections at once: the third is served when one of
// them ends.
func TestE2EConnMax(t *testing.T) {
	t.Parallel()
	o := openOffice(t, "-conn.max=2")
	first, second := o.dial(t), o.dial(t)
	for _, w := range []*wire{first, second} {
		w.send(wireBatch())
		w.wantAck(0, "")
	}
	third := o.dial(t)
	third.send(wireBatch())
	third.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := third.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes and %v, want no answer yet", n, err)
	}
	first.Close()
	third.wantAck(0, "")
	second.Close()
	third.Close()
	o.stop()
}

// TestE2EConnIdle has connections that hang in the middle of a message, between messages, and
// with answers that they do not take off.
func TestE2EConnIdle(t *testing.T) {
	t.Parallel()
	o := openOffice(t, "-conn.idle=500ms")
	between, begun := o.dial(t), o.dial(t)
	between.send(wireBatch())
	between.wantAck(0, "")
	begun.send([]byte{3, 0, 1, 1})
	begun.wantEnd() // conn.idle is over, and 10 times it is not
	o.waitFor("result: fail", "not whole in conn.idle")
	between.send(wireBatch())
	between.wantAck(0, "")
	silent := o.dial(t)
	between.wantEnd()
	silent.wantEnd()
	o.waitFor("result: success", "10 times conn.idle")

	greedy := o.dial(t)
	greedy.Conn.(*net.TCPConn).SetReadBuffer(4096)
	flood := wireBatch() // its answer is nearly as long
	for range 682 {
		flood = append(flood, wireBet(0, "", "", "", "", 0)...)
	}
	flood[1], flood[2] = 682>>8, 682&255
	greedy.SetWriteDeadline(time.Now().Add(patience))
	for {
		if _, err := greedy.Write(flood); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v, want the server to end a connection whose answers are not taken off", err)
			}
			break
		}
	}
	o.dial(t).send(wireBatch())
	o.stop()
}

// TestE2ESlowMessage has a message whose bytes come slowly, but in time: it is taken.
func TestE2ESlowMessage(t *testing.T) {
	t.Parallel()
	o := openOffice(t, "-conn.idle=10s")
	w := o.dial(t)
	m := wireBatch(wireBet(1, "Ana", "Gómez", "1", "2000-01-01", 1))
	for i := range m {
		w.send(m[i : i+1])
		time.Sleep(10 * time.Millisecond)
	}
	w.wantAck(0, "")
	w.Close()
	o.stop()
}
