//go:build !nohttp && !notls

package main

import "time"

// How an agency does, as the page and the metrics say it.

// gapTime is how long an agency may be away between two batches.
const gapTime = 5 * time.Second

// agencyFigures are about one agency.
type agencyFigures struct {
	Agency   uint8       `json:"agency"`
	State    agencyState `json:"state"`
	Expected bool        `json:"expected"`
	caller
	agencyFacts
	Refused  map[string]uint64 `json:"refused"` // by reason
	Rate     float64           `json:"bets_per_second"`
	Last     time.Time         `json:"last_bet,omitzero"`
	Finished bool              `json:"finished"`
	Winners  int               `json:"winners"` // once they are known
	Key      time.Time         `json:"key_made,omitzero"`
}

// An agencyState says in a word how an agency does. Those with trouble sort first.
type agencyState string

// The states, in the order of the page.
const (
	agencyDown      agencyState = "line down"
	agencyAwaited   agencyState = "not here yet"
	agencySending   agencyState = "sending"
	agencyConnected agencyState = "connected"
	agencyElsewhere agencyState = "at the other server" // or nowhere: this one stands by
	agencyGone      agencyState = "gone"                // and nothing says whether it had sent all
	agencyDone      agencyState = "finished"
)

// agencyStates is their order.
var agencyStates = []agencyState{
	agencyDown, agencyAwaited, agencySending, agencyConnected, agencyElsewhere, agencyGone, agencyDone,
}

// state says how the agency does. A client without HELLO comes with a new connection for each
// batch, so a short absence is none. A server that stands by need not see any.
func (a *agencyFigures) state(now time.Time, draw, standby bool) agencyState {
	switch here := a.Connected > 0; {
	case !here && (a.Finished || !draw && !a.Verified.IsZero()):
		return agencyDone
	case !here && standby:
		return agencyElsewhere
	case now.Sub(a.Last) < gapTime:
		return agencySending
	case here || now.Sub(a.Since) < gapTime:
		return agencyConnected
	case a.Since.IsZero() && a.Files == 0:
		return agencyAwaited
	case draw || a.Source != "":
		return agencyDown
	}
	return agencyGone
}

// down says since when an agency whose line is down is away.
func (a *agencyFigures) down() string {
	if a.Since.IsZero() {
		return "has not come back since the server's start"
	}
	return "its line is down since " + a.Since.Format("15:04:05") + ", and it has not finished"
}
