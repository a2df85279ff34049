//go:build !nostream && !notls

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// reportOf makes what a server says of itself: its name, version, whether it syncs, how many
// records it has and up to which.
func reportOf(t testing.TB, server, version string, synced bool, messages, last uint64) replicaReport {
	t.Helper()
	text := fmt.Sprintf(`{"server":{"name":%q,"ver":%q},"data":{
		"config":{"sync_always":%v},"meta_cluster":{"cluster_size":3},
		"account_details":[{"name":"TP0","stream_detail":[{"name":"OTHER"},{"name":"TP0",
		"cluster":{"leader":"a","replicas":[{"name":"b"},{"name":"c"}]},
		"config":{"num_replicas":3,"metadata":{"tp0-store":"01"}},"state":{"messages":%d,"last_seq":%d}}]}]}}`,
		server, version, synced, messages, last)
	var report replicaReport
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatal(err)
	}
	return report
}

// A replicaTest has servers that say what they are told to.
type replicaTest struct {
	*replicas
	t    *testing.T
	log  natsLog
	says func() ([]replicaReport, error)
	seen int // bytes of the log
}

func newReplicaTest(t *testing.T) *replicaTest {
	rt := &replicaTest{t: t}
	rt.replicas = newReplicas(replicaOptions{stream: "TP0", log: newLogger(&rt.log, slog.LevelInfo),
		ask:   func(context.Context) ([]replicaReport, error) { return rt.says() },
		every: time.Hour, confirm: time.Microsecond})
	return rt
}

// whole are three servers without a fault.
func (rt *replicaTest) whole(last uint64) []replicaReport {
	var all []replicaReport
	for _, server := range []string{"a", "b", "c"} {
		all = append(all, reportOf(rt.t, server, "2.15.2", true, last, last))
	}
	return all
}

// logs looks once, and compares what is new in the log: a part of each line.
func (rt *replicaTest) logs(what string, want ...string) {
	rt.t.Helper()
	rt.look(rt.t.Context())
	text := rt.log.String()[rt.seen:]
	rt.seen += len(text)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if text == "" {
		lines = nil
	}
	if len(lines) != len(want) {
		rt.t.Fatalf("%s: got %d lines, want %d:\n%s", what, len(lines), len(want), text)
	}
	for i, line := range lines {
		checkLogLine(rt.t, line)
		if !strings.Contains(line, want[i]) {
			rt.t.Errorf("%s: got %q, want in it %q", what, line, want[i])
		}
	}
}

