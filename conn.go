package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// idleBuffer is all that a connection has while nothing comes: 1,000 idle ones must cost
	// little.
	idleBuffer = 256
	// idleAfter is how long a connection keeps its large buffer after the last message.
	idleAfter = time.Second
	// lingerTime is how long a connection that the server ends is read on, so that the last
	// answer is not lost to a reset.
	lingerTime = time.Second
)

// errDone ends a connection in good order, after the answers that are owed.
var errDone = errors.New("conn: done")

// A service is what all connections share: what they use, and how they are to behave.
type service struct {
	store   *store
	counts  *counts
	log     *slog.Logger
	rule    rule            // what bets are checked against
	lottery bool            // there is a draw: NOTIFY is answered
	idle    time.Duration   // conn.idle
	buffers buffers         // for connections that are not idle
	stopped context.Context // done at the stop: no message is begun any more
}

// shuttingDown reports whether the stop has begun.
func (s *service) shuttingDown() bool { return s.stopped.Err() != nil }

// A peer is what is known of who is at the other end before its first message.
type peer struct {
	ip     string
	agency uint8 // the only one that it may speak for; 0: any
	health bool  // it has the server's own key: a BATCH of no bets is all that it may say
}

// peerOf returns who is at the other end of conn. One that came through a gate has a key.
func peerOf(conn net.Conn, ip string) peer {
	keyed, ok := conn.(interface{ keyAgency() uint8 })
	if !ok {
		return peer{ip: ip}
	}
	agency := keyed.keyAgency()
	return peer{ip: ip, agency: agency, health: agency == 0}
}

// A serverConn is one connection. Its reader, serve, takes messages and puts what they ask
// for into the store. Its answerer sends each answer once its group is done. So the next
// batches are read and checked while the disk is busy with the last.
//
//	reader     waits for the network, for room in the store's open group and in the
//	           queue of answers, and at its end for the answerer
//	answerer   waits for groups, for the draw, for the client to take answers off
//	committer  waits for neither
//
// The reader alone closes the connection in good order. The answerer closes it when a
// write fails or nothing may be said any more, which ends the reader.
type serverConn struct {
	svc      *service
	conn     net.Conn
	peer     peer
	visit    *visit
	framer   framer
	small    [idleBuffer]byte
	large    []byte      // nil while idle
	began    time.Time   // when the first byte of the unread message came; zero: nothing is unread
	spoken   bool        // a message has been handled
	ending   atomic.Bool // the answerer has refused a batch of a source: nothing more is read
	ses      session
	decider  decider // on the message in hand
	answerer *answerer
	begun    sync.Once      // the answerer was: a connection that is owed nothing costs less without it
	answers  sync.WaitGroup // the answerer
}

// newServerConn returns the serving side of a connection, which owns conn from then on.
func newServerConn(svc *service, conn net.Conn, from peer) *serverConn {
	c := &serverConn{svc: svc, conn: conn, peer: from, visit: svc.counts.visit(from.ip)}
	c.framer = framer{src: conn, buf: c.small[:]}
	c.ses.fence = func() { conn.Close() }
	c.decider = decider{rule: svc.rule}
	c.decider.rule.agency = from.agency
	c.visit.sends(from.agency)
	c.answerer = &answerer{
		queue: newAnswerQueue(), conn: conn, counts: svc.counts, log: svc.log, idle: svc.idle,
		winners: svc.store.winners, drawn: svc.store.drawn,
		refused: func() {
			c.ending.Store(true)
			c.wake()
		},
	}
	return c
}

// serve serves the connection until it ends, for whichever reason.
func (c *serverConn) serve() {
	err := c.takeMessages()
	why := endServer
	var protocol *protocolError
	if errors.As(err, &protocol) {
		why = endProtocol
		c.svc.log.Warn(actProtocol, fail, "ip", c.peer.ip, "reason", protocol.reason,
			"todo", "the client breaks the protocol: see docs/protocol.md")
		c.owe(answer{code: ackProtocol, status: protocol.reason})
	}
	c.answerer.queue.close()
	c.answers.Wait()
	switch err {
	case errFenced:
	case io.EOF:
		why = endClient
		c.closeWrite() // with TLS an end that is not said looks like a cut
	default:
		c.linger()
	}
	c.conn.Close()
	c.svc.store.leave(&c.ses)
	c.visit.end(why)
	c.releaseBuffer()
	if c.svc.shuttingDown() {
		c.svc.log.Info(actCloseConnection, success, "ip", c.peer.ip)
	}
}

// takeMessages reads and handles messages until an error, which is io.EOF when the client
// has closed, errDone when the server is to. At a stop it finishes the message that has
// begun to come, and begins no other, whatever the client goes on sending.
func (c *serverConn) takeMessages() error {
	last := false // the message that has begun to come is the last
	for {
		if err := c.read(); err != nil {
			return err
		}
		for len(c.framer.unread()) > 0 {
			n, err := c.handle()
			if err == errShort {
				break
			}
			if err != nil {
				return err
			}
			c.framer.discard(n)
			c.spoken, c.began = true, time.Time{}
			if c.svc.shuttingDown() {
				if last {
					return errDone
				}
				last = true
			}
		}
		if c.began.IsZero() && len(c.framer.unread()) > 0 {
			c.began = time.Now() // the start of this message came with the end of the last
		}
	}
}

