package proc

import (
	"strconv"
	"strings"
)

// An Event is a line of a log: `… action: NAME | result: RESULT | key: value | …`.
type Event struct {
	Action, Result string
	Values         map[string]string // of the other keys
}

// Parse takes a line apart. The event has no action if the line is something else, or is still
// being written and so has no end yet.
func Parse(line string) Event {
	_, text, found := strings.Cut(line, "action: ")
	if !found || !strings.HasSuffix(text, "\n") {
		return Event{}
	}
	fields := strings.Split(strings.TrimSuffix(text, "\n"), " | ") // a value never holds a '|'
	e := Event{Action: fields[0], Values: make(map[string]string)}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, ": ")
		if key == "result" {
			e.Result = value
		} else {
			e.Values[key] = value
		}
	}
	return e
}

// Number returns the value of a key that is a number, or -1: no count agrees with that.
func (e Event) Number(key string) int {
	if n, err := strconv.Atoi(e.Values[key]); err == nil {
		return n
	}
	return -1
}
