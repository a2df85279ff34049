//go:build !notls

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	// maxStrangers is how many connections whose key is not known yet there are at most. Each
	// takes a descriptor and up to 40 KiB, beside those of conn.max.
	maxStrangers = 128
	// strangerWait is how long the gate waits for a stranger's next bytes when all places are
	// taken and somebody else comes. A client that speaks at once is never in its way.
	strangerWait = 250 * time.Millisecond
	// maxHeld is how many connections one agency may have.
	maxHeld = 32
	// knownEvery is how often the known file is looked at, and knownSettle how long it must have
	// stayed as it is before it is taken: somebody may be writing to it.
	knownEvery  = time.Second
	knownSettle = 200 * time.Millisecond
	// refusalLines is how many lines a second the log has about refused strangers at most.
	refusalLines = 10
)

// A gate stands between the port and the server: a listener whose connections all have a key
// that is known. Each carries whose it is.
//
//	doorman   accepts, finds a place for each stranger, and starts its greeter
//	greeter   one a stranger: its handshake, then it waits until the server takes the connection
//	watcher   looks at the known file, closes connections whose keys were removed
type gate struct {
	net.Listener
	keys  *keyFile
	path  string // of the known file
	log   *slog.Logger
	tls   *tls.Config
	ready chan arrival  // from greeters and the doorman to Accept
	freed chan struct{} // holds something when a stranger has left
	done  chan struct{} // closed by Close
	shut  sync.Once

	mu         sync.Mutex // protects following
	known      map[fingerprint]knownKey
	strangers  map[*stranger]struct{}
	held       map[*keyedConn]struct{}
	refusals   struct{ second, lines, unsaid int } // of the last second; unsaid: without a line
	handshakes map[string]uint64                   // by result
}

// An arrival is what Accept returns.
type arrival struct {
	conn net.Conn
	err  error
}

// loadGate reads what tls.cert and tls.known name, and returns the function that puts a gate
// before a listener; without tls.cert that returns the listener.
func loadGate(cfg *config, log *slog.Logger) (func(net.Listener) net.Listener, error) {
	switch {
	case cfg.tlsCert == "" && cfg.tlsKnown != "":
		return nil, usageErrorf("tls.known: is set without tls.cert: takes both, or neither")
	case cfg.tlsCert == "":
		return func(l net.Listener) net.Listener { return l }, nil
	case cfg.tlsKnown == "":
		return nil, usageErrorf("tls.cert: is set without tls.known, the file of the keys to let in: takes " +
			"both, or neither")
	}
	keys, err := loadKeyFile(cfg.tlsCert)
	if err != nil {
		return nil, err
	}
	text, known, err := readKnown(cfg.tlsKnown)
	if err != nil {
		return nil, usageErrorf("tls.known: %v", err)
	}
	g := &gate{keys: keys, path: cfg.tlsKnown, log: log, known: known,
		ready: make(chan arrival), freed: make(chan struct{}, 1), done: make(chan struct{}),
		strangers: map[*stranger]struct{}{}, held: map[*keyedConn]struct{}{},
		handshakes: map[string]uint64{"accepted": 0, "refused": 0}}
	g.tls = newTLS(keys, g.check)
	log.Info(actKnown, success, "keys", len(known), "key", keys.own)
	return func(l net.Listener) net.Listener {
		g.Listener = l
		go g.admitAll()
		go g.watch(text)
		return g
	}, nil
}

// Accept returns the next connection whose key is known.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case a := <-g.ready:
		return a.conn, a.err
	case <-g.done:
		return nil, net.ErrClosed
	}
}

// Close closes the listener and sends all strangers away.
func (g *gate) Close() error {
	g.shut.Do(func() { close(g.done) })
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := range g.strangers {
		s.Conn.Close()
	}
	return g.Listener.Close()
}

// admitAll is the doorman: it accepts until the listener is closed.
func (g *gate) admitAll() {
	for {
		conn, err := g.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			g.arrive(arrival{err: err}) // the server says so, and waits a moment
			continue
		}
		s := &stranger{Conn: conn}
		if !g.place(s) {
			conn.Close()
			return
		}
		go g.greet(s)
	}
}

