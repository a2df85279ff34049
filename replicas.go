//go:build !nostream && !notls

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// What an engine is trusted with it may not keep: it may sync records long after it has
// acknowledged them, or have lost some of one replica without a word (docs/replication.md). Both
// can be seen, from what each of its servers says of itself. This looks at it again and again; the
// log shouts, and the page shows.

const (
	// replicaEvery is how often the replicas are looked at, besides at each connection.
	replicaEvery = time.Minute
	// replicaConfirm is how long after a fault was seen it must be seen again: a server that has
	// just started may not be ready.
	replicaConfirm = 2 * time.Second
	// replicaWait is how long the servers may take to answer.
	replicaWait = 2 * time.Second
	// replicaTell is how often the log has a fault that goes on.
	replicaTell = time.Hour
	// maxReplicas is how many servers are listened to.
	maxReplicas = 64

	// jszSubject is asked over the engine itself, where the system's account lets others do that.
	jszSubject = "$SYS.REQ.SERVER.PING.JSZ"
	jszRequest = `{"config":true,"accounts":true,"streams":true}`
)

// leastEngine is the oldest version that keeps what is asked of it: before it a proposal that
// failed could move the number that the next record was compared with.
var leastEngine = [2]int{2, 14}

// A replicaReport is what a server says of itself, as its JSON has it.
type replicaReport struct {
	Server struct {
		Name    string `json:"name"`
		Version string `json:"ver"`
		Cluster string `json:"cluster"` // empty: it is alone
	} `json:"server"`
	JetStream jetStreamReport `json:"data"`
}

type jetStreamReport struct {
	Config struct {
		SyncAlways bool `json:"sync_always"`
	} `json:"config"`
	Meta struct {
		Size int `json:"cluster_size"`
	} `json:"meta_cluster"`
	Accounts []struct {
		Streams []streamReport `json:"stream_detail"`
	} `json:"account_details"`
}

type streamReport struct {
	Name   string `json:"name"`
	Config struct {
		First    uint64            `json:"first_seq"` // 0: 1
		Replicas int               `json:"num_replicas"`
		Metadata map[string]string `json:"metadata"`
	} `json:"config"`
	State struct {
		Messages uint64 `json:"messages"`
		Last     uint64 `json:"last_seq"`
	} `json:"state"`
	Cluster struct {
		Leader   string `json:"leader"`
		Replicas []struct {
			Name string `json:"name"`
		} `json:"replicas"`
	} `json:"cluster"`
}

// missing returns how many records the replica lacks of those up to its last. The engine itself
// says how many are deleted, but not of those before the first that it has.
func (s *streamReport) missing() uint64 {
	should := s.State.Last - min(s.State.Last, max(s.Config.First, 1)-1)
	return should - min(should, s.State.Messages)
}

// replicaOptions say whose replicas are looked at.
type replicaOptions struct {
	stream string
	// ask returns what all servers say. monitors makes one of stream.monitor; nil: the engine is
	// asked.
	ask            func(ctx context.Context) ([]replicaReport, error)
	log            *slog.Logger
	every, confirm time.Duration // 0: replicaEvery, replicaConfirm
}

// A replicas looks at the replicas of a stream.
type replicas struct {
	o    replicaOptions
	soon chan struct{} // holds something when a look is due

	mu     sync.Mutex // protects following
	key    string     // of the stream's metadata, whose value must be store; empty: any stream of the name is ours
	store  string
	known  replicaFacts
	newest uint64 // the last record that any server had at newestAt
	// newestAt is at least half of every ago when newest is replaced, and when it is compared with.
	newestAt time.Time
}

func newReplicas(o replicaOptions) *replicas {
	if o.every == 0 {
		o.every, o.confirm = replicaEvery, replicaConfirm
	}
	return &replicas{o: o, soon: make(chan struct{}, 1)}
}

// lookSoon has the replicas looked at at once: there is a new connection.
func (r *replicas) lookSoon() {
	select {
	case r.soon <- struct{}{}:
	default:
	}
}

// belongTo says how our stream is known: another account may have one of the same name.
func (r *replicas) belongTo(key, store string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key, r.store = key, store
}

