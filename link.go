package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"
)

const (
	// forever is how long the first byte of an answer may take that comes with the draw.
	forever time.Duration = 0
	// stopTime is how long a client that was told to stop waits for the answers that it is owed.
	stopTime = 2 * time.Second
)

// Errors that decide how a client goes on.
var (
	errTryLater = errors.New("the server does not take bets now") // ACK 5: again after a pause
	errEnded    = errors.New("the connection ended")              // again at once if there was life in it
	errStopped  = errors.New("stopped by a signal")
)

// dialPlain connects without encryption.
func dialPlain(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// A link is one connection to a server. One goroutine reads, one writes.
//
// The rule of its deadlines: a message that is read must be whole conn.idle
// after its first byte, and its first byte may take as long; only an answer that
// comes with the draw is waited for for ever. Of what is written each 8,192
// bytes may take conn.idle. A signal ends all waits stopTime later.
type link struct {
	conn    net.Conn
	address string        // as server.address has it
	in      framer        // of conn
	idle    time.Duration // conn.idle
	release func() bool   // ends the wait for a signal
}

// newLink returns the link over conn.
func newLink(ctx context.Context, conn net.Conn, address string, idle time.Duration) *link {
	l := &link{conn: conn, address: address, idle: idle, in: framer{src: conn, buf: make([]byte, maxReply)}}
	l.release = context.AfterFunc(ctx, func() { time.AfterFunc(stopTime, func() { conn.Close() }) })
	return l
}

// close closes the connection. It may be closed already, to end a wait.
func (l *link) close() error {
	l.release()
	if err := l.conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// write writes messages.
func (l *link) write(m []byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(l.idle * time.Duration(1+len(m)/maxMessage)))
	_, err := l.conn.Write(m)
	return l.broken(err, "the server takes nothing")
}

// read reads until parse finds a whole message, and consumes its size. The first
// byte may take wait. What parse keeps of m is valid until the next read.
func (l *link) read(wait time.Duration, parse func(m []byte) (size int, err error)) error {
	var deadline time.Time
	for begun := false; ; {
		m := l.in.unread()
		if len(m) > 0 {
			size, err := parse(m)
			if err == nil {
				l.in.discard(size)
				return nil
			}
			if err != errShort {
				return fmt.Errorf("what came from %s is no answer of a tp0 server (%w): see that server.address is one",
					l.address, err)
			}
		}
		switch {
		case !begun && len(m) > 0:
			begun, deadline = true, time.Now().Add(l.idle)
		case !begun && wait != forever:
			deadline = time.Now().Add(wait)
		}
		l.conn.SetReadDeadline(deadline)
		if err := l.in.fill(); err != nil {
			return l.broken(err, "no whole answer came")
		}
	}
}

// broken is the error of a connection that does not go on; late says what has
// not come to be if a deadline passed.
func (l *link) broken(err error, late string) error {
	var peer *peerError
	switch {
	case err == nil || errors.As(err, &peer):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %s in conn.idle (%s)", errEnded, late, l.idle)
	}
	return fmt.Errorf("%w: %v", errEnded, err)
}

// readAck reads an ACK, whose first byte may take wait.
func (l *link) readAck(wait time.Duration) (ack Ack, err error) {
	err = l.read(wait, func(m []byte) (size int, err error) {
		ack, size, err = parseAck(m)
		return size, err
	})
	return ack, err
}

// ask writes m and reads the ACK that answers it, whose first byte may take wait.
func (l *link) ask(m []byte, wait time.Duration) (Ack, error) {
	if err := l.write(m); err != nil {
		return Ack{}, err
	}
	return l.readAck(wait)
}

// ackError is the error that an ACK means which is no answer to a batch that was taken.
func ackError(a Ack) error {
	switch a.Code {
	case ackUnavailable:
		return fmt.Errorf("%w: %s", errTryLater, a.Status)
	case ackProtocol:
		return fmt.Errorf("the server refuses what this client says: %s", a.Status)
	}
	return fmt.Errorf("the server answered with ACK %d (%s), which is no answer to what was asked", a.Code, a.Status)
}

// A retry connects to a server, and decides when to try again and when to give up:
// retry.timeout after the end of the last connection with a sign of life. Signs of
// life are bets that were decided on and, in the wait for the draw, that it has not
// taken place; a connection, a RESUME or an ACK 5 are none.
//
// Of several addresses the next is tried at once when one has failed; there is a
// pause, or an end, when all have.
type retry struct {
	addresses []string // server.address; the first is the one in use or to be tried next
	dial      dialer
	idle      time.Duration // conn.idle
	timeout   time.Duration // retry.timeout
	log       *slog.Logger

	life   time.Time // the last sign of life; at first the start
	fresh  bool      // no attempt was made since
	failed int       // addresses one after another, since then or the last pause
	pauses int       // since then
	most   uint64    // bets that the server has ever decided on
}

// newRetry returns a retry that starts now.
func newRetry(cfg *config, log *slog.Logger) (*retry, error) {
	dial, err := newDialer(cfg, dialPlain)
	return &retry{addresses: strings.Split(cfg.serverAddress, ","), dial: dial, idle: cfg.connIdle,
		timeout: cfg.retryTimeout, log: log, life: time.Now()}, err
}

// connect connects to the server whose turn it is.
func (r *retry) connect(ctx context.Context) (*link, error) {
	dialing, cancel := context.WithTimeout(ctx, r.dialTimeout())
	defer cancel()
	conn, err := r.dial(dialing, r.addresses[0])
	if err != nil {
		return nil, err
	}
	l := newLink(ctx, conn, r.addresses[0], r.idle)
	if end, limited := ctx.Deadline(); limited { // mode health's
		l.idle = min(l.idle, time.Until(end))
	}
	return l, nil
}

// dialTimeout is how long an attempt to connect may take: what is left of
// retry.timeout, but not so long that a lost packet stops all, and long enough
// for any network. Where there is another address it need not wait as long.
func (r *retry) dialTimeout() time.Duration {
	most := 10 * time.Second
	if len(r.addresses) > 1 {
		most = 3 * time.Second
	}
	return min(most, max(time.Second, r.timeout-time.Since(r.life)))
}

// alive notes a sign of life.
func (r *retry) alive() { r.life, r.fresh, r.failed, r.pauses = time.Now(), true, 0, 0 }

// decided notes how many bets the server has decided on: more than ever are a sign
// of life. Those that come again because the server lost them are none: else one
// that forgets all that it answers would be tried for ever.
func (r *retry) decided(bets uint64) {
	if bets > r.most {
		r.most = bets
		r.alive()
	}
}

// next waits until another attempt is due, and returns nil, or the error with
// which the client ends: cause, if no other attempt can help.
func (r *retry) next(ctx context.Context, cause error) error {
	if r.fresh {
		r.life = time.Now() // so long all was well, though loop.period may be long
	}
	address, again := r.addresses[0], r.fresh && errors.Is(cause, errEnded)
	r.fresh = false
	switch {
	case ctx.Err() != nil:
		return errStopped
	case !resumable(cause):
		return cause
	case again: // some servers close after each answer
		return nil
	}
	all := r.turn()
	if all && time.Since(r.life) >= r.timeout {
		r.log.Error(actConnect, fail, "address", address, "reason", cause)
		return fmt.Errorf("server %s: %w: gave up after %s (retry.timeout): start again when the server is back",
			address, cause, r.timeout)
	}
	line := []any{inProgress, "address", address, "reason", cause}
	if len(r.addresses) > 1 {
		line = append(line, "next", r.addresses[0])
	}
	var wait time.Duration
	if all {
		wait = r.pause()
		line = append(line, "wait", wait.Round(time.Millisecond))
	}
	r.log.Info(actConnect, line...)
	if !sleep(ctx, wait) {
		return errStopped
	}
	return nil
}

// turn makes the next address the first, and reports whether all have failed since it last did.
func (r *retry) turn() (all bool) {
	r.addresses = append(r.addresses[1:], r.addresses[0])
	if r.failed++; r.failed < len(r.addresses) {
		return false
	}
	r.failed = 0
	return true
}

// pause is the next pause: 50 ms, then twice as long each time up to 2 s, half
// of it by chance so that many clients do not come back at once.
func (r *retry) pause() time.Duration {
	wait := min(50*time.Millisecond<<min(r.pauses, 10), 2*time.Second)
	r.pauses++
	return wait/2 + rand.N(wait/2)
}

// resumable reports whether another session may succeed where one ended with err.
func resumable(err error) bool {
	var dial *net.OpError
	var address *net.AddrError // can't be right, now or later
	return errors.Is(err, errTryLater) || errors.Is(err, errEnded) || errors.As(err, &dial) && !errors.As(err, &address)
}

// sleep waits for d, or returns false when ctx is cancelled before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
