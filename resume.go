package main

import (
	"errors"
	"fmt"
	"io"
)

// The start of a session: from what the server says it has to where in the file the client goes on, with the rejects that a lost answer or a killed client left out.

// resume brings the client to where the server stands.
func (c *client) resume() error {
	if !c.cfg.resume {
		c.repeat()
		return nil
	}
	c.answered = 0
	at, err := c.hello()
	if !c.resumed && errors.Is(err, errClosed) {
		return fmt.Errorf("%w (one that knows BET, BATCH and ACK alone needs -resume=false)", err)
	}
	if err != nil {
		return err
	}
	if lost := c.settled.after.Records; at.Records < lost {
		c.sent -= min(c.sent, int(lost-at.Records))
		c.log.Error("reanudar", fail, "perdidas", lost-at.Records, "motivo", "the server has lost bets that it had acknowledged: they are sent again")
	}
	if c.resumed { // nearly always: the answers that were on their way are all that is missing
		if done, err := c.passOver(at); done || err != nil {
			return errors.Join(err, c.rejects.flush())
		}
	} else {
		if err := c.rejects.recall(c.file, uint8(c.cfg.id), at.Records); err != nil {
			return err
		}
	}
	if err := c.skip(at); err != nil {
		return err
	}
	if at.Records > 0 || c.resumed {
		c.log.Info("reanudar", success, "apuestas", at.Records, "crc", crcText(at.CRC), "linea", c.settled.endLine)
	}
	c.resumed = true
	c.bar.update(c.settled.end, int64(at.Records), 0)
	return c.rejects.flush()
}

// crcText is a CRC in the log.
func crcText(crc uint32) string { return fmt.Sprintf("%08x", crc) }

// repeat makes the client send again what was not answered. A batch that was sent on a fresh connection and not answered may be stored twice by that:
// it is said.
func (c *client) repeat() {
	if len(c.window) > 0 && c.answered == 0 {
		c.log.Warn("reenviar", inProgress, "linea", c.window[0].line, "motivo", "the connection broke before the answer: if the server had stored this batch, it stores it twice (resume is false)")
	}
	c.window, c.answered = c.window[:0], 0
	c.batcher.goOn(c.settled) // the next batch is the one that was not answered
}

// passOver deals with a RESUME in the middle of a run: batches whose answer was lost, and that the server has decided on, need not be sent again. It
// returns false if the server stands elsewhere.
func (c *client) passOver(at Resume) (bool, error) {
	// The server decides on batches whole, so it stands at the end of one in the window, or where the client does.
	for c.settled.after != at {
		if len(c.window) == 0 || c.window[0].after.Records > at.Records {
			return false, nil
		}
		c.sent += c.window[0].bets
		if err := c.rejectUnseen(c.window[0]); err != nil {
			return false, err
		}
		c.settled = c.window[0]
		c.window = c.window[:copy(c.window, c.window[1:])]
	}
	c.window = c.window[:0]
	c.batcher.goOn(c.settled)
	return true, nil
}

// rejectUnseen rejects what must have been refused of a span whose answers were lost: the same check as the server's tells, with bets.maxNumber as it is set here.
func (c *client) rejectUnseen(s span) error {
	return c.again.each(s, func(rec *record, _ int, b *Bet, malformed string) {
		if malformed == "" {
			why := c.rule.check(b)
			malformed = why.reason()
		}
		if malformed != "" {
			c.rejects.add(rec, malformed)
		}
	})
}

// skip goes to where the server stands by reading the file from its start, and compares the CRC on the way.
func (c *client) skip(at Resume) error {
	b := newBatcher(c.file, uint8(c.cfg.id), c.cfg.batchMaxAmount)
	last, missing := b.at, span{index: -1}
	var m []byte
	for last.after.Records < at.Records {
		if c.ctx.Err() != nil {
			return errStopped
		}
		before := last.after
		var err error
		m, last, err = b.next(m[:0])
		if err == io.EOF {
			return fmt.Errorf("%s has %d bets, and the server has %d of source %q: it is another file: choose another data.source", c.cfg.dataFile, before.Records, at.Records, c.cfg.dataSource)
		}
		if err == nil && last.after.Records > at.Records {
			last, err = c.firstBets(last, int(at.Records-before.Records), before, m)
		}
		if err != nil {
			return err
		}
		// A client that was killed may have left refusals unwritten that the server has counted. Nothing is written before the CRC has been compared.
		if missing.index < 0 && last.endLine > c.rejects.upTo && c.hasRejects(last, m) {
			missing = last
		}
	}
	if last.after.CRC != at.CRC {
		return fmt.Errorf("%s differs from what the server has of source %q: the CRC of the first %d bets is %s here and %s there: it is another file: choose another data.source",
			c.cfg.dataFile, c.cfg.dataSource, at.Records, crcText(last.after.CRC), crcText(at.CRC))
	}
	c.window, c.settled = c.window[:0], last
	c.batcher.goOn(last)
	if missing.index < 0 {
		return nil
	}
	missing.end = last.end
	return c.rejectUnseen(missing)
}

// firstBets is for a server that stands within a batch, as it does when batch.maxAmount was another before. It returns the part of the batch s, whose message is m, that ends behind its first n bets.
func (c *client) firstBets(s span, n int, before Resume, m []byte) (span, error) {
	at := batchHead
	var b Bet
	for range n {
		at, _ = parseBet(m, at, &b) // our own message
	}
	s.bets = n
	s.after = before.after(n, m[batchHead:at])
	end, endLine := s.end, s.endLine
	err := c.again.each(s, func(rec *record, position int, _ *Bet, malformed string) {
		if position == n+1 && malformed == "" { // a malformed one has the position of the bet before it
			end, endLine = rec.offset, rec.line
		}
	})
	s.end, s.endLine = end, endLine
	return s, err
}

// hasRejects tells whether a record of the batch s, whose message is m, belongs in the rejects file.
func (c *client) hasRejects(s span, m []byte) bool {
	at := batchHead
	var b Bet
	for range s.bets {
		at, _ = parseBet(m, at, &b)
		if c.rule.check(&b) != accepted {
			return true
		}
	}
	return s.malformed > 0
}
