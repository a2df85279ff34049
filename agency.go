package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
)

// An agencyFile is the file that a client sends, and how far it got. The client
// keeps nothing on disk for that: the server's RESUME says where to go on, and
// what was sent but not answered is read again.
type agencyFile struct {
	path, source string // data.file, data.source
	file         *os.File
	size         int64
	batcher      *batcher // makes what is sent next; the sender's, all else is the receiver's
	again        spanReader
	rejects      rejects
	rule         rule // what the server presumably checks bets against: for those whose answer was lost
	settled      span // the last batch that was answered or counted by RESUME
	recalled     bool // the first RESUME has been dealt with
}

// openAgencyFile opens the agency file of the settings for this process alone,
// and reads the rejects of earlier runs.
func openAgencyFile(cfg *config, log *slog.Logger) (*agencyFile, error) {
	file, err := openRegular(cfg.dataFile)
	if err != nil {
		return nil, fmt.Errorf("agency file: %w: set data.file", err)
	}
	agency := uint8(cfg.id)
	a := &agencyFile{path: cfg.dataFile, source: cfg.dataSource, file: file,
		batcher: newBatcher(file, agency, cfg.batchMaxAmount, cfg.dataSkip),
		again:   spanReader{file: file, agency: agency, skip: cfg.dataSkip},
		rejects: rejects{path: cfg.dataRejects, log: log, most: cfg.rejectsMax},
		rule:    rule{agency: agency, maxNumber: uint16(cfg.maxNumber)}}
	a.settled = a.batcher.at
	info, err := file.Stat()
	if err == nil {
		err = lockFile(file, "client")
	}
	if err != nil {
		return nil, fmt.Errorf("agency file: %s: %w", a.path, err)
	}
	a.size = info.Size()
	if other, _ := os.Stat(a.rejects.path); os.SameFile(info, other) {
		return nil, fmt.Errorf("data.rejects (%s) and data.file (%s) are one file: give the rejects their own",
			a.rejects.path, a.path)
	}
	if err := a.look(); err != nil {
		return nil, err
	}
	return a, a.rejects.read()
}

// look looks at how the file begins. One that is no agency file is not sent, nor are its records
// rejected one by one.
func (a *agencyFile) look() error {
	begins, err := newSample(&a.again)
	switch hint := begins.hint(); {
	case err != nil:
		return fmt.Errorf("agency file: %w", err)
	case begins.hopeless():
		return fmt.Errorf("agency file %s: %s; nothing was sent", a.path, hint)
	case hint != "":
		a.rejects.log.Warn(actHint, inProgress, "file", a.path, "reason", hint)
	}
	return nil
}

// resume goes to where the server stands. owed are the batches that were sent
// and not answered: nearly always their answers are all that is missing.
func (a *agencyFile) resume(ctx context.Context, at Resume, owed []span) error {
	before := a.settled
	for _, s := range owed {
		if s.after == at {
			a.settled = s
		}
	}
	if a.settled.after != at {
		if err := a.skip(ctx, at); err != nil {
			return err
		}
	}
	a.batcher.goOn(a.settled)
	unseen := span{offset: before.end, line: before.endLine, end: a.settled.end}
	if !a.recalled {
		var err error
		if unseen, err = a.recall(ctx, at); err != nil {
			return err
		}
	}
	a.recalled = true
	if unseen.offset < unseen.end {
		if err := a.rejectUnseen(unseen); err != nil {
			return err
		}
	}
	return a.rejects.flush()
}

// skip reads the file from its start to where the server stands, and compares
// the CRC on the way.
func (a *agencyFile) skip(ctx context.Context, at Resume) error {
	b := newBatcher(a.file, a.batcher.agency, a.batcher.maxAmount, a.batcher.skip)
	var m []byte
	for b.at.after.Records < at.Records {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// The server may stand within a batch: batch.maxAmount may have been another.
		b.maxAmount = int(min(uint64(a.batcher.maxAmount), at.Records-b.at.after.Records))
		var err error
		if m, _, err = b.next(m[:0]); err == io.EOF {
			return fmt.Errorf("%s has %d bets, and the server has %d of source %q: "+
				"it is another file: choose another data.source", a.path, b.at.after.Records, at.Records, a.source)
		}
		if err != nil {
			return err
		}
	}
	if b.at.after.CRC != at.CRC {
		return fmt.Errorf("%s differs from what the server has of source %q: "+
			"the CRC of the first %d bets is %s here and %s there: it is another file: choose another data.source",
			a.path, a.source, at.Records, crcText(b.at.after.CRC), crcText(at.CRC))
	}
	a.settled = b.at
	return nil
}

