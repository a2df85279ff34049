package main

import (
	"log/slog"
	"net"
	"sync"
	"time"
	"unsafe"
)

const (
	// maxOwed bounds the memory that the answers owed to one client take, in bytes. A
	// client that has so much outstanding is not read any more until it takes some off.
	maxOwed = 128 << 10
	// outMax is how many bytes of answers are gathered for one write, outIdle for how many an
	// answerer keeps the memory while nothing is owed.
	outMax  = 16 << 10
	outIdle = 256
)

// The statuses of ACK 5. The second is that of a server that stands by.
const (
	unavailableStatus = "not taken, nothing of it is stored: try again later"
	standbyStatus     = "not taken, nothing of it is stored: this server stands by, try the next address"
)

// An answerKind is what an answer sends.
type answerKind uint8

const (
	answerAck answerKind = iota
	answerResume
	answerWinners
	answerNone // nothing: it only keeps its place in the order
)

// An answer is owed to a client. It leaves in its turn, once its group is done.
type answer struct {
	next   *answer // behind it in the queue
	kind   answerKind
	group  *group // nil: nothing to wait for
	code   ackCode
	status string
	bets   int  // in the message; 0: there is no line for the log
	single *Bet // the message was this BET, of which the log says document and number
	resume Resume
	hold   bool // wait for the draw rather than say that there was none
	// tally says what became of the bets; its agency is also that of a NOTIFY. If its source is
	// set the connection ends when a group was not taken, so that no later batch overtakes the
	// refused one.
	tally
}

// size returns how many bytes of memory the answer takes.
func (a *answer) size() int {
	size := int(unsafe.Sizeof(*a)) + len(a.status)
	if a.refused != nil {
		size += int(unsafe.Sizeof(*a.refused))
	}
	return size
}

// spareAnswers are answers that have left, of all connections: their memory serves again.
var spareAnswers = sync.Pool{New: func() any { return new(answer) }}

// An answerQueue is the line of answers that a connection owes. Its reader puts them in
// and its answerer takes them out, in the order of the messages. An empty queue keeps no
// memory.
type answerQueue struct {
	hurry   chan struct{} // closed once the queue was full or closed: then nobody waits for the draw any more
	hurried sync.Once     // guards that

	mu      sync.Mutex // protects following
	changed sync.Cond  // for the answerer: an answer or the end has come; for the reader: an answer has left
	first   *answer
	last    *answer
	bytes   int  // that the answers take
	closed  bool // nothing more is owed
}

// newAnswerQueue returns an empty queue.
func newAnswerQueue() *answerQueue {
	q := &answerQueue{hurry: make(chan struct{})}
	q.changed.L = &q.mu
	return q
}

// owe puts a copy of an answer into the queue, and waits while the queue is full.
func (q *answerQueue) owe(ans *answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes >= maxOwed {
		q.hurryUp()
		q.changed.Wait()
	}
	a := spareAnswers.Get().(*answer)
	*a = *ans
	if q.first == nil {
		q.first = a
	} else {
		q.last.next = a
	}
	q.last = a
	q.bytes += a.size()
	q.changed.Signal()
}

// hurryUp ends the waiting for the draw.
func (q *answerQueue) hurryUp() { q.hurried.Do(func() { close(q.hurry) }) }

// close says that nothing more will be owed.
func (q *answerQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.hurryUp()
	q.changed.Signal()
}

// peek returns the first answer, which stays in the queue; nil if nothing is owed.
func (q *answerQueue) peek() *answer {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.first
}

// remove takes the first answer out: it has left.
func (q *answerQueue) remove() {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := q.first
	q.bytes -= left.size()
	q.first = left.next
	*left = answer{}
	spareAnswers.Put(left)
	q.changed.Signal()
}

// wait waits until something is owed, and reports false if nothing will be.
func (q *answerQueue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.first == nil && !q.closed {
		q.changed.Wait()
	}
	return q.first != nil
}

// An answerer sends a connection's answers, each once its group is done. Those that are
// ready together leave in one write. It waits for groups (which the store's committer
// closes), for the draw, and for the client to take answers off.
type answerer struct {
	queue   *answerQueue
	conn    net.Conn
	winners func(agency uint8) (count int, each func(yield func(document []byte) bool) error, known bool)
	drawn   <-chan struct{} // closed once winners knows them
	counts  *counts
	log     *slog.Logger
	idle    time.Duration // conn.idle: for how long a client may leave an answer
	refused func()        // ends the reader, after a batch of a source was not taken
	out     []byte        // ready answers that are not yet written
	broken  bool          // a write failed, or the store did: nothing more is sent
}

