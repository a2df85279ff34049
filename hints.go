package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// What a file seems to be that is no agency file, and what is to be done about it: told from how
// it begins, before a byte of it is sent.

// Of a file sampleRecords records are looked at, and sampleHead bytes of its start and of each of
// these.
const sampleRecords, sampleHead = 20, 512

// A sample is how an agency file begins.
type sample struct {
	head    []byte          // the first sampleHead bytes
	records []sampledRecord // the first sampleRecords
}

// A sampledRecord is what a hint may depend on of a record.
type sampledRecord struct {
	text   string // at most sampleHead bytes
	fields int    // 0: it could not be split
	reason string // why it is no bet, "" if it is one
}

// notUTF8 is the reason in a sample for a bet whose names have other letters.
const notUTF8 = "not UTF-8"

// newSample reads how the file of r begins.
func newSample(r *spanReader) (s sample, err error) {
	if s.head, err = io.ReadAll(io.NewSectionReader(r.file, 0, sampleHead)); err != nil {
		return s, err
	}
	start := span{line: 1, end: sampleRecords * maxRecord}
	err = r.each(start, func(rec *record, _ int, _ *Bet, malformed string) bool {
		if malformed == "" && !utf8.Valid(rec.text) {
			malformed = notUTF8
		}
		text := rec.text[:min(len(rec.text), sampleHead)]
		s.records = append(s.records, sampledRecord{string(text), len(rec.fields), malformed})
		return len(s.records) < sampleRecords
	})
	return s, err
}

// hopeless reports whether nothing of the file can be sent, so that a client does not begin: none
// of the records is a bet, and there is one reason for that.
func (s sample) hopeless() bool {
	return len(s.records) > 0 && s.hint() != "" &&
		!slices.ContainsFunc(s.records, func(r sampledRecord) bool { return r.reason == "" })
}

// signatures are how files begin that are no text in UTF-8. Of each letter of a western language
// one of the two bytes of UTF-16 is zero.
var signatures = []struct{ start, hint string }{
	{"PK\x03\x04", "it seems to be a spreadsheet or another zip file: save it as CSV, with commas, in UTF-8"},
	{"%PDF", "it seems to be a PDF document: export the bets as CSV, with commas, in UTF-8"},
	{"\xff\xfe", "it seems to be UTF-16: make it UTF-8 (iconv -f UTF-16 -t UTF-8)"},
	{"\xfe\xff", "it seems to be UTF-16: make it UTF-8 (iconv -f UTF-16 -t UTF-8)"},
	{"?\x00?\x00", "it seems to be UTF-16 without a mark: make it UTF-8 (iconv -f UTF-16LE -t UTF-8)"},
	{"\x00?\x00?", "it seems to be UTF-16 without a mark: make it UTF-8 (iconv -f UTF-16BE -t UTF-8)"},
}

// separated are the other separators of fields that people use.
var separated = []struct{ separator, name string }{{";", "semicolons"}, {"\t", "tabs"}, {"|", "vertical bars"}}

// windows1252 is the hint for letters that are not UTF-8.
const windows1252 = "it has letters that are not UTF-8, and seems to be Windows-1252: make it UTF-8 " +
	"(iconv -f WINDOWS-1252 -t UTF-8)"

// hint says in a line what the file seems to be and what to do, or "" if it seems to be an agency
// file, or nothing that is known.
func (s sample) hint() string {
	for _, sig := range signatures {
		if startsLike(s.head, sig.start) {
			return sig.hint
		}
	}
	if len(s.records) == 0 {
		return "it has no records: see that it is the right file"
	}
	for _, other := range separated {
		if s.mostly(func(r sampledRecord) bool { return strings.Count(r.text, other.separator) >= agencyFields-1 }) {
			return fmt.Sprintf("its fields seem to be separated by %s: save it with commas", other.name)
		}
	}
	quoted := func(r sampledRecord) bool {
		return r.fields == 1 && r.text[0] == '"' && strings.Count(r.text, ",") >= agencyFields-1
	}
	if s.mostly(quoted) {
		return "each whole line seems to stand in quotes: take the quotes around the lines away"
	}
	return s.hintOfRecords()
}

// hintOfRecords is hint for a file of text in records with commas.
func (s sample) hintOfRecords() string {
	first, rest := s.records[0], s.records[1:]
	names := first.fields == agencyFields && first.reason != "" && !strings.ContainsAny(first.text, "0123456789")
	if names && !slices.ContainsFunc(rest, func(r sampledRecord) bool { return r.reason == first.reason }) {
		return "its first line seems to be a header: take it away"
	}
	same := len(rest) > 0 && !slices.ContainsFunc(rest, func(r sampledRecord) bool { return r.reason != first.reason })
	switch {
	case same && first.fields > agencyFields:
		return fmt.Sprintf("its records have %d fields, and a bet has %d: leave the others out; "+
			"data.skip drops those that come first (2 in a rejects file)", first.fields, agencyFields)
	case slices.ContainsFunc(s.records, func(r sampledRecord) bool { return r.reason == notUTF8 }):
		return windows1252
	case same && first.reason != "":
		return "its first records are all malformed: " + first.reason +
			" (first name, last name, document, birthdate, number)"
	}
	return ""
}

// mostly reports whether most records are no bets and so. There may be a title before them.
func (s sample) mostly(so func(sampledRecord) bool) bool {
	are := 0
	for _, r := range s.records {
		if r.reason != "" && so(r) {
			are++
		}
	}
	return are*4 > len(s.records)*3
}

// startsLike reports whether head starts with pattern, in which ? is any byte but zero.
func startsLike(head []byte, pattern string) bool {
	for i, c := range []byte(pattern) {
		if i >= len(head) || c == '?' && head[i] == 0 || c != '?' && head[i] != c {
			return false
		}
	}
	return true
}
