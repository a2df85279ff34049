package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/bits"
	"strconv"
)

// A draw says who has finished, and whether the draw has taken place. The store that owns it guards
// it. Winners are kept nowhere: the bets file takes no bet after the draw, so one survey of it then
// finds them all, whatever number was in force when they were stored.
type draw struct {
	agencies int       // distinct agencies that must have finished before it; 0: there is none
	winner   int       // the winning number that a draw now would have; draw.winner
	finished agencySet // agencies that have finished
	drawn    int       // the winning number of the draw that has taken place; noNumber: none has
}

const (
	noNumber      = -1 // no winning number
	unknownNumber = -2 // that of a draw in a log of version 1, which did not say
)

// A drawing is the draw with what is not durable yet, and what is found out after it.
type drawing struct {
	finished agencySet // agencies, durably or in a group
	begun    bool      // the draw has taken place, or a group with it is under way
	found    *survey   // the winners; nil: they are not known
}

// An agencySet is a set of agencies.
type agencySet [4]uint64

// add and has take any agency, 0 to 255.
func (s *agencySet) add(agency uint8)      { s[agency>>6] |= 1 << (agency & 63) }
func (s *agencySet) has(agency uint8) bool { return s[agency>>6]>>(agency&63)&1 == 1 }

// all returns the agencies of the set, in order.
func (s *agencySet) all() (agencies []byte) {
	for agency := range 256 {
		if s.has(uint8(agency)) {
			agencies = append(agencies, byte(agency))
		}
	}
	return agencies
}

// count returns how many agencies the set has.
func (s *agencySet) count() (n int) {
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// A survey is what one pass over the bets file finds in its first length bytes.
type survey struct {
	bets    io.ReaderAt
	length  int64
	number  string // the winning number; that of noNumber, which no bet has, while there was no draw
	rows    uint64
	crc     uint32            // CRC-32C of the bytes
	seal    [sha256.Size]byte // SHA-256 of the bytes
	odd     int               // line of the first row that is no bet of ours; 0: there is none
	winners [256]winnerList   // by agency
}

// A winnerList says which bets of an agency have won: the documents of the first of them, as
// many as keptWinners, and where the others are found.
type winnerList struct {
	count int
	kept  [][]byte
	more  int64 // where in the bets file the first bet is whose document is not kept
}

// keptWinners bounds the memory that somebody can take who bets on nothing but the winning number:
// 255 agencies of so many documents are 8 MiB.
const keptWinners = 1024

// surveyBets reads the first length bytes of bets. It fails if they cannot be read, or with ctx's
// error once ctx is done.
func surveyBets(ctx context.Context, bets io.ReaderAt, length int64, number int) (*survey, error) {
	v := &survey{bets: bets, length: length, number: strconv.Itoa(number)}
	crc, seal := crc32.New(castagnoli), sha256.New()
	src := io.TeeReader(io.NewSectionReader(bets, 0, length), io.MultiWriter(crc, seal))
	err := eachRow(src, func(rec *record) bool {
		v.add(rec)
		return ctx.Err() == nil
	})
	v.crc = crc.Sum32()
	seal.Sum(v.seal[:0])
	return v, cmp.Or(err, ctx.Err())
}

// eachRow calls row with each record of src, until it returns false. A file that was adopted
// may have lines of any kind: fields is nil where a record cannot be split.
func eachRow(src io.Reader, row func(rec *record) bool) error {
	for rows := newReader(src); ; {
		rec, err := rows.next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case !row(rec):
			return nil
		}
	}
}

// add notes a row.
func (v *survey) add(rec *record) {
	v.rows++
	if v.odd == 0 && (len(rec.fields) != 6 || !isDocument(rec.fields[3]) || !isDate(rec.fields[4])) {
		v.odd = rec.line
	}
	if agency, won := v.won(rec); won {
		w := &v.winners[agency]
		if w.count++; w.count <= keptWinners {
			w.kept = append(w.kept, bytes.Clone(rec.fields[3]))
		} else if w.count == keptWinners+1 {
			w.more = rec.offset
		}
	}
}

// report logs the seal of a bets file whose CRC was recorded, or how it differs from what was
// stored.
func (v *survey) report(log *slog.Logger, path string, recorded uint32) {
	if v.crc == recorded {
		log.Info(actSorteoSello, success, "apuestas", v.rows, "sha256", hex.EncodeToString(v.seal[:]))
		return
	}
	where := ""
	if v.odd > 0 {
		where = fmt.Sprintf("; the first line that is no bet is %d", v.odd)
	}
	log.Error(actSorteoSello, fail, "file", path, "reason", fmt.Sprintf("its first %d bytes are not those "+
		"that were stored: their CRC-32C is %08x and was %08x%s", v.length, v.crc, recorded, where),
		"todo", "compare it with a copy: a disk or a hand has changed it; the winners are those that it says now")
}

// won reports whether the bet in a row has won, and whose it is.
func (v *survey) won(rec *record) (agency uint8, won bool) {
	if len(rec.fields) != 6 || string(rec.fields[5]) != v.number || len(rec.fields[3]) > 10 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(rec.fields[0]), 10, 8)
	return uint8(n), err == nil
}

// each calls yield with the document of each winner of agency, in stored order, until it returns
// false. What is not kept is read from the bets file again.
func (v *survey) each(agency uint8, yield func(document []byte) bool) error {
	w := &v.winners[agency]
	for _, document := range w.kept {
		if !yield(document) {
			return nil
		}
	}
	left := w.count - len(w.kept)
	if left == 0 {
		return nil
	}
	err := eachRow(io.NewSectionReader(v.bets, w.more, v.length-w.more), func(rec *record) bool {
		if of, won := v.won(rec); won && of == agency {
			if left--; !yield(rec.fields[3]) {
				left = 0
			}
		}
		return left > 0
	})
	if err == nil && left > 0 {
		err = fmt.Errorf("%d of %d winners of agency %d are gone from the bets file", left, w.count, agency)
	}
	return err
}
