package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// yamlAccepted holds texts inside the subset. want lists the entries in order:
// key=value for a plain scalar, key="value" for a quoted one, key~ for null,
// key{} for a group.
var yamlAccepted = []struct{ name, text, want string }{
	{"empty file", "", ""},
	{"blank lines", "\n \n\t\n\n", ""},
	{"comments alone", "# a\n  # b: c\n\t# d", ""},
	{"plain", "a: b\n", "a=b"},
	{"no newline at the end", "a: b", "a=b"},
	{"CRLF", "a: b\r\nc: d\r\n", "a=b; c=d"},
	{"CR alone is a line break", "a: b\rc: d", "a=b; c=d"},
	{"byte order mark", "\uFEFFa: b", "a=b"},
	{"byte order mark and ---", "\uFEFF---\na: b", "a=b"},
	{"leading ---", "---\na: b", "a=b"},
	{"--- after comments", "# c\n\n---  # d\na: b", "a=b"},
	{"--- and nothing", "---", ""},
	{"--- with CRLF", "---\r\na: b\r\n", "a=b"},
	{"nested", "a:\n  b: c\n  d: e\nf: g", "a{}; a.b=c; a.d=e; f=g"},
	{"three deep and back", "a:\n b:\n    c: 1\n    d: 2\n e: 3\nf: 4", "a{}; a.b{}; a.b.c=1; a.b.d=2; a.e=3; f=4"},
	{"back over two levels", "a:\n  b:\n    c: 1\nd: 2", "a{}; a.b{}; a.b.c=1; d=2"},
	{"children after blanks and comments", "a:  # x\n\n# y\n\n  b: c", "a{}; a.b=c"},
	{"comments at any indent", "a:\n    # x\n  b: c\n      # y\n# z\n  d: e", "a{}; a.b=c; a.d=e"},
	{"all indented", "  a: b\n  c: d", "a=b; c=d"},
	{"same name in two groups", "a:\n  x: 1\nb:\n  x: 2", "a{}; a.x=1; b{}; b.x=2"},
	{"dotted key", "a.b: c", "a.b=c"},
	{"dotted key beside its group", "a.b: c\na:\n  d: e", "a.b=c; a{}; a.d=e"},
	{"null at the end", "a:", "a~"},
	{"null before a sibling", "a:\nb: c", "a~; b=c"},
	{"null before a comment", "a: # b", "a~"},
	{"null in a group", "a:\n  b:\nc: d", "a{}; a.b~; c=d"},
	{"null by name", "a: null\nb: Null\nc: NULL\nd: ~", "a~; b~; c~; d~"},
	{"not null", "a: nULL\nb: ~x\nc: \"null\"\nd: ''", `a=nULL; b=~x; c="null"; d=""`},
	{"spaces around the value", "a:   b  \t ", "a=b"},
	{"a tab before the value", "a:\tb", "a=b"},
	{"space before the colon", "a : b\n'c' : d\ne\t: f", "a=b; c=d; e=f"},
	{"colon inside", "a: b:c\nd: http://e/\nf:g: h", "a=b:c; d=http://e/; f:g=h"},
	{"address", "a: 127.0.0.1:12345\nb: ::1", "a=127.0.0.1:12345; b=::1"},
	{"# without a space is text", "a: b#c\nd#e: f", "a=b#c; d#e=f"},
	{"comment after a value", "a: b # c: d\ne: f\t#g\nh: i #", "a=b; e=f; h=i"},
	{"indicators inside", "a: b, [c] {d} & * ! | > ' \" % @ `", "a=b, [c] {d} & * ! | > ' \" % @ `"},
	{"start - ? : before text", "a: -5\nb: ?x\nc: :x\nd: ---\n-e: f\n?g: h\n:i: j",
		"a=-5; b=?x; c=:x; d=---; -e=f; ?g=h; :i=j"},
	{"marker with text is a key", "---a: b\n...: c", "---a=b; ...=c"},
	{"words inside", "a b: c d  e", "a b=c d  e"},
	{"no-break space is text", "a: \u00A0b\u00A0", "a=\u00A0b\u00A0"},
	{"accents", "ñandú: áé\U0001F600", "ñandú=áé\U0001F600"},
	{"single quotes", "a: 'b'\nc: 'it''s'\nd: ''''\ne: ' # : \\n '", `a="b"; c="it's"; d="'"; e=" # : \\n "`},
	{"double quotes", `a: "b # c: d 'e'"`, `a="b # c: d 'e'"`},
	{"comment after quotes", "a: \"b\" # c\nd: 'e'\t#f", `a="b"; d="e"`},
	{"empty quotes", "a: \"\"\nb: ''", `a=""; b=""`},
	{"quoted keys", "\"a\": b\n'c d': e\n\"f: #g\": h\n\"\\x69\": j", "a=b; c d=e; f: #g=h; i=j"},
	{"tab in quotes", "a: \"b\tc\"", `a="b\tc"`},
	{"short escapes", `a: "\0\a\b\t\n\v\f\r\e\ \"\/\\\N\_\L\P"`,
		`a="\x00\a\b\t\n\v\f\r\x1b \"/\\\u0085\u00a0\u2028\u2029"`},
	{"escaped tab", "a: \"\\\t\"", `a="\t"`},
	{"escapes by number", `a: "\x41\xe9\u00E9\U0001F600"`, `a="Aéé😀"`},
	{"numbers are text here", "a: 0o17\nb: 0x1F\nc: 007\nd: 1e3", "a=0o17; b=0x1F; c=007; d=1e3"},
}

