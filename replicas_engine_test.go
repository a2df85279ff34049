//go:build unix && !nostream && !notls && !nohttp

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// TestReplicasEngine: real engines, one of which does not sync what it acknowledges, and one whose
// disk loses a part of a file while it is stopped. Both are named, whichever way they are asked;
// what docs/replication.md says heals (TORTURE=1).
func TestReplicasEngine(t *testing.T) {
	t.Parallel()
	es := startEngines(t, 3, func(engine int, config string) string {
		if engine == 2 {
			config = strings.Replace(config, "sync_interval: always", "", 1)
		}
		return config
	})
	c, _ := dialEngines(t, es, nil)
	await(t, c, anywhere)
	three := strings.Replace(streamR1, `"num_replicas":1`, `"num_replicas":3`, 1)
	mustRequest(t, c, "$JS.API.STREAM.CREATE.TP0", nil, three)
	const records = 40 // more than one file of the engine
	for range records {
		mustRequest(t, c, "tp0.log", nil, string(bytes.Repeat([]byte("x"), 256<<10)))
	}
	damaged := es.All[0]
	if es.Leader("TP0") == damaged { // whoever leads the others must be whole
		damaged = es.All[1]
	}
	var log natsLog
	both := map[string]*replicas{}
	for name, ask := range map[string]func(context.Context) ([]replicaReport, error){
		"over the engine":  func(ctx context.Context) ([]replicaReport, error) { return askReplicas(ctx, c) },
		"monitoring ports": monitors(strings.Split(es.Monitors(), ",")),
	} {
		both[name] = newReplicas(replicaOptions{stream: "TP0", ask: ask, log: newLogger(&log, slog.LevelInfo),
			every: time.Hour, confirm: time.Millisecond})
	}
	unsynced := "engine-3: it acknowledges records long before"
	compare := func(when string, want ...string) {
		t.Helper()
		for name, r := range both {
			if when == "stopped" && name == "over the engine" {
				continue // it waits long for who may still answer
			}
			found := func() (got []string) {
				r.look(t.Context())
				for _, f := range r.facts().faults {
					got = append(got, f.server+": "+f.text)
				}
				return got
			}
			waitFor(t, fmt.Sprintf("%s, %s: the faults %q, no others; log:\n%s", when, name, want, &log), func() bool {
				got := found()
				same := len(got) == len(want)
				for i := 0; same && i < len(got); i++ {
					same = strings.HasPrefix(got[i], want[i])
				}
				return same
			})
		}
	}
	compare("whole", unsynced)
	if err := damaged.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(damaged.Blocks("TP0")[0], 4<<20); err != nil {
		t.Fatal(err)
	}
	compare("stopped", damaged.Name+": it does not say", unsynced)
	restart := func() {
		t.Helper()
		if err := damaged.Start(); err != nil {
			t.Fatal(err)
		}
		if err := es.Ready(); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	compare("damaged", damaged.Name+": 16 of the records up to 40 are missing", unsynced)
	line := "ERROR    action: replica | result: fail | server: " + damaged.Name + " | reason: 16 of"
	if !strings.Contains(log.String(), line) {
		t.Errorf("got a log that does not name the holes:\n%s", &log)
	}
	if os.Getenv("TORTURE") == "" {
		return // the engine takes its time
	}
	if err := damaged.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := damaged.Wipe(); err != nil {
		t.Fatal(err)
	}
	restart()
	compare("healed", unsynced)
}

// TestReplicasForbidden: an engine that does not let us ask says so.
func TestReplicasForbidden(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]string{
		"Permissions Violation": `"$SYS.REQ.SERVER.PING.JSZ" ]`,
		"nobody answers":        `imports: [ { service: { account: "$SYS", subject: "$SYS.REQ.SERVER.PING.JSZ" } } ]`,
	} {
		es := startEngines(t, 1, func(_ int, config string) string {
			if !strings.Contains(config, part) {
				t.Fatalf("the configuration has no part %s", part)
			}
			return strings.Replace(config, part, map[bool]string{true: `"x" ]`}[strings.HasSuffix(part, `Z" ]`)], 1)
		})
		r := newReplicas(replicaOptions{stream: "TP0", log: newLogger(io.Discard, slog.LevelInfo)})
		c, _ := dialEngines(t, es, func(o *natsOptions) { o.onConnect = r.lookSoon })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.run(ctx, c)
		waitFor(t, name, func() bool { return strings.Contains(r.facts().unchecked, name) })
	}
}

// TestMonitors: a port that says nothing, too much, or something else makes nobody wait, and does
// not hide the others.
func TestMonitors(t *testing.T) {
	t.Parallel()
	serve := func(handle http.HandlerFunc) string {
		s := httptest.NewServer(handle)
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	good := serve(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.String() {
		case "/varz":
			io.WriteString(w, `{"server_name":"a","version":"2.15.2"}`)
		case "/jsz?accounts=1&streams=1&config=1":
			io.WriteString(w, `{"config":{"sync_always":true}}`)
		default:
			t.Errorf("got a request %s", r.URL)
		}
	})
	for name, handle := range map[string]http.HandlerFunc{
		"nothing": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+good+r.URL.String(), 302)
		},
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			for space := bytes.Repeat([]byte(" "), 1<<20); ; {
				if _, err := w.Write(space); err != nil {
					return
				}
			}
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"error":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad, alone := serve(handle), make(chan struct{})
			go func() {
				if all, err := monitors([]string{bad})(context.Background()); err == nil {
					t.Errorf("got %+v, want an error", all)
				}
				close(alone)
			}()
			defer func() { <-alone }()
			all, err := monitors([]string{bad, good})(t.Context())
			if err != nil || len(all) != 1 || all[0].Server.Name != "a" || !all[0].JetStream.Config.SyncAlways {
				t.Errorf("got %+v, %v, want what the good one says", all, err)
			}
		})
	}
}

// TestReplicasDisabled: a server whose disk was full answers first, and does not say how many they
// are: the others are waited for.
func TestReplicasDisabled(t *testing.T) {
	t.Parallel()
	p := newNATSPlay(t)
	p.where = t.Name()
	p.step("accept")
	p.step("greet")
	names := make(chan string, 1)
	go func() {
		all, err := askReplicas(t.Context(), p.c)
		text := fmt.Sprint(err)
		for _, report := range all {
			text += " " + report.Server.Name
		}
		names <- text
	}()
	p.step("C: PUB " + jszSubject + fmt.Sprintf(" {inbox}{reply} %d", len(jszRequest)))
	p.step("C: " + jszRequest)
	for _, said := range []string{`{"server":{"name":"a","cluster":"tp0"},"data":{"disabled":true}}`,
		`{"server":{"name":"b","cluster":"tp0"},"data":{"meta_cluster":{"cluster_size":3}}}`,
		`{"server":{"name":"c","cluster":"tp0"},"data":{"meta_cluster":{"cluster_size":3}}}`} {
		p.step(fmt.Sprintf("S: MSG {inbox}{reply} 1 %d", len(said)))
		p.step("S: " + said)
	}
	if got := <-names; got != "<nil> a b c" {
		t.Errorf("got the answers of %q, want those of a, b and c", got)
	}
}
