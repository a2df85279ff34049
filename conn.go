package main

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// connBuffer is what a connection reads at once: several batches, so that a read costs little a bet.
	connBuffer = 64 << 10
	// idleBuffer is all that a connection has while nothing comes: 1,000 idle ones must cost little.
	idleBuffer = 256
	// idleAfter is how long a connection keeps its large buffer after the last message.
	idleAfter = time.Second
	// maxAnswers is how many messages of a connection may be unanswered before it is not read any more.
	maxAnswers = 1024
	// lingerTime is how long a connection that the server ends is read on, so that the last answer is not lost to a reset.
	lingerTime = time.Second
)

// errDone ends a connection in good order, after the answers that are owed.
var errDone = errors.New("conn: done")

// A serverConn is one connection. Its reader, serve, takes messages and puts what they ask for into the store; its answerer, which runs
// only while answers are owed or messages come, sends each once its group is done. So the next batches are read and checked while the disk is busy with the last.
//
//	reader     waits for the network, for room in the store's open group, for room in the line of answers; at its end for the answerer
//	answerer   waits for groups (which the store's committer closes), for the draw, for the client to take answers off
//	committer  waits for neither
//
// The reader alone closes the connection in good order; the answerer closes it when a write fails or nothing may be said any more, which ends the reader.
type serverConn struct {
	srv    *server
	conn   net.Conn
	ip     string
	framer framer
	small  [idleBuffer]byte
	large  *[connBuffer]byte // nil while idle
	began  time.Time         // when the first byte of the unread message came; zero: nothing is unread
	spoken bool              // a message has been handled
	ending atomic.Bool       // the answerer has refused a batch of a source: nothing more is read
	rule   rule
	ses    session

	decision decision     // of the message in hand; reused
	refused  []refusedBet // of the message in hand; reused

	gone    chan struct{} // closed when nothing more will be read: nobody waits for the draw any more
	crowded chan struct{} // closed when the line of answers was full for the first time: a client that asks so much is not kept waiting for the draw

	mu        sync.Mutex // protects following
	changed   sync.Cond  // an answer was added or taken off, busy has changed, or the answerer has ended
	answers   []answer   // owed, in order
	spare     []answer   // the array of the answers before
	owed      int        // answers not yet written
	answering bool       // the answerer runs
	busy      bool       // messages come: the answerer stays when nothing is owed
	full      bool       // crowded is closed
}

// newServerConn returns the connection's serving side, which owns conn from then on.
func newServerConn(srv *server, conn net.Conn, ip string) *serverConn {
	c := &serverConn{srv: srv, conn: conn, ip: ip, rule: srv.rule, gone: make(chan struct{}), crowded: make(chan struct{})}
	c.changed.L = &c.mu
	c.framer = framer{src: conn, buf: c.small[:]}
	c.ses.fence = func() { conn.Close() }
	return c
}

// serve serves the connection until it ends, for whichever reason.
func (c *serverConn) serve() {
	err := c.takeMessages()
	var protocol *protocolError
	if errors.As(err, &protocol) {
		c.srv.log.Warn(actProtocol, fail, "ip", c.ip, "reason", protocol.reason, "todo", "the client breaks the protocol: see docs/protocol.md")
		c.owe(answer{code: ackProtocol, status: protocol.reason})
	}
	close(c.gone)
	c.setBusy(false)
	c.awaitAnswers()
	if err != io.EOF && !errors.Is(err, errFenced) {
		c.linger()
	}
	c.conn.Close()
	c.srv.store.leave(&c.ses)
	c.releaseBuffer()
	if c.srv.shuttingDown() {
		c.srv.log.Info(actCloseConnection, success, "ip", c.ip)
	}
}

// takeMessages reads and handles messages until an error, which is io.EOF when the client has closed, errDone when the server is to.
func (c *serverConn) takeMessages() error {
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
		}
		if c.began.IsZero() && len(c.framer.unread()) > 0 {
			c.began = time.Now() // the start of this message came with the end of the last
		}
	}
}

