package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

// testRule is what the bets of these tests are checked against.
var testRule = rule{agency: 3, maxNumber: 9998}

// goodBet returns a bet that testRule takes.
func goodBet() Bet {
	return Bet{3, []byte("Ana"), []byte("Paz"), []byte("12345678"), []byte("1999-12-31"), 9998}
}

// TestCheckOrder spoils a bet in more and more ways, from the last thing that is checked to the
// first: each time the new fault is the reason.
func TestCheckOrder(t *testing.T) {
	b, r := goodBet(), testRule
	if why := r.check(&b); why != accepted {
		t.Fatalf("good bet: got %q, want it accepted", why.reason())
	}
	steps := []struct {
		want  refusal
		text  string
		spoil func()
	}{
		{badNumber, "number is over the highest that is valid", func() { b.Number = 9999 }},
		{badBirthdate, "birthdate is not a real date YYYY-MM-DD", func() { b.Birthdate = []byte("1999-02-29") }},
		{badDocument, "document is not 1 to 10 digits", func() { b.Document = nil }},
		{controlLast, "last name has a control character", func() { b.Last = []byte("P\taz, ") }},
		{badLast, "last name is not valid UTF-8", func() { b.Last = []byte("P\taz\xff") }},
		{emptyLast, "last name is empty", func() { b.Last = nil }},
		{controlFirst, "first name has a control character", func() { b.First = []byte("Ana\u0085") }},
		{badFirst, "first name is not valid UTF-8", func() { b.First = []byte("\x00An\xc3") }},
		{emptyFirst, "first name is empty", func() { b.First = []byte{} }},
		{otherAgency, "agency is not the one of this connection", func() { b.Agency = 4 }},
		{badAgency, "agency is not 1 to 255", func() { b.Agency = 0 }},
	}
	for _, step := range steps {
		step.spoil()
		if why := r.check(&b); why != step.want || why.reason() != step.text {
			t.Errorf("got %q, want %q", why.reason(), step.text)
		}
	}
}

func TestCheckEdges(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(b *Bet, r *rule)
		want  refusal
	}{
		{"any agency", func(b *Bet, r *rule) { b.Agency, r.agency = 255, 0 }, accepted},
		{"number 0", func(b *Bet, _ *rule) { b.Number = 0 }, accepted},
		{"number over", func(b *Bet, _ *rule) { b.Number = 9999 }, badNumber},
		{"highest 0, number 0", func(b *Bet, r *rule) { b.Number, r.maxNumber = 0, 0 }, accepted},
		{"highest 0, number 1", func(b *Bet, r *rule) { b.Number, r.maxNumber = 1, 0 }, badNumber},
		{"highest 65535", func(b *Bet, r *rule) { b.Number, r.maxNumber = 65535, 65535 }, accepted},
		{"highest 65534", func(b *Bet, r *rule) { b.Number, r.maxNumber = 65535, 65534 }, badNumber},
		{"name of 8000", func(b *Bet, _ *rule) { b.First = bytes.Repeat([]byte("x"), 8000) }, accepted},
		{"name of 8001 with a control at its end", func(b *Bet, _ *rule) {
			b.Last = append(bytes.Repeat([]byte("x"), 8000), 0x7f)
		}, controlLast},
		{"space as a name", func(b *Bet, _ *rule) { b.First = []byte(" ") }, accepted},
	}
	for _, tt := range tests {
		b, r := goodBet(), testRule
		tt.spoil(&b, &r)
		if got := r.check(&b); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got.reason(), tt.want.reason())
		}
	}
}

func TestDocuments(t *testing.T) {
	for n := 1; n <= 12; n++ {
		digits := strings.Repeat("0918273645", 2)[:n]
		if got, want := isDocument([]byte(digits)), n <= 10; got != want {
			t.Errorf("%q: got %v, want %v", digits, got, want)
		}
		for at := range n {
			for c := range 256 {
				doc := []byte(digits)
				doc[at] = byte(c)
				if got, want := isDocument(doc), n <= 10 && c >= '0' && c <= '9'; got != want {
					t.Fatalf("%q: got %v, want %v", doc, got, want)
				}
			}
		}
	}
	for _, doc := range []string{"", " 1", "1 ", "-1", "+1", "1.0", "１", "\x00"} {
		if isDocument([]byte(doc)) {
			t.Errorf("%q: got true, want false", doc)
		}
	}
}