func TestYAMLAccepted(t *testing.T) {
	for _, test := range yamlAccepted {
		entries, _, err := parseYAML([]byte(test.text))
		if err != nil {
			t.Errorf("%s: got error %v, want %s", test.name, err, test.want)
			continue
		}
		if got := showEntries(entries); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// showEntries writes entries as yamlAccepted does.
func showEntries(entries []yamlEntry) string {
	var shown []string
	for _, e := range entries {
		switch e.kind {
		case yamlPlain:
			shown = append(shown, e.key+"="+e.value)
		case yamlQuoted:
			shown = append(shown, fmt.Sprintf("%s=%q", e.key, e.value))
		case yamlNull:
			shown = append(shown, e.key+"~")
		case yamlGroup:
			shown = append(shown, e.key+"{}")
		}
	}
	return strings.Join(shown, "; ")
}

func TestYAMLLines(t *testing.T) {
	entries, _, err := parseYAML([]byte("\uFEFF# one\r\n---\r\n\r\na:\r\n  # five\r\n  b: c\r\nd: e"))
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, e := range entries {
		got = append(got, e.line)
	}
	if want := []int{4, 6, 7}; !reflect.DeepEqual(got, want) {
		t.Errorf("got lines %v, want %v", got, want)
	}
}

// yamlRefused holds texts that are not YAML or outside the subset; want is the
// line and a part of the reason.
var yamlRefused = []struct {
	name, text string
	line       int
	want       string
}{
	{"tab to indent", "a:\n\tb: c", 2, "tab in the indentation"},
	{"tab after spaces", "a:\n  \tb: c", 2, "tab in the indentation"},
	{"tab at the top", "\ta: b", 1, "tab in the indentation"},
	{"between two indents", "a:\n    b: c\n  d: e", 3, "matches no line above"},
	{"left of the first key", "  a: b\nc: d", 2, "matches no line above"},
	{"deeper than a sibling", "a: b\n  c: d", 2, "has its value already"},
	{"value and children", "a: 'b'\n  c: d", 2, "has its value already"},
	{"null by name and children", "a: ~\n  c: d", 2, "has its value already"},
	{"plain value on two lines", "a: b\n  c", 2, "has its value already"},
	{"two lines, a comment between", "a: b\n  # x\n  c", 3, "has its value already"},
	{"quoted value on two lines", "a: \"b\n  c\"", 1, "not closed on its line"},
	{"single quoted on two lines", "a: 'b\n  c'", 1, "not closed on its line"},
	{"escaped line break", "a: \"b\\\n  c\"", 1, "not closed on its line"},
	{"value on the next line", "a:\n  b", 2, `cannot read "b"`},
	{"quoted value on the next line", "a:\n  \"b\"", 2, `cannot read "\"b\""`},
	{"a scalar alone", "a", 1, `cannot read "a"`},
	{"a quoted scalar alone", "'a'", 1, `cannot read "'a'"`},
	{"no space after the colon", "a:b", 1, `cannot read "a:b"`},
	{"no space before the value", "a :b", 1, `cannot read "a :b"`},
	{"no space after a quoted key", "\"a\":b", 1, `cannot read "\"a\":b"`},
	{"text after a quoted key", "\"a\" b: c", 1, `cannot read "\"a\" b: c"`},
	{"a key cut by a comment", "a #b: c", 1, `cannot read "a #b: c"`},
	{"no key", ": a", 1, `cannot read ": a"`},
	{"duplicate", "a: b\nc: d\na: e", 3, "stands on line 1 already"},
	{"duplicate in quotes", "a: b\n\"a\": e", 2, "stands on line 1 already"},
	{"duplicate in a group", "a:\n  b: 1\n  b: 2", 3, "stands on line 2 already"},
	{"duplicate group", "a:\n  b: 1\nc: 2\na:\n  d: 3", 4, "stands on line 1 already"},
	{"duplicate null", "a:\na:", 2, "stands on line 1 already"},
	{"duplicate by a dotted key", "a:\n  b: 1\na.b: 2", 3, "stands on line 2 already"},
	{"list", "a:\n  - b", 2, `cannot read "- b"`},
	{"list at the indent of its key", "a:\n- b", 2, `cannot read "- b"`},
	{"list of nothing", "-", 1, `cannot read "-"`},
	{"list on the line of a key", "a: - b", 1, `cannot read "- b"`},
	{"list with a tab", "-\ta", 1, `cannot read "-\ta"`},
	{"flow list", "a: [b, c]", 1, `cannot read "[b, c]"`},
	{"flow mapping", "a: {b: c}", 1, `cannot read "{b: c}"`},
	{"flow mapping at the top", "{a: b}", 1, `cannot read "{a: b}"`},
	{"flow end", "a: ]", 1, `cannot read "]"`},
	{"flow list as a key", "[a]: b", 1, `cannot read "[a]: b"`},
	{"anchor", "a: &x b", 1, `cannot read "&x b"`},
	{"anchor on a key", "&x a: b", 1, `cannot read "&x a: b"`},
	{"anchor on a group", "a: &x\n  b: c", 1, `cannot read "&x"`},
	{"alias", "a: *x", 1, `cannot read "*x"`},
	{"tag", "a: !!str b", 1, `cannot read "!!str b"`},
	{"tag on a key", "!x a: b", 1, `cannot read "!x a: b"`},
	{"literal", "a: |\n  b", 1, `cannot read "|"`},
	{"folded", "a: >-\n  b", 1, `cannot read ">-"`},
	{"complex key", "? a\n: b", 1, `cannot read "? a"`},
	{"complex key alone", "?", 1, `cannot read "?"`},
	{"value ?", "a: ? b", 1, `cannot read "? b"`},
	{"directive", "%YAML 1.2\n---\na: b", 1, `cannot read "%YAML 1.2"`},
	{"directive after ---", "---\n%YAML 1.2", 2, `cannot read "%YAML 1.2"`},
	{"second document", "a: b\n---\nc: d", 2, `cannot read "---"`},
	{"two markers", "---\n---\na: b", 2, `cannot read "---"`},
	{"end of document", "a: b\n...\n", 2, `cannot read "..."`},
	{"value on the line of ---", "--- a\n", 1, `cannot read "--- a"`},
	{"mapping on the line of ---", "--- a: b\n", 1, `cannot read "--- a: b"`},
	{"indented ---", " ---\na: b", 1, `cannot read "---"`},
	{"starts with %", "a: %b", 1, `cannot read "%b"`},
	{"starts with @", "a: @b", 1, `cannot read "@b"`},
	{"starts with `", "a: `b", 1, "cannot read \"`b\""},
	{"starts with ,", "a: ,b", 1, `cannot read ",b"`},
	{"key starts with @", "@a: b", 1, `cannot read "@a: b"`},
	{"colon and space in a value", "a: b: c", 1, `cannot read "b: c"`},
	{"colon at the end of a value", "a: b:", 1, `cannot read "b:"`},
	{"colon before a tab", "a: b:\tc", 1, `cannot read "b:\tc"`},
	{"colon alone", "a: :", 1, `cannot read ":"`},
	{"text after quotes", "a: \"b\" c", 1, `cannot read "\"b\" c"`},
	{"colon after quotes", "a: \"b\": c", 1, `cannot read "\"b\": c"`},
	{"comment too near to quotes", "a: 'b'#c", 1, `cannot read "'b'#c"`},
	{"open double quote", "a: \"b", 1, "not closed"},
	{"open single quote", "a: 'b''", 1, "not closed"},
	{"open quote in a key", "\"a: b", 1, "not closed"},
	{"unknown escape", `a: "\q"`, 1, `"\q": no escape`},
	{"unknown escape, accent", `a: "\é"`, 1, `"\é": no escape`},
	{"escape of a single quote", `a: "\'"`, 1, `"\'": no escape`},
	{"short \\x", `a: "\x4"`, 1, "no escape"},
	{"no \\u digits", `a: "\u"`, 1, "no escape"},
	{"signed \\u", `a: "\u+041"`, 1, "no escape"},
	{"\\u with _", `a: "\u0_41"`, 1, "no escape"},
	{"surrogate", `a: "\ud83d\ude00"`, 1, "no character"},
	{"beyond Unicode", `a: "\U00110000"`, 1, "no character"},
	{"far beyond Unicode", `a: "\UFFFFFFFF"`, 1, "no character"},
	{"invalid UTF-8", "a: b\nc: \xff", 2, "not valid UTF-8"},
	{"invalid UTF-8 in a comment", "# \xc3", 1, "not valid UTF-8"},
	{"UTF-16", "\xff\xfea\x00", 1, "not valid UTF-8"},
	{"NUL", "a: \x00", 1, "U+0000"},
	{"escape character", "a: \"\x1b\"", 1, "U+001B"},
	{"delete", "a: \x7f", 1, "U+007F"},
	{"next line", "a: b\u0085c", 1, "U+0085"},
	{"line separator", "a: b\u2028c: d", 1, "U+2028"},
	{"byte order mark inside", "a: b\n\uFEFFc: d", 2, "U+FEFF"},
	{"two byte order marks", "\uFEFF\uFEFFa: b", 1, "U+FEFF"},
	{"too large", strings.Repeat("#\n", maxYAML/2) + "#", 1, "larger than 65536 bytes"},
}

func TestYAMLRefused(t *testing.T) {
	for _, test := range yamlRefused {
		entries, line, err := parseYAML([]byte(test.text))
		if err == nil || line != test.line || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %s, line %d: %v, want line %d: %s",
				test.name, showEntries(entries), line, err, test.line, test.want)
		}
	}
}

