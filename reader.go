package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// This file reads an agency's CSV file (RFC 4180) record by record, in memory
// that does not grow with the file, and knows of each record where it stands.
//
// What is read is looked through once for commas and line feeds, 64 bytes at a
// time, and the answer kept as a bitmap. Lines without a quote, in practice
// nearly all, are cut by it: splitAgency takes those that look like a bet,
// splitPlain the others. Records with a quote, and the last line where it has
// no line feed, are walked byte by byte: splitAny, which also has the rules for
// damaged records.

const (
	// maxRecord is the most bytes a record may take in the file (64 KiB), its
	// final line break not counted. It bounds the buffer, and what a quote that
	// nobody closes can cost.
	maxRecord = 64 << 10

	readWindow    = maxRecord + len("\r\n") // all that may have to be seen to decide on a record
	readBuffer    = 128 << 10               // asked of the file at once; a refill moves little more than half
	readBlock     = 64                      // bytes that a word of the bitmap stands for; divides readBuffer
	agencyFields  = 5                       // fields of an agency's record
	byteOrderMark = "\xef\xbb\xbf"
)

// errStarved says that the buffer ends before the record does.
var errStarved = errors.New("more of the file is needed")

// A record is one record of an agency file. All its slices alias the reader's
// buffer (or its scratch) until the next call of next.
type record struct {
	line   int      // line of the file where the record starts, from 1
	offset int64    // byte offset in the file where the record starts
	fields [][]byte // as read, quotes taken off; nil if it could not be split
	broken string   // where fields is nil: why it could not be split, as the rejects file says it
	text   []byte   // the record's raw text without its final line break
}

// A reader splits an agency file into records. It is for one goroutine.
type reader struct {
	src io.Reader
	err error // what src ended with, io.EOF too; sticky

	buf  []byte // readBuffer bytes, and a block more so that one can be loaded at any position
	pos  int    // buf[pos:end] is read, and is not yet part of a record
	end  int    // at most readBuffer
	base int64  // offset in the file of buf[0]
	line int    // line of the file in which buf[pos] stands

	// quote is the position in buf of the first quote in buf[pos:end], or end.
	// A line that ends before it needs no look at quotes.
	quote int

	// bitmap has bit i%64 of word i/64 set if buf[i] may be a separator (see
	// separators). Bits at end and above mean nothing.
	bitmap [readBuffer/readBlock + 2]uint64

	fields  [][]byte // rec.fields' array, kept for the next record
	scratch []byte   // what cannot alias buf: fields with "" in them, the text of a line that is too long
	rec     record   // what next returned last
}

// newReader returns a reader that stands at the start of the file src.
func newReader(src io.Reader) *reader {
	r := &reader{buf: make([]byte, readBuffer+readBlock), fields: make([][]byte, 0, agencyFields)}
	r.reset(src, 0, 1)
	return r
}

// reset makes the reader go on in src, the first byte of which stands at
// offset in the file, at the start of a record, in the given line. At offset 0
// a byte order mark is skipped. Records returned before are no longer valid.
func (r *reader) reset(src io.Reader, offset int64, line int) {
	r.src, r.err = src, nil
	r.pos, r.end, r.base, r.line = 0, 0, offset, line
	r.quote = 0
}

// position returns where the record after the last one starts, or blank lines
// before it: reset may go on there.
func (r *reader) position() (offset int64, line int) {
	return r.base + int64(r.pos), r.line
}

