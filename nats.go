//go:build !nostream && !notls

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A connection to a replicated engine, which is there as long as one of its servers answers. It
// knows nothing of what is sent over it.

const (
	// natsDialWait is how long a server may take to accept a connection.
	natsDialWait = 2 * time.Second
	// natsPauseMin and natsPauseMax are the pauses between two rounds of all servers.
	natsPauseMin = 50 * time.Millisecond
	natsPauseMax = time.Second
	// natsTell is how often the log has the same reason.
	natsTell = time.Minute
	// maxNATSFound is how many servers are remembered beside those of the settings.
	maxNATSFound = 32
	// natsFirstSID is the number of the first subscription beside the one to all answers.
	natsFirstSID = natsInboxSID + 1
)

// A nats is a connection to an engine. All its methods may be called at any time by anybody.
// One goroutine finds servers and reads, one writes, one asks whether the server is there.
type nats struct {
	o      natsOptions
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine that finds servers has ended

	connects atomic.Uint64 // how many connections there were

	mu     sync.Mutex // protects following; is taken before that of a link
	link   *natsLink  // nil: no connection
	turn   int        // the server of the settings that is tried first
	used   natsServer // that there was a connection to last
	found  []natsServer
	subs   []natsSubscription // the one at i has the number natsFirstSID+i
	reason error              // why there is no connection
	told   string             // the reason that the log had last
	toldAt time.Time          // when that was
}

// A natsSubscription is what is to be heard.
type natsSubscription struct {
	subject string
	handle  func(natsMessage)
}

// dialNATS returns a connection to an engine, which it goes on to make until close.
func dialNATS(o natsOptions) *nats {
	c := newNATS(o)
	go c.run()
	return c
}

func newNATS(o natsOptions) *nats {
	if o.ping == 0 {
		o.ping, o.pingWait = natsPing, natsPingWait
	}
	c := &nats{o: o, done: make(chan struct{}), reason: errors.New("no server has answered yet")}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// close ends the connection. What is still to be sent may be lost.
func (c *nats) close() {
	c.cancel()
	<-c.done
}

// request sends a message and returns its one answer.
func (c *nats) request(ctx context.Context, subject string, header []natsField, body []byte) (natsMessage, error) {
	k, err := c.send(subject, header, body)
	if err != nil {
		return natsMessage{}, err
	}
	return k.wait(ctx)
}

// ask sends a message and yields its answers until yield wants no more.
func (c *nats) ask(ctx context.Context, subject string, body []byte, yield func(natsMessage) (more bool)) error {
	k, err := c.send(subject, nil, body)
	if err != nil {
		return err
	}
	defer k.abandon()
	for {
		m, err := k.next(ctx)
		if err != nil {
			return err
		}
		if !yield(m) {
			return nil
		}
	}
}

// send begins a request. It keeps neither header nor body, and does not wait. The call must be
// waited for or abandoned.
func (c *nats) send(subject string, header []natsField, body []byte) (*natsCall, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return nil, fmt.Errorf("%w: %w", errNATSLost, c.reason)
	}
	return c.link.begin(subject, header, body)
}

// publish sends a message to which no answer is wanted. It does not wait, and nobody learns
// whether it got there.
func (c *nats) publish(subject string, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return fmt.Errorf("%w: %w", errNATSLost, c.reason)
	}
	return c.link.publish(subject, "", nil, body)
}

// subscribe has handle called with each message on subject, as long as there is a connection, now
// and after each new one. handle must not wait: nothing else is read meanwhile.
func (c *nats) subscribe(subject string, handle func(natsMessage)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs = append(c.subs, natsSubscription{subject, handle})
	if c.link != nil {
		c.link.say(subscribeLine(subject, natsFirstSID+len(c.subs)-1))
	}
}

// subscribeLine is the line that makes a subscription.
func subscribeLine(subject string, sid int) string { return fmt.Sprintf("SUB %s %d\r\n", subject, sid) }

// connected returns the address and the version of the server, if there is a connection.
func (c *nats) connected() (server, version string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return "", "", false
	}
	return c.link.at.address, c.link.server().Version, true
}

// elsewhere has another server found, if there is one: this one answers, and is of no use.
func (c *nats) elsewhere(reason string) {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil && len(c.candidates()) > 1 {
		l.end(errors.New(reason))
	}
}

