package main

import (
	"strconv"
	"strings"
)

// An event is a line of a tp0 log: `… action: NAME | result: RESULT | key: value | …`.
type event struct {
	action, result string
	values         map[string]string // of the other keys
}

// parseEvent takes a line apart. The event has no action if the line is something else, or is still being written
// and so has no end yet.
func parseEvent(line string) event {
	_, text, found := strings.Cut(line, "action: ")
	if !found || !strings.HasSuffix(text, "\n") {
		return event{}
	}
	fields := strings.Split(strings.TrimSuffix(text, "\n"), " | ") // a value never holds a '|'
	e := event{action: fields[0], values: make(map[string]string)}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, ": ")
		if key == "result" {
			e.result = value
		} else {
			e.values[key] = value
		}
	}
	return e
}

// number returns the value of a key that is a number, or -1: no count agrees with that.
func (e event) number(key string) int {
	if n, err := strconv.Atoi(e.values[key]); err == nil {
		return n
	}
	return -1
}

// stored returns how many bets of a batch the server's answer calls stored. `cantidad` is the batch, `estado` the
// status of the answer: "#P REASON; #P REASON…" where some were refused, something else where none was taken.
func (e event) stored() int {
	switch {
	case e.result == "success":
		return e.number("cantidad")
	case strings.HasPrefix(e.values["estado"], "#"):
		return e.number("cantidad") - strings.Count(e.values["estado"], "#")
	}
	return 0
}
