package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// startPipe serves one end of a pipe as a connection, and returns it with the other end.
func startPipe(t *testing.T, st *store) (srv *server, c *serverConn, ours net.Conn) {
	t.Helper()
	srv = newServer(&config{maxNumber: 9998, connIdle: time.Minute, connMax: 1}, st, newCounts(), quiet)
	ours, theirs := net.Pipe()
	c = newServerConn(srv.svc, theirs, peer{ip: "pipe"})
	srv.slots <- struct{}{}
	srv.start(c)
	return srv, c, ours
}

// TestIdleConnectionKeepsNothing has a connection ask so much at once that all its buffers
// grow. Idle again, it has none of them, but for what answers to a few messages need (outIdle).
func TestIdleConnectionKeepsNothing(t *testing.T) {
	s := openTest(t, newSimDisk(), testOptions())
	defer s.close()
	srv, c, ours := startPipe(t, s)
	const messages = 2 * maxOwed / 100
	var m []byte
	for range messages {
		m = appendBatchHead(m, 0)
	}
	go ours.Write(m)
	if _, err := io.ReadFull(ours, make([]byte, 4*messages)); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	srv.ended.Wait()
	q := c.answerer.queue
	if q.first != nil || q.bytes != 0 {
		t.Errorf("the queue keeps %v, %d bytes", q.first, q.bytes)
	}
	if got := cap(c.answerer.out); got > outIdle {
		t.Errorf("the answerer keeps %d bytes, want %d at most", got, outIdle)
	}
	if c.large != nil || c.decider.decision.rows != nil {
		t.Error("the connection has ended and kept a buffer")
	}
}

// TestSmallMessagesKeepNothing has a connection ask much, in messages so small that it needs no
// large buffer. It keeps nothing while it is idle.
func TestSmallMessagesKeepNothing(t *testing.T) {
	s := openTest(t, newSimDisk(), testOptions())
	defer s.close()
	srv, c, ours := startPipe(t, s)
	const messages = 2 * maxOwed / 100
	m := bytes.Repeat(appendBatchHead(nil, 0), messages)
	go ours.Write(m)
	if _, err := io.ReadFull(ours, make([]byte, 4*messages)); err != nil {
		t.Fatal(err)
	}
	q := c.answerer.queue
	waitFor(t, "the last answer is out of the queue", func() bool { return q.peek() == nil })
	ours.Close()
	srv.ended.Wait()
	if q.first != nil || q.bytes != 0 || cap(c.answerer.out) > outIdle {
		t.Errorf("the queue keeps %v, %d bytes, and the answerer %d", q.first, q.bytes, cap(c.answerer.out))
	}
}
