package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A client sends one agency's file. It keeps nothing on disk: the server's RESUME says how far the file got, and what was sent but not answered is read again.
//
// A session is one connection: dial, HELLO, go on where the server stands, send and settle (sender.go), verify, ask for the winners (ask.go). When a session
// ends early the next one begins after a pause, until retry.timeout has passed without any answer.
type client struct {
	cfg      *config
	log      *slog.Logger
	out      *lineWriter
	file     *os.File
	size     int64 // of file
	batcher  *batcher
	again    spanReader
	rejects  rejects
	bar      *progress
	rule     rule      // what the server presumably checks bets against: for those whose answer was lost
	resumed  bool      // the first RESUME has been dealt with
	verified bool      // the end was verified and logged
	heard    bool      // this session has had an answer
	lastHope time.Time // when the server was last there; at first the start
	pauses   int       // since then
	began    time.Time

	ctx     context.Context // cancelled by a signal
	conn    net.Conn        // of this session
	framer  framer          // of conn; read by one goroutine at a time
	holding atomic.Bool     // the server may answer when the draw takes place

	stopOnce    sync.Once
	stopAt      time.Time // set once after a signal: until when answers are waited for
	stopWaiting func()    // ends the lines that say that the client waits for the draw; nil: they have not begun

	mu       sync.Mutex // protects following while send runs; before and after that there is one goroutine
	changed  sync.Cond
	window   []span // sent or about to be, and not answered, in order
	settled  span   // the last one that was answered or counted by RESUME
	sent     int    // bets answered in this run, refused or not
	answered int    // batches answered on the connection, or on the last one before there is a new one
	oneShot  bool   // the server closes the connection after each answer (resume=false)
	ending   bool   // nothing more is sent on this connection
	broken   error  // why this session ends; nil: it goes on
}

// pollEvery is how often the winners are asked for where the server does not answer by itself when the draw takes place.
const pollEvery = 500 * time.Millisecond

// stopTime is how long a client that was told to stop waits for the answers it is owed.
const stopTime = 2 * time.Second

// Errors that decide how a client goes on.
var (
	errTryLater = errors.New("the server does not take bets now") // ACK 5: again after a pause
	errClosed   = errors.New("the server closed the connection")  // again at once if it answered before
	errStopped  = errors.New("stopped by a signal")
	errAskAgain = errors.New("the draw has not taken place") // again, on a new connection
)

// runClient is mode client: it returns nil when the file is sent, or ctx was cancelled and all is closed.
func runClient(ctx context.Context, cfg *config, log *slog.Logger, out *lineWriter) (err error) {
	// A client has little to do at the same time: on one processor its goroutines hand over without waking threads. Measured, 0.8 of the CPU time.
	runtime.GOMAXPROCS(1)
	cfg.logTo(log)
	file, size, err := openAgencyFile(cfg.dataFile)
	if err != nil {
		return err
	}
	if sameFile(cfg.dataFile, cfg.dataRejects) {
		file.Close()
		return fmt.Errorf("data.rejects and data.file are the same file, %s: give the rejects a file of their own", cfg.dataFile)
	}
	c := newClient(cfg, log, out, file, size)
	if err = c.run(ctx); err == nil {
		c.summary()
	}
	if c.stopWaiting != nil {
		c.stopWaiting()
	}
	c.share(nil)
	c.bar.finish()
	stopped := errors.Is(err, errStopped)
	for _, thing := range []struct {
		action, name string
		close        func() error
	}{{"close_file", cfg.dataFile, file.Close}, {"close_rejects", cfg.dataRejects, c.rejects.close}} {
		closing := thing.close()
		if stopped && (thing.name != cfg.dataRejects || c.rejects.file != nil) {
			log.Info(thing.action, closed(closing), "archivo", thing.name)
		}
	}
	if stopped {
		return nil
	}
	return err
}

