package main

import (
	"encoding/binary"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// A Bet is one bet as it crosses the wire and the disk. Its slices alias the buffer that it was read from and are valid as long
// as that buffer is left alone; nothing is copied until the bet's row is appended to a group.
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

// reasons are the texts of an ACK's status. The short form (5 bytes at most) serves where a batch of very small bets has so many
// refusals that the long ones would make the ACK longer than a message may be: 682 short ones always fit.
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
	drawn     bool   // the draw has taken place: no bet is taken any more
}

// check returns the first reason to refuse b, in the order of the contract: agency, names, document, birthdate, number. plain is
// true if neither name needs quotes in a CSV row, which the same look at each byte tells.
func (r rule) check(b *Bet) (why refusal, plain bool) {
	if b.Agency == 0 {
		return badAgency, false
	}
	if r.agency != 0 && b.Agency != r.agency {
		return otherAgency, false
	}
	first, last := classify(b.First), classify(b.Last)
	switch {
	case first >= nameEmpty:
		return emptyFirst + refusal(first-nameEmpty), false
	case last >= nameEmpty:
		return emptyLast + refusal(last-nameEmpty), false
	case !isDocument(b.Document):
		return badDocument, false
	case !isDate(b.Birthdate):
		return badBirthdate, false
	case b.Number > r.maxNumber:
		return badNumber, false
	case r.drawn:
		return afterDraw, false
	}
	return accepted, first|last == namePlain
}

// A nameClass is what a name's bytes amount to. The refused ones stand in the order of the refusals that they become.
type nameClass uint8

const (
	namePlain   nameClass = 0 // printable, without comma or quote
	nameQuoted  nameClass = 1 // valid, but has a comma or a quote
	nameEmpty   nameClass = 2
	nameBad     nameClass = 3 // not UTF-8
	nameControl nameClass = 4
)

// Eight bytes at a time: a byte of lows is 0x01, a byte of highs 0x80.
const (
	lows  = 0x0101010101010101
	highs = 0x8080808080808080
)

// odd is non-zero if any of the 8 bytes of w is not plain: a control character, DEL, a comma, a quote, or beyond ASCII. Each term sets the high
// bit of a byte that is below 0x20, or equal to the character; bytes above one that matched may be marked too, which does no harm.
func odd(w uint64) uint64 {
	del, comma, quote := w^0x7f*lows, w^','*lows, w^'"'*lows
	return (w | (w - 0x20*lows) | (del - lows) | (comma - lows) | (quote - lows)) & highs
}

// classify looks at a name 8 bytes at a time while they are plain ASCII, which nearly all are; measured, that takes 0.4 of the time of a
// look at each byte.
func classify(name []byte) nameClass {
	if len(name) == 0 {
		return nameEmpty
	}
	rest := name
	for len(rest) >= 8 {
		if odd(binary.LittleEndian.Uint64(rest)) != 0 {
			return classifySlow(name)
		}
		rest = rest[8:]
	}
	for _, c := range rest {
		if c < 0x20 || c >= 0x7f || c == ',' || c == '"' {
			return classifySlow(name)
		}
	}
	return namePlain
}

// classifySlow looks at each character.
func classifySlow(name []byte) nameClass {
	class := namePlain
	for i := 0; i < len(name); {
		c := name[i]
		if c < utf8.RuneSelf {
			if c < 0x20 || c == 0x7f {
				class = max(class, nameControl)
			} else if c == ',' || c == '"' {
				class = max(class, nameQuoted)
			}
			i++
			continue
		}
		char, size := utf8.DecodeRune(name[i:])
		if char == utf8.RuneError && size == 1 {
			return nameBad
		}
		if unicode.IsControl(char) {
			class = nameControl
		}
		i += size
	}
	return class
}

// isDocument tells whether s is 1 to 10 ASCII digits.
func isDocument(s []byte) bool {
	if len(s) == 0 || len(s) > 10 {
		return false
	}
	for _, c := range s {
		if c-'0' > 9 {
			return false
		}
	}
	return true
}

// isDate tells whether s is a day of the Gregorian calendar, 0001-01-01 to 9999-12-31, as YYYY-MM-DD.
func isDate(s []byte) bool {
	if len(s) != 10 || s[4] != '-' || s[7] != '-' {
		return false
	}
	century, year, month, day := twoDigits(s[0], s[1]), twoDigits(s[2], s[3]), twoDigits(s[5], s[6]), twoDigits(s[8], s[9])
	if century|year|month|day >= notDigits || century+year == 0 || month-1 > 11 || day == 0 {
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

// notDigits has a bit that no number below 100 has, so that one comparison of several ORed values finds it.
const notDigits = 1 << 8

// twoDigits returns the value of two ASCII digits, or notDigits.
func twoDigits(tens, ones byte) uint {
	t, o := uint(tens-'0'), uint(ones-'0')
	if t > 9 || o > 9 {
		return notDigits
	}
	return t*10 + o
}

// appendRow appends b as a row of the bets file, as Python's csv.writer writes it with QUOTE_MINIMAL: fields quoted only where needed, CRLF. plain says
// that no field needs quotes. b must have passed the check: a document, a birthdate and a number never need quotes.
func appendRow(dst []byte, b *Bet, plain bool) []byte {
	dst = appendDecimal(dst, uint(b.Agency))
	dst = append(dst, ',')
	if plain {
		dst = append(dst, b.First...)
		dst = append(dst, ',')
		dst = append(dst, b.Last...)
	} else {
		dst = appendQuoted(dst, b.First)
		dst = append(dst, ',')
		dst = appendQuoted(dst, b.Last)
	}
	dst = append(dst, ',')
	dst = append(dst, b.Document...)
	dst = append(dst, ',')
	dst = append(dst, b.Birthdate...)
	dst = append(dst, ',')
	dst = appendDecimal(dst, uint(b.Number))
	return append(dst, '\r', '\n')
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

// appendDecimal appends v, which is at most 65,535.
func appendDecimal(dst []byte, v uint) []byte {
	if v >= 1000 && v <= 9999 { // 9 of 10 numbers
		return append(dst, byte('0'+v/1000), byte('0'+v/100%10), byte('0'+v/10%10), byte('0'+v%10))
	}
	return strconv.AppendUint(dst, uint64(v), 10)
}
