package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pipeLink returns a link whose server is a function.
func pipeLink(t *testing.T, ctx context.Context, idle time.Duration, serve func(conn net.Conn)) *link {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		serve(theirs)
	}()
	t.Cleanup(func() {
		ours.Close()
		<-done
	})
	return newLink(ctx, ours, "test:1", idle)
}

// TestLinkSlowAnswer: a message that comes a byte at a time, each well in time,
// does not hold a client for ever.
func TestLinkSlowAnswer(t *testing.T) {
	l := pipeLink(t, context.Background(), 50*time.Millisecond, func(conn net.Conn) {
		for _, b := range appendString([]byte{opAck, 0}, strings.Repeat("x", 65535)) {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond) // all of it would take minutes
		}
	})
	if _, err := l.readAck(l.idle); !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "conn.idle") {
		t.Errorf("got %v, want an end that names conn.idle", err)
	}
}

// TestLinkHeldAnswer: an answer that comes with the draw may take longer than conn.idle.
func TestLinkHeldAnswer(t *testing.T) {
	l := pipeLink(t, context.Background(), 50*time.Millisecond, func(conn net.Conn) {
		time.Sleep(300 * time.Millisecond)
		conn.Write(appendAck(nil, ackNoDraw, "wait"))
	})
	if ack, err := l.readAck(forever); err != nil || ack.Code != ackNoDraw || string(ack.Status) != "wait" {
		t.Errorf("got %v, %v, want ACK 3", ack, err)
	}
}

// TestLinkSilence has servers that take nothing and say nothing.
func TestLinkSilence(t *testing.T) {
	silent := make(chan struct{})
	defer close(silent)
	l := pipeLink(t, context.Background(), 50*time.Millisecond, func(net.Conn) { <-silent })
	if _, err := l.readAck(l.idle); !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "no whole answer") {
		t.Errorf("read: got %v, want an end", err)
	}
	if err := l.write(make([]byte, 2*maxMessage)); !errors.Is(err, errEnded) || !strings.Contains(err.Error(),
		"takes nothing") {
		t.Errorf("write: got %v, want an end", err)
	}
}

// TestLinkStop: a signal ends the wait for an answer that is owed, and at once
// that for the draw.
func TestLinkStop(t *testing.T) {
	for _, held := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		asked, silent := make(chan struct{}), make(chan struct{})
		l := pipeLink(t, ctx, time.Hour, func(conn net.Conn) {
			conn.Read(make([]byte, 100))
			close(asked)
			<-silent
		})
		go func() {
			<-asked
			cancel()
		}()
		var err error
		if held {
			_, err = askHeld(ctx, l, []byte{opNotify, 1, notifyWinners}, &retry{})
		} else {
			l.write([]byte{opBatch, 0, 0})
			_, err = l.readAck(time.Hour)
		}
		close(silent)
		if !errors.Is(err, errEnded) {
			t.Errorf("held %v: got %v, want an end", held, err)
		}
		if err := l.close(); err != nil {
			t.Errorf("held %v: closing what is closed: got %v, want nil", held, err)
		}
	}
}

// TestLinkStrangers has ports that speak something else: the error names the
// address and the remedy, and nobody tries again.
func TestLinkStrangers(t *testing.T) {
	for _, says := range []string{"HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
		"\x15\x03\x01\x00\x02\x02\x46", "220 mail\r\n"} {
		l := pipeLink(t, context.Background(), time.Minute, func(conn net.Conn) { io.WriteString(conn, says) })
		_, err := l.readAck(l.idle)
		if err == nil || resumable(err) || !strings.Contains(err.Error(), "test:1") || !strings.Contains(err.Error(),
			"server.address") {
			t.Errorf("%q: got %v, want an error that names test:1 and server.address", says, err)
		}
	}
}

