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
	"slices"
	"strconv"
	"strings"
	"unicode"
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
	if isBlankOrComment(" " + line) {
		return nil
	}
	if strings.HasPrefix(line, "---") && !p.started && isBlankOrComment(line[3:]) {
		p.started = true
		return nil
	}
	if (strings.HasPrefix(line, "---") || strings.HasPrefix(line, "...")) && startsBlank(line[3:]) {
		return notYAML(line) // the start of another document, or the end of this one
	}
	body := strings.TrimLeft(line, " ")
	if body[0] == '\t' {
		return errors.New("a tab in the indentation: use spaces")
	}
	prefix, err := p.place(len(line) - len(body))
	if err != nil {
		return err
	}
	e, value, err := parseEntry(body)
	if err != nil {
		return err
	}
	e.key, e.line = prefix+e.key, number
	if first, ok := p.lines[e.key]; ok {
		return fmt.Errorf("duplicate key %q: it stands on line %d already", e.key, first)
	}
	p.lines[e.key] = number
	p.entries = append(p.entries, e)
	p.started, p.openable = true, !value
	return nil
}

// checkYAMLText refuses what YAML does not let stand in a file, and the three
// line separators that are text to YAML 1.2 and line breaks to YAML 1.1.
func checkYAMLText(line string) error {
	if !utf8.ValidString(line) {
		return errors.New("not valid UTF-8")
	}
	for _, r := range line {
		if r != '\t' && (unicode.IsControl(r) || strings.ContainsRune("\u2028\u2029\uFEFF\uFFFE\uFFFF", r)) {
			return fmt.Errorf("character %U: write it as an escape in double quotes", r)
		}
	}
	return nil
}

// notYAML is the error for what YAML has not, or has and the subset has not.
func notYAML(text string) error {
	return fmt.Errorf("cannot read %.40q: takes key: value on one line, with a space after the colon and quotes where "+
		"they are needed; no list, flow or block form, anchor, tag, directive or second document", text)
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

// parseEntry takes a line without its indent, and reports whether there was a value.
func parseEntry(body string) (e yamlEntry, value bool, err error) {
	key, _, rest, err := parseScalar(body)
	if err != nil {
		return e, false, err
	}
	after, colon := strings.CutPrefix(strings.TrimLeft(rest, blank), ":")
	if !colon || !startsBlank(after) {
		return e, false, notYAML(body)
	}
	if isBlankOrComment(after) {
		return yamlEntry{key: key, kind: yamlNull}, false, nil
	}
	after = strings.TrimLeft(after, blank)
	text, kind, rest, err := parseScalar(after)
	if err == nil && !isBlankOrComment(rest) {
		err = notYAML(after)
	}
	if kind == yamlPlain && slices.Contains([]string{"~", "null", "Null", "NULL"}, text) {
		text, kind = "", yamlNull
	}
	return yamlEntry{key: key, value: text, kind: kind}, true, err
}

// parseScalar takes a scalar off the front of text, which is not blank. A plain one ends before a
// colon with white space or nothing after it, and before a '#' with white space before it.
func parseScalar(text string) (value string, kind yamlKind, rest string, err error) {
	if text[0] == '"' || text[0] == '\'' {
		value, rest, err = parseQuoted(text)
		return value, yamlQuoted, rest, err
	}
	// These mean something else at the start of a scalar; three of them only before white space.
	first := text[:1]
	if strings.Contains("[]{}&*!|>,%@`", first) || strings.Contains("-?:", first) && startsBlank(text[1:]) {
		return "", yamlPlain, "", notYAML(text)
	}
	end := 1
	for ; end < len(text); end++ {
		if text[end] == ':' && startsBlank(text[end+1:]) || text[end] == '#' && startsBlank(text[end-1:]) {
			break
		}
	}
	value = strings.TrimRight(text[:end], blank)
	return value, yamlPlain, text[len(value):], nil
}

// isBlankOrComment reports whether what follows a token on its line says
// nothing: a comment must have white space before its '#'.
func isBlankOrComment(rest string) bool {
	text := strings.TrimLeft(rest, blank)
	return text == "" || (text[0] == '#' && len(text) < len(rest))
}

// startsBlank reports whether s is empty or starts with white space.
func startsBlank(s string) bool { return s == "" || s[0] == ' ' || s[0] == '\t' }

// parseQuoted takes a scalar in quotes off the front of text. One that goes on in
// the next line, which YAML would fold, is not closed.
func parseQuoted(text string) (value, rest string, err error) {
	quote := text[0]
	for i := 1; i < len(text); i++ {
		switch {
		case quote == '"' && text[i] == '\\', quote == '\'' && strings.HasPrefix(text[i:], "''"):
			i++ // what follows is part of the text
		case text[i] == quote && quote == '\'':
			return strings.ReplaceAll(text[1:i], "''", "'"), text[i+1:], nil
		case text[i] == quote:
			if value, err = strconv.Unquote(yamlEscapes.Replace(text[:i+1])); err != nil {
				err = fmt.Errorf("%.40s: no escape, or no character: use \\\\ for a backslash, or single quotes",
					text[:i+1])
			}
			return value, text[i+1:], err
		}
	}
	return "", "", errors.New("the quote is not closed on its line")
}

// yamlEscapes makes Go's escapes of YAML's (1.2, 5.7), most of which are the same. What is octal to
// Go, and nothing to YAML, it makes nothing to Go.
var yamlEscapes = strings.NewReplacer(`\\`, `\\`, `\x`, `\u00`, `\0`, `\u0000`, `\e`, `\u001b`, `\N`, `\u0085`,
	`\_`, `\u00a0`, `\L`, `\u2028`, `\P`, `\u2029`, `\ `, " ", "\\\t", "\t", `\/`, "/",
	`\1`, `\?`, `\2`, `\?`, `\3`, `\?`, `\4`, `\?`, `\5`, `\?`, `\6`, `\?`, `\7`, `\?`)

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
