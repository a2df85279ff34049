package main

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"
)

// A decider decides on the BETs of a message: which are stored and which are refused.
// It knows no connection and does no I/O. What it has found is in decision and refused
// until the next message; their arrays are used again.
type decider struct {
	rule     rule
	agency   uint8        // of the bets; 0: these are of several
	decision decision     // what is stored
	refused  []refusedBet // what is not, by position
}

// batch decides on the BATCH m of count bets and returns its size. It fails if the
// message is not whole or breaks the protocol; then what it has found is void.
func (d *decider) batch(m []byte, count int) (size int, err error) {
	d.begin(agencyOf(m))
	d.decision.rows = slices.Grow(d.decision.rows, min(len(m), maxMessage)) // a row is shorter than its BET, mostly
	at := batchHead
	fast := newFastRows(d.rule, d.agency)
	rows, taken := d.decision.rows, 0
	var b Bet
	for i := range count {
		// Nothing here allocates, locks, logs, or writes to d: it is done for every bet.
		if longer, next := fast.appendRow(rows, m, at); next > 0 {
			rows, at = longer, next
			taken++
			continue
		}
		if at, err = parseBatchBet(m, at, i, count, &b); err != nil {
			return 0, err
		}
		d.decision.rows, d.decision.total = rows, i
		d.add(&b)
		rows = d.decision.rows
	}
	d.decision.rows, d.decision.total = rows, count
	d.decision.count += taken
	return at, nil
}

// bet decides on the BET m, reads it into b, and returns its size. It fails as batch does.
func (d *decider) bet(m []byte, b *Bet) (size int, err error) {
	if size, err = parseBet(m, 0, b); err != nil {
		return 0, err
	}
	d.begin(b.Agency)
	d.add(b)
	return size, nil
}

// begin forgets the message before. The next one's bets are, as it seems, of agency.
func (d *decider) begin(agency uint8) {
	d.agency = agency
	d.decision = decision{rows: d.decision.rows[:0]}
	d.refused = d.refused[:0]
}

// add decides on the next bet. What it appends is all that remains of b.
func (d *decider) add(b *Bet) {
	d.decision.total++
	if b.Agency != d.agency {
		d.agency = 0
	}
	if why := d.rule.check(b); why != accepted {
		d.refused = append(d.refused, refusedBet{d.decision.total, why})
		return
	}
	d.decision.rows = appendRow(d.decision.rows, b)
	d.decision.count++
}

// refuseRest refuses, for one reason, all bets that were to be stored. Those that were
// refused before keep the reason that they have.
func (d *decider) refuseRest(why refusal) {
	all := make([]refusedBet, 0, d.decision.total)
	for position := 1; position <= d.decision.total; position++ {
		next := refusedBet{position, why}
		if len(d.refused) > 0 && d.refused[0].position == position {
			next, d.refused = d.refused[0], d.refused[1:]
		}
		all = append(all, next)
	}
	d.refused = all
	d.decision = decision{total: d.decision.total, at: d.decision.at}
}

// release lets go of the arrays.
func (d *decider) release() { d.decision, d.refused = decision{}, nil }

// A fastRows checks a BET and forms its row in one look, for nearly all bets. These
// look alike: names of at most 24 and 16 bytes in ASCII or with the letters from U+00C0
// to U+00FF (all that Spanish has), a document of 8 digits, a number of 4 at most, a BET
// that is whole.
//
// It looks at eight bytes at a time, goes from the message to the row without a Bet in
// between, and has hardly a branch that depends on the data. It refuses nothing. A bet
// that looks otherwise, or is not good, it leaves to parseBet, rule.check and appendRow,
// which say what the program does; FuzzFastRows holds it to them.
//
// Measured on sample files it takes 0.22 of their time (BenchmarkDecide and
// BenchmarkDecidePlain).
type fastRows struct {
	agency    uint8  // of every BET that is taken
	maxNumber uint16 // in four digits
	start     uint32 // how each row starts: the agency and a comma
	startLen  uint   // bytes of start, 2 to 4; 0: no bet is taken
}

const (
	fastFirst = 24 // bytes of the longest first names; three words
	fastLast  = 16 // bytes of the longest last names; two words
	// fastBet is how many bytes of a BET, and of what follows it, are looked at: those of
	// the longest and a word more.
	fastBet = minBet + fastFirst + fastLast + len("12345678") + len("1999-03-17") + 8
	// fastRow is the room that a row needs: that of the longest and a word more.
	fastRow = len("255,") + fastFirst + len(",") + fastLast + len(",12345678,1999-03-17,9999\r\n") + 8
)

// newFastRows returns a fastRows for the bets of an agency under r.
func newFastRows(r rule, agency uint8) (f fastRows) {
	if agency == 0 || r.agency != 0 && agency != r.agency {
		return f
	}
	var start [len("255,")]byte
	f.startLen = uint(len(append(strconv.AppendUint(start[:0], uint64(agency), 10), ',')))
	f.agency, f.maxNumber, f.start = agency, min(r.maxNumber, 9999), binary.LittleEndian.Uint32(start[:])
	return f
}

