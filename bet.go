package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// A Bet is one bet as it crosses the wire and the disk. Its slices alias the buffer that it was
// read from and are valid as long as that buffer is left alone; nothing is copied until the
// bet's row is appended to a group.
type Bet struct {
	Agency    uint8  // 1 to 255
	First     []byte // first names
	Last      []byte // last names
	Document  []byte // 1 to 10 digits
	Birthdate []byte // YYYY-MM-DD
	Number    uint16 // 0 to bets.maxNumber
}

// A refusal says why a bet is not taken; accepted (0) means that it is.
type refusal uint8

// The refusals, in the order in which a bet is checked: the first that applies is the reason.
const (
	accepted refusal = iota
	badAgency
	otherAgency
	emptyFirst
	badFirst
	controlFirst
	emptyLast
	badLast
	controlLast
	badDocument
	badBirthdate
	badNumber
	afterDraw
)

// reasons are the texts of an ACK's status. The short form (5 bytes at most) serves where a
// batch of very small bets has so many refusals that the long ones would make the ACK longer
// than a message may be: 682 short ones always fit.
var reasons = [...]struct{ long, short string }{
	accepted:     {"", ""},
	badAgency:    {"agency is not 1 to 255", "agcy"},
	otherAgency:  {"agency is not the one of this connection", "agcy"},
	emptyFirst:   {"first name is empty", "first"},
	badFirst:     {"first name is not valid UTF-8", "first"},
	controlFirst: {"first name has a control character", "first"},
	emptyLast:    {"last name is empty", "last"},
	badLast:      {"last name is not valid UTF-8", "last"},
	controlLast:  {"last name has a control character", "last"},
	badDocument:  {"document is not 1 to 10 digits", "doc"},
	badBirthdate: {"birthdate is not a real date YYYY-MM-DD", "date"},
	badNumber:    {"number is over the highest that is valid", "num"},
	afterDraw:    {"the draw has taken place", "draw"},
}

// reason returns the text of a refusal.
func (r refusal) reason() string { return reasons[r].long }

// A rule is what the bets of one connection are checked against.
type rule struct {
	agency    uint8  // the agency that HELLO named; 0: any
	maxNumber uint16 // the highest valid number
}

// check returns the first reason to refuse b, in the order of the contract: agency, names,
// document, birthdate, number.
func (r rule) check(b *Bet) refusal {
	name := cmp.Or(checkName(b.First, emptyFirst), checkName(b.Last, emptyLast))
	switch {
	case b.Agency == 0:
		return badAgency
	case r.agency != 0 && b.Agency != r.agency:
		return otherAgency
	case name != accepted:
		return name
	case !isDocument(b.Document):
		return badDocument
	case !isDate(b.Birthdate):
		return badBirthdate
	case b.Number > r.maxNumber:
		return badNumber
	}
	return accepted
}

// checkName returns the first reason to refuse a name: empty, or one of the two that stand
// behind it in the list.
func checkName(name []byte, empty refusal) refusal {
	switch {
	case len(name) == 0:
		return empty
	case !utf8.Valid(name):
		return empty + (badFirst - emptyFirst)
	case bytes.ContainsFunc(name, unicode.IsControl):
		return empty + (controlFirst - emptyFirst)
	}
	return accepted
}

// maxDocument is how many digits a document has at most.
const maxDocument = 10

// isDocument reports whether s is 1 to maxDocument ASCII digits.
func isDocument(s []byte) bool {
	for _, c := range s {
		if c-'0' > 9 {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxDocument
}

// isDate reports whether s is a day of the Gregorian calendar, 0001-01-01 to 9999-12-31, as
// YYYY-MM-DD.
func isDate(s []byte) bool {
	return len(s) == 10 && isDay(binary.LittleEndian.Uint64(s), uint(s[8]-'0'), uint(s[9]-'0'))
}

// isDay is isDate for the first 8 bytes in a word and the values of the last two digits.
func isDay(w uint64, tens, ones uint) bool {
	const dashes = 0xff<<(4*8) | 0xff<<(7*8)
	const form = '0'*lows&^dashes | '-'<<(4*8) | '-'<<(7*8) // what each byte is XORed with
	w ^= form
	if !digits8(w) || w&dashes != 0 || tens > 9 || ones > 9 {
		return false
	}
	digit := func(i uint) uint { return uint(w >> (i * 8) & 0xf) }
	century, year := digit(0)*10+digit(1), digit(2)*10+digit(3)
	month, day := digit(5)*10+digit(6), tens*10+ones
	if century+year == 0 || month-1 > 11 || day == 0 {
		return false
	}
	if day <= 28 {
		return true
	}
	if month != 2 {
		return day <= 30+(month+month>>3)&1
	}
	leap := year%4 == 0 && (year != 0 || century%4 == 0)
	return day == 29 && leap
}

// lows has 0x01 in each byte: a factor of it repeats a byte eight times.
const lows = 0x0101010101010101

// digits8 reports whether the 8 bytes of w are ASCII digits less '0': each at most 9.
func digits8(w uint64) bool { return (w|(w+6*lows))&(0xf0*lows) == 0 }

// appendRow appends b as a row of the bets file, as Python's csv.writer writes it with
// QUOTE_MINIMAL: fields quoted only where needed, CRLF. b must have passed the check: a
// document, a birthdate and a number never need quotes.
func appendRow(dst []byte, b *Bet) []byte {
	dst = append(strconv.AppendUint(dst, uint64(b.Agency), 10), ',')
	dst = append(appendQuoted(dst, b.First), ',')
	dst = append(appendQuoted(dst, b.Last), ',')
	dst = append(append(dst, b.Document...), ',')
	dst = append(append(dst, b.Birthdate...), ',')
	return append(strconv.AppendUint(dst, uint64(b.Number), 10), "\r\n"...)
}

// appendQuoted appends a CSV field, in quotes if it has a comma, a quote or a line break.
func appendQuoted(dst, field []byte) []byte {
	quotes := false
	for _, c := range field {
		quotes = quotes || c == ',' || c == '"' || c == '\r' || c == '\n'
	}
	if !quotes {
		return append(dst, field...)
	}
	dst = append(dst, '"')
	for _, c := range field {
		if c == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}
