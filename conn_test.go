package main

import (
	"io"
	"net"
	"testing"
	"time"
)

// TestIdleConnectionKeepsNothing has a connection ask so much at once that all its buffers grow: idle again, it has none of them, and no answerer.
func TestIdleConnectionKeepsNothing(t *testing.T) {
	s := openTest(t, newSimDisk(), testOptions())
	defer s.close()
	srv := newServer(&config{maxNumber: 9998, connIdle: time.Minute, connMax: 1}, s, quiet)
	ours, theirs := net.Pipe()
	c := newServerConn(srv, theirs, "pipe")
	srv.slots <- struct{}{}
	srv.start(c)
	var m []byte
	for range 2 * maxAnswers {
		m = appendBatchHead(m, 0)
	}
	go ours.Write(m)
	if _, err := io.ReadFull(ours, make([]byte, 4*2*maxAnswers)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the connection is idle and has let go of all", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.answering && c.answers == nil && c.spare == nil
	})
	ours.Close()
	srv.ended.Wait()
	if c.large != nil || c.decision.rows != nil {
		t.Error("the connection has ended and kept a buffer")
	}
}
