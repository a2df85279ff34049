//go:build !nostream && !notls

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// One stream of the engine as a log that servers share: message N of the stream is record N. The
// engine takes a message only if the one before it is the last. That decides between two servers,
// and makes it safe to send a record again whose answer was lost.
//
// What is *there* is proof, whoever has it. What is not there is none: a leader that answers has
// not proved that it is the leader still, and one replica may lack what the others have.

// canShare says that this build has the stream (stream_off.go).
const canShare = true

const (
	// streamPauseMin and streamPauseMax are the pauses between two attempts.
	streamPauseMin = 20 * time.Millisecond
	streamPauseMax = 500 * time.Millisecond
	// streamLook is how often the stream's settings are looked at, besides at each connection, and
	// how often it is said that records are missing.
	streamLook = time.Minute
	// batchRecords and batchBytes are what is read with one request at most.
	batchRecords = 1000
	batchBytes   = 4 << 20
	// gapTries is how often a record that is missing is asked for before others are asked: the
	// replica that answers may only be late, and any other may answer the next time.
	gapTries = 5
	// uselessMax is how long a server may be of no use before another one is tried.
	uselessMax = 4 * time.Second
	// leastReplicas is how many replicas have a quorum without any one of them.
	leastReplicas = 3
)

// A stream is a sharedLog.
type stream struct {
	jetStream
	log      *slog.Logger
	options  natsOptions // of the connection
	replicas int         // that there must be at least: leastReplicas, but in tests
	keeps    *replicas   // what the engine keeps of what it promises
	stop     func()      // ends the looks at that

	call   *natsCall // what begin has sent; nil: nothing
	number uint64    // of its record

	id      storeID     // of the store whose records these are; zero: not known yet
	due     atomic.Bool // the settings are to be looked at: there is a new connection
	checked time.Time   // when they were found to be right
	warned  time.Time   // when it was last said that records are missing

	unsettled useless // since when the server has been of no use to settle
	unseen    useless // and to last
	found     lastLook
}

// A lastLook is what last has found, for whoever asks meanwhile.
type lastLook struct {
	end     atomic.Uint64          // number of the last record
	trouble atomic.Pointer[string] // why it failed; nil: it did not
}

// fail notes that last has failed.
func (l *lastLook) fail(err error) {
	text := err.Error()
	l.trouble.Store(&text)
}

// A useless is since when a server has not done what it is there for; zero: it has. It may be cut
// off from the others and not know it: then any other server is better.
type useless struct{ since time.Time }

func (u *useless) begin() {
	if u.since.IsZero() {
		u.since = time.Now()
	}
}

func (u *useless) end() { u.since = time.Time{} }

// leave has another server found after uselessMax.
func (u *useless) leave(engine *nats) {
	if time.Since(u.since) >= uselessMax {
		u.end()
		engine.elsewhere("this server has neither a quorum nor a leader, another may have")
	}
}

// openStream returns the stream of stream.servers; nil where that is empty. It connects in the
// background: whatever is asked of it fails until that has come about.
func openStream(cfg *config, log *slog.Logger) (sharedLog, error) {
	if cfg.stream.servers == "" {
		return nil, nil
	}
	s, err := dialStream(&cfg.stream, log)
	if err != nil {
		return nil, err // s would be a sharedLog, and not nil
	}
	return s, nil
}

// dialStream is openStream for whoever needs more than a sharedLog.
func dialStream(settings *streamSettings, log *slog.Logger) (*stream, error) {
	config, err := streamTLS(settings)
	if err != nil {
		return nil, err
	}
	s := &stream{log: log, replicas: leastReplicas}
	// The longest record of a group is far from that (group.go), so what goes with it has room.
	s.options = natsOptions{servers: strings.Split(settings.servers, ","), user: settings.user,
		password: settings.password, token: settings.token, tls: config, name: "tp0", payload: walMaxRecord, log: log,
		onConnect: func() { s.due.Store(true); s.keeps.lookSoon() }}
	looks := replicaOptions{stream: settings.name, log: log}
	if settings.monitor != "" {
		looks.ask = monitors(strings.Split(settings.monitor, ","))
	}
	s.keeps = newReplicas(looks)
	s.jetStream = jetStream{engine: dialNATS(s.options), name: settings.name, wait: apiWait, took: new(histogram)}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.keeps.run(ctx, s.engine)
	return s, nil
}

