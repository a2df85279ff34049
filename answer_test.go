package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A takenConn is a client that takes all answers off: it keeps what was written, and the
// longest write.
type takenConn struct {
	net.Conn
	bytes.Buffer
	longest int
	closed  bool
}

func (c *takenConn) Write(b []byte) (int, error) {
	c.longest = max(c.longest, len(b))
	return c.Buffer.Write(b)
}
func (c *takenConn) Read(b []byte) (int, error)       { return c.Buffer.Read(b) }
func (c *takenConn) SetWriteDeadline(time.Time) error { return nil }
func (c *takenConn) Close() error                     { c.closed = true; return nil }

// newAnswerTest returns an answerer whose client takes all off, before the draw.
func newAnswerTest() (*answerer, *takenConn) {
	conn := &takenConn{}
	return &answerer{counts: newCounts(),
		queue: newAnswerQueue(), conn: conn, log: quiet, idle: time.Minute,
		winners: func(uint8) (int, func(func([]byte) bool) error, bool) { return 0, nil, false },
		drawn:   make(chan struct{}), refused: func() {},
	}, conn
}

// TestAnswersInOrder has groups that are done in another order than their answers are owed.
func TestAnswersInOrder(t *testing.T) {
	a, conn := newAnswerTest()
	var groups []*group
	var want []byte
	for i := range 5 {
		g := newGroup(nil)
		groups = append(groups, g)
		a.queue.owe(&answer{code: ackRefused, status: fmt.Sprint(i), group: g})
		want = appendAck(want, ackRefused, fmt.Sprint(i))
	}
	a.queue.owe(&answer{kind: answerNone})
	a.queue.owe(&answer{code: ackRefused, status: "last"})
	want = appendAck(want, ackRefused, "last")
	a.queue.close()
	var running sync.WaitGroup
	running.Go(a.run)
	for _, i := range []int{3, 0, 4, 2, 1} {
		close(groups[i].done)
	}
	running.Wait()
	if conn.String() != string(want) {
		t.Errorf("got %q, want %q", conn.String(), want)
	}
}

// TestFailedGroups: what may be said when a group was not stored.
func TestFailedGroups(t *testing.T) {
	fatal := &fatalError{errors.New("sync")}
	for _, tt := range []struct {
		name            string
		err             error
		ans             answer
		said            string
		closed, refused bool
	}{
		{"not taken", errUnavailable, answer{}, string(appendAck(nil, ackUnavailable, unavailableStatus)), false,
			false},
		{"not taken, with bets that were refused", errUnavailable,
			answer{code: ackRefused, status: "#1 no", bets: 2, tally: tally{stored: 1, refused: new(refusals)}},
			string(appendAck(nil, ackUnavailable, unavailableStatus)), false, false},
		{"not taken, of a source", errUnavailable, answer{tally: tally{source: true}},
			string(appendAck(nil, ackUnavailable, unavailableStatus)), false, true},
		{"NOTIFY 0 not taken", errUnavailable, answer{kind: answerNone}, "", true, false},
		{"unknown", fatal, answer{}, "", true, false},
		{"unknown, of a source", fatal, answer{tally: tally{source: true}}, "", true, false},
	} {
		a, conn := newAnswerTest()
		refused := false
		a.refused = func() { refused = true }
		tt.ans.group = newGroup(nil)
		tt.ans.group.err = tt.err
		close(tt.ans.group.done)
		a.queue.owe(&tt.ans)
		a.queue.close()
		a.run()
		if conn.String() != tt.said || conn.closed != tt.closed || refused != tt.refused {
			t.Errorf("%s: got %q, closed %v, refused %v; want %q, %v, %v",
				tt.name, conn.String(), conn.closed, refused, tt.said, tt.closed, tt.refused)
		}
		if a.queue.bytes != 0 { // after many such answers it would be full, and its connection stuck
			t.Errorf("%s: got %d bytes owed when nothing is", tt.name, a.queue.bytes)
		}
	}
}

// TestQueueBoundsBytes: what may be owed is bounded in bytes, whatever the answers are.
func TestQueueBoundsBytes(t *testing.T) {
	const messages, most = 5000, maxOwed + maxMessage + 200
	for _, status := range []string{"", strings.Repeat("x", 100), strings.Repeat("x", maxStatus)} {
		q := newAnswerQueue()
		go func() {
			for range messages {
				q.owe(&answer{status: status})
			}
			q.close()
		}()
		<-q.hurry // full: nobody waits for the draw any more
		taken := 0
		for q.wait() {
			q.mu.Lock()
			if q.bytes > most {
				t.Fatalf("statuses of %d: got %d bytes owed, want %d at most", len(status), q.bytes, most)
			}
			q.mu.Unlock()
			q.remove()
			taken++
		}
		if taken != messages || q.bytes != 0 || q.first != nil {
			t.Errorf("statuses of %d: got %d taken, %d bytes left", len(status), taken, q.bytes)
		}
	}
}

