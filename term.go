package main

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"time"
)

// The term: which of the servers that share a log takes bets. A term is claimed by a record, so the
// shared log itself decides who has it, and what a former holder still writes is void (admit, in
// record.go). Nothing here is needed for that: it only says when to try. So what it goes by may be
// late, lost or wrong: a mistaken claim costs connections, never bets.

const (
	// maxFellows is how many servers are remembered, for fellowKept after their last sign.
	maxFellows = 16
	fellowKept = time.Minute
)

// A tenure is what a server knows of the term. Its methods may be called by many goroutines.
type tenure struct {
	me   uint64 // this process, as a writer
	name string // of this server, as people know it
	pace *pace
	now  func() time.Time

	mu       sync.Mutex // protects following
	sequence uint64     // of the last record that is in
	tenancy  tenancy    // as of that record
	heard    time.Time  // when something of the holder came, or of the start
	asked    time.Time  // when a client was last sent away; zero: never
	highest  uint64     // the highest term that a sign was of
	fellows  map[uint64]fellow
	conflict time.Time // when a record of this server was last overtaken; zero: never
	lost     uint64    // how many were
}

// A fellow is another server, as its last sign shows it.
type fellow struct {
	sign
	at time.Time // when that came
}

// A sign is a sign of life.
type sign struct {
	writer   uint64
	term     uint64
	sequence uint64 // of the last record that the server has
	holding  bool   // it takes bets
	name     string
}

// newTenure returns the tenure of a server that stands by.
func newTenure(me uint64, name string, pace *pace, now func() time.Time) *tenure {
	return &tenure{me: me, pace: pace, name: name[:min(len(name), 255)], now: now, heard: now(),
		fellows: map[uint64]fellow{}}
}

// follow notes where the state stands behind a record.
func (t *tenure) follow(s *state) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sequence, t.tenancy, t.heard = s.sequence, s.tenancy, t.now()
}

// isMine reports whether this server holds the term, as of the last record that is in.
func (t *tenure) isMine() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tenancy.holder == t.me
}

// ask notes that a client was sent away.
func (t *tenure) ask() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = t.now()
}

// lose notes that a record of this server was overtaken.
func (t *tenure) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conflict = t.now()
	t.lost++
}

// isDue reports whether the term is to be claimed: nothing of the holder came for a while, and a
// client has asked since it came last.
func (t *tenure) isDue() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now().Sub(t.heard) >= t.pace.silence && t.asked.After(t.heard)
}

// isOvertaken reports whether a sign was of a higher term than the state's: its record stands in
// the shared log already.
func (t *tenure) isOvertaken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.highest > t.tenancy.term
}

// hear notes another server's sign. That of a holder of a term before counts for nothing.
func (t *tenure) hear(data []byte) {
	s, ok := parseSign(data)
	if !ok || s.writer == t.me {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if s.holding && s.term >= t.tenancy.term {
		t.heard, t.highest = now, max(t.highest, s.term)
	}
	for writer, p := range t.fellows {
		if now.Sub(p.at) > fellowKept {
			delete(t.fellows, writer)
		}
	}
	if _, known := t.fellows[s.writer]; known || len(t.fellows) < maxFellows {
		t.fellows[s.writer] = fellow{s, now}
	}
}

// sign returns this server's sign of life.
func (t *tenure) sign(holding bool) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return appendSign(nil, &sign{t.me, t.tenancy.term, t.sequence, holding, t.name})
}

// The sign of life, integers little-endian:
//
//	u8 version 1
//	u64 writer, u64 number of its term, u64 number of the last record that it has
//	u8 1: it takes bets
//	u8 length, name
const signVersion = 1

// appendSign appends a sign.
func appendSign(dst []byte, s *sign) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint64(append(dst, signVersion), s.writer)
	dst = le.AppendUint64(dst, s.term)
	dst = le.AppendUint64(dst, s.sequence)
	holding := byte(0)
	if s.holding {
		holding = 1
	}
	return append(append(dst, holding, byte(len(s.name))), s.name...)
}

// parseSign reads a sign; ok is false where it is none. A later version may say more behind.
func parseSign(data []byte) (s sign, ok bool) {
	d := decoder{data: data}
	version := d.u8()
	s = sign{writer: d.u64(), term: d.u64(), sequence: d.u64(), holding: d.u8() == 1}
	s.name = string(appendHarmless(nil, string(d.bytes(int(d.u8())))))
	return s, !d.bad && version >= signVersion
}

// facts returns what there is to say.
func (t *tenure) facts() *termFacts {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := &termFacts{Term: t.tenancy.term, Mine: t.tenancy.holder == t.me, Name: t.name, Sequence: t.sequence,
		Conflict: t.conflict, Conflicts: t.lost, Fellows: []fellowFacts{}}
	if f.Mine {
		f.Holder = t.name
	}
	for writer, p := range t.fellows {
		ago := t.now().Sub(p.at)
		if writer == t.tenancy.holder {
			f.Holder, f.Heard = p.name, p.holding && ago < t.pace.silence
		}
		if ago <= fellowKept && !t.isFormer(p) {
			f.Fellows = append(f.Fellows, fellowFacts{p.name, p.holding, p.sequence, ago.Seconds()})
		}
	}
	slices.SortFunc(f.Fellows, func(a, b fellowFacts) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Ago, b.Ago))
	})
	return f
}

// isFormer reports whether p was a process of a server that has been started anew since. t.mu is
// held.
func (t *tenure) isFormer(p fellow) bool {
	for _, other := range t.fellows {
		if other.name == p.name && other.at.Sub(p.at) >= t.pace.silence {
			return true
		}
	}
	return p.name == t.name && t.now().Sub(p.at) >= t.pace.silence
}

// awaits says who takes bets, as far as a server that stands by has heard.
func awaits(t *termFacts) string {
	if t != nil && t.Heard {
		return t.Holder + " takes bets"
	}
	return "no server takes bets now, and this one will as soon as an agency asks"
}
