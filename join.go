package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"time"
)

// What the start of a store looks at whose log servers share: whether the shared log is the one
// that it was, and what became of the last record of the own log. Nothing is answered before.

const (
	// awaitedAfter is for how long nothing is said of a shared log that is waited for.
	awaitedAfter = time.Second
	// awaitedEvery is how often it is said then.
	awaitedEvery = time.Minute
)

// A joining is the part that a start has in the shared log.
type joining struct {
	ctx    context.Context
	log    *slog.Logger
	path   string // of the bets file
	shared sharedLog
	ledger *ledger
	state  *state
	tenure *tenure
	bring  func(payload []byte) error // brings bets file and state to where a record leaves them
}

// errNotShared refuses a store that is not in the shared log.
func errNotShared(path string) error {
	return fmt.Errorf("%s is not in the stream, which has no record of its bets: put it there first "+
		"(-mode=replicate); or, to follow the stream, set store.path to a new name", path)
}

// errInStream is why a store is not opened without its shared log.
var errInStream = errors.New("is in a stream that servers share")

// errShared refuses a store that is in a shared log which nobody has named.
func errShared(path string) error {
	return fmt.Errorf("%s %w, and stream.servers is empty: set it; or take the store out of the stream for good "+
		"(-mode=replicate without stream.servers)", path, errInStream)
}

// errNoForgetting refuses to have a store forget a source that is in a shared log.
func errNoForgetting(path string) error {
	return fmt.Errorf("forget: %s %w, and all of them know the source by its records: stop all servers, take the "+
		"store that has all out of the stream (-mode=replicate without stream.servers), have that one forget, and "+
		"make a new stream from it (-mode=replicate with another stream.name): see Healing in docs/replication.md",
		path, errInStream)
}

// run goes through the steps. last is the payload of the own log's last record; nil: it is known to
// stand in the shared one.
func (j *joining) run(last []byte, pace *pace, name string) error {
	j.tenure = newTenure(rand.Uint64()|1, name, pace, time.Now)
	j.shared.listen(j.tenure.hear)
	if err := j.await(&shrinkage{path: j.path, lasting: pace.shrunk}); err != nil {
		return err
	}
	if err := j.checkChain(); err != nil {
		return err
	}
	if last == nil {
		return nil
	}
	return j.settle(last)
}

// await waits for the shared log, with all records that the store has.
func (j *joining) await(short *shrinkage) error {
	return j.retry(func() error {
		end, err := j.shared.last(j.ctx)
		if err == nil {
			err = j.check()
		}
		return short.judge(end, j.state.sequence, err)
	})
}

// retry calls try until it succeeds, and says so while it does not. It fails fatally, or with ctx's
// error.
func (j *joining) retry(try func() error) error {
	for said := time.Now().Add(awaitedAfter - awaitedEvery); ; {
		err := try()
		switch {
		case err == nil || isFatal(err) || isConflict(err):
			return err
		case j.ctx.Err() != nil:
			return j.ctx.Err()
		case time.Since(said) >= awaitedEvery:
			said = time.Now()
			j.log.Warn(actFollow, inProgress, "file", j.path, "reason", err, "todo",
				"see to the engines in stream.servers and the way to them: the start waits for them")
		}
		pause(j.ctx, probeEvery)
	}
}

// check refuses a shared log that is another store's.
func (j *joining) check() error {
	s := j.state
	switch {
	case s.identity == storeID{} && (s.sequence > 0 || s.length > 0):
		return &fatalError{errNotShared(j.path)}
	case s.identity == storeID{}: // a new store: it is filled from the shared log
		s.identity = j.shared.identity()
	case s.identity != j.shared.identity():
		return &fatalError{fmt.Errorf("the stream is of another store (%v) than %s (%v): set another stream.name, or "+
			"another store.path", j.shared.identity(), j.path, s.identity)}
	}
	return nil
}

// errSeen ends a reading behind its first record.
var errSeen = errors.New("one record is enough")

// checkChain refuses a shared log that has another record in the place of the last that is in.
func (j *joining) checkChain() error {
	if j.state.sequence == 0 {
		return nil
	}
	var sum uint32
	err := j.retry(func() error {
		err := j.shared.read(j.ctx, j.state.sequence, func(_ uint64, payload []byte) error {
			sum = crc32.Checksum(payload, castagnoli)
			return errSeen
		})
		if errors.Is(err, errSeen) {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("record %d cannot be read from the stream", j.state.sequence)
		}
		return err
	})
	if err == nil && sum != j.state.chain {
		err = fmt.Errorf("record %d of the stream is not the one that %s has (its CRC-32C is %08x, not %08x): one of "+
			"the two was restored from a copy, or changed: compare the servers' stores, and make a new stream from "+
			"the one that has all (-mode=replicate)", j.state.sequence, j.path, sum, j.state.chain)
	}
	return err
}

// settle finds out what became of the own log's last record, of which nobody may have been
// answered.
func (j *joining) settle(last []byte) error {
	number := j.state.sequence + 1
	_, rows, err := j.state.read(number, last)
	if err != nil {
		return fmt.Errorf("%s.wal.*: %w", j.path, err)
	}
	j.ledger.length = j.state.length
	j.ledger.unwritten.Store(1)
	j.ledger.shared.held = &heldRecord{number: number, payload: last, rows: rows}
	err = j.retry(func() error {
		_, err := j.ledger.settleHeld(j.ctx)
		return err
	})
	if isConflict(err) {
		j.log.Warn(actRecover, success, "file", j.path, "record", number, "reason",
			"it had not been taken when this server stopped, and another one has its place: it was not answered")
		return nil
	}
	if err == nil {
		err = j.bring(last)
	}
	return err
}
