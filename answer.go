package main

import "time"

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
	kind   answerKind
	group  *group // nil: nothing to wait for
	code   ackCode
	status string
	bets   int        // in the message; 0: there is no line for the log
	stored int        // of bets
	single *singleBet // the message was a BET
	resume Resume
	agency uint8 // of NOTIFY
	hold   bool  // wait for the draw rather than say that there was none
	source bool  // the connection sends a source: after a refusal it ends, so that no later batch overtakes the refused one
}

// A singleBet is what the log says of a BET.
type singleBet struct {
	document string
	number   int
}

// owe puts an answer into the line, and waits where the line is too long.
func (c *serverConn) owe(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.owed >= maxAnswers {
		if !c.full {
			c.full = true
			close(c.crowded)
		}
		c.changed.Wait()
	}
	c.answers = append(c.answers, a)
	c.owed++
	if !c.answering {
		c.answering = true
		go c.answerLoop()
	} else {
		c.changed.Broadcast()
	}
}

// setBusy tells the answerer whether to stay when nothing is owed. With one batch under way at a time a new one for each cost 4 % of the server.
func (c *serverConn) setBusy(busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = busy
	c.changed.Broadcast()
}

// owes tells whether an answer has not left yet.
func (c *serverConn) owes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owed > 0
}

// awaitAnswers waits until all that is owed has left, or could not.
func (c *serverConn) awaitAnswers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.answering {
		c.changed.Wait()
	}
}

// An answerer sends answers: those that are ready together leave in one write.
type answerer struct {
	*serverConn
	out    []byte
	lines  *burst
	broken bool // a write failed, or the store did: nothing more is sent
}

// answerLoop sends what is owed until nothing is and nothing is to be expected.
func (c *serverConn) answerLoop() {
	a := &answerer{serverConn: c, lines: newBurst(c.srv.log)}
	for {
		answers := c.nextAnswers()
		if answers == nil {
			return
		}
		for i := range answers {
			a.send(&answers[i])
		}
		a.flush()
		c.sent(answers)
	}
}

// nextAnswers takes all that is owed, once something is; nil ends the answerer.
func (c *serverConn) nextAnswers() []answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.answers) == 0 {
		if !c.busy {
			c.answering = false
			c.answers, c.spare = nil, nil // they may have grown to maxAnswers, and the connection may be idle for long
			c.changed.Broadcast()
			return nil
		}
		c.changed.Wait()
	}
	answers := c.answers
	c.answers = c.spare[:0]
	return answers
}

// sent notes that answers have left.
func (c *serverConn) sent(answers []answer) {
	clear(answers)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spare = answers
	c.owed -= len(answers)
	c.changed.Broadcast()
}

// send waits until an answer is ready and puts it into out. What is in out leaves before it waits.
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
}

// sendFailed answers a message whose group failed: with ACK 5 if nothing of it is stored, not at all if that is unknown.
func (a *answerer) sendFailed(ans *answer, err error) {
	if isFatal(err) {
		a.broken = true
		a.conn.Close()
		return
	}
	if ans.kind == answerNone { // a refusal has nowhere to stand: the client must say it again
		a.broken = true
		a.conn.Close()
		return
	}
	a.out = appendAck(a.out, ackUnavailable, unavailableStatus)
	ans.code, ans.stored = ackUnavailable, 0
	a.note(ans)
	if ans.source {
		a.ending.Store(true)
		a.wake()
	}
}

// sendWinners answers NOTIFY 1.
func (a *answerer) sendWinners(ans *answer) {
	count, each, drawn := a.srv.store.winners(ans.agency)
	if !drawn && ans.hold {
		a.flush()
		select {
		case <-a.srv.store.drawn:
		case <-a.gone: // the client is, or what it said next was wrong
		case <-a.crowded:
		case <-a.srv.draining:
		}
		count, each, drawn = a.srv.store.winners(ans.agency)
	}
	if !drawn && ans.hold && a.srv.shuttingDown() {
		a.out = appendAck(a.out, ackUnavailable, unavailableStatus)
		return
	}
	if !drawn {
		a.out = appendAck(a.out, ackNoDraw, "the draw has not taken place")
		return
	}
	a.out = appendAck(a.out, ackWinners, "")
	var packed []byte
	each(func(document []byte) bool {
		packed = appendString(packed, document)
		return true
	})
	a.out = appendWinners(a.out, count, packed)
}

// note puts the line of a message into the burst.
func (a *answerer) note(ans *answer) {
	switch {
	case ans.bets == 0:
	case ans.single != nil:
		result := success
		if ans.code != ackStored {
			result = fail
		}
		a.srv.log.Info(actApuestaAlmacenada, result, "dni", ans.single.document, "numero", ans.single.number)
	case ans.code == ackStored:
		a.lines.add(actApuestaRecibida, success, count{"cantidad", ans.bets})
	default:
		refused := ans.bets - ans.stored
		if ans.code == ackUnavailable {
			refused = 0 // neither stored nor refused: not taken
		}
		a.lines.add(actApuestaRecibida, fail, count{"cantidad", ans.bets}, count{"almacenadas", ans.stored}, count{"rechazadas", refused})
	}
}

// flush writes the lines, then the answers. A client that does not take them off in conn.idle is cut off.
func (a *answerer) flush() {
	a.lines.flush() // the line says what is stored, whether its answer arrives or not
	if len(a.out) == 0 || a.broken {
		a.out = a.out[:0]
		return
	}
	a.conn.SetWriteDeadline(time.Now().Add(a.srv.idle))
	if _, err := a.conn.Write(a.out); err != nil {
		a.broken = true
		a.conn.Close() // ends the reader too
	}
	a.out = a.out[:0]
}
