package proc

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// logLine is the form of a line: time, level padded to 8, action, result, and keys with their
// values.
var logLine = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (DEBUG   |INFO    |WARNING |ERROR   ) ` +
	`action: ([a-z_]+)( \| [A-Za-z0-9_.]+: [^|]*)+$`)

// LineFault says what is wrong with a line of the log, which has no line break at its end, or "":
// for the course's parser, which sees it behind the container's name and splits at '|', and in
// the form that is promised.
func LineFault(line string) string {
	parts := strings.Split("tp0 | "+line, "|")
	if len(parts) < 3 {
		return "got " + strconv.Itoa(len(parts)) + " parts, want at least 3"
	}
	switch strings.TrimSpace(parts[2]) {
	case "result: success", "result: fail", "result: in_progress":
	default:
		return "got " + strconv.Quote(parts[2]) + " where the result should be"
	}
	for _, part := range parts[3:] {
		if !strings.Contains(part, ":") {
			return "no colon in " + strconv.Quote(part)
		}
	}
	match := logLine.FindStringSubmatch(line)
	if match == nil {
		return "not in the form `time level action: NAME | key: value…`"
	}
	if _, err := time.Parse("2006-01-02 15:04:05", match[1]); err != nil {
		return err.Error()
	}
	if match[3] == "exit" {
		return "the action is called exit, the course's word for the end of a container"
	}
	if !utf8.ValidString(line) || strings.ContainsFunc(line, BreaksLines) {
		return "has bytes that are not UTF-8, or characters that break lines"
	}
	return ""
}

// BreaksLines reports whether a terminal or a parser may take char for a line break or a command.
func BreaksLines(char rune) bool {
	return unicode.IsControl(char) || char == '\u2028' || char == '\u2029'
}
