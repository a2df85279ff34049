package main

import "maps"

// A source is a name under which an agency sends bets, such as its file's. The store remembers how
// far each got, and every snapshot holds all of them, so there is a bound: a share for each agency.
// Only a source of which a bet was stored keeps its place for good. One whose bets were all refused
// may be forgotten when its agency's share is used up: it is told that nothing of it is known, and
// sending it again stores nothing twice.

// sourceShare is how many sources the store remembers for each agency: all shares together are
// 65,535. sourceWarn is from how many on the log warns.
const (
	sourceShare = 65536 / 255
	sourceWarn  = sourceShare * 9 / 10
)

// maxMark is what a source takes in a record at most, in bytes.
const maxMark = 1 + 1 + maxSource + 8 + 4 + 8

// A sourceKey names what one agency's file is known by.
type sourceKey struct {
	agency uint8
	name   string // 1 to 255 bytes of UTF-8
}

// A mark is how far a source got. Zero: nothing is known of it.
type mark struct {
	Resume
	stored uint64 // of Records, bets that were stored; the others were refused
}

// sources is how far each source got, by agency and name.
type sources [256]map[string]mark

// at returns how far a source got.
func (s *sources) at(key sourceKey) mark { return s[key.agency][key.name] }

// put notes how far a source got. A new one that finds its agency's share used up takes the
// place of those that keep none.
func (s *sources) put(key sourceKey, at mark) {
	names := s[key.agency]
	if names == nil {
		names = map[string]mark{}
		s[key.agency] = names
	}
	if _, known := names[key.name]; !known && len(names) >= sourceShare {
		maps.DeleteFunc(names, func(_ string, other mark) bool { return other.stored == 0 })
	}
	names[key.name] = at
}

// kept returns how many sources of agency keep their places.
func (s *sources) kept(agency uint8) (n int) {
	for _, at := range s[agency] {
		if at.stored > 0 {
			n++
		}
	}
	return n
}

// count returns how many sources there are.
func (s *sources) count() (n int) {
	for _, names := range s {
		n += len(names)
	}
	return n
}
