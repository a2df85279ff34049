//go:build !nohttp && !notls

package main

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A fakeShared is a shared log that says what it is told to.
type fakeShared struct{ said streamFacts }

func (s *fakeShared) streamFacts() streamFacts { return s.said }

// share makes f a server, office-a, that shares its log with office-b, which takes bets, and with
// office-c, which is gone. Three engines are well.
func (f *fakeOffice) share() {
	f.shared = &fakeShared{streamFacts{Server: "10.20.0.1:4222", Version: "2.15.2", Connects: 2, last: 1240,
		took: new(histogram)}}
	said := &f.shared.said.replicas
	for i := range 3 {
		said.servers = append(said.servers, replicaFact{server: fmt.Sprintf("engine-%d", i+1), version: "2.15.2",
			synced: true, has: true, leads: i == 1, records: 1240, last: 1240})
	}
	f.fake.said.term = &termFacts{Term: 3, Holder: "office-b:12345", Heard: true, Name: "office-a:12345",
		Sequence: 1234, Fellows: []fellowFacts{{"office-b:12345", true, 1240, .2}, {"office-c:12345", false, 900, 42}}}
	f.stream = f.shared
}

// TestStandingSentences has the first sentence, and what /readyz, /livez and the alerts go by, as a
// server stands among those that share its log. The clock is fixed.
func TestStandingSentences(t *testing.T) {
	now := time.Date(2026, 11, 27, 22, 0, 0, 0, time.Local)
	lost := sharedError{fmt.Errorf("stream TP0: it has no leader now")}
	for _, tt := range []struct {
		name            string
		play            func(f *fakeOffice)
		sentence        string
		trouble         string // the first one; empty: there is none
		standby, quorum bool
		live, ready     int
		tone            string
	}{
		{"holds", func(f *fakeOffice) { f.fake.said.term.Mine = true },
			"Taking bets. 0 of 5 agencies have finished. 78,688 bets stored.", "", false, true, 200, 200, "good"},
		{"stands by", func(f *fakeOffice) { f.fake.said.trouble = errStandby },
			"Standing by: office-b:12345 takes bets. 78,688 bets stored.", "", true, true, 200, 503, "good"},
		{"was overtaken", func(f *fakeOffice) { f.fake.said.trouble = &conflictError{number: 7} },
			"Standing by: office-b:12345 takes bets. 78,688 bets stored.", "", true, true, 200, 503, "good"},
		{"nobody asks", func(f *fakeOffice) { f.fake.said.trouble, f.fake.said.term.Heard = errStandby, false },
			"Standing by: no server takes bets now, and this one will as soon as an agency asks. 78,688 bets stored.",
			"", true, true, 200, 503, "wait"},
		{"no quorum", func(f *fakeOffice) { f.fake.said.trouble = fmt.Errorf("%w: %w", errUnsettled, lost) },
			"NOT taking bets: no quorum of the engines since 22:00:00.", "See to the engines: ",
			false, false, 200, 503, "bad"},
		{"no engine", func(f *fakeOffice) { f.fake.said.trouble, f.shared.said.Server = lost, "" },
			"NOT taking bets: no engine can be reached since 22:00:00.", "See to the engines: ",
			false, false, 200, 503, "bad"},
		{"waits at the start", func(f *fakeOffice) { f.opened.Store(nil); f.shared.said.trouble = lost.Error() },
			"NOT taking bets: no quorum of the engines since 22:00:00.", "", false, false, 200, 503, "bad"},
		{"recovers", func(f *fakeOffice) { f.opened.Store(nil) },
			"NOT taking bets: the store is recovering since 22:00:00.", "", false, true, 200, 503, "bad"},
		{"no room", func(f *fakeOffice) { f.fake.said.trouble = fmt.Errorf("wal: %w", syscall.ENOSPC) },
			"NOT taking bets: the disk is full since 22:00:00.", "Make room", false, true, 200, 503, "bad"},
		{"stream gone", func(f *fakeOffice) { f.fake.said.fatal = &fatalError{lost} },
			"NOT taking bets: the stream has failed since 22:00:00.", "Keep this server's store",
			false, true, 503, 503, "bad"},
		{"stops", func(f *fakeOffice) { f.fake.said.trouble, f.stops = errStandby, true },
			"NOT taking bets: the server is stopping since 22:00:00.", "", true, true, 200, 503, "bad"},
		{"holes", func(f *fakeOffice) {
			f.shared.said.replicas.faults = []replicaFault{{server: "engine-3", kind: faultAbsent, text: "it is away"},
				{server: "engine-2", kind: faultHoles, text: "60 are missing"}}
		}, "Taking bets. 0 of 5 agencies have finished. 78,688 bets stored.",
			"Engine engine-2: 60 are missing. To do: replace what this engine keeps before any other",
			false, true, 200, 200, "bad"},
	} {
		f := newFakeOffice()
		f.fake.said.Bets = 78688
		at := f.serve(t)
		f.share()
		tt.play(f)
		r := f.page.watch.report(now)
		if s := r.Store.Stream; r.Sentence != tt.sentence || s.Standby != tt.standby || s.Quorum != tt.quorum {
			t.Errorf("%s: got %q, standby %t, quorum %t", tt.name, r.Sentence, s.Standby, s.Quorum)
		}
		trouble := append(r.Troubles, "")[0]
		if (trouble == "") != (tt.trouble == "") || !strings.HasPrefix(trouble, tt.trouble) {
			t.Errorf("%s: got the troubles %q, want %q first", tt.name, r.Troubles, tt.trouble)
		}
		if got := pageTone(r); got != tt.tone {
			t.Errorf("%s: got the tone %q, want %q", tt.name, got, tt.tone)
		}
		live, _, _ := get(t, "http://"+at+"/livez")
		ready, why, _ := get(t, "http://"+at+"/readyz")
		said := ready == 200 || strings.Contains(strings.ToLower(tt.sentence), strings.TrimSpace(why))
		if live != tt.live || ready != tt.ready || !said {
			t.Errorf("%s: got %d and %d: %q", tt.name, live, ready, why)
		}
	}
}

