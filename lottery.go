package main

import "math/bits"

// A lottery is what the draw is about: who has finished, whether it has taken place, and the winners of each agency. It does no I/O and has no lock: the store
// that owns it guards it.
type lottery struct {
	agencies int       // distinct agencies that must have finished before the draw; 0: there is no draw
	number   int       // the winning number; noNumber: winners are not kept
	finished agencySet // agencies that have finished
	drawn    bool
	winners  [256]*winnerList // by agency; nil: none
}

// noNumber is the winning number of a lottery that keeps no winners.
const noNumber = -1

// A winnerList holds the documents of an agency's winning bets in stored order, as the strings of a WINNERS, one behind the other. It costs memory in
// proportion to the winners, whatever the number of bets.
type winnerList struct {
	count  int
	packed []byte
}

// An agencySet is a set of agencies.
type agencySet [4]uint64

// add and has take any agency, 0 to 255.
func (s *agencySet) add(agency uint8)      { s[agency>>6] |= 1 << (agency & 63) }
func (s *agencySet) has(agency uint8) bool { return s[agency>>6]>>(agency&63)&1 == 1 }

// count returns how many agencies the set has.
func (s *agencySet) count() (n int) {
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// due tells whether the draw takes place once finished is the set of agencies that have finished.
func (l *lottery) due(finished *agencySet) bool {
	return l.agencies > 0 && !l.drawn && finished.count() >= l.agencies
}

// hasWon tells whether a bet on number wins.
func (l *lottery) hasWon(number uint16) bool { return int(number) == l.number }

// addWinner adds a winning bet of agency, behind the earlier ones.
func (l *lottery) addWinner(agency uint8, document []byte) {
	list := l.winners[agency]
	if list == nil {
		list = new(winnerList)
		l.winners[agency] = list
	}
	list.count++
	list.packed = appendString(list.packed, document)
}

// winnersOf returns the winners of agency, to be left unchanged. They are complete once the draw has taken place, and nobody may learn them before.
func (l *lottery) winnersOf(agency uint8) winnerList {
	if list := l.winners[agency]; list != nil {
		return *list
	}
	return winnerList{}
}

// each calls yield with each document until it returns false.
func (l winnerList) each(yield func(document []byte) bool) error {
	for rest := l.packed; len(rest) > 0; {
		end := 2 + int(rest[0])<<8 + int(rest[1])
		if !yield(rest[2:end]) {
			break
		}
		rest = rest[end:]
	}
	return nil
}