// next returns the next record, which is valid until the next call; it may be
// one that could not be split, after which reading goes on. At the end of the
// file the error is io.EOF. Any other error means that reading failed, and comes
// again at each call; position then is the start of the record that could not be
// read.
func (r *reader) next() (*record, error) {
	for {
		if r.splitAgency() || r.splitPlain() {
			return &r.rec, nil
		}
		rec, err := r.splitAny()
		if err != errStarved {
			return rec, err
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// splitAgency splits the line at pos if it looks as nearly all do: five fields
// in at most 64 bytes, without a quote. It does nothing that splitPlain does
// not do, but without a loop: the whole reader is 1.4 times as fast.
func (r *reader) splitAgency() bool {
	word, shift := r.pos/readBlock, uint(r.pos)%readBlock
	m := r.bitmap[word]>>shift | r.bitmap[word+1]<<1<<(readBlock-1-shift)
	// The masks tell the compiler what is so if m has five bits.
	const within = readBlock - 1
	p0 := bits.TrailingZeros64(m) & within
	m &= m - 1
	p1 := bits.TrailingZeros64(m) & within
	m &= m - 1
	p2 := bits.TrailingZeros64(m) & within
	m &= m - 1
	p3 := bits.TrailingZeros64(m) & within
	m &= m - 1
	p4 := bits.TrailingZeros64(m) & within
	b := (*[readBlock]byte)(r.buf[r.pos:])
	if m == 0 || r.pos+p4 >= r.quote || b[p4] != '\n' ||
		b[p0] != ',' || b[p1] != ',' || b[p2] != ',' || b[p3] != ',' {
		return false
	}
	stop := p4
	if b[p4-1] == '\r' {
		stop--
	}
	f := (*[agencyFields][]byte)(r.fields[:agencyFields])
	f[0] = b[:p0] // with what stands behind it, which put (bet.go) may copy too
	f[1] = b[p0+1 : p1]
	f[2] = b[p1+1 : p2]
	f[3] = b[p2+1 : p3]
	f[4] = b[p3+1 : stop]
	r.found(f[:], b[:stop:stop], p4+1)
	return true
}

// splitPlain splits the next line that is not blank, if it is whole in the
// buffer, has no quote and is not too long. Blank lines it takes.
func (r *reader) splitPlain() bool {
	fields, start := r.fields[:0], r.pos
	word := r.pos / readBlock
	m := r.bitmap[word] &^ (1<<(uint(r.pos)%readBlock) - 1)
	for {
		for ; m != 0; m &= m - 1 {
			p := word*readBlock + bits.TrailingZeros64(m)
			switch r.buf[p] {
			case ',':
				fields = append(fields, r.buf[start:p:p])
				start = p + 1
			case '\n':
				stop := p
				if p > start && r.buf[p-1] == '\r' {
					stop--
				}
				if p >= r.quote || stop-r.pos > maxRecord {
					return false
				}
				if stop > r.pos {
					r.fields = append(fields, r.buf[start:stop:stop])
					r.found(r.fields, r.buf[r.pos:stop:stop], p+1-r.pos)
					return true
				}
				start = p + 1
				r.pos, r.line = start, r.line+1
			}
		}
		if word++; word*readBlock >= r.end {
			return false
		}
		m = r.bitmap[word]
	}
}

// found makes text, split into fields, the record, and takes its line.
func (r *reader) found(fields [][]byte, text []byte, taken int) {
	// Field by field, since a composite literal is built elsewhere and copied:
	// the whole reader is 1.2 times as fast.
	r.rec.line, r.rec.offset = r.line, r.base+int64(r.pos)
	r.rec.fields, r.rec.text = fields, text
	r.pos += taken
	r.line++
}

// splitAny splits whatever record stands at pos, or says why it cannot be split
// and takes what that costs. With errStarved it has taken no record.
func (r *reader) splitAny() (*record, error) {
	w, last := r.window()
	if last && breakLen(w, last) == len(w) { // nothing, or a blank line that ends in CR
		r.take(len(w))
		return nil, errStarved
	}
	r.fields, r.scratch = r.fields[:0], r.scratch[:0]
	for i := 0; ; i++ {
		start, field := i, []byte(nil)
		if i < len(w) && w[i] == '"' {
			if field, i = r.quoted(w, i); i < 0 {
				if !last && len(w) < readWindow {
					return nil, errStarved // it may be closed yet
				}
				return r.refuse(start, "quote not closed")
			}
		} else {
			i += plainLen(w[i:], last)
			field = w[start:i:i]
		}
		r.fields = append(r.fields, field)
		br := breakLen(w[i:], last)
		switch {
		case br > 0, last && i == len(w):
			return r.settle(w[:i:i], r.fields, i+br, "")
		case br < 0: // it may, but w ends here
			return r.refuse(i, "")
		case w[i] != ',':
			return r.refuse(i, fmt.Sprintf("stray quote in field %d", len(r.fields)))
		}
	}
}

// window returns all of the buffer that the record at pos can depend on, and
// whether the file ends with it.
func (r *reader) window() (w []byte, last bool) {
	end := min(r.end, r.pos+readWindow)
	return r.buf[r.pos:end:end], end == r.end && r.err == io.EOF
}

// breakLen returns how long the line break at the start of w is: 0 if there
// is none, -1 if that depends on what follows w. "One CR before the end of the
// file ends the last line as CRLF would"; any other lone CR is data.
func breakLen(w []byte, last bool) int {
	switch {
	case len(w) == 0 && last:
		return 0
	case len(w) == 0, len(w) == 1 && w[0] == '\r' && !last:
		return -1
	case w[0] == '\n', len(w) == 1 && w[0] == '\r':
		return 1
	case w[0] == '\r' && w[1] == '\n':
		return 2
	}
	return 0
}

// plainLen returns how much of w comes before a comma, a quote or a line break.
func plainLen(w []byte, last bool) int {
	for i, c := range w {
		if c == ',' || c == '"' || c == '\n' || c == '\r' && breakLen(w[i:], last) > 0 {
			return i
		}
	}
	return len(w)
}

// quoted returns the contents of the field whose opening quote is w[open], put
// together in scratch if there are doubled quotes in them, and where its closing
// quote ends: -1 if that is not in the first maxRecord bytes of w.
func (r *reader) quoted(w []byte, open int) (field []byte, after int) {
	own := len(r.scratch)
	for from := open + 1; from < min(len(w), maxRecord); {
		n := bytes.IndexByte(w[from:min(len(w), maxRecord)], '"')
		if n < 0 {
			break
		}
		closing := from + n
		if closing+1 == len(w) || w[closing+1] != '"' {
			if len(r.scratch) == own {
				return w[from:closing:closing], closing + 1
			}
			r.scratch = append(r.scratch, w[from:closing]...)
			return r.scratch[own:len(r.scratch):len(r.scratch)], closing + 1
		}
		if r.scratch == nil { // once; no record needs more
			r.scratch = make([]byte, 0, maxRecord)
		}
		r.scratch = append(r.scratch, w[from:closing+1]...)
		from = closing + 2
	}
	return nil, -1
}

// refuse takes the record at pos up to the end of the line of its byte at.
func (r *reader) refuse(at int, reason string) (*record, error) {
	w, last := r.window()
	text, taken := w, len(w)
	switch lf := bytes.IndexByte(w[at:], '\n'); {
	case lf >= 0:
		text, taken = w[:at+lf], at+lf+1
	case !last && len(w) < readWindow:
		return nil, errStarved
	}
	return r.settle(bytes.TrimSuffix(text, []byte("\r")), nil, taken, reason)
}

// settle makes text, which stands at pos, the record, with its fields or the
// reason why it has none, and takes its lines. It may be too long all the same.
func (r *reader) settle(text []byte, fields [][]byte, taken int, reason string) (*record, error) {
	if len(text) > maxRecord {
		return r.skipLong()
	}
	offset, line := r.position()
	r.rec = record{line, offset, fields, reason, text}
	r.take(taken)
	return &r.rec, nil
}

// skipLong takes the record at pos, which is over maxRecord, and the rest of
// the line in which that limit falls. Its text is what is below the limit,
// copied, since the buffer is needed to find the end of the line.
func (r *reader) skipLong() (*record, error) {
	offset, line := r.position()
	r.scratch = append(r.scratch[:0], r.buf[r.pos:r.pos+maxRecord]...)
	r.take(maxRecord)
	for {
		if lf := bytes.IndexByte(r.buf[r.pos:r.end], '\n'); lf >= 0 {
			r.take(lf + 1)
			break
		}
		r.take(r.end - r.pos)
		if err := r.fill(); err == io.EOF {
			break
		} else if err != nil { // go back: position says where the record starts
			r.reset(r.src, offset, line)
			r.err = err
			return nil, err
		}
	}
	r.rec = record{line, offset, nil, fmt.Sprintf("record longer than %d bytes", maxRecord), r.scratch}
	return &r.rec, nil
}

// take moves pos on by n bytes, and all that must not lie behind it.
func (r *reader) take(n int) {
	r.line += bytes.Count(r.buf[r.pos:r.pos+n], []byte("\n"))
	r.pos += n
	if r.quote < r.pos {
		r.findQuote(r.pos)
	}
}

// findQuote sets quote for what stands at from and after.
func (r *reader) findQuote(from int) {
	r.quote = r.end
	if n := bytes.IndexByte(r.buf[from:r.end], '"'); n >= 0 {
		r.quote = from + n
	}
}

// fill moves what is not yet taken to the front of the buffer and reads on, to
// at least twice of that: each look at a record begins at its start, and so the
// cost stays in proportion to the file however little a read returns.
func (r *reader) fill() error {
	if r.err != nil {
		return r.err
	}
	r.end = copy(r.buf, r.buf[r.pos:r.end])
	r.base += int64(r.pos)
	r.pos = 0
	want := max(min(2*r.end+1, readWindow), len(byteOrderMark))
	for r.end < want && r.err == nil {
		var n int
		n, r.err = r.src.Read(r.buf[r.end:readBuffer])
		r.end += n
	}
	r.findQuote(0)
	for word := 0; word*readBlock < r.end; word++ {
		r.bitmap[word] = separators((*[readBlock]byte)(r.buf[word*readBlock:]))
	}
	if r.base == 0 && bytes.HasPrefix(r.buf[:r.end], []byte(byteOrderMark)) {
		r.pos = len(byteOrderMark)
	}
	return nil
}

// separators returns a word with bit i set if b[i] may be a separator (see
// otherBytes). Without a loop the whole reader is 1.1 times as fast.
func separators(b *[readBlock]byte) uint64 {
	low := otherBytes(b[0:8]) | otherBytes(b[8:16])<<8 | otherBytes(b[16:24])<<16 | otherBytes(b[24:32])<<24
	high := otherBytes(b[32:40]) | otherBytes(b[40:48])<<8 | otherBytes(b[48:56])<<16 | otherBytes(b[56:64])<<24
	return ^(high<<32 | low)
}

// otherBytes returns a byte with bit i clear if b[i] is a comma or a line feed,
// or one of six bytes that differ from both only in the three bits in which
// these differ from each other: "(", "*", "." and three control characters.
// Those are rare, and whoever uses the bitmap looks at the byte anyhow. Not to
// look for the two alone makes the whole reader 1.1 times as fast.
func otherBytes(b []byte) uint64 {
	const (
		ones  = 0x0101010101010101
		same  = 0x7f &^ (',' ^ '\n') * ones // the low bits that the two share
		value = ',' & '\n' * ones           // and what these are
		low7  = 0x7f * ones
		high  = 0x80 * ones
		// gather, as a factor, moves the high bit of each byte to the top byte.
		gather = 0x0002040810204081
	)
	x := binary.LittleEndian.Uint64(b)
	// The sum has a byte's high bit set unless its low bits are value; no carry
	// leaves the byte. A byte over 0x7f has it set itself.
	return (x&same ^ value + low7 | x) & high * gather >> 56
}
