package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestWindow does one thing after another with a window for two batches and
// compares what it then says: full, empty, how many were answered, and the index
// of the oldest, - where none comes, ? where it would be waited for.
func TestWindow(t *testing.T) {
	for _, tt := range []struct{ steps, want string }{
		{"", "empty 0 ?"},
		{"push", "0 0"},
		{"push push", "full 0 0"},
		{"push push pop", "1 1"},
		{"push push pop push", "full 1 1"},
		{"push pop", "empty 1 ?"},
		{"push push pop pop push", "2 2"},
		{"close", "empty 0 -"},
		{"push close", "0 0"},
		{"push close pop", "empty 1 -"},
		{"push fail", "0 -"},
		{"fail", "empty 0 -"},
		{"push fail pop close", "empty 1 -"},
	} {
		w, pushed := newWindow(2), 0
		for _, step := range strings.Fields(tt.steps) {
			switch step {
			case "push":
				w.push(span{index: pushed})
				pushed++
			case "pop":
				w.pop()
			case "close":
				w.end(nil)
			case "fail":
				w.end(errEnded)
			}
		}
		var got []string
		if w.count() == w.size {
			got = append(got, "full")
		}
		if w.count() == 0 {
			got = append(got, "empty")
		}
		got = append(got, fmt.Sprint(w.popped))
		if w.count() == 0 && !w.ended && w.err == nil {
			got = append(got, "?")
		} else if s, more := w.oldest(); more {
			got = append(got, fmt.Sprint(s.index))
		} else {
			got = append(got, "-")
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.steps, got, tt.want)
		}
	}
}

// TestWindowWaits: whoever waits goes on when what he waits for has come.
func TestWindowWaits(t *testing.T) {
	for name, ends := range map[string]func(w *window, stop func()){
		"room":   func(w *window, _ func()) { w.pop() },
		"error":  func(w *window, _ func()) { w.end(errEnded); w.end(errStopped) },
		"signal": func(w *window, stop func()) { stop(); w.wake() },
	} {
		ctx, stop := context.WithCancel(context.Background())
		w := newWindow(1)
		w.push(span{})
		done := make(chan error)
		go func() {
			_, err := w.awaitRoom(ctx)
			done <- err
		}()
		ends(w, stop)
		if err := <-done; (name == "error") != (err != nil) || err != nil && !errors.Is(err, errEnded) {
			t.Errorf("%s: got %v, want the first error alone", name, err)
		}
		stop()
	}
	for name, ends := range map[string]func(w *window){
		"batch": func(w *window) { w.push(span{}) },
		"error": func(w *window) { w.end(errEnded) },
		"end":   func(w *window) { w.end(nil) },
	} {
		w := newWindow(1)
		done := make(chan bool)
		go func() {
			_, more := w.oldest()
			done <- more
		}()
		ends(w)
		if more := <-done; more != (name == "batch") {
			t.Errorf("%s: got more %v", name, more)
		}
	}
}
