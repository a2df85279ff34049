//go:build !nostream && !notls

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"
)

// Mode replicate: the store of a stopped server becomes the first records of a stream. It is the
// only thing that ever makes a stream.
//
// What it puts there depends on the store and the stream's identity alone, byte for byte. So it may
// be killed at any point and started again: it works out the same records once more, sees that the
// stream's last one is among them, and goes on behind it. Each record has the CRC-32C of the one
// before, so that with the last one all are the same. The store itself changes at the end, at once:
// with the snapshot that says that it is in the stream.

const (
	// replicateMost is how many bytes of rows, or of sources, a record has at most: those of a
	// group.
	replicateMost = groupMax
	// replicateSay is the time between two lines of the log.
	replicateSay = 5 * time.Second
	// replicateWait is how long one record may take before the log says why it does.
	replicateWait = 10 * time.Second
)

// runReplicate is mode replicate.
func runReplicate(ctx context.Context, cfg *config, log *slog.Logger, out *lineWriter) error {
	cfg.logTo(log)
	m := &replication{log: log, most: replicateMost, peers: goneAfter}
	if cfg.stream.servers != "" {
		var err error
		if m.stream, err = dialStream(&cfg.stream, log); err != nil {
			return err
		}
		defer m.stream.close()
	}
	disk, path, err := openDisk(cfg.storePath)
	if err != nil {
		return storeFolderError(err)
	}
	defer disk.Close()
	m.shown = func(bar *progress) { // the log steps around it
		if isTerminal(os.Stdout) {
			out.share(bar)
		}
	}
	options := storeOptions{path: path, sync: cfg.storeSync, agencies: cfg.drawAgencies, winner: cfg.drawWinner}
	err = m.run(ctx, disk, options)
	m.shown(nil)
	if ctx.Err() != nil {
		return errStopped // what was done is done, and the next start goes on there
	}
	return err
}

// A replication puts a store into a stream, or takes it out of one.
type replication struct {
	log    *slog.Logger
	bar    *progress
	shown  func(*progress) // is told of the bar
	stream *stream         // nil: the store is to be in none
	most   int             // replicateMost, but in tests
	peers  time.Duration   // for how long engines may say that too few of them are up; goneAfter, but in tests
	ledger *ledger
	state  *state
}

// run recovers the store, as a server does, and does what is to be done with it.
func (m *replication) run(ctx context.Context, d disk, options storeOptions) error {
	if in, err := m.isIn(ctx, d, options.path); in || err != nil {
		return err
	}
	options.alone = true
	r, err := recoverStore(ctx, d, options, m.log)
	if err != nil {
		return err
	}
	defer r.ledger.closeFiles()
	m.ledger, m.state = r.ledger, &r.state
	if m.stream == nil {
		return m.leave()
	}
	records, err := m.count(ctx)
	if err != nil {
		return err
	}
	last, err := m.join(ctx)
	if err != nil {
		return err
	}
	if m.state.identity != (storeID{}) {
		m.log.Warn(actReplicate, inProgress, "stream", m.stream.name, "store", m.state.identity, "becomes", m.stream.id,
			"reason", fmt.Sprintf("the store leaves the stream that it was in; of that it has %d records, and %d bets",
				m.state.sequence, m.state.bets),
			"todo", "be sure that no other server's store has more; then have each of them begin with an empty folder")
	}
	m.bar = newProgress(os.Stderr, m.state.length)
	m.shown(m.bar)
	c, err := m.send(ctx, last, records)
	if err == nil {
		err = m.enter(c)
	}
	if m.bar.finish(); err == nil {
		m.log.Info(actReplicate, success, "stream", m.stream.name, "store", m.stream.id, "records", c.number,
			"bets", m.state.bets, "bytes", m.state.length, "todo", "start the servers with stream.servers: "+
				"this one with its store, each other one with an empty folder")
	}
	return err
}

// isIn reports whether the store is in the stream already. Then it is left as it is: whether the
// last record of its log counts is for the next start of a server to find out.
func (m *replication) isIn(ctx context.Context, d disk, path string) (bool, error) {
	if m.stream == nil {
		return false, nil
	}
	var s state
	data, err := readFile(d, path+".state")
	if err == nil {
		s, _, err = parseState(data)
	}
	if err != nil || s.identity == (storeID{}) {
		return false, nil // what is wrong with it is the recovery's to say
	}
	last, err := m.join(ctx)
	if err != nil || s.identity != m.stream.id {
		return false, err
	}
	m.log.Info(actReplicate, success, "stream", m.stream.name, "records", last, "store", m.stream.id,
		"reason", "the store is in this stream already")
	return true, nil
}