// streamTLS refuses settings that do not go together, and returns how to speak TLS to the engines;
// nil without stream.ca.
func streamTLS(s *streamSettings) (*tls.Config, error) {
	switch {
	case s.token != "" && (s.user != "" || s.password != ""):
		return nil, usageErrorf("stream.token: with stream.user or stream.password: the engine asks for one of the two")
	case (s.user == "") != (s.password == ""):
		return nil, usageErrorf("stream.user: goes with stream.password: set both or neither")
	case s.ca == "":
		return nil, nil
	}
	text, err := os.ReadFile(s.ca)
	if err != nil {
		return nil, usageErrorf("stream.ca: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, usageErrorf("stream.ca: %s has no certificate in PEM form", s.ca)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

func (s *stream) close() {
	s.stop()
	s.engine.close()
}

// streamFacts returns what is known of the stream and its engine.
func (s *stream) streamFacts() streamFacts {
	f := streamFacts{last: s.found.end.Load(), took: s.took, replicas: s.keeps.facts()}
	f.Server, f.Version, _ = s.engine.connected()
	f.Connects = s.engine.connects.Load()
	if trouble := s.found.trouble.Load(); trouble != nil {
		f.trouble = *trouble
	}
	return f
}

func (s *stream) sign(data []byte) { s.engine.publish(s.subject("alive"), data) } // who misses it hears the next

func (s *stream) listen(heard func(data []byte)) {
	s.engine.subscribe(s.subject("alive"), func(m natsMessage) { heard(m.body) })
}

func (s *stream) identity() storeID { return s.id }

// begin sends a record. What goes wrong is settle's to find out.
func (s *stream) begin(number uint64, record []byte) {
	if s.call != nil {
		s.call.abandon()
	}
	call, err := s.send(number, record)
	if s.call, s.number = call, number; err != nil {
		s.call = nil
	}
}

// settle may go on until it has seen what stands at number, whatever happens: the same bytes with
// the same expectation get into the stream once at most, and a copy that lands late finds its place
// taken, by another copy or by another's record.
func (s *stream) settle(ctx context.Context, number uint64, record []byte) error {
	var reason error
	s.unsettled.begin()
	for pause := streamPauseMin; ; pause = min(2*pause, streamPauseMax) {
		err := s.append(ctx, number, record)
		if err == nil {
			s.unsettled.end()
		}
		if err == nil || isFatal(err) {
			return err
		}
		if reason == nil || ctx.Err() == nil { // that ctx has ended is none
			reason = err
		}
		back, err := s.readBack(ctx, number)
		switch {
		case isFatal(err):
			return err
		case err == nil && bytes.Equal(back, record):
			s.unsettled.end()
			return nil
		case err == nil:
			s.unsettled.end()
			return &conflictError{number, back}
		}
		if pauseFor(ctx, pause) != nil {
			s.unsettled.leave(s.engine)
			return fmt.Errorf("%w: %w", errUnsettled, reason)
		}
	}
}

// append sends a record, unless begin has, and waits for the answer. nil: it is stored.
func (s *stream) append(ctx context.Context, number uint64, record []byte) (err error) {
	call := s.call
	if s.call = nil; call == nil || s.number != number {
		if call, err = s.send(number, record); err != nil {
			return s.unanswered(err)
		}
	}
	if s.due.Load() || time.Since(s.checked) >= streamLook {
		if _, err := s.last(ctx); err != nil {
			call.abandon()
			return err
		}
	}
	return s.sent(ctx, call, number)
}

// readBack returns what stands at number, as the leader has it, or any replica.
func (s *stream) readBack(ctx context.Context, number uint64) ([]byte, error) {
	record, err := s.get(ctx, number)
	if err == errNotThere {
		record, err = s.direct(ctx, number)
	}
	return record, err
}

// pauseFor waits. It returns an error once ctx is done.
func pauseFor(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}

// last looks at everything that can be seen of the stream: that it is a log as is needed, and this
// store's. A leader that was cut off may say too little for some time.
func (s *stream) last(ctx context.Context) (uint64, error) {
	due := s.due.Swap(false)
	info, err := s.info(ctx)
	var answered *apiError
	if errors.As(err, &answered) {
		err = s.judge(answered)
	}
	if err == nil {
		err = s.check(&info)
	}
	if err != nil {
		if due {
			s.due.Store(true)
		}
		s.found.fail(err)
		s.unseen.begin()
		s.unseen.leave(s.engine)
		return 0, err
	}
	s.unseen.end()
	s.found.trouble.Store(nil)
	s.found.end.Store(info.State.LastSeq)
	s.checked = time.Now()
	s.warnOfMissing(&info)
	return info.State.LastSeq, nil
}

// check refuses a stream that is not as it must be.
func (s *stream) check(info *streamInfo) error {
	server, version, _ := s.engine.connected()
	if tooOld(version) {
		return s.fatalf("server %s has version %.20q: %d.%d or newer is needed on each", server, version,
			leastEngine[0], leastEngine[1])
	}
	if wrong := info.Config.wrong(s.subject("log"), s.replicas); wrong != "" {
		return s.fatalf("%s", wrong)
	}
	id, err := parseStoreID(info.Config.Metadata[storeKey])
	switch {
	case err != nil:
		return s.fatalf("its metadata has no %s: it was not made by -mode=replicate: set another stream.name", storeKey)
	case s.id != storeID{} && s.id != id:
		return s.fatalf("it has been made anew, for the store %s in place of %s: stop all servers and look into it",
			id, s.id)
	}
	s.id = id
	s.keeps.belongTo(storeKey, id.String())
	return nil
}

// parseStoreID reads an identity as String shows it.
func parseStoreID(text string) (id storeID, err error) {
	data, err := hex.DecodeString(text)
	if err == nil && len(data) != len(id) {
		err = errors.New("an identity of another length")
	}
	copy(id[:], data)
	return id, err
}

// warnOfMissing says that the leader lacks records, again and again while that is so.
func (s *stream) warnOfMissing(info *streamInfo) {
	if info.missing() > 0 {
		s.warn("missing", info.missing(), fmt.Sprintf("the leader %.40q has lost so many records: replicas that start "+
			"anew will lack them too", info.Cluster.Leader))
	}
}

// warn says that a replica lacks records, once in a while.
func (s *stream) warn(key string, value uint64, reason string) {
	if time.Since(s.warned) < streamLook {
		return
	}
	s.warned = time.Now()
	s.log.Warn(actStream, fail, "stream", s.name, key, value, "reason", reason,
		"todo", "replace that replica before any other is restarted: docs/replication.md")
}

// read asks any replica, in batches. It takes consecutive numbers alone: a replica that has lost
// records, or has not got them yet, steps over them without a word.
func (s *stream) read(ctx context.Context, from uint64, yield func(number uint64, record []byte) error) error {
	last, err := s.last(ctx)
	for tries := 0; err == nil && from <= last; {
		next := from
		err = s.batch(ctx, seqRequest{from, batchRecords, batchBytes}, func(at uint64, record []byte) error {
			if next < at && at <= last {
				s.warn("record", next, "a replica has lost this record, and others perhaps")
			}
			if at != next || at > last {
				return errNotThere
			}
			next++
			return yield(at, record)
		})
		if next > from {
			tries = 0
		} else if tries++; tries > gapTries { // and so at once for the records behind
			err = s.seek(ctx, from, yield)
			next++
		} else if err == nil || err == errNotThere {
			err = pauseFor(ctx, s.wait/100<<tries)
		}
		if from = next; err == errNotThere {
			err = nil
		}
	}
	return err
}

// seek yields a record that the replicas which were asked do not have: the leader may have it, or
// one of the servers, each asked by itself.
func (s *stream) seek(ctx context.Context, number uint64, yield func(uint64, []byte) error) error {
	record, err := s.get(ctx, number)
	nobody := err == errNotThere
	for i := 0; err != nil && i < len(s.options.servers); i++ {
		if record, err = s.askServer(ctx, s.options.servers[i], number); err != nil && err != errNotThere {
			nobody = false
		}
	}
	switch {
	case err == nil:
		s.warn("record", number, "replicas have lost this record, or are late; another one has it")
		return yield(number, record)
	case ctx.Err() != nil:
		return ctx.Err()
	case nobody:
		return s.fatalf("record %d is missing, and no replica has it: make a new stream from a server's store, "+
			"which has all: docs/replication.md", number)
	}
	return s.errorf("record %d is missing on all replicas that answer: %w", number, err)
}

// askServer asks one server of the engine for a record.
func (s *stream) askServer(ctx context.Context, server string, number uint64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	o := s.options
	o.servers, o.onConnect, o.payload = []string{server}, nil, 0 // nothing long is sent
	one := jetStream{engine: dialNATS(o), name: s.name, wait: s.wait}
	defer one.engine.close()
	for {
		record, err := one.direct(ctx, number)
		if !errors.Is(err, errNATSLost) || pauseFor(ctx, streamPauseMin) != nil {
			return record, err
		}
	}
}
