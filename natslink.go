//go:build !nostream && !notls

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// natsInboxSID is the number of the subscription to all answers.
	natsInboxSID = 1
	// natsGreetWait is how long a server may take until it has taken the name and the password.
	natsGreetWait = 3 * time.Second
	// natsWriteWait is how long natsWriteMax bytes may take.
	natsWriteWait = 5 * time.Second
	natsWriteMax  = 64 << 10
	// natsPing is the time between two questions whether the server is there, and natsPingWait how
	// long it may take to answer: a network that is cut says nothing.
	natsPing     = 2 * time.Second
	natsPingWait = 5 * time.Second
	// natsLeave is how long requests may go on at a server that is about to go.
	natsLeave = time.Second
	// maxNATSQueue is how many bytes wait to be sent.
	maxNATSQueue = 4 * maxNATSMessage
	// maxNATSSaid is how many complaints of one server the log has.
	maxNATSSaid = 16
	// natsKeep is the memory that is kept for what is to be sent.
	natsKeep = 1 << 20
)

// natsOptions say where an engine is and who asks.
type natsOptions struct {
	servers               []string // host:port each
	user, password, token string
	tls                   *tls.Config // not nil: no connection without TLS
	name                  string      // what the engine calls this connection
	payload               int         // bytes of a message that a server must take; one that takes less is left
	log                   *slog.Logger
	onConnect             func()        // is called after each connection, in a goroutine of its own; nil: nothing
	ping, pingWait        time.Duration // 0: natsPing, natsPingWait
}

// admits refuses a server that takes too little.
func (o *natsOptions) admits(info *natsInfo) error {
	if n := info.MaxPayload; n > 0 && n < o.payload {
		return fmt.Errorf("its max_payload is %d: set it to %d or more, for the longest message", n, o.payload)
	}
	return nil
}

// A natsServer is where a server is.
type natsServer struct {
	address string
	host    string // what its certificate must name
}

// A natsLink is one connection to one server of an engine. One goroutine reads and one writes.
type natsLink struct {
	conn    net.Conn // raw, or what encrypts it
	raw     net.Conn // closing it does not wait, as closing one with TLS may
	at      natsServer
	o       *natsOptions
	in      natsReader
	live    bool   // greeted: what is read has to come in time from now on
	leaving bool   // leave has begun; this and live are for the goroutine that reads
	inbox   string // how the subjects of all answers begin
	out     natsOutbox
	calls   natsCalls
	gone    chan struct{} // closed by end

	mu   sync.Mutex // protects following
	info natsInfo
	said map[string]bool // which complaints the log has
	err  error           // why the link has ended; nil: it has not
}

func newNATSLink(conn net.Conn, at natsServer, o *natsOptions) *natsLink {
	l := &natsLink{conn: conn, raw: conn, at: at, o: o, inbox: "_INBOX." + rand.Text() + ".",
		out: natsOutbox{wake: make(chan struct{}, 1)}, calls: natsCalls{all: map[uint64]*natsCall{}},
		gone: make(chan struct{}), said: map[string]bool{}}
	l.in = newNATSReader(l)
	return l
}

// Read reads from the connection. A server that is there answers each question, so something comes
// all the time.
func (l *natsLink) Read(p []byte) (int, error) {
	if l.live {
		l.conn.SetReadDeadline(time.Now().Add(l.o.ping + l.o.pingWait))
	}
	return l.conn.Read(p)
}

// greet exchanges what comes first: who the server is, TLS, who the client is.
func (l *natsLink) greet(ctx context.Context) error {
	l.conn.SetDeadline(time.Now().Add(natsGreetWait))
	op, err := l.in.next()
	if err != nil {
		return fmt.Errorf("no greeting came: %w", err)
	}
	if op.verb == "-ERR" {
		return &natsError{string(op.text)}
	}
	if op.verb != "INFO" {
		return fmt.Errorf("what answers there is no engine: its first word is %.16q", op.verb)
	}
	if err := json.Unmarshal(op.text, &l.info); err != nil {
		return fmt.Errorf("its INFO: %w", err)
	}
	if !l.info.Headers {
		return errors.New("the engine takes no headers: it is too old")
	}
	if err := l.o.admits(&l.info); err != nil {
		return err
	}
	if l.info.TLSRequired || l.o.tls != nil {
		if err := l.encrypt(ctx); err != nil {
			return err
		}
	}
	hello, err := json.Marshal(natsHello{TLSRequired: l.o.tls != nil, Echo: true, Headers: true, NoResponders: true,
		Protocol: 1, Lang: "go", Version: version, Name: l.o.name,
		User: l.o.user, Password: l.o.password, Token: l.o.token})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(l.conn, "CONNECT %s\r\nPING\r\n", hello); err != nil {
		return err
	}
	for {
		op, err := l.in.next()
		switch {
		case err != nil:
			return fmt.Errorf("no answer to CONNECT came: %w", err)
		case op.verb == "-ERR":
			return &natsError{string(op.text)}
		case op.verb == "PONG":
			l.conn.SetDeadline(time.Time{})
			l.live = true
			return nil
		case op.verb == "MSG":
			return errors.New("a message came before the answer to CONNECT")
		}
	}
}