// TestRetryConnectLimited: where all has a limit, as in mode health, an answer has what is left.
func TestRetryConnectLimited(t *testing.T) {
	limited, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r := retry{addresses: []string{"test:1"}, idle: time.Hour, timeout: time.Minute, life: time.Now(),
		dial: func(context.Context, string) (net.Conn, error) {
			conn, _ := net.Pipe()
			return conn, nil
		}}
	for _, tt := range []struct {
		ctx  context.Context
		most time.Duration
	}{{context.Background(), r.idle}, {limited, time.Minute}} {
		l, err := r.connect(tt.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if l.idle > tt.most || l.idle < tt.most/2 {
			t.Errorf("got %v for an answer, want %v", l.idle, tt.most)
		}
		l.close()
	}
}

func TestRetryDialTimeout(t *testing.T) {
	for _, tt := range []struct{ timeout, since, want time.Duration }{
		{0, 0, time.Second},
		{time.Minute, 0, 10 * time.Second},
		{5 * time.Second, 2 * time.Second, 3 * time.Second},
		{5 * time.Second, time.Hour, time.Second},
	} {
		r := retry{timeout: tt.timeout, life: time.Now().Add(-tt.since)}
		if got := r.dialTimeout(); got > tt.want || got < tt.want*3/4 {
			t.Errorf("retry.timeout %v, %v since life: got %v, want %v", tt.timeout, tt.since, got, tt.want)
		}
	}
}

// TestRetryPause: pauses grow, half of each by chance, and begin anew with life.
func TestRetryPause(t *testing.T) {
	var r retry
	for range 2 {
		for i, want := range []time.Duration{50, 100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000, 2000, 2000, 2000} {
			want *= time.Millisecond
			if got := r.pause(); got < want/2 || got > want {
				t.Errorf("pause %d: got %v, want %v to %v", i, got, want/2, want)
			}
		}
		r.alive()
	}
}

// TestRetryDecided: what is a sign of life of the counts that a server gives.
func TestRetryDecided(t *testing.T) {
	for _, tt := range []struct {
		name   string
		counts []uint64
		alive  []int // positions in counts, from 0
	}{
		{"progress", []uint64{0, 10, 20, 20, 30}, []int{1, 2, 4}},
		{"RESUME alone", []uint64{5, 5, 5, 5}, []int{0}},
		{"a server that forgets all", []uint64{0, 10, 0, 10, 0, 10, 0, 10}, []int{1}},
		{"a loss, sent again", []uint64{100, 200, 50, 60, 70, 200, 210}, []int{0, 1, 6}},
		{"two losses", []uint64{100, 50, 60, 20, 60, 70, 110, 90, 100}, []int{0, 6}},
	} {
		var r retry
		var alive []int
		for i, count := range tt.counts {
			r.fresh = false
			if r.decided(count); r.fresh {
				alive = append(alive, i)
			}
		}
		if len(alive) != len(tt.alive) || !bytes.Equal(asBytes(alive), asBytes(tt.alive)) {
			t.Errorf("%s: %v: got signs of life at %v, want %v", tt.name, tt.counts, alive, tt.alive)
		}
	}
}

func asBytes(numbers []int) (b []byte) {
	for _, n := range numbers {
		b = append(b, byte(n))
	}
	return b
}

// TestRetryNext: what ends a client, and what does not.
func TestRetryNext(t *testing.T) {
	stopped, stop := context.WithCancel(context.Background())
	stop()
	hour := time.Now().Add(-time.Hour)
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for _, tt := range []struct {
		name    string
		ctx     context.Context
		timeout time.Duration
		fresh   bool
		life    time.Time
		cause   error
		want    string // in the error; empty: nil
	}{
		{"closed after an answer", context.Background(), 0, true, time.Now(), errEnded, ""},
		{"closed without", context.Background(), 0, false, time.Now(), errEnded, "gave up after 0s (retry.timeout)"},
		{"refused", context.Background(), 0, true, time.Now(), refused, "server test:1: dial: connection " +
			"refused: gave up"},
		{"refused, long after life", context.Background(), time.Minute, true, hour, refused, ""},
		{"refused, long after any", context.Background(), time.Minute, false, hour, refused, "gave up"},
		{"refused, in time", context.Background(), time.Minute, false, time.Now(), refused, ""},
		{"ACK 5, in time", context.Background(), time.Minute, true, time.Now(), errTryLater, ""},
		{"ACK 6", context.Background(), time.Minute, true, time.Now(), ackError(Ack{Code: ackProtocol}),
			"refuses what this client says"},
		{"no address", context.Background(), time.Minute, true, time.Now(), &net.OpError{Op: "dial",
			Err: &net.AddrError{Err: "bad"}}, "bad"},
		{"a signal", stopped, time.Minute, true, time.Now(), errEnded, errStopped.Error()},
		{"a signal in the pause", stopped, time.Minute, false, time.Now(), nil, errStopped.Error()},
	} {
		r := retry{addresses: []string{"test:1"}, timeout: tt.timeout, life: tt.life, fresh: tt.fresh, log: quiet}
		err := r.next(tt.ctx, tt.cause)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestRetryAddresses: of several addresses the next is tried at once, and there is a pause, or an
// end, when all have failed. A sign of life begins anew where it came from.
func TestRetryAddresses(t *testing.T) {
	var out bytes.Buffer
	r := retry{addresses: []string{"a:1", "b:2", "c:3"}, timeout: time.Hour, life: time.Now(), log: newLogger(&out, 0)}
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for i, step := range []struct {
		cause  error
		alive  bool   // a sign of life came before the cause
		next   string // the address that is tried then
		paused bool
	}{
		{refused, false, "b:2", false},
		{errTryLater, false, "c:3", false},
		{errEnded, false, "a:1", true},
		{refused, false, "b:2", false},
		{errEnded, true, "b:2", false}, // some servers close after each answer
		{refused, false, "c:3", false},
		{refused, false, "a:1", false},
		{refused, false, "b:2", true},
		{errTryLater, true, "c:3", false},
	} {
		failed := r.addresses[0]
		if step.alive {
			r.alive()
		}
		out.Reset()
		if err := r.next(context.Background(), step.cause); err != nil || r.addresses[0] != step.next {
			t.Fatalf("step %d: got %s, %v, want %s", i, r.addresses[0], err, step.next)
		}
		line := out.String()
		if paused := strings.Contains(line, "wait: "); paused != step.paused ||
			failed != step.next && !strings.Contains(line, "address: "+failed+" ") ||
			failed != step.next && !strings.Contains(line, "next: "+step.next) {
			t.Errorf("step %d: got %q, want %s that failed, then %s, a pause: %v", i, line, failed, step.next,
				step.paused)
		}
	}
	r.timeout, r.life = 0, time.Now() // each is tried once
	r.failed = 0
	for i, want := range []string{"", "", "server b:2: dial: connection refused: gave up"} {
		err := r.next(context.Background(), refused)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("retry.timeout 0, address %d: got %v, want %q", i+1, err, want)
		}
	}
}