// arrive hands a to Accept, and reports whether it was taken.
func (g *gate) arrive(a arrival) bool {
	select {
	case g.ready <- a:
		return true
	case <-g.done:
		return false
	}
}

// place finds a place for a stranger. Where all are taken, the one that was waited for the
// longest makes way. It reports false when the gate is closed.
func (g *gate) place(s *stranger) bool {
	for {
		g.mu.Lock()
		if len(g.strangers) < maxStrangers {
			g.strangers[s] = struct{}{}
			g.mu.Unlock()
			return true
		}
		var slowest *stranger
		longest, now := int64(strangerWait), time.Now().UnixNano()
		for other := range g.strangers {
			if since := other.waits.Load(); since != 0 && now-since >= longest {
				slowest, longest = other, now-since
			}
		}
		g.mu.Unlock()
		if slowest != nil {
			slowest.Conn.Close() // its greeter leaves
		}
		select {
		case <-g.freed:
		case <-time.After(strangerWait / 10):
		case <-g.done:
			return false
		}
	}
}

// leave gives the place of a stranger back.
func (g *gate) leave(s *stranger) {
	g.mu.Lock()
	delete(g.strangers, s)
	g.mu.Unlock()
	select {
	case g.freed <- struct{}{}:
	default:
	}
}

// greet is the greeter: it finds out who the stranger is. The place is given back only when
// the server has taken the connection: with conn.max open, no more come in here.
func (g *gate) greet(s *stranger) {
	defer g.leave(s)
	c, reason, todo := g.identify(s)
	if c != nil && g.arrive(arrival{conn: c}) {
		return
	}
	if reason != "" {
		g.refused(s, reason, todo)
	}
	// What it has sent is read for a moment: closing with bytes unread would reset the
	// connection, and the last word might never arrive.
	if tcp, ok := s.Conn.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
	s.SetDeadline(time.Now().Add(time.Second))
	io.Copy(io.Discard, io.LimitReader(s, 64<<10))
	if c != nil {
		c.Close()
	}
	s.Conn.Close()
}

// identify makes the handshake. It returns the connection, or why there is none.
func (g *gate) identify(s *stranger) (c *keyedConn, reason, todo string) {
	s.SetDeadline(time.Now().Add(handshakeTime))
	first := make([]byte, 1)
	s.waits.Store(time.Now().UnixNano())
	if _, err := io.ReadFull(s.Conn, first); err != nil {
		reason, todo = explainHandshake(err)
		return nil, reason, todo
	}
	if first[0] != tlsHandshake {
		s.Write(appendAck(nil, ackProtocol, "this port takes TLS alone: set tls.cert"))
		return nil, "the client speaks without TLS", "set tls.cert on its side"
	}
	s.first = first
	conn := tls.Server(s, g.tls)
	if err := conn.Handshake(); err != nil {
		reason, todo = explainHandshake(err)
		return nil, reason, todo
	}
	c = &keyedConn{Conn: conn, gate: g, raw: s.Conn, key: fingerprintOf(conn.ConnectionState().PeerCertificates[0])}
	if reason = g.hold(c); reason != "" {
		conn.Write(appendAck(nil, ackUnavailable, reason))
		conn.CloseWrite()
		return nil, reason, ""
	}
	s.SetDeadline(time.Time{})
	return c, "", ""
}

// hold takes c among those that are held, or returns why not.
func (g *gate) hold(c *keyedConn) (reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	agency, ok := g.whose(c.key)
	if !ok {
		return "its key was removed during the handshake"
	}
	count := 0
	for other := range g.held {
		if other.agency == agency {
			count++
		}
	}
	if count >= maxHeld {
		return fmt.Sprintf("agency %d has %d connections, which is the most that one may have", agency, count)
	}
	c.agency = agency
	g.held[c] = struct{}{}
	g.handshakes["accepted"]++
	return ""
}

