//go:build !nostream && !notls

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestStreamSettle has the engine do all that it may do with a record: then the record is there
// once, or another one is, or nobody knows.
func TestStreamSettle(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		script, reads string // words with commas between
		want          string // in the error; empty: it is settled
	}{
		{"ok", "", ""},
		{"stored twice", "", ""},
		{"silence", "", ""},
		{"stored", "", ""},
		{"stored", "503,silence,10008", ""},
		{"cut", "", ""},
		{"stored and cut", "", ""},
		{"late", "", ""},
		{"late,silence", "", ""},
		{"late,stored", "", ""},
		{"silence,silence,stored and cut", "", ""},
		{"503,503,503", "", ""},
		{"pending,pending,pending", "", ""},
		{"10008,10167,10071", "", ""},
		{"10023,10047", "", ""},
		{"0", "", ""}, // 429 has no code of its own
		{"garbage", "garbage", ""},
		{"denied", "", ""},
		{"foreign", "", "record 3 is another server's"},
		{"foreign", "silence,503,cut", "record 3 is another server's"},
		{"silence,foreign", "", "record 3 is another server's"},
		{"late,foreign", "", ""}, // ours was first
		{"10077", "", "stream TP0: error 10077 (code 10077): see to it that a record of 1048552 bytes fits"},
		{"10054", "", "see to it that"},
		{"10060", "", "its subject tp0.log leads to another stream"},
		{"other", "", `record 3 was stored as number 3 of "OTHER"`},
		{"ahead", "", `record 3 was stored as number 4 of "TP0"`},
		{"silence,deleted", "", "the engine has no such stream"},
		{"denied*", "", `the engine says: Permissions Violation for Publish to "tp0.log": give stream.user the rights`},
		{"silence*", "", "not known whether it took the record: stream TP0: no answer came: there is no quorum"},
		{"503*", "", "not known whether it took the record: stream TP0: it has no leader now"},
		{"pending*", "", "not known whether it took the record: stream TP0: error 10071"},
		{"10047*", "", "not known whether it took the record: stream TP0: error 10047"},
		{"stored*", "silence*", "not known whether it took the record: stream TP0: "},
	} {
		t.Run(test.script+";"+test.reads, func(t *testing.T) {
			t.Parallel()
			for _, begin := range []bool{false, true} {
				testSettle(t, test.script, test.reads, test.want, begin)
			}
		})
	}
}

// TestStreamReadBack: the answer to a record is lost, and so is the record, on the leader's disk.
// Any replica that has it proves that it was stored.
func TestStreamReadBack(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	s := openFake(t, e)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	mustLast(t, ctx, s, 0)
	e.mu.Lock()
	e.script, e.lacks = words("stored"), 1
	e.mu.Unlock()
	s.wait = lostWait
	if err := s.settle(ctx, 1, []byte("one")); err != nil {
		t.Errorf("got %v", err)
	}
}

// words are those of a script; one with a star goes on for ever.
func words(script string) []string {
	if one, ok := strings.CutSuffix(script, "*"); ok {
		return slices.Repeat([]string{one}, 1000)
	}
	if script == "" {
		return nil
	}
	return strings.Split(script, ",")
}

func testSettle(t *testing.T, script, reads, want string, begin bool) {
	e := newFakeEngine(t)
	s := openFake(t, e)
	e.records = [][]byte{[]byte("one"), []byte("two")}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mustLast(t, ctx, s, 2)
	s.gone = time.Now().Add(-goneAfter)
	if strings.Contains(script+reads, "silence") || strings.Contains(script, "stored") ||
		strings.Contains(script, "late") {
		s.wait = lostWait
	}
	if strings.Contains(script, "deleted") { // a question without an answer says that it may be there
		s.wait = time.Second
	}
	e.mu.Lock()
	e.script, e.reads = words(script), words(reads)
	if attempts := 0; strings.HasSuffix(script, "*") { // it is given up
		e.taken = func() {
			if attempts++; attempts == 3 {
				cancel()
			}
		}
	}
	e.mu.Unlock()
	record := []byte("three")
	if begin {
		s.begin(3, record)
	}
	err := s.settle(ctx, 3, record)
	if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
		t.Fatalf("begin %v: got %v, want %q", begin, err, want)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	copies := 0
	for _, r := range e.records {
		if bytes.Equal(r, record) {
			copies++
		}
	}
	if stored := len(e.records) == 3 && copies == 1; copies > 1 || stored != (err == nil) && script != "stored*" {
		t.Errorf("begin %v: got %q in the stream after %v", begin, e.records, err)
	}
	var conflict *conflictError
	if errors.As(err, &conflict) && (conflict.number != 3 || string(conflict.record) != "foreign") {
		t.Errorf("got %+v, want what stands there", conflict)
	}
	if unsettled := errors.Is(err, errUnsettled); unsettled != (err != nil && strings.HasSuffix(script, "*")) {
		t.Errorf("got %v, unsettled %v", err, unsettled)
	}
	if isFatal(err) && (conflict != nil || errors.Is(err, errUnsettled)) {
		t.Errorf("got %v, fatal and not", err)
	}
}