// facts returns what is known.
func (r *replicas) facts() replicaFacts {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.known
	f.servers, f.faults = slices.Clone(f.servers), slices.Clone(f.faults)
	return f
}

// run looks at the replicas, over c unless there are monitoring ports, until ctx ends.
func (r *replicas) run(ctx context.Context, c *nats) {
	if r.o.ask == nil {
		r.o.ask = func(ctx context.Context) ([]replicaReport, error) { return askReplicas(ctx, c) }
	}
	tick := time.NewTicker(r.o.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.soon:
		case <-tick.C:
		}
		r.look(ctx)
	}
}

// askReplicas asks the engine itself.
func askReplicas(ctx context.Context, c *nats) (all []replicaReport, err error) {
	ctx, cancel := context.WithTimeout(ctx, replicaWait)
	defer cancel()
	size := maxReplicas // until one says how many they are
	err = c.ask(ctx, jszSubject, []byte(jszRequest), func(m natsMessage) bool {
		var report replicaReport
		if err := json.Unmarshal(m.body, &report); err == nil && report.Server.Name != "" {
			all = append(all, report)
			// One of a cluster whose disk was full, or that is starting, does not say it.
			if n := report.JetStream.Meta.Size; n > 0 || report.Server.Cluster == "" {
				size = max(n, 1)
			}
		}
		return len(all) < min(size, maxReplicas)
	})
	switch {
	case len(all) > 0:
		return all, nil
	case errors.Is(err, errNoResponders) || errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("nobody answers at %s", jszSubject)
	}
	return nil, err
}

// look looks at the replicas once; at what is found amiss for the first time, twice.
func (r *replicas) look(ctx context.Context) {
	reports, err := r.o.ask(ctx)
	var found replicaFacts
	if err == nil {
		found = r.judge(reports)
		if r.anyNew(found.faults) {
			select {
			case <-ctx.Done():
			case <-time.After(r.o.confirm):
			}
			if reports, err = r.o.ask(ctx); err == nil {
				again := r.judge(reports)
				again.faults = slices.DeleteFunc(again.faults, func(f replicaFault) bool {
					return r.anyNew([]replicaFault{f}) && !slices.ContainsFunc(found.faults, f.same)
				})
				found = again
			}
		}
	}
	switch {
	case ctx.Err() != nil, errors.Is(err, errNATSLost): // the connection's own lines say so
	case err != nil:
		r.noteUnchecked(err)
	default:
		r.note(found)
	}
}

// anyNew reports whether one of the faults is not known yet.
func (r *replicas) anyNew(faults []replicaFault) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(faults, func(f replicaFault) bool {
		return !slices.ContainsFunc(r.known.faults, f.same)
	})
}

// judge says what is to be thought of what the servers say.
func (r *replicas) judge(reports []replicaReport) replicaFacts {
	f := replicaFacts{at: time.Now()}
	var members []string // the servers that should have a replica
	for _, report := range reports {
		fact := replicaFact{server: report.Server.Name, version: report.Server.Version,
			synced: report.JetStream.Config.SyncAlways}
		if s := r.find(report); s != nil {
			fact.has, fact.leads = true, s.Cluster.Leader == fact.server
			fact.records, fact.missing, fact.last = s.State.Messages, s.missing(), s.State.Last
			f.wanted = max(f.wanted, s.Config.Replicas)
			members = append(members, fact.server, s.Cluster.Leader)
			for _, other := range s.Cluster.Replicas {
				members = append(members, other.Name)
			}
		}
		f.servers = append(f.servers, fact)
	}
	slices.SortFunc(f.servers, func(a, b replicaFact) int { return strings.Compare(a.server, b.server) })
	slices.Sort(members)
	members = slices.Compact(members)
	for _, member := range members[:min(len(members), maxReplicas)] {
		is := func(s replicaFact) bool { return s.server == member && s.has }
		if member != "" && !slices.ContainsFunc(f.servers, is) {
			f.faults = append(f.faults, replicaFault{server: member, kind: faultAbsent, since: f.at,
				text: "it does not say what it has of the records"})
		}
	}
	reached := r.reached(f.at)
	for i, s := range f.servers {
		if s.has || f.wanted == 0 { // the others keep nothing of ours
			f.faults = append(f.faults, faultsOf(&f.servers[i], f.at, reached)...)
		}
	}
	return f
}

