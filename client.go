package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"
)

// A client sends one agency's file. It goes through as many sessions as that
// takes: when one ends early the next begins after a pause (see retry).
type client struct {
	cfg   *config
	log   *slog.Logger
	bar   *progress
	file  *agencyFile
	retry *retry

	window    *window // of the session, or of the one before until it has resumed
	start     uint64  // bets that the server had decided on when this run began
	resumed   bool    // the first RESUME has been dealt with
	oneAnswer bool    // the server closes the connection after each answer (resume=false)
	verified  *Resume // what verify has said that the server has; nil: nothing yet, or it has lost some of that
}

// runClient is mode client: it returns nil when the file is sent, or errStopped
// when ctx was cancelled and all is closed.
func runClient(ctx context.Context, cfg *config, log *slog.Logger, out *lineWriter) error {
	// A client has little to do at the same time: on one processor its goroutines
	// hand over without waking threads. Measured, 0.8 of the CPU time.
	runtime.GOMAXPROCS(1)
	began := time.Now()
	cfg.logTo(log)
	retry, err := newRetry(cfg, log)
	if err != nil {
		return err
	}
	file, err := openAgencyFile(cfg, log)
	if err != nil {
		return err
	}
	c := &client{cfg: cfg, log: log, file: file, retry: retry, window: newWindow(1)}
	c.bar = newProgress(os.Stderr, file.size)
	if isTerminal(os.Stdout) { // the log then steps around the bar
		out.share(c.bar)
		defer out.share(nil)
	}
	err = c.run(ctx)
	if err == nil {
		log.Info(actLoopFinished, success, "client_id", cfg.id, "enviadas", file.settled.after.Records-c.start,
			"rechazadas", file.rejects.count, "reanudadas", c.start, "tiempo",
			time.Since(began).Round(time.Millisecond))
	}
	c.bar.finish()
	c.close(errors.Is(err, errStopped))
	return err
}

// close closes the files, and says so where the client was stopped.
func (c *client) close(stopped bool) {
	say := func(action, name string, closing error) {
		if stopped {
			c.log.Info(action, closed(closing), "file", name)
		}
	}
	say(actCloseFile, c.cfg.dataFile, c.file.file.Close())
	if c.file.rejects.file != nil {
		say(actCloseRejects, c.cfg.dataRejects, c.file.rejects.file.Close())
	}
}

// run goes through as many sessions as it takes.
func (c *client) run(ctx context.Context) error {
	for {
		err := c.session(ctx)
		if err == nil && ctx.Err() == nil {
			return nil
		}
		if err := c.retry.next(ctx, err); err != nil {
			return err
		}
	}
}

// session is one connection from its dial to its close; nil when all is done.
func (c *client) session(ctx context.Context) error {
	l, err := c.retry.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closing := l.close()
		if ctx.Err() != nil {
			c.log.Info(actCloseSocket, closed(closing), "address", l.address)
		}
	}()
	d := &delivery{c: c, link: l, window: newWindow(c.cfg.batchWindow)}
	if !c.cfg.resume {
		d.window.size = 1
	}
	if err := d.resume(ctx); err != nil {
		return err
	}
	if err := d.send(ctx); err != nil {
		return err
	}
	if err := d.verify(); err != nil || c.cfg.drawAgencies == 0 {
		return err
	}
	return askWinners(ctx, l, uint8(c.cfg.id), c.retry)
}

// A delivery is what a client does on one connection. One goroutine makes and
// sends batches, another settles the answers, as far apart as batch.window allows.
//
//	sender     file → batcher → window → link; waits for room in the window
//	receiver   link → settle → window; waits for answers, and for a batch that is owed one
//
// The window holds only where each batch stands in the file: what must be sent
// again is read again.
type delivery struct {
	c      *client
	link   *link
	window *window // the client's once it has resumed
	out    []byte  // the sender's batches, not yet written
}

// sendAtOnce is from how many bytes on batches are written: several of them in one write.
const sendAtOnce = 48 << 10

// resume goes to where the server stands.
func (d *delivery) resume(ctx context.Context) error {
	c := d.c
	if !c.cfg.resume {
		d.repeat()
		return nil
	}
	at, err := d.hello()
	if !c.resumed && errors.Is(err, errEnded) {
		return fmt.Errorf("%w (a server that knows BET, BATCH and ACK alone needs -resume=false)", err)
	}
	if err != nil {
		return err
	}
	if had := c.file.settled.after.Records; at.Records < had {
		c.log.Error(actResume, fail, "lost", had-at.Records,
			"reason", "the server has lost bets that it had acknowledged: they are sent again")
		c.verified = nil
	}
	if err := c.file.resume(ctx, at, c.window.spans); err != nil {
		return err
	}
	if at.Records > 0 || c.resumed {
		c.log.Info(actResume, success, "bets", at.Records, "crc", crcText(at.CRC), "line", c.file.settled.endLine)
	}
	if !c.resumed || at.Records < c.start {
		c.start = at.Records
	}
	c.resumed, c.window = true, d.window
	c.bar.update(c.file.settled.end, int64(at.Records), int64(c.file.refused()))
	return nil
}

// hello says HELLO and returns the server's RESUME.
func (d *delivery) hello() (at Resume, err error) {
	c := d.c
	h := Hello{helloVersion, uint8(c.cfg.id), []byte(c.cfg.dataSource)}
	if err := d.link.write(appendHello(nil, h)); err != nil {
		return at, err
	}
	var refused error // by an ACK in place of a RESUME
	err = d.link.read(d.link.idle, func(m []byte) (size int, err error) {
		if m[0] == opResume {
			at, size, err = parseResume(m)
			return size, err
		}
		ack, size, err := parseAck(m)
		refused = ackError(ack)
		return size, err
	})
	if err = cmp.Or(err, refused); err == nil {
		c.retry.decided(at.Records)
	}
	return at, err
}