// whose returns the agency of a key, which is 0 for the server's own. g.mu is held.
func (g *gate) whose(key fingerprint) (agency uint8, ok bool) {
	if key == g.keys.own {
		return 0, true
	}
	known, ok := g.known[key]
	return known.agency, ok
}

// check refuses a certificate whose key is not known.
func (g *gate) check(cert *x509.Certificate) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := fingerprintOf(cert)
	if _, ok := g.whose(key); !ok {
		return fmt.Errorf("its key is not known: %s", key)
	}
	return nil
}

// refused logs that a stranger was turned away. Of many in a second only some get a line, and the
// next line says how many did not: strangers shall not fill the log either.
func (g *gate) refused(s *stranger, reason, todo string) {
	ip, _, _ := net.SplitHostPort(s.RemoteAddr().String())
	details := []any{fail, "ip", ip, "reason", reason}
	if todo != "" {
		details = append(details, "todo", todo)
	}
	g.mu.Lock()
	g.handshakes["refused"]++
	r := &g.refusals
	if now := int(time.Now().Unix()); now != r.second {
		r.second, r.lines = now, 0
	}
	r.lines++
	line := r.lines <= refusalLines
	if !line {
		r.unsaid++
	} else if r.unsaid > 0 {
		details = append(details, "unsaid", r.unsaid)
		r.unsaid = 0
	}
	g.mu.Unlock()
	if line {
		g.log.Warn(actHandshake, details...)
	}
}

// watch is the watcher. text is what the known file held when it was read.
func (g *gate) watch(text []byte) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(knownEvery)
	defer tick.Stop()
	said := "" // the error that was said last
	for {
		select {
		case <-g.done:
			return
		case <-hangup:
		case <-tick.C:
		}
		var err error
		text, err = g.look(text)
		if err != nil && err.Error() != said {
			g.log.Warn(actKnown, fail, "reason", err, "todo", "mend the file: until then the keys of before hold")
		}
		if said = ""; err != nil {
			said = err.Error()
		}
	}
}

// look reads the known file, and takes it where it is no longer what it was last taken as.
func (g *gate) look(taken []byte) ([]byte, error) {
	text, _, err := readKnown(g.path)
	if err == nil && bytes.Equal(text, taken) {
		return taken, nil
	}
	time.Sleep(knownSettle)
	again, known, err := readKnown(g.path)
	if err != nil || !bytes.Equal(text, again) || bytes.Equal(text, taken) {
		return taken, err
	}
	g.take(known)
	return text, nil
}

// take makes known the keys that are let in. Connections of others are closed.
func (g *gate) take(known map[fingerprint]knownKey) {
	g.mu.Lock()
	g.known = known
	closed := 0
	for c := range g.held {
		if agency, ok := g.whose(c.key); !ok || agency != c.agency {
			c.raw.Close() // ends its reader, which closes it
			closed++
		}
	}
	g.mu.Unlock()
	g.log.Info(actKnown, success, "keys", len(known), "closed", closed)
}

// keyFacts returns when the newest key of each agency was made, and how many handshakes there were
// by result.
func (g *gate) keyFacts() (made map[uint8]time.Time, handshakes map[string]uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	made = map[uint8]time.Time{}
	for _, key := range g.known {
		if key.made.After(made[key.agency]) {
			made[key.agency] = key.made
		}
	}
	return made, maps.Clone(g.handshakes)
}

// A keyedConn is a connection whose key is known.
type keyedConn struct {
	*tls.Conn
	gate   *gate
	raw    net.Conn
	key    fingerprint
	agency uint8 // whose key it is; 0: the server's own
}

// keyAgency returns whose key the connection has; 0: the server's own.
func (c *keyedConn) keyAgency() uint8 { return c.agency }

// Close ends the connection at once. The end of TLS is said by CloseWrite, which may have to
// wait for the client: whoever calls Close may not.
func (c *keyedConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.held, c)
	c.gate.mu.Unlock()
	return c.raw.Close()
}
