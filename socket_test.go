package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// connected returns the two ends of a connection.
func connected(t *testing.T) (here, there net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	return quick(here), quick(there)
}

// TestSocket sends more than the system takes at once, so that both ends wait, and then the end.
func TestSocket(t *testing.T) {
	here, there := connected(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		if n, err := here.Write(data); n != len(data) || err != nil {
			t.Errorf("write: got %d, %v, want all", n, err)
		}
		here.Close()
	}()
	got, err := io.ReadAll(there)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read: got %d bytes, %v, want the %d that were sent", len(got), err, len(data))
	}
	if n, err := there.Read(nil); n != 0 || err != nil {
		t.Errorf("read of nothing: got %d, %v", n, err)
	}
}

// TestSocketEnds has reads and writes end as those of other connections do.
func TestSocketEnds(t *testing.T) {
	here, there := connected(t)
	one := make([]byte, 1)
	here.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := here.Read(one); !errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(err.Error(), "raw") {
		t.Errorf("read beyond its deadline: got %v", err)
	}
	here.SetWriteDeadline(time.Now().Add(time.Millisecond))
	n, err := here.Write(make([]byte, 16<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 16<<20 || strings.Contains(err.Error(), "raw") {
		t.Errorf("write beyond its deadline: got %d bytes, %v", n, err)
	}
	here.SetDeadline(time.Time{})
	there.(interface{ SetLinger(int) error }).SetLinger(0)
	there.Close()
	if _, err := here.Read(one); err == nil || !strings.HasSuffix(err.Error(), ": read: connection reset by peer") {
		t.Errorf("read of a connection that was reset: got %v", err)
	}
	if _, err := here.Write(one); err == nil || !strings.HasSuffix(err.Error(), ": write: broken pipe") {
		t.Errorf("write to a connection that was reset: got %v", err)
	}
	ended := make(chan error)
	here, _ = connected(t)
	go func() {
		_, err := here.Read(one)
		ended <- err
	}()
	here.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a connection that was closed: got %v", err)
	}
}
