package e2e

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A wire is one connection to a server, or from a client.
type wire struct {
	net.Conn
	t testing.TB
}

func dialWire(t testing.TB, address string) *wire {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &wire{conn, t}
}

// send writes bytes.
func (w *wire) send(p []byte) {
	w.t.Helper()
	w.SetWriteDeadline(time.Now().Add(patience))
	if _, err := w.Write(p); err != nil {
		w.t.Fatalf("sending %d bytes: %v", len(p), err)
	}
}

// receive reads exactly n bytes.
func (w *wire) receive(n int) []byte {
	w.t.Helper()
	p := make([]byte, n)
	w.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadFull(w, p); err != nil {
		w.t.Fatalf("got %x and then %v, want %d bytes", p[:got], err, n)
	}
	return p
}

// receiveAck reads an ACK.
func (w *wire) receiveAck() (code int, status string) {
	w.t.Helper()
	head := w.receive(4)
	if head[0] != 2 {
		w.t.Fatalf("got op %d, want an ACK", head[0])
	}
	return int(head[1]), string(w.receive(int(head[2])<<8 | int(head[3])))
}

// wantAck wants an ACK with this code, whose status holds part.
func (w *wire) wantAck(code int, part string) {
	w.t.Helper()
	if got, status := w.receiveAck(); got != code || !strings.Contains(status, part) {
		w.t.Fatalf("got ACK %d %q, want ACK %d with %q", got, status, code, part)
	}
}

// wantEnd wants the other side to close, with nothing more to read. Then it closes this side.
func (w *wire) wantEnd() {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	if rest, err := io.ReadAll(w); err != nil && !errors.Is(err, syscall.ECONNRESET) &&
		!errors.Is(err, io.ErrUnexpectedEOF) || len(rest) > 0 {
		w.t.Fatalf("got %x and %v, want the connection closed", rest, err)
	}
	w.Close()
}
