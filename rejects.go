package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"os"
	"strconv"
)

const (
	// recentRejects bounds what is remembered of the rejects file of earlier runs:
	// the last row of an agency file is found if no more than about these many rows
	// of other agency files were written after it.
	recentRejects = 1 << 16
	// rejectsAtOnce is from how many bytes on rows are written before their batch is
	// done with.
	rejectsAtOnce = 1 << 20
)

// The rejects file: a row of CSV for each refused record, in the order of the
// agency file: line, reason, then the record's fields as they were read; of a
// record that cannot be split its text as one field. The rows of a batch are
// written when the batch is settled, in one write. So the last row tells how far
// the file got, and a client that is started again knows what is missing from
// the agency file and the server's RESUME alone.
type rejects struct {
	path    string
	log     *slog.Logger
	most    int      // rejects.max
	file    *os.File // nil until the first refusal
	upTo    int      // line of the agency file up to which all that is refused is in the file; 0: nothing
	earlier int      // records that earlier runs refused
	count   int      // records that this run refused
	rows    []byte   // not yet written
	lines   []rejectLine
	err     error // why the file could not be written; sticky

	// Of earlier runs: the hashes of the rows (without their reasons), each at the
	// place that it gives itself, until agencyFile.recall has looked at them. nil:
	// there are none.
	known []uint64
	seed  maphash.Seed
	// Where a row starts that was torn when a client was killed, and where it ends
	// with the file: it is cut before the first row is written.
	torn, tornEnd int64
}

// A rejectLine is what the log says of a refused record.
type rejectLine struct {
	line   int
	reason string
}

// read reads the rejects file of earlier runs, if there is one. A file that holds
// anything but rejects is left alone: it is somebody else's.
func (r *rejects) read() error {
	f, err := openRegular(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rejects file: %w: set data.rejects", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		r.known, r.seed = make([]uint64, recentRejects), maphash.MakeSeed()
		err = r.readRows(f, info.Size())
	}
	if err != nil {
		return fmt.Errorf("rejects file %s: %w: set data.rejects", r.path, err)
	}
	return nil
}

// openRegular opens a file to read, which must be a regular one: it is read more
// than once, a pipe could block for ever, and a device might never end.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return os.Open(path)
}

// readRows reads the rows of f, which has size bytes.
func (r *rejects) readRows(f *os.File, size int64) error {
	in := rowReader{Reader: bufio.NewReader(f)}
	for start := int64(0); startsRow(f, start) || start > 0; start = in.at {
		row, err := in.next()
		if err == io.EOF {
			return nil
		}
		if in.at == size && startsRow(f, start) && (err == errOpenQuote || !endsLine(f, size)) {
			r.torn, r.tornEnd = start, size
			return nil
		}
		if err != nil || !isReject(row) {
			return fmt.Errorf("what stands at byte %d is no rejected record, so it is not ours to write to", start)
		}
		hash := r.hash(row[0], row[2:])
		r.known[hash%recentRejects] = hash
	}
	return errors.New("it does not start with a rejected record, so it is not ours to write to")
}

// A rowReader reads rows as they are written here, however long. Package encoding/csv would be
// 15 KB more of program, for this alone.
type rowReader struct {
	*bufio.Reader
	at int64 // where the next row starts; behind an error, what was read
}

var (
	errOpenQuote  = errors.New("rejects: the file ends within quotes") // as it does when a client was killed
	errStrayQuote = errors.New("rejects: a quote within a field")
)

// next returns the fields of the next row; io.EOF behind the last one.
func (in *rowReader) next() (fields [][]byte, err error) {
	var field []byte
	began, within, after := in.at, false, false // within quotes, after the closing one
	for {
		c, err := in.ReadByte()
		switch {
		case err == io.EOF && within:
			return nil, errOpenQuote
		case err == io.EOF && in.at > began:
			return append(fields, field), nil
		case err != nil:
			return nil, err
		}
		in.at++
		switch {
		case within && c == '"':
			within, after = false, true
		case within:
			field = append(field, c)
		case c == '"' && after:
			field = append(field, c)
			within, after = true, false
		case c == ',':
			fields, field, after = append(fields, field), nil, false
		case c == '\n':
			return append(fields, field), nil
		case c == '\r': // of the line's end: one of a field is within quotes
		case c == '"' && len(field) == 0:
			within = true
		case c == '"', after:
			return nil, errStrayQuote
		default:
			field = append(field, c)
		}
	}
}