// leave takes the store out of its stream.
func (m *replication) leave() error {
	if m.state.identity == (storeID{}) {
		return usageErrorf("stream.servers: not set, and the store is in no stream: set it to put the store into one")
	}
	was := m.state.identity
	m.state.tenancy = tenancy{}
	if err := m.ledger.writeSnapshot(appendState(nil, m.state)); err != nil {
		return err
	}
	m.log.Warn(actReplicate, success, "store", was, "bets", m.state.bets, "reason",
		"the store is in no stream any more: a server that is started on it answers for this machine's disk alone, "+
			"and other servers know nothing of its bets")
	return nil
}

// count works out how many records the store gives. It finds a bets file whose bytes have changed
// before anything is put into the stream.
func (m *replication) count(ctx context.Context) (uint64, error) {
	c := newStoreRecords(m.ledger.bets, m.state, storeID{}, m.most)
	for {
		switch _, err := c.next(); {
		case err == io.EOF && c.crc != m.state.crc:
			return 0, fmt.Errorf("replicate: the CRC-32C of %s is %08x, and was %08x when its bets were stored: "+
				"-mode=verify says more; restore the store from a copy", m.ledger.path, c.crc, m.state.crc)
		case err == io.EOF:
			return c.number, nil
		case err != nil:
			return 0, err
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
	}
}

// join waits for the stream, and makes it where it is not there. It returns the number of its last
// record.
func (m *replication) join(ctx context.Context) (last uint64, err error) {
	var id storeID
	rand.Read(id[:]) // never fails
	var said time.Time
	began := time.Now()
	for pause := streamPauseMin; ; pause = min(2*pause, streamPauseMax) {
		if _, err = m.stream.info(ctx); isCode(err, codeStreamGone) {
			if err = m.stream.create(ctx, id, m.stream.replicas); err == nil {
				m.log.Info(actReplicate, inProgress, "stream", m.stream.name, "store", id,
					"reason", "the stream is made")
			}
		}
		if err == nil {
			last, err = m.stream.last(ctx)
		}
		var refused *apiError
		switch {
		case err == nil || isFatal(err):
			return last, err
		case isCode(err, codeStreamGone) || isCode(err, codeNameInUse): // it is there, or is not, only since now
		case isCode(err, codeNoPeers) && time.Since(began) < m.peers:
		case errors.As(err, &refused) && refused.Code < 500:
			return 0, m.stream.errorf("it cannot be made: %w", err)
		}
		if time.Since(said) > streamLook {
			said = time.Now()
			m.log.Info(actReplicate, inProgress, "stream", m.stream.name, "reason", err)
		}
		if err := pauseFor(ctx, pause); err != nil {
			return 0, err
		}
	}
}

// send puts the store's records into the stream, behind those that it has: the store's first ones,
// or this is not done.
func (m *replication) send(ctx context.Context, last, records uint64) (*storeRecords, error) {
	c := newStoreRecords(m.ledger.bets, m.state, m.stream.id, m.most)
	if same := min(last, records); last > 0 {
		if err := m.compare(ctx, c, same); err != nil {
			return nil, err
		}
	}
	said := time.Now()
	for m.bar.update(c.at, int64(c.rows), 0); c.number < records; m.bar.update(c.at, int64(c.rows), 0) {
		record, err := c.next()
		if err == nil {
			err = m.put(ctx, c.number, record)
		}
		if err != nil {
			return nil, err
		}
		if time.Since(said) >= replicateSay {
			said = time.Now()
			m.log.Info(actReplicate, inProgress, "stream", m.stream.name, "records", c.number, "of", records,
				"bets", c.rows, "bytes", c.at)
		}
	}
	return c, nil
}

// compare goes on to record same, and refuses a stream that has another one there.
func (m *replication) compare(ctx context.Context, c *storeRecords, same uint64) (err error) {
	var record, there []byte
	for c.number < same && err == nil && ctx.Err() == nil {
		record, err = c.next()
	}
	for err == nil && same > 0 {
		there, err = m.stream.readBack(ctx, same)
		if err == nil || isFatal(err) || ctx.Err() != nil {
			break
		}
		m.log.Info(actReplicate, inProgress, "stream", m.stream.name, "record", same, "reason", err)
		err = pauseFor(ctx, streamPauseMax)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case same == 0 || !bytes.Equal(record, there):
		return m.foreign()
	}
	m.log.Info(actReplicate, inProgress, "stream", m.stream.name, "records", same, "reason", "these it has already")
	return nil
}

// foreign is the error about a stream that is not this store's.
func (m *replication) foreign() error {
	return m.stream.errorf("it has records that this store does not give: set another stream.name; or, for a server "+
		"that is to follow this stream, start it with an empty folder in place of %s", m.ledger.path)
}

// put puts one record into the stream.
func (m *replication) put(ctx context.Context, number uint64, record []byte) error {
	for {
		limited, cancel := context.WithTimeout(ctx, replicateWait)
		err := m.stream.settle(limited, number, record)
		cancel()
		var conflict *conflictError
		switch {
		case errors.As(err, &conflict):
			return m.foreign()
		case err == nil || isFatal(err) || ctx.Err() != nil:
			return err
		}
		m.log.Info(actReplicate, inProgress, "stream", m.stream.name, "record", number, "reason", err)
	}
}

// enter makes the store one that is in the stream: record for record, its own log empty. The old
// records would be taken for later ones of the new numbers, so they go first, when the snapshot
// that covers them is durable. After a crash in between the store is what it was, without a log.
func (m *replication) enter(c *storeRecords) error {
	if err := m.ledger.writeSnapshot(appendState(nil, m.state)); err != nil {
		return err
	}
	if err := m.ledger.wal.clear(); err != nil {
		return err
	}
	m.state.sequence, m.state.tenancy = c.number, tenancy{identity: m.stream.id, chain: c.chain}
	return m.ledger.writeSnapshot(appendState(nil, m.state))
}

// storeRecords makes the records of a store for a stream, one after the other: its rows in pieces,
// then how far its sources got, then who has finished and the draw.
type storeRecords struct {
	bets   io.ReaderAt
	state  *state // of the store
	id     storeID
	most   int          // bytes of rows, or of sources, in a record
	marks  []sourceMark // that are to come
	ended  bool         // who has finished, and the draw, have come
	at     int64        // bytes of the bets file that have
	rows   uint64       // in them
	crc    uint32       // of them
	number uint64       // of the last record
	chain  uint32       // its CRC-32C
	buf    []byte
}

func newStoreRecords(bets io.ReaderAt, s *state, id storeID, most int) *storeRecords {
	c := &storeRecords{bets: bets, state: s, id: id, most: most, buf: make([]byte, redoRowsAt, walMaxRecord)}
	for agency, names := range s.sources {
		for name, at := range names {
			c.marks = append(c.marks, sourceMark{sourceKey{uint8(agency), name}, at})
		}
	}
	slices.SortFunc(c.marks, func(a, b sourceMark) int {
		return cmp.Or(cmp.Compare(a.key.agency, b.key.agency), cmp.Compare(a.key.name, b.key.name))
	})
	return c
}

// next returns the next record, valid until the one after it; io.EOF if there is none.
func (c *storeRecords) next() ([]byte, error) {
	r, buf := redo{drawn: noNumber}, c.buf[:redoRowsAt]
	switch finished := c.state.draw.finished.all(); {
	case c.at < c.state.length:
		rows, err := c.readRows(buf[redoRowsAt:cap(buf)])
		if err != nil {
			return nil, fmt.Errorf("replicate: %w", err)
		}
		buf = buf[:redoRowsAt+len(rows)]
		left := c.state.bets - c.rows
		r.count = uint32(min(left, uint64(bytes.Count(rows, []byte{'\n'}))))
		if c.at+int64(len(rows)) == c.state.length { // a file that was adopted may have its lines in any form
			r.count = uint32(left)
		}
	case len(c.marks) > 0:
		n := min(len(c.marks), c.most/maxMark)
		r.marks, c.marks = c.marks[:n], c.marks[n:]
	case !c.ended && (len(finished) > 0 || c.state.draw.drawn != noNumber):
		r.finished, r.drawn, c.ended = finished, c.state.draw.drawn, true
	default:
		return nil, io.EOF
	}
	c.buf = r.seal(buf, c.at, c.crc, stamp{identity: c.id, prev: c.chain})
	c.at += int64(len(r.rows))
	c.rows += uint64(r.count)
	c.number, c.crc, c.chain = c.number+1, r.crc, r.sum
	return c.buf[walRecordHead:], nil
}

// readRows reads the rows of the next record into buf: whole lines, unless one is longer than a
// record.
func (c *storeRecords) readRows(buf []byte) ([]byte, error) {
	rows := buf[:min(int64(c.most), c.state.length-c.at)]
	if _, err := c.bets.ReadAt(rows, c.at); err != nil {
		return nil, err
	}
	if end := bytes.LastIndexByte(rows, '\n'); end >= 0 {
		rows = rows[:end+1]
	}
	return rows, nil
}