// TestReplicaFaults: what is a fault of a server, and what is none.
func TestReplicaFaults(t *testing.T) {
	tests := []struct {
		name   string
		change func(servers []replicaReport) []replicaReport
		want   string // server and kind of each fault
	}{
		{"whole", nil, ""},
		{"late", func(s []replicaReport) []replicaReport {
			s[1] = reportOf(t, "b", "2.15.2", true, 97, 97)
			return s
		}, ""},
		{"holes", func(s []replicaReport) []replicaReport {
			s[1] = reportOf(t, "b", "2.15.2", true, 40, 100)
			return s
		}, "b: 60 of the records up to 100 are missing in its replica"},
		{"more than there can be", func(s []replicaReport) []replicaReport {
			s[1] = reportOf(t, "b", "2.15.2", true, 1<<63, 100)
			return s
		}, ""},
		{"does not sync", func(s []replicaReport) []replicaReport {
			s[0].JetStream.Config.SyncAlways = false
			return s
		}, "a: it acknowledges records long before it syncs them: a power cut may take them away"},
		{"old", func(s []replicaReport) []replicaReport {
			s[2].Server.Version = "2.13.9"
			return s
		}, `c: its version "2.13.9" loses acknowledged records`},
		{"candidate", func(s []replicaReport) []replicaReport {
			s[2].Server.Version = "2.14.0-RC.1"
			return s
		}, ""},
		{"next", func(s []replicaReport) []replicaReport {
			s[2].Server.Version = "3.0.0"
			return s
		}, ""},
		{"no version", func(s []replicaReport) []replicaReport {
			s[2].Server.Version = "dev"
			return s
		}, ""},
		{"silent", func(s []replicaReport) []replicaReport { return s[:2] },
			"c: it does not say what it has of the records"},
		{"switched off", func(s []replicaReport) []replicaReport {
			s[0].JetStream = jetStreamReport{}
			return s
		}, "a: it does not say what it has of the records"},
		{"a server beside, which has nothing", func(s []replicaReport) []replicaReport {
			other := reportOf(t, "d", "2.10.0", false, 0, 0)
			other.JetStream.Accounts = nil
			return append(s, other)
		}, ""},
		{"no stream yet", func(s []replicaReport) []replicaReport {
			for i := range s {
				s[i].JetStream.Accounts = nil
			}
			s[1].JetStream.Config.SyncAlways = false
			return s
		}, "b: it acknowledges records long before it syncs them: a power cut may take them away"},
		{"begins later", func(s []replicaReport) []replicaReport {
			for i := range s {
				stream := &s[i].JetStream.Accounts[0].Streams[1]
				stream.Config.First, stream.State.Messages = 91, 10
			}
			s[1].JetStream.Accounts[0].Streams[1].State.Messages = 9
			return s
		}, "b: 1 of the records up to 100 are missing in its replica"},
		{"begins later, empty", func(s []replicaReport) []replicaReport {
			for i := range s {
				stream := &s[i].JetStream.Accounts[0].Streams[1]
				stream.Config.First, stream.State.Messages, stream.State.Last = 91, 0, 90
			}
			return s
		}, ""},
	}
	for _, tt := range tests {
		rt := newReplicaTest(t)
		servers := rt.whole(100)
		if tt.change != nil {
			servers = tt.change(servers)
		}
		rt.says = func() ([]replicaReport, error) { return servers, nil }
		rt.look(t.Context())
		var got []string
		for _, f := range rt.facts().faults {
			got = append(got, f.server+": "+f.text)
		}
		if strings.Join(got, "; ") != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestReplicaOwn: a stream of the same name in another account is another's.
func TestReplicaOwn(t *testing.T) {
	rt := newReplicaTest(t)
	rt.says = func() ([]replicaReport, error) { return rt.whole(100), nil }
	for store, want := range map[string]bool{"01": true, "02": false} {
		rt.belongTo("tp0-store", store)
		rt.look(t.Context())
		for _, s := range rt.facts().servers {
			if s.has != want || s.leads != (want && s.server == "a") {
				t.Errorf("store %s: got %+v, want has %v", store, s, want)
			}
		}
	}
}

// TestReplicaLog: a fault is told when it begins, after an hour, and when it is over; what is there
// for a moment is not.
func TestReplicaLog(t *testing.T) {
	rt := newReplicaTest(t)
	servers := rt.whole(100)
	rt.says = func() ([]replicaReport, error) { return servers, nil }
	rt.logs("whole", "result: success | servers: 3 | replicas: 3 | records: 100")
	rt.logs("again")

	looks := 0
	rt.says = func() ([]replicaReport, error) {
		if looks++; looks == 1 {
			return rt.whole(100)[:2], nil
		}
		return rt.whole(100), nil
	}
	if rt.logs("silent for a moment"); looks != 2 {
		t.Errorf("got %d looks at a fault that is new, want 2", looks)
	}

	looks = 0
	rt.says = func() ([]replicaReport, error) {
		looks++
		return rt.whole(100)[looks-1:][:2], nil
	}
	rt.logs("one silent for a moment, then another")

	rt.says = func() ([]replicaReport, error) { return servers, nil }
	servers[1] = reportOf(t, "b", "2.15.2", true, 40, 100)
	rt.logs("holes", "ERROR    action: replica | result: fail | server: b | reason: 60 of the records")
	servers[1] = reportOf(t, "b", "2.15.2", true, 41, 101)
	rt.logs("still")
	since := rt.facts().faults[0].since
	servers = append(servers[:1], servers[2])
	rt.logs("silent", "WARNING  action: replica | result: fail | server: b | reason: it does not say")
	if got := rt.facts().faults; len(got) != 2 {
		t.Errorf("got %v, want that b's holes are not forgotten while it is silent", got)
	}
	for i := range rt.known.faults {
		rt.known.faults[i].told = time.Now().Add(-replicaTell)
	}
	rt.logs("an hour later", "server: b | reason: it does not say", "server: b | reason: 60 of the records")
	servers = rt.whole(100)
	servers[1] = reportOf(t, "b", "2.15.2", true, 40, 100)
	rt.logs("it answers", "result: success | server: b | reason: no longer so: it does not say")
	if got := rt.facts().faults[0].since; got != since {
		t.Errorf("got holes since %v, want since %v", got, since)
	}
	servers[1] = reportOf(t, "b", "2.15.2", true, 100, 100)
	rt.logs("healed", "result: success | server: b | reason: no longer so: 60 of the records")
}

// TestReplicaBehind: late is who has not reached by now what another had a while ago, and nobody
// else.
func TestReplicaBehind(t *testing.T) {
	rt := newReplicaTest(t)
	servers := rt.whole(100)
	servers[1] = reportOf(t, "b", "2.15.2", true, 20, 20)
	rt.says = func() ([]replicaReport, error) { return servers, nil }
	rt.logs("at first", "result: success")
	first := rt.newestAt
	if rt.logs("at once again"); rt.newestAt != first {
		t.Error("got a look at once that replaces the one a while ago: many connections would hide who is late")
	}
	rt.newestAt = rt.newestAt.Add(-rt.o.every)
	rt.logs("a while later", "server: b | reason: its replica ends at record 20, and another had record 100")
	servers[1] = reportOf(t, "b", "2.15.2", true, 100, 100)
	rt.newestAt = rt.newestAt.Add(-rt.o.every)
	rt.logs("there", "result: success | server: b")
	for i := range servers {
		servers[i].JetStream.Accounts = nil
	}
	rt.newestAt = rt.newestAt.Add(-rt.o.every)
	rt.logs("the stream is gone, which others say")
}

// TestReplicasUnchecked: where nobody says anything that is said once, and what was known stays. A
// connection that is lost has its own lines.
func TestReplicasUnchecked(t *testing.T) {
	rt := newReplicaTest(t)
	answer := errors.New("nobody answers")
	rt.says = func() ([]replicaReport, error) { return nil, answer }
	rt.logs("at first", "WARNING  action: replica | result: fail | reason: it is not known whether")
	rt.logs("again")
	if got := rt.facts().unchecked; got != answer.Error() {
		t.Errorf("got %q, want %q", got, answer)
	}
	rt.says = func() ([]replicaReport, error) { return rt.whole(100), nil }
	rt.logs("it can be asked", "result: success | servers: 3")
	rt.says = func() ([]replicaReport, error) { return nil, fmt.Errorf("%w: %w", errNATSLost, io.EOF) }
	rt.logs("lost")
	if got := rt.facts(); got.unchecked != "" || len(got.servers) != 3 {
		t.Errorf("got %+v, want what was known", got)
	}
}
