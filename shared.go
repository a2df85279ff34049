package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A sharedLog is a log that several servers write to: a bet is answered once its record is in the
// own redo log and in this one. A record has one number in both. The stream (stream.go) is one; the
// tests have one in memory.
//
// Where a record may go is decided by its number alone: the shared log takes one for each number,
// the next, whoever sends it first. What a record says, and whether it counts, is nothing to it.
//
// settle, read and last are for one goroutine at a time.
type sharedLog interface {
	// begin sends a record, so that a sync may run meanwhile. settle of the same number and record
	// must follow, before anything else is sent.
	begin(number uint64, record []byte)
	// settle returns when it is known what stands at number: nil says that it is record, and
	// durable; a conflictError, that it is another one. It sends record as often as it takes. With
	// errUnsettled or ctx's error nothing is known, and the record may turn up at any time. A
	// fatalError says that this is not the log any more that it was.
	settle(ctx context.Context, number uint64, record []byte) error
	// read yields the records from number from on, as many as there are now, none left out. record
	// is valid during the call.
	read(ctx context.Context, from uint64, yield func(number uint64, record []byte) error) error
	// last returns the number of the last record. The log is looked at anew.
	last(ctx context.Context) (uint64, error)
	// identity returns that of the store whose records these are. It is known once last has
	// succeeded.
	identity() storeID
	// sign tells all servers something that is not kept, and listen hears what is told, what this
	// server tells included; listen is called once, before anything else.
	sign(data []byte)
	listen(heard func(data []byte))
	close()
}

// A storeID is the identity of a store that is in a shared log, random; zero: it is in none.
type storeID [16]byte

func (id storeID) String() string { return fmt.Sprintf("%x", id[:]) }

// A conflictError says that another record stands where one was to go: another server was faster.
type conflictError struct {
	number uint64
	record []byte // the one that stands there
}

func (e *conflictError) Error() string {
	return fmt.Sprintf("stream: record %d is another server's", e.number)
}

// isConflict reports whether err is a conflictError.
func isConflict(err error) bool {
	var conflict *conflictError
	return errors.As(err, &conflict)
}

// A sharedError is about the shared log: the own disk has nothing to do with it. It may be fatal.
type sharedError struct{ error }

func (e sharedError) Unwrap() error { return e.error }

// isShared reports whether err is about the shared log.
func isShared(err error) bool {
	var shared sharedError
	return errors.As(err, &shared)
}

// errUnsettled says that it is not known whether a record is in the shared log.
var errUnsettled error = sharedError{errors.New("stream: not known whether it took the record")}

// streamFacts are what is known of the shared log at one moment, for the page and the metrics.
type streamFacts struct {
	Server   string     `json:"server,omitempty"` // of the engine, to which there is a connection; empty: there is none
	Version  string     `json:"version,omitempty"`
	Connects uint64     `json:"connects"` // since the start
	last     uint64     // number of the last record, as of the last look
	trouble  string     // why the last look failed; empty: it did not
	took     *histogram // by the records that were acknowledged: from sending one until then
	replicas replicaFacts
}

// replicaFacts are what is known of the replicas, for the page and the metrics.
type replicaFacts struct {
	at        time.Time // of the look that found this; zero: there was none yet
	unchecked string    // why nothing can be said; empty: it can
	wanted    int       // how many replicas there are to be; 0: there is no stream yet
	servers   []replicaFact
	faults    []replicaFault
}

// A replicaFact is what one server says of itself.
type replicaFact struct {
	server, version string
	synced          bool // it acknowledges what it has synced
	has             bool // it has a replica; the following is of that
	leads           bool
	records         uint64
	missing         uint64 // that it should have and has not
	last            uint64 // number of its last record
}

// A replicaFault is something that the engine does not keep.
type replicaFault struct {
	server string
	kind   replicaFaultKind
	text   string
	since  time.Time
	told   time.Time // when the log last had it
}