// handle handles the next message, and returns its size. It fails with errShort if the
// message is not whole; then nothing of it has been done, and what the decider has found
// is void.
func (c *serverConn) handle() (size int, err error) {
	m := c.framer.unread()
	if c.peer.health && m[0] != opBatch {
		return 0, errHealthAlone
	}
	switch m[0] {
	case tlsHandshake:
		return 0, protocolErrorf("a client that speaks TLS, which this server does not: set tls.cert and " +
			"tls.known there")
	case opBet:
		return c.handleBet(m)
	case opBatch:
		return c.handleBatch(m)
	case opNotify:
		return c.handleNotify(m)
	case opHello:
		return c.handleHello(m)
	}
	return 0, protocolErrorf("unknown op %d", m[0])
}

// errHealthAlone refuses what somebody with the server's own key may not say.
var errHealthAlone = protocolErrorf("the server's own key may ask for health alone, with a BATCH of no bets")

// handleBatch checks every bet of a BATCH, gives the good ones to the store, and owes an ACK.
func (c *serverConn) handleBatch(m []byte) (size int, err error) {
	count, err := parseBatchHead(m)
	if err != nil {
		return 0, err
	}
	if count == 0 { // clients and health checks ask so whether bets are taken
		return batchHead, c.oweOutcome(answer{}, c.svc.store.available())
	}
	if c.peer.health {
		return 0, errHealthAlone
	}
	if size, err = c.decider.batch(m, count); err != nil {
		return 0, err
	}
	return size, c.take(m[batchHead:size], answer{bets: count})
}

// handleBet is handleBatch for a BET that stands alone.
func (c *serverConn) handleBet(m []byte) (size int, err error) {
	var b Bet
	if size, err = c.decider.bet(m, &b); err != nil {
		return 0, err
	}
	return size, c.take(m[:size], answer{bets: 1, single: &Bet{Document: bytes.Clone(b.Document), Number: b.Number}})
}

// take submits what was decided on the BETs in body, and owes the answer.
func (c *serverConn) take(body []byte, a answer) error {
	d := &c.decider
	if at := c.ses.at; c.ses.src != nil {
		d.decision.at = at.after(a.bets, body)
	}
	group, err := c.svc.store.submit(&c.ses, &d.decision)
	if err == errAfterDraw {
		d.refuseRest(afterDraw)
		group, err = c.svc.store.submit(&c.ses, &d.decision)
	}
	a.group, a.stored, a.source = group, d.decision.count, c.ses.src != nil
	if a.agency = d.rule.agency; a.agency == 0 {
		a.agency = d.agency
	}
	c.visit.sends(a.agency)
	if len(d.refused) > 0 {
		a.code, a.status, a.tally.refused = ackRefused, refusedStatus(d.refused), countRefused(d.refused)
	}
	return c.oweOutcome(a, err)
}

// owe puts an answer into the queue.
func (c *serverConn) owe(a answer) {
	c.begun.Do(func() { c.answers.Go(c.answerer.run) })
	c.answerer.queue.owe(&a)
}

// oweOutcome owes an answer about what the store said: err is of submit, hello or available.
func (c *serverConn) oweOutcome(a answer, err error) error {
	switch err {
	case nil:
		c.owe(a)
		return nil
	case errUnavailable:
		c.owe(answer{code: ackUnavailable, status: unavailableStatus, bets: a.bets, single: a.single})
		if a.kind == answerResume || c.ses.src != nil {
			return errDone // so that no later batch overtakes this one
		}
		return nil
	case errStandby:
		c.owe(answer{code: ackUnavailable, status: standbyStatus, bets: a.bets, single: a.single})
		return errDone
	case errSources:
		return protocolErrorf("%v", err)
	}
	return errFenced // or the store is dead: either way nothing may be said
}

// handleHello makes this connection the one of a source, and owes a RESUME.
func (c *serverConn) handleHello(m []byte) (size int, err error) {
	h, size, err := parseHello(m)
	if err != nil {
		return 0, err
	}
	// "HELLO is the first message of its connection or follows a HELLO for the same pair":
	// what came before it could not be counted for the source.
	key := sourceKey{h.Agency, string(h.Source)}
	switch {
	case c.spoken && c.ses.src == nil:
		return 0, protocolErrorf("HELLO must be the first message of its connection")
	case c.ses.src != nil && c.ses.src.key != key:
		return 0, protocolErrorf("HELLO for another source than this connection's")
	case !c.speaksFor(h.Agency):
		return 0, protocolErrorf("HELLO of another agency than this connection's")
	}
	at, group, err := c.svc.store.hello(&c.ses, key)
	if err == nil {
		c.decider.rule.agency = h.Agency
		c.visit.hello(key.agency, key.name)
	}
	return size, c.oweOutcome(answer{kind: answerResume, resume: at, group: group, tally: tally{source: true}}, err)
}