// mustLast waits until the stream can be reached, and wants this last number.
func mustLast(t *testing.T, ctx context.Context, s *stream, want uint64) {
	t.Helper()
	for {
		last, err := s.last(ctx)
		if err == nil && last == want {
			return
		}
		if err == nil || isFatal(err) || ctx.Err() != nil {
			t.Fatalf("got %d, %v, want %d", last, err, want)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestStreamSettings has one setting after the other wrong: each is named in a line that says what
// it should be.
func TestStreamSettings(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	s := openFake(t, e)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mustLast(t, ctx, s, 0)
	if s.identity() != testStoreID {
		t.Errorf("got identity %v, want %v", s.identity(), testStoreID)
	}
	other := map[string]any{storeKey: storeID{9}.String()}
	for _, test := range []struct {
		key   string
		value any
		want  string
	}{
		{"retention", "workqueue", "retention is workqueue: set it to limits"},
		{"storage", "memory", "storage is memory: set it to file"},
		{"num_replicas", 1, "num_replicas is 1: set it to 3"},
		{"num_replicas", 5, ""},
		{"discard", "old", "discard is old: set it to new"},
		{"max_msgs", 1000, "max_msgs is 1000: set it to -1"},
		{"max_bytes", 1000, "max_bytes is 1000: set it to -1"},
		{"max_age", 1000, "max_age is 1000: set it to 0"},
		{"max_msgs_per_subject", 1, "max_msgs_per_subject is 1: set it to -1"},
		{"max_msg_size", 1000, "max_msg_size is 1000: set it to -1"},
		{"allow_direct", false, "allow_direct is false: set it to true"},
		{"deny_delete", false, "deny_delete is false: set it to true"},
		{"deny_purge", false, "deny_purge is false: set it to true"},
		{"sealed", true, "sealed is true: set it to false"},
		{"no_ack", true, "no_ack is true: set it to false"},
		{"allow_rollup_hdrs", true, "allow_rollup_hdrs is true: set it to false"},
		{"allow_msg_ttl", true, "allow_msg_ttl is true: set it to false"},
		{"allow_msg_counter", true, "allow_msg_counter is true: set it to false"},
		{"allow_msg_schedules", true, "allow_msg_schedules is true: set it to false"},
		{"mirror", map[string]any{"name": "X"}, "mirror is true: set it to false"},
		{"sources", []any{map[string]any{"name": "X"}}, "sources is true: set it to false"},
		{"subject_transform", map[string]any{"src": ">", "dest": "x"}, "subject_transform is true: set it to false"},
		{"persist_mode", "async", "persist_mode is async: set it to default"},
		{"persist_mode", "default", ""},
		{"first_seq", 7, "first_seq is 7: set it to 1"},
		{"first_seq", 1, ""},
		{"subjects", []string{"tp0.log", "x"}, `subjects is ["tp0.log" "x"]: set it to "tp0.log"`},
		{"subjects", []string{"tp0.>"}, `subjects is ["tp0.>"]: set it to "tp0.log"`},
		{"subjects", nil, `subjects is []: set it to "tp0.log"`},
		{"metadata", nil, "its metadata has no tp0-store: it was not made by -mode=replicate"},
		{"metadata", map[string]any{storeKey: "01"}, "its metadata has no tp0-store"},
		{"metadata", other, "it has been made anew, for the store 09000000000000000000000000000000 in place of " +
			"01020300000000000000000000000000"},
	} {
		e.mu.Lock()
		before, had := e.config[test.key]
		e.config[test.key] = test.value
		e.mu.Unlock()
		_, err := s.last(ctx)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s %v: got %v", test.key, test.value, err)
		case test.want != "" && (!isFatal(err) || !strings.HasPrefix(err.Error(), "stream TP0: "+test.want)):
			t.Errorf("%s %v: got %v, want %q", test.key, test.value, err, test.want)
		}
		e.mu.Lock()
		if e.config[test.key] = before; !had {
			delete(e.config, test.key)
		}
		e.mu.Unlock()
	}
	mustLast(t, ctx, s, 0)
}

// TestStreamLooksAgain: an administrator changes a setting while records are written. The next
// record finds it when a minute has gone by, or there is a new connection.
func TestStreamLooksAgain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, test := range []struct {
		name string
		wait func(*fakeEngine, *stream)
	}{
		{"a minute", func(_ *fakeEngine, s *stream) { s.checked = s.checked.Add(-streamLook) }},
		{"a connection", func(e *fakeEngine, _ *stream) { e.cut() }},
	} {
		e := newFakeEngine(t)
		s := openFake(t, e)
		mustLast(t, ctx, s, 0)
		s.due.Store(false) // that of the first connection
		e.mu.Lock()
		e.config["num_replicas"] = 1
		e.mu.Unlock()
		if err := s.settle(ctx, 1, []byte("one")); err != nil {
			t.Fatalf("%s: got %v before it is looked at", test.name, err)
		}
		test.wait(e, s)
		if err := s.settle(ctx, 2, []byte("two")); !isFatal(err) || !strings.Contains(err.Error(), "num_replicas") {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}

// TestStreamVersion refuses engines that are too old.
func TestStreamVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{"2.14.0": false, "2.13.9": true, "2.9.1": true, "3.0.0": false,
		"2.15.2-beta": false, "1.99": true, "": false, "unknown": false} {
		if got := tooOld(version); got != want {
			t.Errorf("%q: got %v", version, got)
		}
	}
	e := newFakeEngine(t)
	e.mu.Lock()
	e.version = "2.12.1"
	e.mu.Unlock()
	s := openFake(t, e)
	for {
		if _, err := s.last(context.Background()); isFatal(err) {
			if !strings.Contains(err.Error(), "has version \"2.12.1\": 2.14 or newer is needed on each") {
				t.Errorf("got %v", err)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestStreamMaxPayload has engines that do not take the longest record: another one is used.
// Without one a start waits, and mode replicate makes no stream; each says why, and goes on once it
// can.
func TestStreamMaxPayload(t *testing.T) {
	t.Parallel()
	const reason = "its max_payload is 65536: set it to 1048576 or more"
	set := func(e *fakeEngine, payload int) *fakeEngine {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.payload = payload
		return e
	}
	small := func() *fakeEngine { return set(newFakeEngine(t), 1<<16) }
	mustLast(t, context.Background(), openFake(t, small(), newFakeEngine(t)), 0)
	for _, what := range []string{"start", "replicate"} {
		e, lines, done := small(), &logLines{}, make(chan error)
		e.deleted = what == "replicate"
		s := openFake(t, e)
		waitFor(t, "an engine that has answered", func() bool {
			err := s.engine.publish("x", nil)
			return err != nil && strings.Contains(err.Error(), reason)
		})
		go func() {
			if what == "replicate" {
				m := &replication{log: newLogger(lines, slog.LevelInfo), most: 1000, peers: goneAfter,
					shown: func(*progress) {}, stream: s}
				done <- m.run(context.Background(), storeOf(100, 3, false), smallOptions())
				return
			}
			options := testOptions()
			options.shared, options.name = s, "office"
			st, err := openStore(context.Background(), newSimDisk(), options, newLogger(lines, slog.LevelInfo))
			if err == nil {
				err = st.close()
			}
			done <- err
		}()
		lines.await(t, "result: in_progress", reason)
		e.mu.Lock()
		if what == "replicate" != e.deleted || len(e.records) > 0 {
			t.Errorf("%s: it has made the stream", what)
		}
		e.mu.Unlock()
		set(e, 1<<20)
		if err := <-done; err != nil {
			t.Errorf("%s: got %v once the engine takes the longest record", what, err)
		}
	}
}

// collect reads all records from a number on.
func collect(ctx context.Context, s *stream, from uint64) (got []string, err error) {
	err = s.read(ctx, from, func(number uint64, record []byte) error {
		if number != from+uint64(len(got)) {
			return fmt.Errorf("got %d after %d records from %d on", number, len(got), from)
		}
		got = append(got, string(record))
		return nil
	})
	return got, err
}

// TestStreamRead reads streams whose replicas have lost records, or have not got them yet.
func TestStreamRead(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var whole [][]byte
	var want []string
	for i := range 2500 { // some batches
		whole = append(whole, fmt.Appendf(nil, "record %d", i+1))
		want = append(want, string(whole[i]))
	}
	holed := slices.Clone(whole)
	holed[0], holed[999], holed[1000], holed[2499] = nil, nil, nil, nil
	for _, test := range []struct {
		name         string
		first, other [][]byte
		reads        string
		from         uint64
		want         string // in the error
	}{
		{"all", whole, nil, "", 1, ""},
		{"from within", whole, nil, "", 1234, ""},
		{"nothing new", whole, nil, "", 2501, ""},
		{"answers are lost", whole, nil, "ok,silence,cut,503,garbage", 1, ""},
		{"another server has them", holed, whole, "", 1, ""},
		{"nobody has the first", holed, holed, "", 1, "record 1 is missing, and no replica has it"},
		{"nobody has one", holed, holed, "", 2, "record 1000 is missing, and no replica has it"},
	} {
		e := newFakeEngine(t)
		e.records, e.whole = test.first, true
		engines := []*fakeEngine{e}
		if test.other != nil {
			engines = append(engines, newFakeEngine(t))
			engines[1].records = test.other
		}
		s := openFake(t, engines...)
		var log bytes.Buffer
		s.log = newLogger(&log, slog.LevelWarn)
		mustLast(t, ctx, s, 2500)
		if test.reads != "" || test.other != nil {
			s.wait = 5 * lostWait
		}
		e.mu.Lock()
		e.reads = words(test.reads)
		e.mu.Unlock()
		got, err := collect(ctx, s, test.from)
		for err != nil && !isFatal(err) && ctx.Err() == nil { // somebody could not be asked
			got, err = collect(ctx, s, test.from)
		}
		said := strings.Contains(log.String(), "reason: a replica has lost this record")
		if said != (test.other != nil) {
			t.Errorf("%s: said %q", test.name, log.String())
		}
		if test.want != "" {
			if !isFatal(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %d records, %v", test.name, len(got), err)
			}
		} else if err != nil || !slices.Equal(got, want[test.from-1:]) {
			t.Errorf("%s: got %d records, %v", test.name, len(got), err)
		}
	}
}

// TestStreamMissing: that the leader has lost records is said when its settings are looked at, and
// again after a while, not each time.
func TestStreamMissing(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.records = [][]byte{[]byte("one"), nil, []byte("three"), nil}
	s := openFake(t, e)
	var log bytes.Buffer
	s.log = newLogger(&log, slog.LevelWarn)
	for want := 1; want <= 2; want++ {
		mustLast(t, context.Background(), s, 4)
		mustLast(t, context.Background(), s, 4)
		if got := strings.Count(log.String(), "| missing: 2 | reason: the leader"); got != want {
			t.Errorf("got it %d times, want %d: %s", got, want, log.String())
		}
		s.warned = s.warned.Add(-streamLook)
	}
}

// TestStreamReadStops: an error of whoever gets the records ends it, and is returned as it is.
func TestStreamReadStops(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.records = [][]byte{[]byte("one"), []byte("two")}
	s := openFake(t, e)
	mustLast(t, context.Background(), s, 2)
	stop := errors.New("enough")
	if err := s.read(context.Background(), 1, func(uint64, []byte) error { return stop }); err != stop {
		t.Errorf("got %v", err)
	}
	e.mu.Lock()
	e.records = append(e.records, make([]byte, maxShared+1))
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := collect(ctx, s, 3); err == nil {
		t.Error("got a record that is too long")
	}
}

// TestStreamSigns: what a server signs all servers hear, and nothing of it is kept.
func TestStreamSigns(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	s := openFake(t, e)
	heard := make(chan string, 100)
	s.listen(func(data []byte) { heard <- string(data) })
	mustLast(t, context.Background(), s, 0)
	s.sign([]byte("alive"))
	if got := <-heard; got != "alive" {
		t.Errorf("got %q", got)
	}
	mustLast(t, context.Background(), s, 0)
}

// TestStreamOptions refuses settings that do not go together.
func TestStreamOptions(t *testing.T) {
	for _, test := range []struct {
		settings streamSettings
		want     string
	}{
		{streamSettings{token: "t", user: "u", password: "p"}, "stream.token: with stream.user or stream.password"},
		{streamSettings{user: "u"}, "stream.user: goes with stream.password"},
		{streamSettings{password: "p"}, "stream.user: goes with stream.password"},
		{streamSettings{ca: "none.pem"}, "stream.ca: open none.pem: no such file or directory"},
		{streamSettings{ca: "stream_test.go"}, "stream.ca: stream_test.go has no certificate in PEM form"},
		{streamSettings{user: "u", password: "p"}, ""},
	} {
		_, err := streamTLS(&test.settings)
		var usage *usageError
		if test.want == "" && err != nil || test.want != "" && (!errors.As(err, &usage) ||
			!strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%+v: got %v, want %q", test.settings, err, test.want)
		}
	}
	if shared, err := openStream(&config{}, nil); shared != nil || err != nil {
		t.Errorf("without stream.servers: got %v, %v", shared, err)
	}
	if shared, err := openStream(&config{stream: streamSettings{servers: "a:1", user: "u"}}, nil); shared != nil ||
		err == nil {
		t.Errorf("with wrong settings: got %v, %v", shared, err)
	}
}

// FuzzStreamAnswers gives any bytes as the answer to each question, and to a record: nothing but a
// right one is taken for one, and nothing breaks.
func FuzzStreamAnswers(f *testing.F) {
	good, _ := json.Marshal(goodConfig())
	f.Add([]byte(`{"stream":"TP0","seq":3}`))
	f.Add([]byte(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"}}`))
	f.Add(fmt.Appendf(nil, `{"config":%s,"state":{"messages":5,"last_seq":5}}`, good))
	f.Add([]byte(`{"message":{"subject":"tp0.log","seq":3,"data":"dGhyZWU="}}`))
	f.Add([]byte(`{"message":{"seq":18446744073709551616}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var ack pubAck
		var info streamInfo
		s := &stream{jetStream: jetStream{engine: newNATS(natsOptions{}), name: "TP0"}, replicas: 3,
			keeps: newReplicas(replicaOptions{})}
		json.Unmarshal(body, &ack)
		if ack.Error != nil {
			err := s.judge(ack.Error)
			if err == nil || strings.ContainsAny(err.Error(), "\n\r") && len(err.Error()) > 1000 {
				t.Errorf("got %v", err)
			}
		}
		if json.Unmarshal(body, &info) == nil && s.check(&info) == nil {
			if info.Config.Replicas < 3 || !info.Config.DenyPurge || info.missing() > info.State.LastSeq {
				t.Errorf("took %s", body)
			}
		}
	})
}

// TestStreamElsewhere: a server that has been of no use for some time is left for another.
func TestStreamElsewhere(t *testing.T) {
	t.Parallel()
	for name, try := range map[string]func(ctx context.Context, s *stream) error{
		"settle": func(ctx context.Context, s *stream) error { return s.settle(ctx, 1, []byte("record")) },
		"last":   func(ctx context.Context, s *stream) error { _, err := s.last(ctx); return err },
	} {
		p := newNATSPlay(t)
		p.where = name
		p.step("servers 2")
		p.step("accept")
		p.step("greet")
		s := &stream{jetStream: jetStream{engine: p.c, name: "TP0", wait: 10 * time.Millisecond}, replicas: 1,
			keeps: newReplicas(replicaOptions{}), log: p.o.log, checked: time.Now()}
		for _, since := range []time.Duration{0, uselessMax} {
			s.unsettled.since, s.unseen.since = time.Now().Add(-since), time.Now().Add(-since)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if err := try(ctx, s); err == nil || isFatal(err) {
				t.Errorf("%s: got %v of a server that says nothing", name, err)
			}
			cancel()
			if _, _, here := p.c.connected(); since == 0 && !here {
				t.Errorf("%s: got a server that is left at once", name)
			}
		}
		p.step("closed")
		p.step("accept b")
		delete(p.names, "inbox")
		p.step("greet")
	}
}