// handle handles the next message, and returns its size. It fails with errShort if the message is not whole; then nothing of it has been done, and what is in the
// decision is void.
func (c *serverConn) handle() (size int, err error) {
	m := c.framer.unread()
	switch m[0] {
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

// handleBatch checks every bet of a BATCH, gives the good ones to the store, and owes an ACK.
func (c *serverConn) handleBatch(m []byte) (size int, err error) {
	count, err := parseBatchHead(m)
	if err != nil {
		return 0, err
	}
	if size, err = c.decide(m, count); err != nil {
		return 0, err
	}
	if count == 0 {
		return size, c.oweEmpty()
	}
	return size, c.take(m[batchHead:size], answer{bets: count})
}

// decide checks the count bets of the BATCH m, and leaves what it finds in c.decision and c.refused.
func (c *serverConn) decide(m []byte, count int) (size int, err error) {
	c.beginDecision()
	d := &c.decision
	at := batchHead
	fast := newFastRows(c.rule, agencyOf(m))
	var b Bet
	for i := range count {
		// Nothing here allocates, locks or logs: it is done for every bet.
		if rows, next, _ := fast.appendRow(d.rows, m, at); next > 0 {
			d.rows, at = rows, next
			d.count++
			d.total++
			continue
		}
		if at, err = parseBatchBet(m, at, i, count, &b); err != nil {
			return 0, err
		}
		c.decideBet(i+1, &b)
	}
	return at, nil
}

// beginDecision empties the decision.
func (c *serverConn) beginDecision() {
	d := &c.decision
	*d = decision{rows: d.rows[:0]}
	c.refused = c.refused[:0]
}

// decideBet checks one bet: what it appends to the decision is all that remains of it.
func (c *serverConn) decideBet(position int, b *Bet) {
	d := &c.decision
	d.total++
	why := c.rule.check(b)
	if why != accepted {
		c.refused = append(c.refused, refusedBet{position, why})
		return
	}
	d.rows = appendRow(d.rows, b)
	d.count++
}

// handleBet is handleBatch for a BET that stands alone.
func (c *serverConn) handleBet(m []byte) (size int, err error) {
	var b Bet
	if size, err = parseBet(m, 0, &b); err != nil {
		return 0, err
	}
	c.beginDecision()
	c.decideBet(1, &b)
	return size, c.take(m[:size], answer{bets: 1, single: &singleBet{string(b.Document), int(b.Number)}})
}

// take submits the decision on the BETs in body, and owes the answer.
func (c *serverConn) take(body []byte, a answer) error {
	if at := c.ses.at; c.ses.src != nil {
		c.decision.at = at.after(a.bets, body)
	}
	group, err := c.srv.store.submit(&c.ses, &c.decision)
	if err == errAfterDraw {
		c.refuseAll(body)
		group, err = c.srv.store.submit(&c.ses, &c.decision)
	}
	a.group, a.stored, a.source = group, c.decision.count, c.ses.src != nil
	if len(c.refused) > 0 {
		a.code, a.status = ackRefused, refusedStatus(c.refused)
	}
	return c.oweOutcome(a, err)
}

// refuseAll decides again on the BETs in body, now that the draw has taken place.
func (c *serverConn) refuseAll(body []byte) {
	at, total, resume := 0, c.decision.total, c.decision.at
	c.beginDecision()
	c.rule.drawn = true
	var b Bet
	for i := range total {
		at, _ = parseBet(body, at, &b) // it has been parsed before
		c.decideBet(i+1, &b)
	}
	c.rule.drawn = false // the store knows: should the draw's group fail, bets are taken again
	c.decision.at = resume
}

// oweOutcome owes an answer about what the store said: err is of submit, hello or finish.
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
	case errSources:
		return protocolErrorf("%v", err)
	}
	return errFenced // or the store is dead: either way nothing may be said
}

// unavailableStatus is the status of every ACK 5.
const unavailableStatus = "not taken, nothing of it is stored: try again later"

// oweEmpty owes the answer to a BATCH of no bets, by which clients and health checks ask whether bets are taken.
func (c *serverConn) oweEmpty() error {
	return c.oweOutcome(answer{}, c.srv.store.available())
}

// handleHello makes this connection the one of a source, and owes a RESUME.
func (c *serverConn) handleHello(m []byte) (size int, err error) {
	h, size, err := parseHello(m)
	if err != nil {
		return 0, err
	}
	// "HELLO is the first message of its connection or follows a HELLO for the same pair": what came before it could not be counted for the source.
	key := sourceKey{h.Agency, string(h.Source)}
	if c.spoken && c.ses.src == nil {
		return 0, protocolErrorf("HELLO must be the first message of its connection")
	}
	if c.ses.src != nil && c.ses.src.key != key {
		return 0, protocolErrorf("HELLO for another source than this connection's")
	}
	at, group, err := c.srv.store.hello(&c.ses, key)
	if err == nil {
		c.rule.agency = h.Agency
	}
	return size, c.oweOutcome(answer{kind: answerResume, resume: at, group: group, source: true}, err)
}