// recall finds out how far the rejects file of an earlier run got. unseen is what
// is not in it and may have refused records: a client that was killed may have
// left some unwritten that the server has counted.
func (a *agencyFile) recall(ctx context.Context, at Resume) (unseen span, err error) {
	bets, refused := uint64(0), 0
	r := &a.rejects
	err = a.again.each(span{line: 1, end: a.size}, func(rec *record, _ int, b *Bet, malformed string) bool {
		if malformed == "" {
			bets++
		}
		if bets > at.Records || ctx.Err() != nil {
			return false
		}
		known := r.holds(rec)
		if !known && malformed == "" && a.rule.check(b) == accepted {
			return true
		}
		refused++
		if known { // rows are written in the file's order: all before this one are there too
			r.upTo, r.earlier, unseen = rec.line, refused, span{}
		} else if unseen.end == 0 {
			unseen = span{offset: rec.offset, line: rec.line, end: a.settled.end}
		}
		return true
	})
	r.known = nil
	if err == nil {
		err = ctx.Err()
	}
	if at.Records == 0 && bets > 0 {
		// Nothing is written before the first batch is answered: these rows are of
		// another file, which began in the same way.
		r.upTo, r.earlier = 0, 0
	}
	return unseen, err
}

// settle deals with the answer to the batch s: what was refused is rejected.
// Malformed records wait for the answer to the batch in which they stand, so
// that the rejects file is in the agency file's order.
func (a *agencyFile) settle(s span, ack Ack) error {
	if ack.Code == ackRefused || s.malformed > 0 {
		if err := a.reject(s, ack); err != nil {
			return err
		}
	}
	a.settled = s
	return nil
}

// settleLast rejects the malformed records behind the last bet. The answers to
// all batches have come.
func (a *agencyFile) settleLast() error {
	if last := a.batcher.at; last.malformed > 0 && last.bets == 0 {
		if err := a.rejectUnseen(last); err != nil {
			return err
		}
		a.settled = last
	}
	return a.rejects.flush()
}

// reject rejects the malformed records of s, and the bets that the server
// refused. An ACK 1 whose status names none of them refuses all.
func (a *agencyFile) reject(s span, ack Ack) error {
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
	err := a.rejectIf(s, func(position int, _ *Bet) (reason string, is bool) {
		if all {
			return cmp.Or(status, "refused by the server without a reason"), true
		}
		reason, is = refused[position]
		return reason, is
	})
	return errors.Join(err, a.rejects.flush())
}

// rejectUnseen rejects what must have been refused of a span whose answers were
// lost: the same check as the server's tells, with bets.maxNumber as it is set here.
func (a *agencyFile) rejectUnseen(s span) error {
	return a.rejectIf(s, func(_ int, b *Bet) (reason string, is bool) {
		why := a.rule.check(b)
		return why.reason(), why != accepted
	})
}

// rejectIf rejects the malformed records of s, and the bets that are refused.
func (a *agencyFile) rejectIf(s span, refused func(position int, b *Bet) (reason string, is bool)) error {
	return a.again.each(s, func(rec *record, position int, b *Bet, reason string) bool {
		is := reason != ""
		if !is {
			reason, is = refused(position, b)
		}
		if is {
			a.rejects.add(rec, reason)
		}
		return true
	})
}

// refused is how many records were refused, in this run and those before it.
func (a *agencyFile) refused() int { return a.rejects.earlier + a.rejects.count }

// crcText is a CRC in the log.
func crcText(crc uint32) string { return fmt.Sprintf("%08x", crc) }