// wireWinners reads WINNERS until one that is not full, as a client has to.
func wireWinners(t *testing.T, m []byte) (counts []int, packed []byte) {
	t.Helper()
	for count := maxWinners; count == maxWinners; {
		var at int
		var err error
		if count, at, err = parseWinnersHead(m); err != nil {
			t.Fatal(err)
		}
		start := at
		for range count {
			if _, at, err = parseString(m, at, len(m)); err != nil {
				t.Fatal(err)
			}
		}
		counts, packed, m = append(counts, count), append(packed, m[start:at]...), m[at:]
	}
	if len(m) > 0 {
		t.Errorf("got %d bytes behind the last WINNERS, want none", len(m))
	}
	return counts, packed
}

// TestSendWinners has lists of all lengths that matter. They are written as they are gone
// through: the answerer holds none of them whole.
func TestSendWinners(t *testing.T) {
	for _, tt := range []struct {
		count int
		want  string
	}{
		{0, "[0]"}, {1, "[1]"}, {65534, "[65534]"}, {65535, "[65535 0]"}, {65536, "[65535 1]"},
		{131069, "[65535 65534]"}, {131070, "[65535 65535 0]"},
	} {
		a, conn := newAnswerTest()
		var packed []byte
		a.winners = func(uint8) (int, func(func([]byte) bool) error, bool) {
			return tt.count, func(yield func([]byte) bool) error {
				for i := range tt.count {
					document := fmt.Append(nil, i*7919)
					packed = appendString(packed, document)
					if !yield(document) {
						return nil
					}
				}
				return nil
			}, true
		}
		a.queue.owe(&answer{kind: answerWinners})
		a.queue.close()
		a.run()
		ack := string(appendAck(nil, ackWinners, ""))
		if !strings.HasPrefix(conn.String(), ack) {
			t.Fatalf("%d documents: got %q first, want an ACK", tt.count, conn.String()[:len(ack)])
		}
		counts, got := wireWinners(t, conn.Bytes()[len(ack):])
		if fmt.Sprint(counts) != tt.want || !bytes.Equal(got, packed) {
			t.Errorf("%d documents: got messages of %v and %d bytes, want %s and %d",
				tt.count, counts, len(got), tt.want, len(packed))
		}
		if conn.longest > outMax+maxMessage {
			t.Errorf("%d documents: got a write of %d bytes, want "+
				"%d at most", tt.count, conn.longest, outMax+maxMessage)
		}
	}
}

// TestWinnersUnread: when the list cannot be read to its end nothing may pass for it.
func TestWinnersUnread(t *testing.T) {
	a, conn := newAnswerTest()
	a.winners = func(uint8) (int, func(func([]byte) bool) error, bool) {
		return 2, func(yield func([]byte) bool) error { yield([]byte("1")); return errors.New("unread") }, true
	}
	a.queue.owe(&answer{kind: answerWinners})
	a.queue.owe(&answer{})
	a.queue.close()
	a.run()
	if !conn.closed || conn.Len() > 0 {
		t.Errorf("got %q, closed %v; want nothing, and the end", conn.String(), conn.closed)
	}
}

// TestWaitForTheDraw: who waits for the draw, and until when.
func TestWaitForTheDraw(t *testing.T) {
	none := func(func([]byte) bool) error { return nil }
	for _, tt := range []struct {
		name  string
		hold  bool
		event func(a *answerer, drawn chan struct{})
		want  string
	}{
		{"the draw comes", true, func(a *answerer, drawn chan struct{}) {
			a.winners = func(uint8) (int, func(func([]byte) bool) error, bool) { return 0, none, true }
			close(drawn)
		}, string(appendWinnersHead(appendAck(nil, ackWinners, ""), 0))},
		{"the client goes, or the server", true, func(a *answerer, _ chan struct{}) {
			a.queue.close()
		}, string(appendAck(nil, ackNoDraw, "the draw has not taken place"))},
		{"no HELLO", false, func(*answerer, chan struct{}) {},
			string(appendAck(nil, ackNoDraw, "the draw has not taken place"))},
	} {
		a, conn := newAnswerTest()
		drawn, asked := make(chan struct{}), make(chan struct{}, 2)
		a.drawn = drawn
		a.winners = func(uint8) (int, func(func([]byte) bool) error, bool) {
			asked <- struct{}{}
			return 0, nil, false
		}
		var running sync.WaitGroup
		running.Go(a.run)
		a.queue.owe(&answer{kind: answerWinners, hold: tt.hold})
		<-asked
		tt.event(a, drawn)
		waitFor(t, tt.name, func() bool { return a.queue.peek() == nil })
		a.queue.close()
		running.Wait()
		if conn.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, conn.String(), tt.want)
		}
	}
}
