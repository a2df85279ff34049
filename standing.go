//go:build !nohttp && !notls

package main

import (
	"fmt"
	"slices"
	"time"
)

// What the page and the metrics say of servers that share a log: which one takes bets, whether the
// engine can take a record, and what it keeps of what it promises.

// A streamView is the shared log, as the page sees it. It waits for nothing.
type streamView interface {
	streamFacts() streamFacts
}

// streamFigures are about the shared log, and about this server among those that share it.
type streamFigures struct {
	Standby bool      `json:"standby"` // this server could take bets, and leaves that to another
	Quorum  bool      `json:"quorum"`  // the engine takes records, as far as this server has seen
	Since   time.Time `json:"quorum_since"`
	Error   string    `json:"error,omitempty"` // why it does not
	termFacts
	Lag       uint64           `json:"lag_records"` // that others have, and this server has not
	Engine    streamFacts      `json:"engine"`
	Replicas  []replicaFigures `json:"replicas"`
	Faults    []faultFigures   `json:"faults"`
	Unchecked string           `json:"replicas_unchecked,omitempty"` // why nothing is known of the replicas
}

// replicaFigures are about one server of the engine.
type replicaFigures struct {
	Server  string `json:"server"`
	Version string `json:"version"`
	Synced  bool   `json:"synced"`  // it acknowledges what it has synced
	Replica bool   `json:"replica"` // it has one; the following is of that
	Leads   bool   `json:"leads"`
	Records uint64 `json:"records"`
	Missing uint64 `json:"missing"`
	Last    uint64 `json:"last_record"`
}

// faultFigures are about something that the engine does not keep.
type faultFigures struct {
	Server string           `json:"server"`
	Kind   replicaFaultKind `json:"kind"`
	Text   string           `json:"text"`
	Since  time.Time        `json:"since"`
}

// newStreamFigures returns the figures of a shared log. store is nil while the store recovers.
func newStreamFigures(f streamFacts, store *storeFacts) *streamFigures {
	s := &streamFigures{Engine: f, Error: f.trouble, Unchecked: f.replicas.unchecked, Replicas: []replicaFigures{},
		Faults: []faultFigures{}}
	if store != nil {
		s.Error = ""
		if store.term != nil {
			s.termFacts = *store.term
		}
		if trouble := store.trouble; trouble != nil {
			s.Standby = standsBy(trouble)
			if !s.Standby && isShared(trouble) {
				s.Error = trouble.Error()
			}
		}
	}
	s.Quorum = s.Error == "" && f.Server != ""
	newest := f.last
	for _, p := range s.Fellows {
		newest = max(newest, p.Sequence)
	}
	s.Lag = newest - min(newest, s.Sequence)
	for _, r := range f.replicas.servers {
		s.Replicas = append(s.Replicas, replicaFigures{r.server, r.version, r.synced, r.has, r.leads, r.records,
			r.missing, r.last})
	}
	for _, fault := range f.replicas.faults {
		if !slices.ContainsFunc(s.Replicas, func(r replicaFigures) bool { return r.Server == fault.server }) {
			s.Replicas = append(s.Replicas, replicaFigures{Server: fault.server})
		}
		s.Faults = append(s.Faults, faultFigures{fault.server, fault.kind, fault.text, fault.since})
	}
	return s
}

// standby reports whether this server stands by; nil: it shares its log with nobody.
func (s *streamFigures) standby() bool { return s != nil && s.Standby }

// standingBy begins the reason for which a server takes no bets that could: another one does.
const standingBy = "standing by"

// sharedReason says why a server that shares its log takes no bets; nothing if that is for no
// reason of the log. store is nil while the store recovers.
func sharedReason(f *streamFacts, store *storeFacts) string {
	var trouble error
	if store != nil {
		trouble = store.trouble
	}
	switch {
	case store != nil && standsBy(trouble):
		return standingBy + ": " + awaits(store.term)
	case store != nil && !isShared(trouble), store == nil && f.trouble == "" && f.Server != "":
		return ""
	case f.Server == "":
		return "no engine can be reached"
	}
	return "no quorum of the engines"
}

// sharedDetail says what to do where the shared log is why no bets are taken, and the error.
func sharedDetail(store *storeFacts) string {
	if store.fatal != nil {
		return "Keep this server's store, and see Healing in docs/replication.md. (" + store.fatal.Error() + ")"
	}
	return "See to the engines: bets are taken again by themselves. (" + store.trouble.Error() + ")"
}

// troubles says what somebody should look at, the worst first.
func (s *streamFigures) troubles() (all []string) {
	for _, loss := range []bool{true, false} {
		for _, f := range s.Faults {
			if f.Kind.isLoss() == loss {
				all = append(all, fmt.Sprintf("Engine %s: %s. To do: %s.", f.Server, f.Text, f.Kind.todo()))
			}
		}
	}
	return all
}

// isLosing reports whether the engine may lose what was answered.
func (s *streamFigures) isLosing() bool {
	return slices.ContainsFunc(s.Faults, func(f faultFigures) bool { return f.Kind.isLoss() })
}

// role says what the server does.
func (s *streamFigures) role() string {
	switch {
	case s.Mine:
		return fmt.Sprintf("This server, %s, holds term %d", s.Name, s.Term)
	case s.Holder != "":
		return fmt.Sprintf("%s holds term %d; this is %s", s.Holder, s.Term, s.Name)
	case s.Term == 0:
		return "Nobody has taken bets yet; this is " + s.Name
	}
	return fmt.Sprintf("Term %d, of a server that is gone; this is %s", s.Term, s.Name)
}

// quorum says whether the engine takes records.
func (s *streamFigures) quorum(now time.Time) string {
	if s.Quorum {
		return "yes, since " + timeText(now, s.Since)
	}
	return "NO, since " + timeText(now, s.Since)
}

// reached says how far this server is.
func (s *streamFigures) reached() string {
	if s.Lag == 0 {
		return "record " + countText(s.Sequence) + ", which is the last"
	}
	return fmt.Sprintf("record %s, %s behind", countText(s.Sequence), countText(s.Lag))
}

// engine says to which server there is a connection.
func (s *streamFigures) engine() string {
	if s.Engine.Server == "" {
		return "not connected"
	}
	return fmt.Sprintf("connected to %s, version %s", s.Engine.Server, s.Engine.Version)
}

// conflict says when a record of this server was last overtaken.
func (s *streamFigures) conflict(now time.Time) string {
	if s.Conflict.IsZero() {
		return "none since the start"
	}
	return fmt.Sprintf("%s, %d since the start", timeText(now, s.Conflict), s.Conflicts)
}

// state says how a replica is, and how that is to be shown.
func (r *replicaFigures) state(faults []faultFigures) (text, tone string) {
	for _, f := range faults {
		if f.Server == r.Server {
			tone = "lost"
			text += ", " + string(f.Kind)
		}
	}
	switch {
	case text != "":
		return text[len(", "):], tone
	case !r.Replica:
		return "no replica", ""
	case r.Leads:
		return "whole, leads", "good"
	}
	return "whole", "good"
}