// appendRow appends to dst the row of the BET at offset at of the message m, if the bet
// is good and looks as nearly all do; next is where the BET ends. Otherwise next is 0.
// What stands behind m in its array may be read, and what stands behind dst may be
// overwritten: both arrays belong to the caller.
func (f *fastRows) appendRow(dst, m []byte, at int) (rows []byte, next int) {
	if f.startLen == 0 || cap(m)-at < fastBet || cap(dst)-len(dst) < fastRow {
		return dst, 0
	}
	// Arrays, so that few of the offsets below need a check of their bounds.
	bet := (*[fastBet]byte)(m[at : at+fastBet])
	row := (*[fastRow]byte)(dst[len(dst) : len(dst)+fastRow])
	be, le := binary.BigEndian, binary.LittleEndian

	n := uint(be.Uint16(bet[2:])) // bytes of the first names
	if n-1 >= fastFirst {
		return dst, 0
	}
	first0, first1, first2 := le.Uint64(bet[4:]), le.Uint64(bet[12:]), le.Uint64(bet[20:])
	last := 4 + n // where the last names start, with their length; likewise below
	k := uint(be.Uint16(bet[last:]))
	if k-1 >= fastLast {
		return dst, 0
	}
	last0, last1 := le.Uint64(bet[last+2:]), le.Uint64(bet[last+10:])
	document := last + 2 + k
	birthdate := document + 10
	if be.Uint16(bet[document:]) != 8 || be.Uint16(bet[birthdate:]) != 10 || bet[0] != opBet || bet[1] != f.agency {
		return dst, 0
	}
	digits, day := le.Uint64(bet[document+2:]), le.Uint64(bet[birthdate+2:])
	tens, ones := bet[birthdate+10], bet[birthdate+11]
	number := be.Uint16(bet[birthdate+12:])
	if next = at + int(birthdate) + 14; next > len(m) || next > maxMessage || number > f.maxNumber {
		return dst, 0
	}
	oddFirst, lead := oddName(first0, first1, int(n))
	third := keep(first2, int(n)-16)
	oddThird, open := latin(third, lead)
	oddLast, openLast := oddName(last0, last1, int(k))
	if oddFirst|oddThird|special(third)|open|oddLast|openLast != 0 ||
		!digits8(digits^'0'*lows) || !isDay(day, uint(tens-'0'), uint(ones-'0')) {
		return dst, 0
	}

	// Whole words, of which the next field overwrites what is too much.
	le.PutUint32(row[:], f.start)
	w := f.startLen & 7 // it is 4 at most
	le.PutUint64(row[w:], first0)
	le.PutUint64(row[w+8:], first1)
	le.PutUint64(row[w+16:], first2)
	w += n
	row[w] = ','
	le.PutUint64(row[w+1:], last0)
	le.PutUint64(row[w+9:], last1)
	w += k + 1
	row[w] = ','
	le.PutUint64(row[w+1:], digits)
	row[w+9] = ','
	le.PutUint64(row[w+10:], day)
	row[w+18], row[w+19], row[w+20] = tens, ones, ','
	text, figures := fourDigits(uint32(number))
	le.PutUint64(row[w+21:], uint64(text)|('\r'|'\n'<<8)<<(figures*8))
	return dst[:len(dst)+int(w+21+figures)+2], next
}

// oddName looks at the first 16 of the n bytes of a name, in two words: odd is 0 if they
// are printable, without a comma or a quote, and ASCII or the letters from U+00C0 to
// U+00FF; lead is 1 if the last of them is the first half of such a letter.
func oddName(w0, w1 uint64, n int) (odd, lead uint64) {
	w0, w1 = keep(w0, n), keep(w1, n-8)
	odd0, lead := latin(w0, 0)
	odd1, lead := latin(w1, lead)
	return odd0 | odd1 | special(w0) | special(w1), lead
}

// highs has the high bit of each byte.
const highs = 0x80 * lows

// keep returns w with all but its first n bytes blanked: all if n is negative, none if it
// is 8 or more.
func keep(w uint64, n int) uint64 {
	rest := ^uint64(0) << (uint(max(n, 0)) * 8) // a shift by 64 or more leaves nothing
	return w&^rest | ' '*lows&rest
}

// special returns a word with a bit in each byte of w that is a control character, DEL, a
// comma or a quote. Each term sets the high bit of a byte that is below 0x20, or equal to
// the character. A byte above one that matched may be marked too, which does no harm.
func special(w uint64) uint64 {
	del, comma, quote := w^0x7f*lows, w^','*lows, w^'"'*lows
	return ((w - 0x20*lows) | (del - lows) | (comma - lows) | (quote - lows)) &^ w & highs
}

// latin looks at 8 bytes of UTF-8 for characters beyond ASCII: odd is 0 if all are from
// U+00C0 to U+00FF, which is 0xc3 and a continuation byte. before is 1 if the byte before
// them is a 0xc3, and lead is 1 if the last of them is.
func latin(w, before uint64) (odd, lead uint64) {
	other := w ^ 0xc3*lows
	leads := highs &^ (other&^highs + 0x7f*lows | other) // the high bit of each 0xc3; no carry leaves a byte
	follow := w & highs &^ (w << 1)                      // of each 10xxxxxx
	stray := w&highs ^ (leads | follow)                  // beyond ASCII, and neither
	alone := follow ^ (leads<<8 | before<<7)             // a continuation without its lead, or the reverse
	return stray | alone, leads >> 63
}

// fourDigits returns v, at most 9,999, in decimal: n bytes of text, from the lowest. Both
// halves of v are divided by 10 at once, for which 103/1024 is near enough.
func fourDigits(v uint32) (text uint32, n uint) {
	pairs := v/100 | v%100<<16
	tens := pairs * 103 >> 10 & 0x000f000f
	digits := tens | (pairs-tens*10)<<8
	zeros := uint(bits.TrailingZeros32(digits|1<<24)) / 8 // in front; the last digit is always said
	return (digits | 0x30303030) >> (zeros * 8), 4 - zeros
}
