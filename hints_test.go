package main

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"
)

// tenBets is an agency file of ten bets, each made by this format of its number.
func tenBets(format string) string {
	var text strings.Builder
	for n := range 10 {
		fmt.Fprintf(&text, format, n)
	}
	return text.String()
}

// utf16Text is text in UTF-16, low bytes first or last.
func utf16Text(text string, high, low int) string {
	var out []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		pair := [2]byte{}
		pair[high], pair[low] = byte(unit>>8), byte(unit)
		out = append(out, pair[:]...)
	}
	return string(out)
}

// TestHints has a file of each kind: what it seems to be and what to do are said in one line, and
// whether a client begins.
func TestHints(t *testing.T) {
	good := "Ana María,Núñez,3090446%d,1999-03-17,7574\r\n"
	header := "nombre,apellido,documento,nacimiento,numero\n"
	for _, tt := range []struct {
		name, file, hint string
		hopeless         bool
	}{
		{"good", tenBets(good), "", false},
		{"good, one malformed", tenBets(good) + "a,b\n", "", false},
		{"malformed in several ways", "a,b\na,b,c\nx\"y\n", "", false},
		{"one malformed alone", "a,b\n", "", false},
		{"refused by the server", tenBets("Ana,Paz,x%d,1999-03-17,7\n"), "", false},
		{"19 malformed, then a bet", strings.Repeat("a,b\n", 19) + "Ana,Paz,1,1999-03-17,7\n", "", false},
		{"20 malformed, then bets", strings.Repeat("a,b\n", 20) + tenBets(good),
			"2 fields where there should be 5 (first name, last", true},
		{"semicolons", tenBets("Ana;Núñez;3090446%d;1999-03-17;7574\r\n"), "semicolons: save it with commas", true},
		{"semicolons in quotes", tenBets("\"Ana\";\"Paz\";3090446%d;1999-03-17;7574\n"), "semicolons", true},
		{"semicolons, commas in names, a title", "bets\n" + tenBets("Ana, B;Paz, C;%d;1999-03-17;7\n"),
			"semicolons", true},
		{"tabs", tenBets("Ana\tPaz\t3090446%d\t1999-03-17\t7574\n"), "tabs: save it with commas", true},
		{"UTF-16 LE, mark", "\xff\xfe" + utf16Text(tenBets(good), 1, 0), "UTF-16: make it UTF-8 (iconv", true},
		{"UTF-16 BE, mark", "\xfe\xff" + utf16Text(tenBets(good), 0, 1), "UTF-16: make it UTF-8 (iconv", true},
		{"UTF-16 LE", utf16Text(tenBets(good), 1, 0), "iconv -f UTF-16LE -t UTF-8", true},
		{"UTF-16 BE", utf16Text(tenBets(good), 0, 1), "iconv -f UTF-16BE -t UTF-8", true},
		{"Windows-1252, all", tenBets("Ana Mar\xeda,Paz,%d,1999-03-17,7\n"), "iconv -f WINDOWS-1252 -t UTF-8", true},
		{"Windows-1252, some", tenBets("Ana,Paz,%d,1999-03-17,7\n") + "Jos\xe9,Paz,1,1999-03-17,7\n",
			"WINDOWS-1252", false},
		{"header", header + tenBets(good), "header: take it away", false},
		{"header alone", header, "header: take it away", true},
		{"quoted whole lines", tenBets("\"Ana,Paz,3090446%d,1999-03-17,7574\"\n"), "quotes around the lines", true},
		{"quoted fields", tenBets("\"Ana\",\"Paz\",\"3090446%d\",\"1999-03-17\",\"7574\"\n"), "", false},
		{"six fields", tenBets("1,Ana,Paz,%d,1999-03-17,7\n"), "have 6 fields, and a bet has 5", true},
		{"a rejects file", tenBets("%d,number is too high,Ana,Paz,1,1999-03-17,7\n"),
			"data.skip drops those that come first (2 in", true},
		{"four fields", tenBets("Ana Paz,%d,1999-03-17,7\n"),
			"4 fields where there should be 5 (first name, last", true},
		{"other columns", tenBets("%d,Ana,Paz,7,1999-03-17\n"), "number is not 1 to 5 digits", true},
		{"empty", "", "has no records", false},
		{"a mark and blank lines", byteOrderMark + "\r\n\n", "has no records", false},
		{"spreadsheet", "PK\x03\x04\x14\x00\x06\x00\x08\x00\n,,\"\xff\n", "spreadsheet or another zip file", true},
		{"PDF", "%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "PDF document: export", true},
	} {
		s, err := newSample(&spanReader{file: strings.NewReader(tt.file), agency: 1})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		hint := s.hint()
		if (hint == "") != (tt.hint == "") || !strings.Contains(hint, tt.hint) || strings.Contains(hint, "\n") {
			t.Errorf("%s: got hint %q, want one line with %q", tt.name, hint, tt.hint)
		}
		if got := s.hopeless(); got != tt.hopeless {
			t.Errorf("%s: got hopeless %v, want %v", tt.name, got, tt.hopeless)
		}
	}
}