// run sends what is owed until the queue is closed and empty.
func (a *answerer) run() {
	for {
		ans := a.queue.peek()
		if ans != nil {
			a.send(ans)
			a.queue.remove()
			continue
		}
		a.flush()
		if cap(a.out) > outIdle {
			a.out = nil // the connection may be idle for long
		}
		if !a.queue.wait() {
			return
		}
	}
}

// send waits until an answer is ready and puts it into out. What is in out leaves before it
// waits.
func (a *answerer) send(ans *answer) {
	if ans.group != nil {
		select {
		case <-ans.group.done:
		default:
			a.flush()
			<-ans.group.done
		}
		if err := ans.group.err; err != nil {
			a.sendFailed(ans, err)
			return
		}
	}
	switch ans.kind {
	case answerAck:
		a.out = appendAck(a.out, ans.code, ans.status)
	case answerResume:
		a.out = appendResume(a.out, ans.resume)
	case answerWinners:
		a.sendWinners(ans)
	}
	a.note(ans)
	if len(a.out) >= outMax {
		a.flush()
	}
}

// sendFailed answers a message whose group failed: with ACK 5 if nothing of it is stored,
// not at all if that is unknown.
func (a *answerer) sendFailed(ans *answer, err error) {
	// A NOTIFY 0 that was not taken has no answer in which to say so: its client must see
	// the end and say it again.
	if isFatal(err) || ans.kind == answerNone {
		a.hangUp()
		return
	}
	a.out = appendAck(a.out, ackUnavailable, unavailableStatus)
	// ans itself stays as it was until it leaves the queue, which knows its size.
	a.note(&answer{code: ackUnavailable, bets: ans.bets, single: ans.single})
	if ans.source {
		a.refused()
	}
}

// hangUp closes the connection, which ends the reader too. What is owed is not sent.
func (a *answerer) hangUp() {
	a.broken = true
	a.conn.Close()
}

// sendWinners answers NOTIFY 1. Documents are written as they come, however many there are.
func (a *answerer) sendWinners(ans *answer) {
	count, each, known := a.winners(ans.agency)
	if !known && ans.hold {
		a.flush()
		select {
		case <-a.drawn:
		case <-a.queue.hurry:
		}
		count, each, known = a.winners(ans.agency)
	}
	if !known {
		a.out = appendAck(a.out, ackNoDraw, "the draw has not taken place")
		return
	}
	a.out = appendAck(a.out, ackWinners, "")
	said := 0
	err := each(func(document []byte) bool {
		if said%maxWinners == 0 {
			a.out = appendWinnersHead(a.out, min(count-said, maxWinners))
		}
		said++
		a.out = appendString(a.out, document)
		if len(a.out) >= outMax {
			a.flush()
		}
		return !a.broken
	})
	if err != nil {
		a.log.Error(actConsultaGanadores, fail, "motivo", err)
		a.hangUp()
		return
	}
	if count%maxWinners == 0 { // none, or the last WINNERS is full: it is followed by another
		a.out = appendWinnersHead(a.out, 0)
	}
}

// note counts a message with bets, and logs it.
func (a *answerer) note(ans *answer) {
	if ans.bets == 0 {
		return
	}
	a.counts.batch(ans.code, ans.tally)
	became := success
	if ans.code != ackStored {
		became = fail
	}
	switch {
	case ans.single != nil:
		a.log.Info(actApuestaAlmacenada, became, "dni", string(ans.single.Document),
			"numero", ans.single.Number)
	case ans.code == ackStored:
		logBatch(a.log, actApuestaRecibida, became, slog.Int("cantidad", ans.bets))
	default:
		refused := ans.bets - ans.stored
		if ans.code == ackUnavailable {
			refused = 0 // neither stored nor refused: not taken
		}
		a.log.Info(actApuestaRecibida, became, "cantidad", ans.bets, "almacenadas", ans.stored, "rechazadas", refused)
	}
}

// flush writes the answers. A client that does not take them off in conn.idle is cut off.
func (a *answerer) flush() {
	if len(a.out) > 0 && !a.broken {
		a.conn.SetWriteDeadline(time.Now().Add(a.idle))
		if _, err := a.conn.Write(a.out); err != nil {
			a.hangUp()
		}
	}
	a.out = a.out[:0]
}