// handleNotify notes that an agency has finished, or owes it its winners.
func (c *serverConn) handleNotify(m []byte) (size int, err error) {
	n, size, err := parseNotify(m)
	if err != nil {
		return 0, err
	}
	if !c.srv.lottery {
		return 0, protocolErrorf("NOTIFY, but there is no draw here (draw.agencies is 0)")
	}
	if c.rule.agency != 0 && n.Agency != c.rule.agency {
		return 0, protocolErrorf("NOTIFY of another agency than this connection's")
	}
	// A client that said HELLO waits for the draw here; the others know only the course's way, ACK 3 and come back later. After the draw
	// all wait until the winners are known.
	if n.Kind == notifyFinished {
		return size, c.finish(n.Agency)
	}
	c.owe(answer{kind: answerWinners, agency: n.Agency, hold: c.ses.src != nil || c.srv.store.hasDrawn(), group: c.srv.store.pendingGroup()})
	return size, nil
}

// finish notes that agency has finished. That has no answer of its own: if it cannot be noted the connection ends, and the client says it again.
func (c *serverConn) finish(agency uint8) error {
	group, err := c.srv.store.finish(agency)
	if err != nil {
		return errDone
	}
	c.owe(answer{kind: answerNone, group: group})
	return nil
}

// read reads once. It waits for the first byte of a message 10 times conn.idle, for its last byte conn.idle from then on.
func (c *serverConn) read() error {
	for {
		c.setBuffer()
		c.conn.SetReadDeadline(c.deadline())
		if c.ending.Load() || c.srv.shuttingDown() && len(c.framer.unread()) == 0 {
			return errDone // looked at behind the deadline, which may have replaced the one by which wake ends a read
		}
		err := c.framer.fill()
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return io.EOF // reset or closed: either way there is nobody to tell
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
		return c.began.Add(c.srv.idle)
	case c.large != nil:
		return now.Add(min(idleAfter, 10*c.srv.idle))
	default:
		return now.Add(10 * c.srv.idle)
	}
}

// overdue decides what to do when the deadline has passed: nil to wait on.
func (c *serverConn) overdue() error {
	switch {
	case c.ending.Load(), c.srv.shuttingDown() && c.began.IsZero():
		return errDone
	case !c.began.IsZero() && time.Now().Before(c.deadline()):
		return nil // woken by shutdown, but a message has begun: it is waited for
	case !c.began.IsZero():
		c.srv.log.Warn(actConnection, fail, "ip", c.ip, "reason", "a message was not whole in conn.idle: closed")
		return io.EOF
	case c.large != nil:
		c.releaseBuffer()
		return nil
	case c.owes():
		return nil // it waits for the draw
	}
	c.srv.log.Info(actConnection, success, "ip", c.ip, "reason", "nothing came for 10 times conn.idle: closed")
	return io.EOF
}

// setBuffer takes a large buffer once the small one is full. Connections that send a byte and hang cost no more than idle ones.
func (c *serverConn) setBuffer() {
	if c.large != nil || len(c.framer.unread()) < idleBuffer {
		return
	}
	c.setBusy(true)
	c.large = c.srv.buffers.Get().(*[connBuffer]byte)
	rest := copy(c.large[:], c.framer.unread())
	c.framer.buf, c.framer.r, c.framer.w = c.large[:], 0, rest
}

// releaseBuffer gives the large buffer back, and lets go of what has grown. Nothing in it is needed any more.
func (c *serverConn) releaseBuffer() {
	c.setBusy(false)
	c.decision, c.refused = decision{}, nil
	if c.large != nil {
		c.srv.buffers.Put(c.large)
		c.large = nil
		c.framer.buf, c.framer.r, c.framer.w = c.small[:], 0, 0
	}
}

// wake ends a read that waits for a message to begin.
func (c *serverConn) wake() { c.conn.SetReadDeadline(time.Now()) }

// linger ends the connection from this side and reads on for a while: closing with bytes unread would reset it, and the client might never see the last answer.
func (c *serverConn) linger() {
	tcp, ok := c.conn.(*net.TCPConn)
	if !ok || tcp.CloseWrite() != nil {
		return
	}
	tcp.SetReadDeadline(time.Now().Add(lingerTime))
	io.Copy(io.Discard, io.LimitReader(tcp, 1<<20))
}