func TestYAMLLargest(t *testing.T) {
	text := "a: b\n" + strings.Repeat("#", maxYAML-5)
	if entries, _, err := parseYAML([]byte(text)); err != nil || len(entries) != 1 {
		t.Errorf("%d bytes: got %d entries and error %v, want 1 entry", len(text), len(entries), err)
	}
}

func TestYAMLDecimal(t *testing.T) {
	tests := []struct {
		text string
		kind yamlKind
		want string
	}{
		{"12", yamlPlain, "12"},
		{"-12", yamlPlain, "-12"},
		{"+7", yamlPlain, "7"},
		{"007", yamlPlain, "7"}, // decimal: no octal in YAML 1.2
		{"0o17", yamlPlain, "15"},
		{"0x1F", yamlPlain, "31"},
		{"0xffff", yamlPlain, "65535"},
		{"0x7FFFFFFFFFFFFFFF", yamlPlain, "9223372036854775807"},
		{"0x1FFFFFFFFFFFFFFFF", yamlPlain, "0x1FFFFFFFFFFFFFFFF"},
		{"0o8", yamlPlain, "0o8"}, // what is no integer to YAML stays text
		{"0x", yamlPlain, "0x"},
		{"0X1F", yamlPlain, "0X1F"},
		{"-0x1F", yamlPlain, "-0x1F"},
		{"0b11", yamlPlain, "0b11"},
		{"0x1_0", yamlPlain, "0x1_0"},
		{"0x1F", yamlQuoted, "0x1F"}, // quoted: a string
		{"", yamlPlain, ""},
	}
	for _, test := range tests {
		if got := (yamlEntry{value: test.text, kind: test.kind}).decimal(); got != test.want {
			t.Errorf("%q of kind %d: got %s, want %s", test.text, test.kind, got, test.want)
		}
	}
}

