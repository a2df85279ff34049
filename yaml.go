package main

// The YAML subset of the config file: nested mappings by indentation with
// spaces; plain, 'single' and "double" quoted scalars that stand on the line of
// their key; comments, blank lines, a byte order mark, LF or CRLF, and one
// leading `---`. What is accepted means what YAML 1.2 (core schema) says it
// means; all else of YAML is an error with its line, never a guess. The one
// addition: a key with dots, `a.b: x`, is the same path as b nested in a.
//
// Nothing here knows which keys the program has: config.go does.

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxYAML is the largest config file in bytes. All settings with a comment each
// take some 3 KiB; what is larger was not meant to be read as one.
const maxYAML = 64 << 10

// blank is YAML's white space inside a line. Other Unicode spaces are text.
const blank = " \t"

// yamlKind says what stands behind a key.
type yamlKind uint8

const (
	yamlPlain  yamlKind = iota // a scalar without quotes, whose type YAML resolves by its text
	yamlQuoted                 // a scalar in quotes: always a string
	yamlNull                   // nothing, ~ or null
	yamlGroup                  // a mapping, whose entries come next
)

// yamlEntry is one key of the file.
type yamlEntry struct {
	key   string // path from the top, joined with dots: "batch.maxAmount"
	value string // the scalar with its quotes and escapes resolved; empty for null and group
	line  int    // where the key stands, from 1
	kind  yamlKind
}

// yamlLevel is a mapping that is open: further keys may follow at its indent.
type yamlLevel struct {
	indent int    // spaces before each of its keys
	prefix string // path of its keys, with the last dot; empty at the top
}

// yamlParser holds what the lines read so far have left open.
type yamlParser struct {
	entries  []yamlEntry
	levels   []yamlLevel    // open mappings, outermost first; empty before the first key
	lines    map[string]int // path → line of every entry, to find duplicates
	started  bool           // the leading --- or a key was there
	openable bool           // the last entry has no value yet, so that deeper keys make it a group
}

// parseYAML returns the entries of text in the file's order, a group before
// what it contains. An error is about the line that comes with it.
func parseYAML(text []byte) (entries []yamlEntry, line int, err error) {
	if len(text) > maxYAML {
		return nil, 1, fmt.Errorf("the file is larger than %d bytes", maxYAML)
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	p := yamlParser{lines: make(map[string]int)}
	for i, line := range splitYAML(string(text)) {
		if err := p.parseLine(i+1, line); err != nil {
			return nil, i + 1, err
		}
	}
	return p.entries, 0, nil
}

// splitYAML returns the lines without their breaks: LF, CRLF, or CR alone,
// which YAML counts as a break too.
func splitYAML(text string) []string {
	return strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text), "\n")
}

// parseLine takes one line.
func (p *yamlParser) parseLine(number int, line string) error {
	if err := checkYAMLText(line); err != nil {
		return err
	}
	body := strings.TrimLeft(line, " ")
	switch marker := documentMarker(line); {
	case isBlankOrComment(" " + line):
		return nil
	case marker == "---" && !p.started && isBlankOrComment(line[3:]):
		p.started = true
		return nil
	case marker != "":
		return outside("a directive (%), an end of document (...), a second --- or one with content on its line")
	case body[0] == '\t':
		return errors.New("a tab in the indentation: use spaces")
	}
	prefix, err := p.place(len(line) - len(body))
	if err != nil {
		return err
	}
	key, rest, err := parseYAMLKey(body)
	if err != nil {
		return err
	}
	path := prefix + key
	if first, ok := p.lines[path]; ok {
		return fmt.Errorf("duplicate key %q: it stands on line %d already", path, first)
	}
	value, kind, err := parseYAMLValue(rest)
	if err != nil {
		return err
	}
	p.lines[path] = number
	p.entries = append(p.entries, yamlEntry{path, value, number, kind})
	p.started, p.openable = true, isBlankOrComment(rest)
	return nil
}

