package main

import (
	"fmt"
	"io"
)

// maxBatchBet is the longest BET that a BATCH of its own takes, in bytes.
const maxBatchBet = maxMessage - batchHead

// A batcher cuts an agency file into batches, under both limits: bets and bytes.
// The same file and settings give the same batches, so nothing that is sent need
// be kept: it can be made again from where it stands in the file.
type batcher struct {
	file      io.ReaderAt
	agency    uint8
	maxAmount int // bets in a batch at most
	skip      int // data.skip
	// seen is told of each record once: a bet, or why it is none. nil: nobody wants to know.
	seen func(rec *record, b *Bet, malformed string)

	reader *reader
	held   bool // bet is the first of the next batch: it had no room in the last
	bet    Bet  // of the last record; aliases the reader's buffer
	record *record
	at     span // the last batch: the next one starts where it ends
}

// A span is where a batch stands in the agency file: from its first record,
// well-formed or not, to where the next one starts.
type span struct {
	offset, end   int64 // bytes
	line, endLine int
	index         int    // of the batch, from 0
	bets          int    // in the batch; 0: only malformed records before the end of the file
	malformed     int    // records that are not a bet
	after         Resume // bets until end, and their CRC
}

// newBatcher returns a batcher at the start of file, which stays the caller's to
// close. agency goes into every BET.
func newBatcher(file io.ReaderAt, agency uint8, maxAmount, skip int) *batcher {
	b := &batcher{file: file, agency: agency, maxAmount: maxAmount, skip: skip, reader: newReader(nil)}
	b.goOn(span{line: 1, endLine: 1, index: -1})
	return b
}

// goOn makes the next batch the one behind s.
func (b *batcher) goOn(s span) {
	b.reader.reset(io.NewSectionReader(b.file, s.end, 1<<62), s.end, s.endLine)
	b.held, b.at = false, s
}

// next appends the next batch to dst as a BATCH. Its error is io.EOF when there
// are no more bets; the span then has the malformed records that stand last.
func (b *batcher) next(dst []byte) ([]byte, span, error) {
	head := len(dst)
	dst = appendBatchHead(dst, 0)
	s := span{offset: b.at.end, line: b.at.endLine, index: b.at.index + 1}
	for s.bets < b.maxAmount {
		if !b.held {
			malformed, err := b.read()
			if err == io.EOF {
				break
			} else if err != nil {
				return dst[:head], span{}, err
			}
			if malformed != "" {
				s.malformed++
				continue
			}
		}
		if b.held = len(dst)-head+betSize(&b.bet) > maxMessage; b.held {
			break
		}
		dst = appendBet(dst, &b.bet)
		s.bets++
	}
	s.end, s.endLine = b.reader.position()
	if b.held {
		s.end, s.endLine = b.record.offset, b.record.line
	}
	s.after = b.at.after.after(s.bets, dst[head+batchHead:])
	b.at = s
	if s.bets == 0 {
		return dst[:head], s, io.EOF
	}
	appendBatchHead(dst[:head], s.bets)
	return dst, s, nil
}

// read reads the next record into b.bet, or returns why it is no bet.
func (b *batcher) read() (malformed string, err error) {
	if b.record, err = b.reader.next(); err != nil {
		return "", err
	}
	malformed = toBet(b.record, b.skip, b.agency, &b.bet)
	if b.seen != nil {
		b.seen(b.record, &b.bet, malformed)
	}
	return malformed, nil
}

// toBet takes the first skip fields from rec and makes a bet of the others; otherwise it returns
// the reason why they are none. Whether the bet is good is for the server to say.
func toBet(rec *record, skip int, agency uint8, b *Bet) (malformed string) {
	if skip > 0 {
		rec.fields = rec.fields[min(skip, len(rec.fields)):]
	}
	fields := rec.fields
	switch {
	case fields == nil:
		return rec.broken
	case len(fields) != agencyFields:
		return notFields(len(fields))
	}
	number, ok := parseNumber(fields[4])
	if !ok {
		return "number is not 1 to 5 digits"
	}
	if number > 65535 {
		return "number is over 65535"
	}
	// Field by field, since a composite literal is built elsewhere and copied.
	b.Agency, b.Number = agency, uint16(number)
	b.First, b.Last, b.Document, b.Birthdate = fields[0], fields[1], fields[2], fields[3]
	if betSize(b) > maxBatchBet {
		return fmt.Sprintf("longer than a batch holds: %d bytes as a BET, and %d are the limit", betSize(b),
			maxBatchBet)
	}
	return ""
}

// notFields is the reason to refuse a record of n fields.
func notFields(n int) string {
	return fmt.Sprintf("%d fields where there should be %d", n, agencyFields)
}

// parseNumber reads 1 to 5 digits; nearly all numbers have 4.
func parseNumber(s []byte) (number uint, ok bool) {
	for _, c := range s {
		if c-'0' > 9 {
			return 0, false
		}
		number = number*10 + uint(c-'0')
	}
	return number, len(s) > 0 && len(s) <= 5
}

// A spanReader reads the records of a span again: those that are to be rejected, which are few.
type spanReader struct {
	file   io.ReaderAt
	agency uint8
	skip   int // data.skip
	reader *reader
}

// each calls visit for each record of s until it returns false: a bet with its
// position among the bets, from 1; a malformed record with the reason, and the
// position of the last bet before it.
func (r *spanReader) each(s span, visit func(rec *record, position int, b *Bet, malformed string) bool) error {
	// What reports whether a quote is closed lies within maxRecord behind the last
	// record. It is a part of its own because it is seldom read: a read stops
	// between the two.
	src := io.MultiReader(io.NewSectionReader(r.file, s.offset, s.end-s.offset),
		io.NewSectionReader(r.file, s.end, 2*maxRecord))
	if r.reader == nil {
		r.reader = newReader(src)
	}
	r.reader.reset(src, s.offset, s.line)
	position := 0
	var b Bet
	for {
		if at, _ := r.reader.position(); at >= s.end {
			return nil
		}
		rec, err := r.reader.next()
		if err == io.EOF || err == nil && rec.offset >= s.end {
			return nil
		} else if err != nil {
			return err
		}
		malformed := toBet(rec, r.skip, r.agency, &b)
		if malformed == "" {
			position++
		}
		if !visit(rec, position, &b, malformed) {
			return nil
		}
	}
}