// reached returns the number that some server had got to a while ago: who has not got there is not
// merely late. 0: that is not known.
func (r *replicas) reached(now time.Time) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.newestAt) < r.o.every/2 {
		return 0
	}
	return r.newest
}

// find returns what a server says of the stream; nil: it has none of it.
func (r *replicas) find(report replicaReport) *streamReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, account := range report.JetStream.Accounts {
		for i, s := range account.Streams {
			if s.Name == r.o.stream && (r.key == "" || s.Config.Metadata[r.key] == r.store) {
				return &account.Streams[i]
			}
		}
	}
	return nil
}

// faultsOf returns what is wrong with a server, where another had reached that number a while ago.
func faultsOf(s *replicaFact, now time.Time, reached uint64) (all []replicaFault) {
	add := func(kind replicaFaultKind, format string, args ...any) {
		all = append(all, replicaFault{server: s.server, kind: kind, text: fmt.Sprintf(format, args...), since: now})
	}
	if s.missing > 0 {
		add(faultHoles, "%d of the records up to %d are missing in its replica", s.missing, s.last)
	}
	if !s.synced {
		add(faultSync, "it acknowledges records long before it syncs them: a power cut may take them away")
	}
	if tooOld(s.version) {
		add(faultVersion, "its version %.32q loses acknowledged records", s.version)
	}
	if s.has && s.last < reached {
		add(faultBehind, "its replica ends at record %d, and another had record %d a while ago", s.last, reached)
	}
	return all
}

// tooOld reports whether a version, 2.15.2 or 2.15.0-RC.1, is older than leastEngine. One that
// cannot be read is not.
func tooOld(version string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return n == 2 && (major < leastEngine[0] || major == leastEngine[0] && minor < leastEngine[1])
}

// noteUnchecked keeps and logs why nothing can be said, once.
func (r *replicas) noteUnchecked(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known.unchecked == "" {
		r.o.log.Warn(actReplica, fail, "reason", fmt.Sprintf("it is not known whether the engine syncs what it "+
			"acknowledges, and whether its replicas are whole: %v", err),
			"todo", "give stream.monitor, or let this user ask "+jszSubject+": docs/replication.md")
	}
	r.known.unchecked = err.Error()
}

// note keeps what was found. The log has each fault when it begins, each replicaTell, and when it
// is over.
func (r *replicas) note(f replicaFacts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.known.at.IsZero() || r.known.unchecked != ""
	for _, old := range r.known.faults {
		switch i := slices.IndexFunc(f.faults, old.same); {
		case i >= 0:
			f.faults[i].since, f.faults[i].told = old.since, old.told
		case undecided(old, f.faults):
			f.faults = append(f.faults, old)
		default:
			r.o.log.Info(actReplica, success, "server", old.server, "reason", "no longer so: "+old.text)
		}
	}
	for i := range f.faults {
		fault := &f.faults[i]
		if time.Since(fault.told) < replicaTell {
			continue
		}
		fault.told = time.Now()
		say := r.o.log.Warn
		if fault.kind.isLoss() {
			say = r.o.log.Error
		}
		say(actReplica, fail, "server", fault.server, "reason", fault.text, "todo", fault.kind.todo(),
			"since", fault.since.Format(time.DateTime))
	}
	last := uint64(0)
	for _, s := range f.servers {
		last = max(last, s.last)
	}
	if f.at.Sub(r.newestAt) >= r.o.every/2 {
		r.newest, r.newestAt = last, f.at
	}
	if first && len(f.faults) == 0 {
		r.o.log.Info(actReplica, success, "servers", len(f.servers), "replicas", f.wanted, "records", last)
	}
	r.known = f
}

// undecided reports whether the faults that are there now do not tell if an old one is over: its
// server has said nothing, and is still a member.
func undecided(old replicaFault, faults []replicaFault) bool {
	return old.kind != faultAbsent && slices.ContainsFunc(faults, func(now replicaFault) bool {
		return now.server == old.server && now.kind == faultAbsent
	})
}