// checkYAMLText refuses what YAML does not let stand in a file, and the three
// line separators that are text to YAML 1.2 and line breaks to YAML 1.1.
func checkYAMLText(line string) error {
	if !utf8.ValidString(line) {
		return errors.New("not valid UTF-8")
	}
	for _, r := range line {
		switch {
		case r == '\t':
		case r < ' ', r >= 0x7F && r <= 0x9F, r == 0x2028, r == 0x2029, r == 0xFEFF, r == 0xFFFE, r == 0xFFFF:
			return fmt.Errorf("character U+%04X: write it as an escape in double quotes", r)
		}
	}
	return nil
}

// documentMarker returns the "---", "..." or "%" that line starts with, if any.
// The first two are markers only where white space or nothing follows.
func documentMarker(line string) string {
	for _, marker := range []string{"---", "..."} {
		if rest, ok := strings.CutPrefix(line, marker); ok && startsBlank(rest) {
			return marker
		}
	}
	if strings.HasPrefix(line, "%") {
		return "%"
	}
	return ""
}

// outside is the error for what YAML has and the subset has not.
func outside(what string) error {
	return fmt.Errorf("%s is not supported here: use key: value lines, quoted where needed", what)
}

// place finds the mapping to which a line with this indent belongs, opening and
// closing levels, and returns the prefix of its key's path.
func (p *yamlParser) place(indent int) (prefix string, err error) {
	if len(p.levels) == 0 {
		// The first key sets the indent of the outermost mapping, as in YAML.
		p.levels = append(p.levels, yamlLevel{indent: indent})
	}
	if indent > p.levels[len(p.levels)-1].indent {
		last := &p.entries[len(p.entries)-1]
		if !p.openable {
			return "", fmt.Errorf("indented deeper than line %d, where %q has its value already", last.line, last.key)
		}
		last.kind = yamlGroup
		p.levels = append(p.levels, yamlLevel{indent, last.key + "."})
	}
	for len(p.levels) > 1 && indent < p.levels[len(p.levels)-1].indent {
		p.levels = p.levels[:len(p.levels)-1]
	}
	top := p.levels[len(p.levels)-1]
	if indent != top.indent {
		return "", fmt.Errorf("indented by %d spaces, which matches no line above", indent)
	}
	return top.prefix, nil
}

// parseYAMLKey splits a line without its indent behind the colon of its key.
func parseYAMLKey(body string) (key, rest string, err error) {
	if body[0] != '"' && body[0] != '\'' {
		return parsePlainKey(body)
	}
	key, rest, err = parseQuoted(body)
	if err != nil {
		return "", "", err
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(rest, blank), ":")
	if !ok || !startsBlank(rest) {
		return "", "", errors.New("a key and ': ' expected")
	}
	return key, rest, nil
}

// parsePlainKey is parseYAMLKey for a key without quotes.
func parsePlainKey(body string) (key, rest string, err error) {
	if err := checkPlainStart(body); err != nil {
		return "", "", err
	}
	plain := cutComment(body)
	colon := findColon(plain)
	if colon < 0 {
		return "", "", errors.New("a key and ': ' expected, with a space after the colon and the value on the " +
			"same line")
	}
	return strings.TrimRight(plain[:colon], blank), body[colon+1:], nil
}

// parseYAMLValue takes what follows the colon of a key.
func parseYAMLValue(rest string) (value string, kind yamlKind, err error) {
	if isBlankOrComment(rest) {
		return "", yamlNull, nil
	}
	rest = strings.TrimLeft(rest, blank)
	if rest[0] == '"' || rest[0] == '\'' {
		value, rest, err = parseQuoted(rest)
		if err == nil && !isBlankOrComment(rest) {
			err = errors.New("text after the closing quote: a comment needs a space before its #")
		}
		return value, yamlQuoted, err
	}
	if err := checkPlainStart(rest); err != nil {
		return "", yamlPlain, err
	}
	plain := cutComment(rest)
	if findColon(plain) >= 0 {
		return "", yamlPlain, errors.New("a colon ends a key, and this is a value: put it in quotes")
	}
	switch plain = strings.TrimRight(plain, blank); plain {
	case "~", "null", "Null", "NULL":
		return "", yamlNull, nil
	}
	return plain, yamlPlain, nil
}

// isBlankOrComment reports whether what follows a token on its line says
// nothing: a comment must have white space before its '#'.
func isBlankOrComment(rest string) bool {
	text := strings.TrimLeft(rest, blank)
	return text == "" || (text[0] == '#' && len(text) < len(rest))
}