// TestDates compares every day of 400 years, the period of the calendar, with package time.
func TestDates(t *testing.T) {
	for year := 1801; year <= 2200; year++ {
		for month := range 14 {
			for day := range 33 {
				text := fmt.Sprintf("%04d-%02d-%02d", year, month, day)
				d := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
				if got, want := isDate([]byte(text)), d.Year() == year && int(d.Month()) == month &&
					d.Day() == day; got != want {
					t.Fatalf("%s: got %v, want %v", text, got, want)
				}
			}
		}
	}
	for text, want := range map[string]bool{
		"0001-01-01": true, "9999-12-31": true, "0004-02-29": true, "0400-02-29": true, "8000-02-29": true,
		"0100-12-31": true, "0099-01-31": true,
		"0000-01-01": false, "0000-02-29": false, "0100-02-29": false, "9900-02-29": false, "2100-02-29": false,
		"": false, "1999-1-01": false, "1999-01-1": false,
		"1999/01/01": false, "1999-01-01 ": false, " 1999-01-01": false, "19990101": false, "01-01-1999": false,
		"1999-01-99": false, "1999-99-01": false,
		"-999-01-01": false, "+999-01-01": false, "1999-01-01T00:00:00Z": false, "１999-01-0": false,
		"1999-01-0\x00": false, "99999-01-01": false,
	} {
		if got := isDate([]byte(text)); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	for at := range 10 { // each byte at each place
		for c := range 256 {
			text := []byte("1911-11-11")
			text[at] = byte(c)
			_, err := time.Parse("2006-01-02", string(text))
			if got, want := isDate(text), err == nil; got != want {
				t.Fatalf("%q: got %v, want %v", text, got, want)
			}
		}
	}
}

// rowTests are bets and their rows. The rows were made once with Python's csv.writer(f,
// quoting=csv.QUOTE_MINIMAL).
var rowTests = []struct {
	bet  Bet
	want string
}{
	{goldenBet, "1,Santiago Lionel,Lorca,30904465,1999-03-17,2201\r\n"},
	{oddBet, "255,Agustín,\"Núñez, de la \"\"O\"\"\",1,0001-01-01,65535\r\n"},
	{rowBet(7, "a,b", `"`, "0123456789", "2000-02-29", 0), "7,\"a,b\",\"\"\"\",0123456789,2000-02-29,0\r\n"},
	{rowBet(10, " lead", "trail ", "1", "9999-12-31", 999), "10, lead,trail ,1,9999-12-31,999\r\n"},
	{rowBet(99, "'", "a;b\u2028c", "1", "2024-12-31", 1000), "99,',a;b\u2028c,1,2024-12-31,1000\r\n"},
	{rowBet(100, `""`, ",", "1", "2024-12-31", 9999), "100,\"\"\"\"\"\",\",\",1,2024-12-31,9999\r\n"},
	{rowBet(9, "\u00a0", `\`, "1", "2024-12-31", 10000), "9,\u00a0,\\,1,2024-12-31,10000\r\n"},
	{rowBet(1, "#x", "=1+1", "12", "2024-12-31", 9), "1,#x,=1+1,12,2024-12-31,9\r\n"},
	{rowBet(1, "😀", "-", "12", "2024-12-31", 10), "1,😀,-,12,2024-12-31,10\r\n"},
	{rowBet(1, "nul", "N", "12", "2024-12-31", 99), "1,nul,N,12,2024-12-31,99\r\n"},
	{rowBet(1, `a"b"`, `x,"y`, "12", "2024-12-31", 100), "1,\"a\"\"b\"\"\",\"x,\"\"y\",12,2024-12-31,100\r\n"},
}

func rowBet(agency uint8, first, last, document, birthdate string, number uint16) Bet {
	return Bet{agency, []byte(first), []byte(last), []byte(document), []byte(birthdate), number}
}

func TestAppendRow(t *testing.T) {
	for _, tt := range rowTests {
		b := tt.bet
		if why := (rule{maxNumber: 65535}).check(&b); why != accepted {
			t.Fatalf("%q: got refused, %s, want accepted", tt.want, why.reason())
		}
		if got := appendRow([]byte("before"), &b); string(got) != "before"+tt.want {
			t.Errorf("got %q, want %q", got, "before"+tt.want)
		}
		checkRow(t, &b)
	}
	for n := range 1 << 16 { // numbers of each length
		b := goodBet()
		b.Number, b.Agency = uint16(n), uint8(n)
		want := fmt.Sprintf("%d,Ana,Paz,12345678,1999-12-31,%d\r\n", uint8(n), n)
		if got := string(appendRow(nil, &b)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// checkRow wants encoding/csv to read the row of b back, and the row to be what Python writes.
func checkRow(t *testing.T, b *Bet) {
	t.Helper()
	if (rule{maxNumber: 65535}).check(b) != accepted {
		return
	}
	row := string(appendRow(nil, b))
	fields := []string{fmt.Sprint(b.Agency), string(b.First), string(b.Last), string(b.Document), string(b.Birthdate),
		fmt.Sprint(b.Number)}
	all, err := csv.NewReader(strings.NewReader(row)).ReadAll()
	if err != nil || len(all) != 1 || !slices.Equal(all[0], fields) {
		t.Fatalf("row %q: read back: got %q, %v, want %q", row, all, err, fields)
	}
	var quoted []string
	for _, field := range fields {
		if strings.ContainsAny(field, ",\"\r\n") { // Python's rule
			field = `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
		}
		quoted = append(quoted, field)
	}
	if want := strings.Join(quoted, ",") + "\r\n"; row != want {
		t.Fatalf("got row %q, want %q", row, want)
	}
}

// FuzzRow: a bet that is taken has a row that reads back to the same fields.
func FuzzRow(f *testing.F) {
	for _, tt := range rowTests {
		f.Add(tt.bet.Agency, tt.bet.First, tt.bet.Last, tt.bet.Document, tt.bet.Birthdate, tt.bet.Number)
	}
	f.Add(uint8(1), []byte("a\r\nb"), []byte("\xc2\x85"), []byte("1"), []byte("2024-02-30"), uint16(1))
	f.Fuzz(func(t *testing.T, agency uint8, first, last, document, birthdate []byte, number uint16) {
		checkRow(t, &Bet{agency, first, last, document, birthdate, number})
	})
}

func TestAppendQuoted(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", " a ": " a ", ",": `","`, `"`: `""""`, "a\nb": "\"a\nb\"", "a\rb": "\"a\rb\"",
		"\x00": "\x00", "\xff": "\xff", "'": "'",
	} {
		if got := string(appendQuoted([]byte("x"), []byte(in))); got != "x"+want {
			t.Errorf("%q: got %q, want %q", in, got, "x"+want)
		}
	}
}

// TestControls holds checkName to what Unicode says is a control character.
func TestControls(t *testing.T) {
	for char := range rune(0x3000) {
		want := accepted
		if unicode.IsControl(char) {
			want = controlLast
		}
		if got := checkName([]byte("a"+string(char)), emptyLast); got != want {
			t.Errorf("%U: got %q, want %q", char, got.reason(), want.reason())
		}
	}
}
