package main

import (
	"encoding/hex"
	"reflect"
	"testing"
	"time"
)

// signGolden is a sign of life.
const signGolden = `
01                # version
0a00000000000000  # writer
0500000000000000  # term
0700000000000000  # record
01                # holds
06 6f6666696365   # "office"`

// TestSignFormat pins the bytes of a sign, both ways. What is shorter is none, and one of a later
// version may have more.
func TestSignFormat(t *testing.T) {
	want, s := form(t, signGolden), sign{writer: 10, term: 5, sequence: 7, holding: true, name: "office"}
	if got := appendSign(nil, &s); hex.EncodeToString(got) != hex.EncodeToString(want) {
		t.Errorf("got %x, want %x", got, want)
	}
	for n := range want {
		if _, ok := parseSign(want[:n]); ok {
			t.Errorf("the first %d of %d bytes pass for a sign", n, len(want))
		}
	}
	later := append(append([]byte{2}, want[1:]...), "more"...)
	for _, data := range [][]byte{want, later} {
		if got, ok := parseSign(data); !ok || got != s {
			t.Errorf("parsed back: got %+v, %v, want %+v", got, ok, s)
		}
	}
	if got, _ := parseSign(appendSign(nil, &sign{name: "a\nb"})); got.name == "a\nb" {
		t.Error("a name that would break a line of the log: got it as it is")
	}
}

// TestTenure goes through what a server hears, and what it makes of that. The clock stands still
// but for the steps.
func TestTenure(t *testing.T) {
	const me, holder, other = 1, 2, 3
	type step func(*tenure, *time.Time)
	wait := func(d time.Duration) step { return func(_ *tenure, now *time.Time) { *now = now.Add(d) } }
	ask := func(x *tenure, now *time.Time) { *now = now.Add(1); x.ask() }
	hear := func(s sign) step { return func(x *tenure, _ *time.Time) { x.hear(appendSign(nil, &s)) } }
	record := func(term, of uint64) step {
		return func(x *tenure, _ *time.Time) { x.follow(&state{tenancy: tenancy{term: term, holder: of}}) }
	}
	hearNothing := func(x *tenure, _ *time.Time) { x.hear([]byte{1, 2}) }
	alive := sign{writer: holder, term: 5, holding: true}
	old, elder := sign{writer: other, term: 4, holding: true}, sign{writer: other, term: 6, holding: true}
	standby, mine := sign{writer: other, term: 5}, sign{writer: me, term: 5, holding: true}
	late := commonPace.silence
	rows := []struct {
		name           string
		steps          []step
		due, overtaken bool
	}{
		{"nobody has asked", []step{wait(late)}, false, false},
		{"asked, just started", []step{ask}, false, false},
		{"asked, and silence", []step{ask, wait(late)}, true, false},
		{"asked, not yet silence", []step{ask, wait(late - 2)}, false, false},
		{"silence, then asked", []step{wait(late), ask}, true, false},
		{"the holder is alive", []step{ask, wait(late), hear(alive)}, false, false},
		{"it fell silent, and nobody asked since", []step{ask, wait(late), hear(alive), wait(late)}, false, false},
		{"it fell silent, and somebody asked", []step{hear(alive), ask, wait(late)}, true, false},
		{"its record came", []step{ask, wait(late), record(5, holder)}, false, false},
		{"the sign of a holder of before", []step{ask, wait(late), hear(old)}, true, false},
		{"the sign of a standby", []step{ask, wait(late), hear(standby)}, true, false},
		{"its own sign", []step{ask, wait(late), hear(mine)}, true, false},
		{"a sign that is none", []step{ask, wait(late), hearNothing}, true, false},
		{"the sign of a later term", []step{ask, wait(late), hear(elder)}, false, true},
		{"and then its claim", []step{hear(elder), record(6, other)}, false, false},
	}
	for _, row := range rows {
		now := time.Unix(1000, 0)
		x := newTenure(me, "office", &commonPace, func() time.Time { return now })
		record(5, holder)(x, &now)
		for _, s := range row.steps {
			s(x, &now)
		}
		if x.isDue() != row.due || x.isOvertaken() != row.overtaken {
			t.Errorf("%s: got due %v, overtaken %v, want %v, %v", row.name, x.isDue(), x.isOvertaken(), row.due,
				row.overtaken)
		}
	}
}

// TestTenureFacts looks at what the page is told of the term.
func TestTenureFacts(t *testing.T) {
	now := time.Unix(1000, 0)
	x := newTenure(1, "a", &commonPace, func() time.Time { return now })
	x.follow(&state{sequence: 9, tenancy: tenancy{term: 5, holder: 2}})
	if f := x.facts(); f.Holder != "" || f.Mine || f.Term != 5 || f.Sequence != 9 || len(f.Fellows) != 0 {
		t.Errorf("nobody was heard: got %+v", f)
	}
	x.hear(appendSign(nil, &sign{writer: 2, term: 5, sequence: 11, holding: true, name: "b"}))
	now = now.Add(2 * time.Second)
	want := &termFacts{Term: 5, Holder: "b", Heard: true, Name: "a", Sequence: 9,
		Fellows: []fellowFacts{{"b", true, 11, 2}}}
	if f := x.facts(); !reflect.DeepEqual(f, want) {
		t.Errorf("got %+v, want %+v", f, want)
	}
	// Silent for a while it is not heard any more; started anew it is there once, as another.
	now = now.Add(time.Second)
	x.lose()
	x.hear(appendSign(nil, &sign{writer: 3, term: 5, sequence: 10, name: "b"}))
	want = &termFacts{Term: 5, Holder: "b", Name: "a", Sequence: 9, Conflict: now, Conflicts: 1,
		Fellows: []fellowFacts{{"b", false, 10, 0}}}
	if f := x.facts(); !reflect.DeepEqual(f, want) {
		t.Errorf("got %+v, want %+v", f, want)
	}
	now = now.Add(fellowKept)
	for writer := range uint64(3 * maxFellows) { // anybody on the engine may send any
		x.hear(appendSign(nil, &sign{writer: 100 + writer, name: "c"}))
	}
	x.follow(&state{sequence: 12, tenancy: tenancy{term: 6, holder: 1}})
	if f := x.facts(); f.Holder != "a" || !f.Mine || len(f.Fellows) != maxFellows {
		t.Errorf("got %+v with %d servers, want %d", f, len(f.Fellows), maxFellows)
	}
}