// startsBlank reports whether s is empty or starts with white space.
func startsBlank(s string) bool { return s == "" || s[0] == ' ' || s[0] == '\t' }

// cutComment returns text, which starts with a plain scalar, up to the first
// '#' that has white space before it.
func cutComment(text string) string {
	for i := 1; i < len(text); i++ {
		if text[i] == '#' && startsBlank(text[i-1:]) {
			return text[:i-1]
		}
	}
	return text
}

// findColon returns the index of the first colon that ends a key, which is one
// with white space or nothing after it, or -1.
func findColon(plain string) int {
	for i := range len(plain) {
		if plain[i] == ':' && startsBlank(plain[i+1:]) {
			return i
		}
	}
	return -1
}

// yamlIndicators holds what a plain scalar cannot start with, and what it would
// mean. '-', '?' and ':' are indicators only before white space.
var yamlIndicators = map[byte]string{
	'-': "a list (-)", '?': "a complex key (?)", ':': "a colon without a key", '[': "a flow list ([ ])",
	']': "a flow list ([ ])", '{': "a flow mapping ({ })", '}': "a flow mapping ({ })", '&': "an anchor (&)",
	'*': "an alias (*)", '!': "a tag (!)", '|': "a block scalar (|)", '>': "a block scalar (>)", ',': "", '%': "",
	'@': "", '`': "",
}

// checkPlainStart refuses text that starts with an indicator.
func checkPlainStart(text string) error {
	what, found := yamlIndicators[text[0]]
	switch {
	case !found, strings.IndexByte("-?:", text[0]) >= 0 && !startsBlank(text[1:]):
		return nil
	case what == "":
		return fmt.Errorf("a plain value cannot start with %q: put it in quotes", text[0])
	}
	return outside(what)
}

// parseQuoted takes a scalar in quotes off the front of text. One that goes on in
// the next line, which YAML would fold, is not closed.
func parseQuoted(text string) (value, rest string, err error) {
	quote, rest := text[0], text[1:]
	var b strings.Builder
	for rest != "" {
		switch c := rest[0]; {
		case c == '\'' && strings.HasPrefix(rest, "''") && quote == c:
			b.WriteByte(c)
			rest = rest[2:]
		case c == quote:
			return b.String(), rest[1:], nil
		case c == '\\' && quote == '"':
			var r rune
			if r, rest, err = parseEscape(rest); err != nil {
				return "", "", err
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
			rest = rest[1:]
		}
	}
	return "", "", errors.New("the quote is not closed on its line")
}

// yamlEscapes holds the escapes that YAML has (1.2, 5.7) and Go has not.
var yamlEscapes = map[byte]rune{
	'0': 0, '\t': '\t', 'e': 0x1B, ' ': ' ', '/': '/', 'N': 0x85, '_': 0xA0, 'L': 0x2028, 'P': 0x2029,
}

// parseEscape takes an escape off the front of text, which starts with its backslash.
func parseEscape(text string) (r rune, rest string, err error) {
	if len(text) < 2 {
		return 0, "", nil // nothing is left: the quote is not closed
	}
	if r, ok := yamlEscapes[text[1]]; ok {
		return r, text[2:], nil
	}
	if strings.IndexByte(`abfnrtvxuU"\`, text[1]) >= 0 { // these mean the same to YAML and to Go
		if r, _, rest, err = strconv.UnquoteChar(text, '"'); err == nil {
			return r, rest, nil
		}
	}
	return 0, "", fmt.Errorf(`\%.1s is no escape, or no character: use \\ for a backslash, or single quotes`, text[1:])
}

// decimal returns the entry's value, in plain decimal where it is a plain scalar
// that YAML's core schema reads as an integer: +7, 007, octal (0o17) or hexadecimal
// (0x1F). A leading zero is no octal, and no underscore is taken.
func (e yamlEntry) decimal() string {
	base := 10
	if strings.HasPrefix(e.value, "0o") || strings.HasPrefix(e.value, "0x") {
		base = 0 // to which an underscore is nothing
	}
	n, err := strconv.ParseInt(e.value, base, 64)
	if e.kind != yamlPlain || err != nil || strings.Contains(e.value, "_") {
		return e.value
	}
	return strconv.FormatInt(n, 10)
}