// A replicaFaultKind is what is wrong: the value of the metric's label.
type replicaFaultKind string

const (
	faultHoles   replicaFaultKind = "holes"
	faultSync    replicaFaultKind = "unsynced"
	faultVersion replicaFaultKind = "version"
	faultBehind  replicaFaultKind = "behind"
	faultAbsent  replicaFaultKind = "absent"
)

// todo returns what to do about it.
func (k replicaFaultKind) todo() string {
	switch k {
	case faultHoles:
		return "replace what this engine keeps before any other engine is restarted: Healing in docs/replication.md"
	case faultSync:
		return "set sync_interval: always in the jetstream part of its configuration, and restart it"
	case faultVersion:
		return "install 2.14 or newer"
	case faultBehind:
		return "see its log, its disk and its network; restart no other engine meanwhile"
	}
	return "start it, or give this engine's port in stream.monitor"
}

// isLoss reports whether what was answered may be lost by it: it must be seen to first of all.
func (k replicaFaultKind) isLoss() bool { return k == faultHoles || k == faultSync }

// same reports whether two faults are the same one, at two times.
func (f replicaFault) same(other replicaFault) bool {
	return f.server == other.server && f.kind == other.kind
}

// A pace is how often and how long servers that share a log do things. The tests have one of their
// own.
type pace struct {
	patience time.Duration // a commit waits so long to know what became of its record; then it gets no answer
	follow   time.Duration // a standby looks so often whether the shared log has more
	sign     time.Duration // a server gives a sign of life so often
	silence  time.Duration // nothing of the holder may have come for so long before another claims the term
	look     time.Duration // a holder that has nothing to write looks so often whether it still could
	shrunk   time.Duration // a shared log that ends too early is believed when it does so for so long
}

// commonPace is that of all servers.
var commonPace = pace{patience: 5 * time.Second, follow: 250 * time.Millisecond, sign: time.Second,
	silence: 3 * time.Second, look: 2 * time.Second, shrunk: 30 * time.Second}

// A shrinkage is a shared log that ends before the last record that this store has. A leader of the
// engine that has only just started says less than it has, and one that is cut off says what it
// had: so that is believed only when it lasts.
type shrinkage struct {
	path    string        // of the bets file
	lasting time.Duration // pace.shrunk
	since   time.Time     // zero: the last answer was another one, or there was none
}

// judge returns an error where the shared log ends with record last, and this store has records up
// to sequence; err is why that is not known.
func (s *shrinkage) judge(last, sequence uint64, err error) error {
	if err != nil || last >= sequence {
		s.since = time.Time{}
		return err
	}
	if s.since.IsZero() {
		s.since = time.Now()
	}
	err = sharedError{fmt.Errorf("stream: it ends with record %d, and %s has records up to %d: the stream has lost "+
		"records or was made anew: compare the servers' stores, and make a new stream from one that has all "+
		"(-mode=replicate)", last, s.path, sequence)}
	if time.Since(s.since) >= s.lasting {
		return &fatalError{err}
	}
	return err
}

// A sharing is a ledger's part in a shared log.
type sharing struct {
	log      sharedLog
	patience time.Duration
	held     *heldRecord // nil: there is none
}

// A heldRecord is the last record of the own log, of which it is not known yet whether it stands in
// the shared one, or whose rows could not be written yet, or which could not be taken back yet.
type heldRecord struct {
	number   uint64
	payload  []byte
	rows     []byte
	stands   bool           // it is known to stand in the shared log
	conflict *conflictError // another is known to stand in its place
}

// find finds out what stands where the held record was to go, if that is not known.
func (s *sharing) find(ctx context.Context) error {
	if s.held.stands || s.held.conflict != nil {
		return nil
	}
	ctx, done := context.WithTimeout(ctx, s.patience)
	defer done()
	err := s.log.settle(ctx, s.held.number, s.held.payload)
	if errors.As(err, &s.held.conflict) {
		return nil
	}
	s.held.stands = err == nil
	return err
}