// FuzzYAML checks that parseYAML ends without a panic, that its errors name a
// line of the text, and that what it accepts, written again with every scalar
// in double quotes, is read as the same.
func FuzzYAML(f *testing.F) {
	for _, test := range yamlAccepted {
		f.Add([]byte(test.text))
	}
	for _, test := range yamlRefused {
		if len(test.text) < 1024 {
			f.Add([]byte(test.text))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, line, err := parseYAML(text)
		if err != nil {
			if most := len(splitYAML(string(text))); line < 1 || line > most {
				t.Fatalf("got error %v in line %d, want a line from 1 to %d", err, line, most)
			}
			return
		}
		written := writeYAML(entries)
		again, _, err := parseYAML([]byte(written))
		if err != nil && len(written) <= maxYAML {
			t.Fatalf("%q: written again as %q: %v", text, written, err)
		}
		if got, want := showQuoted(again), showQuoted(entries); err == nil && got != want {
			t.Fatalf("%q: written again as %q: got %s, want %s", text, written, got, want)
		}
	})
}

// writeYAML writes entries with dotted keys, one a line.
func writeYAML(entries []yamlEntry) string {
	var b strings.Builder
	for _, e := range entries {
		switch e.kind {
		case yamlPlain, yamlQuoted:
			fmt.Fprintf(&b, "%s: %s\n", quoteYAML(e.key), quoteYAML(e.value))
		case yamlNull:
			fmt.Fprintf(&b, "%s:\n", quoteYAML(e.key))
		}
	}
	return b.String()
}

// quoteYAML writes every character that is not plain ASCII as an escape.
func quoteYAML(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		if r >= ' ' && r < 0x7F && r != '"' && r != '\\' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\U%08X", r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// showQuoted shows entries without groups, and plain scalars like quoted ones.
func showQuoted(entries []yamlEntry) string {
	var scalars []yamlEntry
	for _, e := range entries {
		if e.kind == yamlPlain {
			e.kind = yamlQuoted
		}
		if e.kind != yamlGroup {
			scalars = append(scalars, e)
		}
	}
	return showEntries(scalars)
}