// run finds servers until close.
func (c *nats) run() {
	defer close(c.done)
	for pause := natsPauseMin; ; pause = min(2*pause, natsPauseMax) {
		began := time.Now()
		if c.round() && time.Since(began) > natsPauseMax {
			pause = natsPauseMin
		}
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// round tries one server after the other until there is a connection and that has ended. It
// reports whether there was one.
func (c *nats) round() (connected bool) {
	var failures []string
	for _, at := range c.candidates() {
		connected, err := c.try(at)
		switch {
		case c.ctx.Err() != nil:
			return connected
		case connected:
			c.o.log.Warn(actEngine, fail, "server", at.address, "reason", "the connection is lost: "+bare(err),
				"todo", "nothing: the next server is tried")
			return true
		}
		failures = append(failures, at.address+": "+bare(err))
	}
	c.tell(strings.Join(failures, "; "))
	return false
}

// bare returns the text of an error without the addresses in it, which change each time.
func bare(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// tell logs that no server can be used: a reason once, and again each natsTell.
func (c *nats) tell(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told == reason && time.Since(c.toldAt) < natsTell {
		return
	}
	c.told, c.toldAt = reason, time.Now()
	c.o.log.Warn(actEngine, fail, "reason", "no server of it can be used: "+reason,
		"todo", "start the engines in stream.servers, or see to the way to them: they are tried again by themselves")
}

// candidates returns the servers in the order in which they are to be tried: those of the
// settings, each in its turn, then those that the engine named, and last the one that was used
// last.
func (c *nats) candidates() (all []natsServer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.o.servers {
		address := c.o.servers[(c.turn+i)%len(c.o.servers)]
		host, _, _ := net.SplitHostPort(address)
		all = append(all, natsServer{address, host})
	}
	for _, at := range c.found {
		if !slices.Contains(c.o.servers, at.address) {
			all = append(all, at)
		}
	}
	if i := slices.Index(all, c.used); i >= 0 {
		all = append(slices.Delete(all, i, i+1), c.used)
	}
	return all
}

// try connects to a server and reads until the connection ends. It reports whether there was one,
// and why it ended.
func (c *nats) try(at natsServer) (connected bool, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, natsDialWait)
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.address)
	cancel()
	if err != nil {
		c.lost(err)
		return false, err
	}
	return c.serve(conn, at)
}

// serve makes conn the connection until it ends.
func (c *nats) serve(conn net.Conn, at natsServer) (connected bool, err error) {
	l := newNATSLink(conn, at, &c.o)
	release := context.AfterFunc(c.ctx, func() { l.end(net.ErrClosed) })
	defer release()
	if err = l.greet(c.ctx); err == nil {
		connected = true
		c.adopt(l)
		go l.writeAll()
		err = l.readAll(c.deliver, c.informed)
	}
	l.end(err)
	err = l.reason()
	c.lost(err)
	return connected, err
}

// lost notes why there is no connection.
func (c *nats) lost(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.reason = nil, reason
}

// adopt makes l the connection.
func (c *nats) adopt(l *natsLink) {
	c.mu.Lock()
	if i := slices.Index(c.o.servers, l.at.address); i >= 0 {
		c.turn = i + 1
	}
	l.say(subscribeLine(l.inbox+"*", natsInboxSID))
	for i, s := range c.subs {
		l.say(subscribeLine(s.subject, natsFirstSID+i))
	}
	c.link, c.used, c.told = l, l.at, ""
	c.mu.Unlock()
	c.connects.Add(1)
	c.o.log.Info(actEngine, success, "server", l.at.address, "version", l.server().Version)
	c.informed(l.server())
	if c.o.onConnect != nil {
		go c.o.onConnect()
	}
}

// informed notes what a server says of its engine: which servers there are, and that this one is
// about to go. It is called by the goroutine that reads.
func (c *nats) informed(info natsInfo) {
	c.mu.Lock()
	l := c.link
	if len(info.ConnectURLs) > 0 {
		c.found = nil
	}
	for _, address := range info.ConnectURLs[:min(len(info.ConnectURLs), maxNATSFound)] {
		host, port, err := net.SplitHostPort(address)
		if err != nil || port == "" {
			continue
		}
		if net.ParseIP(host) != nil {
			host = l.at.host // certificates name hosts
		}
		c.found = append(c.found, natsServer{address, host})
	}
	c.mu.Unlock()
	if info.LameDuck && !l.leaving && len(c.candidates()) > 1 {
		l.leaving = true
		go l.leave()
	}
}

// deliver hands a message to whoever subscribed under that number.
func (c *nats) deliver(sid uint64, m natsMessage) {
	c.mu.Lock()
	var handle func(natsMessage)
	if i := sid - natsFirstSID; i < uint64(len(c.subs)) { // of a smaller number i is huge
		handle = c.subs[i].handle
	}
	c.mu.Unlock()
	if handle != nil {
		handle(m)
	}
}