// repeat goes back to what was not answered. A batch that was sent on a fresh
// connection and not answered may be stored twice by that: it is said.
func (d *delivery) repeat() {
	c := d.c
	if len(c.window.spans) > 0 && c.window.popped == 0 {
		c.log.Warn(actResend, inProgress, "line", c.window.spans[0].line,
			"reason", "no answer came: if the server had stored this batch, it stores it twice (resume is false)")
	}
	c.oneAnswer = c.oneAnswer || c.window.popped > 0
	c.window = d.window
	c.file.batcher.goOn(c.file.settled)
}

// send sends what is left of the file and waits for all answers.
func (d *delivery) send(ctx context.Context) error {
	received := make(chan struct{})
	go func() {
		defer close(received)
		d.end(d.receive())
	}()
	defer context.AfterFunc(ctx, d.window.wake)()
	d.end(d.sendBatches(ctx))
	d.window.end(nil)
	<-received
	if d.window.err != nil {
		return d.window.err
	}
	if ctx.Err() != nil {
		return errStopped
	}
	return d.c.file.settleLast()
}

// end ends both sides of the session where one has failed with err.
func (d *delivery) end(err error) {
	if err != nil {
		d.window.end(err)
		d.link.close()
	}
}

// sendBatches sends batches until the file or loop.amount ends.
func (d *delivery) sendBatches(ctx context.Context) error {
	period := d.c.cfg.loopPeriod
	for !d.enough() {
		if err := d.awaitRoom(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break // what is made is sent, and its answers waited for
		}
		var batch span
		var err error
		d.out, batch, err = d.c.file.batcher.next(d.out)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.c.cfg.dataFile, err)
		}
		d.window.push(batch) // before it is sent: its answer may come before the write returns
		if len(d.out) < sendAtOnce && period == 0 {
			continue
		}
		if err := d.flush(); err != nil {
			return err
		}
		if period > 0 && !sleep(ctx, period) {
			break
		}
	}
	return d.flush()
}

// enough reports whether loop.amount batches were sent, in this run or earlier ones.
func (d *delivery) enough() bool {
	amount := d.c.cfg.loopAmount
	return amount > 0 && d.c.file.batcher.at.index+1 >= amount
}

// flush writes the batches that were made.
func (d *delivery) flush() (err error) {
	if len(d.out) > 0 {
		err = d.link.write(d.out)
	}
	d.out = d.out[:0]
	return err
}

// awaitRoom waits until the window has room for another batch.
func (d *delivery) awaitRoom(ctx context.Context) error {
	if d.window.count() == d.window.size { // else the answers that make room would never come
		if err := d.flush(); err != nil {
			return err
		}
	}
	answered, err := d.window.awaitRoom(ctx)
	if err == nil && d.c.oneAnswer && answered > 0 {
		return fmt.Errorf("%w after its answer", errEnded) // or it is about to
	}
	return err
}

// receive settles answers until none is owed and nothing more is sent.
func (d *delivery) receive() error {
	for {
		batch, more := d.window.oldest()
		if !more {
			return nil
		}
		ack, err := d.link.readAck(d.link.idle)
		if err != nil {
			return err
		}
		if err := d.settle(batch, ack); err != nil {
			return err
		}
	}
}

// settle deals with the answer to a batch.
func (d *delivery) settle(batch span, ack Ack) error {
	c := d.c
	switch ack.Code {
	case ackStored:
		logBatch(c.log, actApuestasEnviadas, success, slog.Int("cantidad", batch.bets))
	case ackRefused:
		c.log.Info(actApuestasEnviadas, fail, "cantidad", batch.bets, "estado", string(ack.Status))
	default:
		c.log.Warn(actApuestasEnviadas, fail, "cantidad", batch.bets, "estado", string(ack.Status))
		return ackError(ack)
	}
	if err := c.file.settle(batch, ack); err != nil {
		return err
	}
	d.window.pop()
	c.retry.decided(batch.after.Records)
	c.bar.update(batch.end, int64(batch.after.Records), int64(c.file.refused()))
	return nil
}

// verify compares what the server has of the source with what was sent. That it is the same is said
// once, however often the client asks for its winners.
func (d *delivery) verify() error {
	c := d.c
	if !c.cfg.resume {
		return nil
	}
	at, err := d.hello()
	if err != nil {
		return err
	}
	// Equal counts and CRCs mean that the server decided on these records in this
	// order, each once: what it stores is in its log of exactly these bytes.
	here := c.file.settled.after
	if at != here {
		c.log.Error(actVerify, fail, "apuestas", here.Records, "crc", crcText(here.CRC),
			"apuestas_servidor", at.Records, "crc_servidor", crcText(at.CRC))
		return fmt.Errorf("the server has %d bets of source %q, CRC %s, and %d with CRC %s were sent: "+
			"look what else sends under this data.source",
			at.Records, c.cfg.dataSource, crcText(at.CRC), here.Records, crcText(here.CRC))
	}
	if c.verified == nil || *c.verified != at {
		c.log.Info(actVerify, success, "apuestas", at.Records, "crc", crcText(at.CRC))
	}
	c.verified = &at
	return nil
}