// sameFile tells whether two names are of one file.
func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// newClient returns a client that has not connected yet. file stays the caller's to close; out is where log writes, so that a progress bar can share it.
func newClient(cfg *config, log *slog.Logger, out *lineWriter, file *os.File, size int64) *client {
	agency := uint8(cfg.id)
	c := &client{cfg: cfg, log: log, out: out, file: file, size: size, began: time.Now(),
		batcher: newBatcher(file, agency, cfg.batchMaxAmount), again: spanReader{file: file, agency: agency},
		rejects: rejects{path: cfg.dataRejects, log: log}, rule: rule{agency: agency, maxNumber: uint16(cfg.maxNumber)}}
	c.changed.L = &c.mu
	c.settled = c.batcher.at
	c.framer.buf = make([]byte, maxReply)
	if bar := newProgress(os.Stderr, size); bar != nil {
		c.bar = bar
		c.share(bar)
	}
	return c
}

// share makes the log step around bar where both are on a terminal.
func (c *client) share(bar *progress) {
	if c.out != nil && isTerminal(os.Stdout) {
		c.out.share(bar)
	}
}

// summary says what was done.
func (c *client) summary() {
	c.log.Info("loop_finished", success, "client_id", c.cfg.id, "enviadas", c.sent, "rechazadas", c.rejects.count,
		"reanudadas", c.settled.after.Records-uint64(c.sent), "tiempo", time.Since(c.began).Round(time.Millisecond))
}

// run goes through as many sessions as it takes.
func (c *client) run(ctx context.Context) error {
	c.ctx, c.lastHope = ctx, time.Now()
	for {
		err := c.session(ctx)
		if c.heard {
			c.lastHope = time.Now() // the server was there until now
		}
		if ctx.Err() != nil {
			return errStopped
		}
		if err == errAskAgain && sleep(ctx, pollEvery) {
			continue
		}
		if err == nil || !resumable(err) {
			return err
		}
		// No pause where there was progress: a batch was answered before the connection ended.
		if c.answered > 0 && errors.Is(err, errClosed) {
			continue // it answered and closed, as some servers do after each batch
		}
		if time.Since(c.lastHope) >= c.cfg.retryTimeout {
			c.gaveUp(err)
			return fmt.Errorf("server %s: %w: gave up after %s (retry.timeout): start the client again when the server is back: it goes on where it stopped", c.cfg.serverAddress, err, c.cfg.retryTimeout)
		}
		if !c.pause(ctx, err) {
			return errStopped
		}
	}
}

// gaveUp says in the log that the server is given up.
func (c *client) gaveUp(cause error) {
	c.log.Error("connect", fail, "address", c.cfg.serverAddress, "motivo", cause)
}

// dialTimeout is how long an attempt to connect may take: what is left of retry.timeout, but not so long that a lost packet stops all, and long enough for any network.
func (c *client) dialTimeout() time.Duration {
	return min(10*time.Second, max(time.Second, c.cfg.retryTimeout-time.Since(c.lastHope)))
}

// resumable tells whether another session may succeed where one ended with err.
func resumable(err error) bool {
	var dial *net.OpError
	return errors.Is(err, errTryLater) || errors.Is(err, errClosed) || errors.As(err, &dial) && !isAddressError(err)
}

// isAddressError tells whether an address can't be right, now or later.
func isAddressError(err error) bool {
	var address *net.AddrError
	return errors.As(err, &address)
}

// pause waits before the next session: 50 ms, then twice as long each time up to 2 s, half of it by chance so that many clients do not come back at once.
func (c *client) pause(ctx context.Context, cause error) bool {
	wait := min(50*time.Millisecond<<min(c.pauses, 10), 2*time.Second)
	wait = wait/2 + rand.N(wait/2)
	c.pauses++
	c.log.Info("connect", inProgress, "address", c.cfg.serverAddress, "motivo", cause, "espera", wait.Round(time.Millisecond))
	return sleep(ctx, wait)
}