// endsLine reports whether f, which has size bytes, ends with a line feed.
func endsLine(f io.ReaderAt, size int64) bool {
	var last [1]byte
	f.ReadAt(last[:], size-1)
	return last[0] == '\n'
}

// startsRow reports whether what stands at start may be a row or what a kill left
// of one: digits, then a comma or nothing.
func startsRow(f io.ReaderAt, start int64) bool {
	var head [20]byte
	n, _ := f.ReadAt(head[:], start)
	rest := bytes.TrimLeft(head[:n], "0123456789")
	return len(rest) < n && (len(rest) == 0 || rest[0] == ',')
}

// isReject reports whether row is a rejected record: of five fields, or refused
// because they are not. A row of bets.csv has six, and is not.
func isReject(row [][]byte) bool {
	if len(row) < 3 {
		return false
	}
	fields := len(row) - 2
	return fields == agencyFields || fields == 1 || string(row[1]) == notFields(fields)
}

// hash returns the hash of a row: line and fields.
func (r *rejects) hash(line []byte, fields [][]byte) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	h.Write(line)
	for _, field := range fields {
		h.WriteByte(0)
		h.Write(field)
	}
	return h.Sum64()
}

// holds reports whether a row of earlier runs is of rec.
func (r *rejects) holds(rec *record) bool {
	if r.known == nil {
		return false
	}
	hash := r.hash(strconv.AppendInt(nil, int64(rec.line), 10), recordFields(rec))
	return r.known[hash%recentRejects] == hash
}

// recordFields returns a record's fields as the rejects file has them. A record of which data.skip
// left no field goes there as one that could not be split.
func recordFields(rec *record) [][]byte {
	if len(rec.fields) == 0 {
		return [][]byte{rec.text}
	}
	return rec.fields
}

// tooMany reports whether more records were refused than rejects.max allows, by this run and
// those before it.
func (r *rejects) tooMany() bool { return r.most > 0 && r.earlier+r.count > r.most }

// add adds a record, unless it is in the file. The one that is too many is the last.
func (r *rejects) add(rec *record, reason string) {
	if rec.line <= r.upTo || r.tooMany() {
		return
	}
	r.upTo = rec.line
	r.count++
	reason = reason[:min(len(reason), maxValue)] // a server says what it likes
	r.lines = append(r.lines, rejectLine{rec.line, reason})
	r.rows = append(strconv.AppendInt(r.rows, int64(rec.line), 10), ',')
	r.rows = appendQuoted(r.rows, appendHarmless(nil, reason))
	for _, field := range recordFields(rec) {
		r.rows = appendQuoted(append(r.rows, ','), field)
	}
	if r.rows = append(r.rows, "\r\n"...); len(r.rows) >= rejectsAtOnce {
		r.write() // there may be any number of them before the next bet
	}
}

// flush writes what was added, and says it in the log. Its error comes again. It fails too, when
// all is written, if the client is to stop because too many records were refused.
func (r *rejects) flush() error {
	if err := r.write(); err != nil || !r.tooMany() {
		return err
	}
	return fmt.Errorf("more than %d records were refused (rejects.max): see %s, put the agency file right "+
		"and send it under another data.source, or raise rejects.max", r.most, r.path)
}

// write is flush without the limit.
func (r *rejects) write() error {
	if len(r.rows) == 0 || r.err != nil {
		return r.err
	}
	if r.file == nil {
		if r.err = r.create(); r.err != nil {
			return r.err
		}
	}
	// One write: a kill leaves all of a batch's rows or, at worst, a torn one that read finds.
	if _, err := r.file.Write(r.rows); err != nil {
		r.err = fmt.Errorf("rejects file: %w: not all records refused from line %d on are in it", err, r.lines[0].line)
		return r.err
	}
	for _, l := range r.lines {
		r.log.Warn(actApuestaRechazada, fail, "linea", l.line, "motivo", l.reason)
	}
	r.rows, r.lines = r.rows[:0], r.lines[:0]
	return nil
}

// create opens the file to append, and cuts the torn row unless somebody else has
// written behind it.
func (r *rejects) create() (err error) {
	if r.file, err = os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return fmt.Errorf("rejects file: %w: set data.rejects", err)
	}
	info, err := r.file.Stat()
	if err == nil && r.tornEnd > 0 && info.Size() == r.tornEnd {
		err = r.file.Truncate(r.torn)
	}
	if err != nil {
		return fmt.Errorf("rejects file: %w", err)
	}
	return nil
}