// encrypt makes the connection one with TLS.
func (l *natsLink) encrypt(ctx context.Context) error {
	if !l.info.TLSRequired && !l.info.TLSAvailable {
		return errors.New("the engine has no TLS, and without it no connection is wanted")
	}
	if l.in.Buffered() > 0 {
		return errors.New("something came unencrypted that should have been encrypted")
	}
	config := &tls.Config{}
	if l.o.tls != nil {
		config = l.o.tls.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = l.at.host
	}
	conn := tls.Client(l.conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	l.conn = conn
	return nil
}

// end ends the link, and all requests with it. The first reason stays.
func (l *natsLink) end(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = reason
	l.raw.Close()
	close(l.gone)
	l.calls.end(fmt.Errorf("%w: %w", errNATSLost, reason))
}

// reason returns why the link has ended.
func (l *natsLink) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// server returns what the server said of itself last.
func (l *natsLink) server() natsInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.info
}

// readAll reads until the connection ends. deliver is called with each message that is no answer,
// informed with each INFO.
func (l *natsLink) readAll(deliver func(sid uint64, m natsMessage), informed func(natsInfo)) error {
	for {
		op, err := l.in.next()
		if err != nil {
			return err
		}
		switch op.verb {
		case "PING":
			l.say("PONG\r\n")
		case "INFO":
			var info natsInfo
			if err := json.Unmarshal(op.text, &info); err != nil {
				return fmt.Errorf("its INFO: %w", err)
			}
			if err := l.o.admits(&info); err != nil {
				return err
			}
			l.mu.Lock()
			l.info = info
			l.mu.Unlock()
			informed(info)
		case "-ERR":
			if err := l.complaint(string(op.text)); err != nil {
				return err
			}
		case "MSG":
			if op.sid == natsInboxSID {
				l.answer(op.message)
			} else {
				deliver(op.sid, op.message)
			}
		}
	}
}

// complaint deals with an -ERR. The engine goes on after one about rights, and only after such.
// Without the right to hear something there is no use in a connection.
func (l *natsLink) complaint(text string) error {
	err := &natsError{text}
	if !strings.HasPrefix(text, "Permissions Violation for Publish") {
		return err
	}
	l.calls.forbid(text, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.said[text] && len(l.said) < maxNATSSaid {
		l.said[text] = true
		l.o.log.Warn(actEngine, fail, "server", l.at.address, "reason", err)
	}
	return nil
}

// answer hands an answer to the request that it is for.
func (l *natsLink) answer(m natsMessage) {
	number, ours := strings.CutPrefix(m.subject, l.inbox)
	if id, err := strconv.ParseUint(number, 10, 64); err == nil && ours {
		l.calls.answer(id, m)
	}
}

// begin sends a request.
func (l *natsLink) begin(subject string, header []natsField, body []byte) (*natsCall, error) {
	k, err := l.calls.begin(subject)
	if err == nil {
		err = l.publish(subject, l.inbox+strconv.FormatUint(k.id, 10), header, body)
	}
	if err != nil {
		k.abandon()
		return nil, err
	}
	return k, nil
}

// publish sends a message.
func (l *natsLink) publish(subject, reply string, header []natsField, body []byte) error {
	limit := maxNATSMessage
	if n := l.server().MaxPayload; n > 0 {
		limit = min(limit, n)
	}
	return l.out.add(func(out []byte) ([]byte, error) {
		return appendNATSPublish(out, limit, subject, reply, header, body)
	})
}

// say sends a line.
func (l *natsLink) say(line string) {
	err := l.out.add(func(out []byte) ([]byte, error) { return append(out, line...), nil })
	if err != nil {
		l.end(err)
	}
}

// writeAll writes what is to be sent until the link ends, and asks again and again whether the
// server is there.
func (l *natsLink) writeAll() {
	tick := time.NewTicker(l.o.ping)
	defer tick.Stop()
	for {
		select {
		case <-l.gone:
			return
		case <-tick.C:
			l.say("PING\r\n")
		case <-l.out.wake:
			if err := l.write(l.out.take()); err != nil {
				l.end(err)
				return
			}
		}
	}
}

// write writes to the connection.
func (l *natsLink) write(out []byte) error {
	for len(out) > 0 {
		n := min(len(out), natsWriteMax)
		l.conn.SetWriteDeadline(time.Now().Add(natsWriteWait))
		if _, err := l.conn.Write(out[:n]); err != nil {
			return err
		}
		out = out[n:]
	}
	return nil
}

// leave ends the link when nobody waits for an answer, or after natsLeave.
func (l *natsLink) leave() {
	const look = 10 * time.Millisecond
	for end := time.Now().Add(natsLeave); l.calls.waiting() > 0 && time.Now().Before(end); time.Sleep(look) {
	}
	l.end(errors.New("the server is about to go"))
}

// A natsOutbox holds what is to be sent, for the goroutine that writes: nobody else waits for a
// network that takes nothing.
type natsOutbox struct {
	wake chan struct{} // holds something when out is not empty

	mu    sync.Mutex // protects following
	out   []byte
	spare []byte // memory for the next out, which is being written
}

// add has more sent: what extend appends.
func (b *natsOutbox) add(extend func(out []byte) ([]byte, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.out) > maxNATSQueue {
		return fmt.Errorf("%w: it takes nothing", errNATSLost)
	}
	out, err := extend(b.out)
	if err != nil {
		return err
	}
	b.out = out
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return nil
}

// take returns what is to be sent. It is valid until the next call.
func (b *natsOutbox) take() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.out
	b.out, b.spare = b.spare[:0], out
	if cap(out) > natsKeep {
		b.spare = nil
	}
	return out
}