// TestStandingPage has the page say all that there is to say of a shared log.
func TestStandingPage(t *testing.T) {
	f := newFakeOffice()
	at := f.serve(t)
	f.share()
	f.fake.said.trouble = errStandby
	f.fake.said.term.Conflicts, f.fake.said.term.Conflict = 2, time.Now()
	f.shared.said.replicas.faults = []replicaFault{{server: "engine-1", kind: faultSync, text: "it syncs late"},
		{server: "engine-9", kind: faultAbsent, text: "it is away"}}
	f.fake.agencies[4].Files = 1
	_, text, _ := get(t, "http://"+at+"/")
	for _, want := range []string{
		"office-b:12345 holds term 3; this is office-a:12345", "<b>yes, since ", "record 1,234, 6 behind",
		"connected to 10.20.0.1:4222, version 2.15.2", ", 2 since the start",
		"an answered bet survives the loss of any one machine",
		`<td>office-b:12345</td><td><b>takes bets</b></td>`, `<td>office-c:12345</td><td><b>silent</b></td>`,
		`<td>engine-1<small>2.15.2</small></td><td><b>unsynced</b></td>`, `<td><b>whole, leads</b></td>`,
		`<td>engine-9<small></small></td><td><b>absent</b></td>`,
		"Engine engine-1: it syncs late. To do: set sync_interval: always",
		"<b>at the other server</b>",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q:\n%s", want, text)
		}
	}
}

// TestStandingMetrics has what a scene must say.
func TestStandingMetrics(t *testing.T) {
	f := newFakeOffice()
	at := f.serve(t)
	f.share()
	f.fake.said.trouble, f.fake.said.term.Conflicts = errStandby, 2
	f.fake.agencies[4].Files = 1
	f.shared.said.took.observe(3 * time.Millisecond)
	f.shared.said.replicas.servers[2].missing, f.shared.said.replicas.servers[2].records = 60, 1180
	f.shared.said.replicas.faults = []replicaFault{{server: "engine-3", kind: faultHoles},
		{server: "engine-9", kind: faultAbsent}}
	_, text, _ := get(t, "http://"+at+"/metrics")
	families, err := parseMetrics(text)
	if err != nil {
		t.Fatal(err)
	}
	for sample, want := range map[string]float64{
		"tp0_available": 0, "tp0_stream_standby": 1, `tp0_agency_line_down{agency="4"}`: 0,
		"tp0_stream_holding": 0, "tp0_stream_term": 3, "tp0_stream_quorum": 1, "tp0_stream_record": 1234,
		"tp0_stream_lag_records": 6, "tp0_stream_servers_seen": 2, "tp0_stream_conflicts_total": 2,
		"tp0_stream_engine_connected": 1, "tp0_stream_engine_connects_total": 2,
		"tp0_stream_publish_duration_seconds_count": 1,
		"tp0_stream_replicas_checked":               1, `tp0_stream_replica_messages{replica="engine-3"}`: 1180,
		`tp0_stream_replica_missing{replica="engine-3"}`: 60, `tp0_stream_replica_missing{replica="engine-1"}`: 0,
		`tp0_stream_replica_last_record{replica="engine-2"}`: 1240, `tp0_stream_replica_leads{replica="engine-2"}`: 1,
		`tp0_stream_replica_fault{replica="engine-3",reason="holes"}`:  1,
		`tp0_stream_replica_fault{replica="engine-9",reason="absent"}`: 1,
	} {
		name, _, _ := strings.Cut(sample, "{")
		family := families[strings.TrimSuffix(name, "_count")]
		if family == nil {
			t.Errorf("there is no %s", name)
		} else if got, found := family.samples[sample]; !found || got != want {
			t.Errorf("%s: got %g (%t), want %g", sample, got, found, want)
		}
	}
}

// TestStandingAlone has page, figures and metrics say nothing of a stream where there is none: the
// page is that of the template without its part, byte for byte.
func TestStandingAlone(t *testing.T) {
	f := newFakeOffice()
	at := f.serve(t)
	f.evening()
	without := regexp.MustCompile(`(?s)\{\{#stream\}\}.*\{\{/stream\}\}`).ReplaceAllString(page, "")
	r := f.page.watch.report(time.Now())
	got, want := string(render(nil, page, pageView(r))), string(render(nil, without, pageView(r)))
	if got != want || strings.Contains(got, "stream") {
		t.Errorf("got a page that speaks of a stream:\n%s", got)
	}
	for _, path := range []string{"/status.json", "/metrics"} {
		if _, text, _ := get(t, "http://"+at+path); strings.Contains(text, "stream") {
			t.Errorf("%s speaks of a stream:\n%s", path, text)
		}
	}
}
