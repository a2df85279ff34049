package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
)

// The rejects file: a row of CSV for each refused bet, in the order of the agency file: line, reason, then the record's fields as they were read. The rows of a
// batch are written when the batch is settled, in one write. So the last row tells how far the file got, and a client that is started again knows what
// is missing from the agency file and the server's RESUME alone.
type rejects struct {
	path  string
	log   *slog.Logger
	file  *os.File // nil until the first refusal
	upTo  int      // line of the agency file up to which all that is refused is in the file; 0: nothing
	count int      // of records refused
	rows  []byte   // not yet written
	lines []rejectLine
}

// A rejectLine is what the log says of a refused record.
type rejectLine struct {
	line   int
	reason string
}

// add adds a record, unless it is in the file.
func (r *rejects) add(rec *record, reason string) {
	if rec.line <= r.upTo {
		return
	}
	r.upTo = rec.line
	r.count++
	r.lines = append(r.lines, rejectLine{rec.line, reason})
	r.rows = append(strconv.AppendInt(r.rows, int64(rec.line), 10), ',')
	r.rows = appendQuoted(r.rows, []byte(reason))
	for _, field := range recordFields(rec) {
		r.rows = appendQuoted(append(r.rows, ','), field)
	}
	r.rows = append(r.rows, "\r\n"...)
}

// flush writes what was added, and says it in the log.
func (r *rejects) flush() error {
	if len(r.rows) == 0 {
		return nil
	}
	if r.file == nil {
		f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return fmt.Errorf("rejects file: %w: set data.rejects", err)
		}
		r.file = f
	}
	// One write: a kill leaves all of a batch's rows or, at worst, a part of the last, which recall cuts.
	if _, err := r.file.Write(r.rows); err != nil {
		return fmt.Errorf("rejects file: %w: the records refused from line %d on are not in it", err, r.lines[0].line)
	}
	for _, l := range r.lines {
		r.log.Warn("apuesta_rechazada", fail, "linea", l.line, "motivo", l.reason)
	}
	r.rows, r.lines = r.rows[:0], r.lines[:0]
	return nil
}

// close closes the file if there is one.
func (r *rejects) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// recall finds out how far the rejects file of an earlier run got with this agency file, of which the server has decided on decided bets. A row that was
// torn when that client was killed is cut. Rows of other files do not count: the last one must be of a record that stands in this file, on its line.
func (r *rejects) recall(file io.ReaderAt, agency uint8, decided uint64) error {
	f, err := os.OpenFile(r.path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rejects file: %w: set data.rejects", err)
	}
	defer f.Close()
	start, end, err := lastRow(f)
	if err == nil && isTorn(f, end) {
		err = f.Truncate(end)
	}
	if err != nil {
		return fmt.Errorf("rejects file: %w", err)
	}
	row, err := csv.NewReader(io.NewSectionReader(f, start, end-start)).Read()
	if err != nil || len(row) < 3 {
		return nil // not a row of ours
	}
	line, err := strconv.Atoi(row[0])
	if err != nil || !standsAt(file, agency, line, row[2:], decided) {
		return nil
	}
	r.upTo = line
	return nil
}

// isTorn tells whether what stands from end on may be what a kill left of a row of ours: digits, then a comma or nothing. Anything else is not ours to cut.
func isTorn(f io.ReaderAt, end int64) bool {
	var start [20]byte
	n, _ := f.ReadAt(start[:], end)
	digits := 0
	for digits < n && start[digits]-'0' <= 9 {
		digits++
	}
	return digits > 0 && (digits == n || start[digits] == ',')
}

// lastRow returns where the last whole row of a CSV file starts and ends.
func lastRow(f io.Reader) (start, end int64, err error) {
	in := bufio.NewReaderSize(f, 64<<10)
	quoted, at := false, int64(0)
	for {
		text, err := in.ReadSlice('\n')
		at += int64(len(text))
		if bytes.Count(text, []byte(`"`))%2 == 1 {
			quoted = !quoted
		}
		switch {
		case err == io.EOF:
			return start, end, nil
		case err != nil && err != bufio.ErrBufferFull:
			return 0, 0, err
		case err == nil && !quoted:
			start, end = end, at
		}
	}
}

// standsAt tells whether the record on line of the agency file has these fields, and is one whose rejection may have been written: the server has decided on all bets before.
func standsAt(file io.ReaderAt, agency uint8, line int, fields []string, decided uint64) bool {
	reader := newReader(fileFrom(file, 0))
	for bets := uint64(0); bets <= decided; {
		rec, err := reader.next()
		var split *recordError
		if err != nil && !errors.As(err, &split) || rec.line > line {
			return false
		}
		if rec.line == line {
			return slices.EqualFunc(recordFields(rec), fields, sameField)
		}
		var b Bet
		if err == nil && toBet(rec.fields, agency, &b) == "" {
			bets++
		}
	}
	return false
}

// recordFields returns a record's fields as the rejects file has them.
func recordFields(rec *record) [][]byte {
	if rec.fields == nil {
		return [][]byte{rec.text}
	}
	return rec.fields
}

// sameField compares a field with what encoding/csv made of it: that turns CRLF within quotes into LF.
func sameField(field []byte, read string) bool {
	return string(bytes.ReplaceAll(field, []byte("\r\n"), []byte("\n"))) == read
}