// speaksFor reports whether this connection may speak for agency.
func (c *serverConn) speaksFor(agency uint8) bool {
	own := c.decider.rule.agency
	return own == 0 || own == agency
}

// handleNotify notes that an agency has finished, or owes it its winners.
func (c *serverConn) handleNotify(m []byte) (size int, err error) {
	n, size, err := parseNotify(m)
	if err != nil {
		return 0, err
	}
	if !c.svc.lottery {
		return 0, protocolErrorf("NOTIFY, but there is no draw here (draw.agencies is 0)")
	}
	if !c.speaksFor(n.Agency) {
		return 0, protocolErrorf("NOTIFY of another agency than this connection's")
	}
	if n.Kind == notifyFinished {
		group, err := c.svc.store.finish(n.Agency)
		if err == errStandby {
			return size, c.oweOutcome(answer{}, err)
		}
		if err != nil {
			return 0, errDone // that has no answer of its own: the client sees the end, and says it again
		}
		c.owe(answer{kind: answerNone, group: group})
		return size, nil
	}
	// A client that said HELLO waits for the draw here. The others know only the course's
	// way, which is ACK 3: come back later. After the draw all wait until the winners are known.
	group, drawn, err := c.svc.store.pending()
	if err != nil {
		return size, c.oweOutcome(answer{}, err)
	}
	c.owe(answer{kind: answerWinners, group: group, hold: c.ses.src != nil || drawn, tally: tally{agency: n.Agency}})
	return size, nil
}

// read reads once. It waits for the first byte of a message 10 times conn.idle, for its
// last byte conn.idle from then on.
func (c *serverConn) read() error {
	for {
		c.setBuffer()
		deadline := c.deadline()
		c.conn.SetReadDeadline(deadline)
		// Looked at behind the deadline, which may have replaced the one by which wake ends a read.
		if c.ending.Load() || c.svc.shuttingDown() && len(c.framer.unread()) == 0 {
			return errDone
		}
		switch err := c.framer.fill(); {
		case err == nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return errFenced // by this side: a newer connection took over, or an answer could not be sent
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return io.EOF // reset or closed: either way there is nobody to tell
		case time.Now().Before(deadline):
			continue // woken
		}
		if err := c.overdue(); err != nil {
			return err
		}
	}
}

// deadline returns until when the next read may take.
func (c *serverConn) deadline() time.Time {
	switch now := time.Now(); {
	case !c.began.IsZero():
		return c.began.Add(c.svc.idle)
	case c.large != nil:
		return now.Add(min(idleAfter, 10*c.svc.idle))
	default:
		return now.Add(10 * c.svc.idle)
	}
}

// overdue decides what to do when the deadline has passed: nil to wait on.
func (c *serverConn) overdue() error {
	switch {
	case !c.began.IsZero():
		c.svc.log.Warn(actConnection, fail, "ip", c.peer.ip, "reason", "a message was not whole in conn.idle: closed")
		return io.EOF
	case c.large != nil:
		c.releaseBuffer()
		return nil
	case c.answerer.queue.peek() != nil:
		return nil // it waits for the draw
	}
	c.svc.log.Info(actConnection, success, "ip", c.peer.ip, "reason", "nothing came for 10 times conn.idle: closed")
	return io.EOF
}

// setBuffer takes a large buffer once the small one is full. Connections that send a byte
// and hang cost no more than idle ones.
func (c *serverConn) setBuffer() {
	if c.large != nil || len(c.framer.unread()) < idleBuffer {
		return
	}
	c.large = c.svc.buffers.take()
	rest := copy(c.large, c.framer.unread())
	c.framer.buf, c.framer.r, c.framer.w = c.large, 0, rest
}

// releaseBuffer gives the large buffer back, and lets go of what has grown. Nothing in it is
// needed any more.
func (c *serverConn) releaseBuffer() {
	c.decider.release()
	if c.large != nil {
		c.svc.buffers.give(c.large)
		c.large = nil
		c.framer.buf, c.framer.r, c.framer.w = c.small[:], 0, 0
	}
}

// wake ends a read that waits for a message to begin.
func (c *serverConn) wake() { c.conn.SetReadDeadline(time.Now()) }

// linger ends the connection from this side and reads on for a while: closing with bytes
// unread would reset it, and the client might never see the last answer.
func (c *serverConn) linger() {
	if c.closeWrite() {
		c.conn.SetReadDeadline(time.Now().Add(lingerTime))
		io.Copy(io.Discard, io.LimitReader(c.conn, 1<<20))
	}
}

// closeWrite says that nothing more is sent, and reports whether it could.
func (c *serverConn) closeWrite() bool {
	half, ok := c.conn.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}
