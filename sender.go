package main

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// The middle of a session: one goroutine makes and sends batches, another settles the answers, as far apart as batch.window allows.
//
//	sender     file → batcher → window → connection; waits for room in the window
//	receiver   connection → settle → window; waits for answers, and for the first batch that is owed one
//
// The window holds only where each batch stands in the file: what must be sent again is read again.

// sendAtOnce is from how many bytes on batches are written: several of them in one write.
const sendAtOnce = 48 << 10

// send sends what is left of the file and waits for all answers.
func (c *client) send(ctx context.Context) error {
	received := make(chan struct{})
	go func() {
		defer close(received)
		if err := c.receive(); err != nil {
			c.end(err)
		}
	}()
	wake := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	defer wake()
	last, err := c.sendBatches(ctx)
	if err != nil {
		c.end(err)
	}
	c.mu.Lock()
	c.ending = true // the receiver ends once the window is empty
	c.changed.Broadcast()
	c.mu.Unlock()
	<-received
	if c.broken != nil {
		return c.broken
	}
	if ctx.Err() != nil {
		return errStopped
	}
	return c.rejectLast(last)
}

// end ends the session with err, unless it has ended.
func (c *client) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = err
	}
	c.conn.Close()
	c.changed.Broadcast()
}

// rejectLast rejects the malformed records behind the last bet.
func (c *client) rejectLast(last span) error {
	if last.malformed > 0 && last.bets == 0 {
		if err := c.rejectUnseen(last); err != nil {
			return err
		}
		c.settled = last
	}
	return c.rejects.flush()
}

// sendBatches sends batches until the file or loop.amount ends, and returns the span that the file ends with.
func (c *client) sendBatches(ctx context.Context) (last span, err error) {
	out := make([]byte, 0, sendAtOnce+maxMessage)
	for !c.enough() {
		if out, err = c.awaitRoom(ctx, out); err != nil {
			return span{}, err
		}
		if ctx.Err() != nil {
			break // what is made is sent, and its answers waited for
		}
		var s span
		out, s, err = c.batcher.next(out)
		if err == io.EOF {
			last = s
			break
		}
		if err != nil {
			return span{}, fmt.Errorf("%s: %w", c.cfg.dataFile, err)
		}
		// Into the window before it is sent: its answer may come before the write returns.
		c.mu.Lock()
		c.window = append(c.window, s)
		c.changed.Broadcast()
		c.mu.Unlock()
		if len(out) >= sendAtOnce || c.cfg.loopPeriod > 0 {
			if out, err = c.flush(out); err != nil {
				return span{}, err
			}
		}
		if c.cfg.loopPeriod > 0 && !sleep(ctx, c.cfg.loopPeriod) {
			break
		}
	}
	_, err = c.flush(out)
	return last, err
}

// enough tells whether loop.amount batches were sent, in this run or earlier ones.
func (c *client) enough() bool {
	return c.cfg.loopAmount > 0 && c.batcher.at.index+1 >= c.cfg.loopAmount
}

// flush writes out.
func (c *client) flush(out []byte) ([]byte, error) {
	if len(out) == 0 {
		return out, nil
	}
	return out[:0], c.write(out)
}

// awaitRoom waits until the window has room for another batch. What is in out leaves before it waits.
func (c *client) awaitRoom(ctx context.Context, out []byte) ([]byte, error) {
	window := c.cfg.batchWindow
	if !c.cfg.resume {
		window = 1
	}
	full := func() bool { return len(c.window) >= window && c.broken == nil && ctx.Err() == nil }
	c.mu.Lock()
	wait := full()
	c.mu.Unlock()
	if wait { // what is in out counts as sent: without it the answers that make room would never come
		var err error
		if out, err = c.flush(out); err != nil {
			return out, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for full() {
		c.changed.Wait()
	}
	if c.broken == nil && c.oneShot && c.answered > 0 {
		return out, fmt.Errorf("%w after its answer", errClosed) // or it is about to
	}
	return out, c.broken
}

// receive settles answers until none is owed and nothing more is sent.
func (c *client) receive() error {
	lines := newBurst(c.log)
	defer lines.flush()
	for {
		s, more := c.oldest(lines)
		if !more {
			return nil
		}
		ack, err := c.nextAck(lines)
		if err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.oneShot = c.oneShot || !c.cfg.resume && c.answered > 0
			return err
		}
		if err := c.settle(s, ack, lines); err != nil {
			return err
		}
	}
}

// oldest returns the batch whose answer comes next, once there is one; more is false when none will come.
func (c *client) oldest(lines *burst) (s span, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.window) == 0 {
		lines.flush()
		c.changed.Broadcast() // the sender may wait for an empty window
	}
	for len(c.window) == 0 && !c.ending && c.broken == nil {
		c.changed.Wait()
	}
	if len(c.window) == 0 || c.broken != nil {
		return span{}, false
	}
	return c.window[0], true
}

// nextAck reads an ACK. Before it waits for more it lets the sender and the log know of those that came.
func (c *client) nextAck(lines *burst) (Ack, error) {
	for {
		if m := c.framer.unread(); len(m) > 0 {
			ack, size, err := parseAck(m)
			if err != errShort {
				c.framer.discard(size)
				return ack, err
			}
		}
		// Once for all answers of a read, not for each: a server answers a whole group at once, and the sender then makes several batches for one write.
		lines.flush()
		c.mu.Lock()
		c.changed.Broadcast()
		c.mu.Unlock()
		if err := c.fill(); err != nil {
			return Ack{}, err
		}
	}
}

// settle deals with the answer to the batch s.
func (c *client) settle(s span, ack Ack, lines *burst) error {
	switch ack.Code {
	case ackStored:
		lines.add("apuestas_enviadas", success, count{"cantidad", s.bets})
	case ackRefused:
		lines.flush()
		c.log.Info("apuestas_enviadas", fail, "cantidad", s.bets, "estado", string(ack.Status))
	default:
		lines.flush()
		c.log.Warn("apuestas_enviadas", fail, "cantidad", s.bets, "estado", string(ack.Status))
		return ackError(ack)
	}
	// Malformed records wait for the answer to the batch that they stand in, so that the rejects file is in the file's order (see rejects).
	if ack.Code == ackRefused || s.malformed > 0 {
		if err := c.reject(s, ack); err != nil {
			return err
		}
	}
	c.succeeded()
	c.bar.update(s.end, int64(s.after.Records), int64(c.rejects.count))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = s
	c.sent += s.bets
	c.answered++
	c.window = c.window[:copy(c.window, c.window[1:])]
	return nil
}

// reject rejects the malformed records of s, and the bets that the server refused. An ACK 1 whose status names none of them refuses all.
func (c *client) reject(s span, ack Ack) error {
	refused := map[int]string{}
	status := string(ack.Status)
	for rest := status; rest != "" && ack.Code == ackRefused; {
		var position int
		var reason string
		if position, reason, rest = parseRefused(rest); position > 0 && position <= s.bets {
			refused[position] = reason
		}
	}
	all := ack.Code == ackRefused && len(refused) == 0
	if status == "" {
		status = "refused by the server without a reason"
	}
	err := c.again.each(s, func(rec *record, position int, _ *Bet, malformed string) {
		reason, ok := refused[position]
		switch {
		case malformed != "":
			c.rejects.add(rec, malformed)
		case ok:
			c.rejects.add(rec, reason)
		case all:
			c.rejects.add(rec, status)
		}
	})
	return errors.Join(err, c.rejects.flush())
}