// sleep waits for d, or returns false when ctx is cancelled before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session is one connection from its dial to its close; nil when all is done.
func (c *client) session(ctx context.Context) (err error) {
	c.heard = false
	dialer := net.Dialer{Timeout: c.dialTimeout()}
	conn, err := dialer.DialContext(ctx, "tcp", c.cfg.serverAddress)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.broken, c.ending = nil, false
	c.mu.Unlock()
	c.conn = conn
	c.framer = framer{src: conn, buf: c.framer.buf}
	defer func() {
		closing := conn.Close()
		if errors.Is(closing, net.ErrClosed) {
			closing = nil // it was closed to end a wait
		}
		if ctx.Err() != nil {
			c.log.Info("close_socket", closed(closing), "address", c.cfg.serverAddress)
		}
	}()
	// A signal ends each wait for the network, at the latest when the answers that are owed had their time.
	defer context.AfterFunc(ctx, c.limitWaits)()
	if err := c.resume(); err != nil {
		return err
	}
	if err := c.send(ctx); err != nil {
		return err
	}
	if err := c.verify(); err != nil {
		return err
	}
	return c.askWinners(ctx)
}

// hello says HELLO and returns the server's RESUME.
func (c *client) hello() (Resume, error) {
	h := Hello{helloVersion, uint8(c.cfg.id), []byte(c.cfg.dataSource)}
	if err := c.write(appendHello(nil, h)); err != nil {
		return Resume{}, err
	}
	if err := c.fillFor(resumeOrAck); err != nil {
		return Resume{}, err
	}
	m := c.framer.unread()
	if m[0] == opResume {
		r, size, err := parseResume(m)
		c.framer.discard(size)
		c.succeeded()
		return r, err
	}
	ack, _, err := parseAck(m)
	if err == nil {
		err = ackError(ack)
	}
	return Resume{}, err
}

// resumeOrAck reads a RESUME, or the ACK that stands in its place.
func resumeOrAck(m []byte) (err error) {
	if m[0] == opResume {
		_, _, err = parseResume(m)
	} else {
		_, _, err = parseAck(m)
	}
	return err
}

// write writes to the server. A server that takes nothing for conn.idle does not answer either: the wait for that ends both.
func (c *client) write(m []byte) error {
	if _, err := c.conn.Write(m); err != nil {
		return fmt.Errorf("%w: %v", errClosed, err)
	}
	return nil
}

// ackError is the error that an ACK means which is no answer to a batch that was taken.
func ackError(a Ack) error {
	switch a.Code {
	case ackUnavailable:
		return fmt.Errorf("%w: %s", errTryLater, a.Status)
	case ackProtocol:
		return fmt.Errorf("the server refuses what this client says: %s", a.Status)
	}
	return fmt.Errorf("the server answered with ACK %d (%s), which is no answer to what was asked", a.Code, a.Status)
}

// fillFor reads until parse finds a whole message.
func (c *client) fillFor(parse func(m []byte) error) error {
	for {
		if m := c.framer.unread(); len(m) > 0 {
			if err := parse(m); err != errShort {
				return err
			}
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// fill reads once. An answer may take conn.idle; while the client waits for the draw, for ever.
func (c *client) fill() error {
	deadline := time.Now().Add(c.cfg.connIdle)
	if c.holding.Load() {
		deadline = time.Time{}
	}
	c.conn.SetReadDeadline(deadline)
	if c.ctx.Err() != nil {
		c.limitWaits()
	}
	if err := c.framer.fill(); err != nil {
		return fmt.Errorf("%w: %v", errClosed, err)
	}
	return nil
}

// limitWaits ends the waits for the network after a signal: in time for the answers that are owed, at once where it is the draw that is waited for.
func (c *client) limitWaits() {
	c.stopOnce.Do(func() { c.stopAt = time.Now().Add(stopTime) })
	if c.holding.Load() {
		c.conn.SetDeadline(time.Now())
		return
	}
	c.conn.SetDeadline(c.stopAt)
}

// succeeded notes an answer: retry.timeout counts from here.
func (c *client) succeeded() {
	c.heard, c.lastHope, c.pauses = true, time.Now(), 0
}
