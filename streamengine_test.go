//go:build unix && !nostream && !notls

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"tp0/tools/proc"
)

// engineSettings are those of a server at these engines.
func engineSettings(es *proc.Engines) *streamSettings {
	return &streamSettings{servers: es.Servers(), name: "TP0", user: proc.EngineUser, password: proc.EnginePassword}
}

// openEngines returns the stream TP0 of these engines, which it makes if it is not there.
func openEngines(t *testing.T, es *proc.Engines) *stream {
	t.Helper()
	s, err := dialStream(engineSettings(es), newLogger(io.Discard, slog.LevelError))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	s.replicas = len(es.All)
	within(t, "create", func(ctx context.Context) error { return s.create(ctx, testStoreID, len(es.All)) })
	within(t, "last", func(ctx context.Context) error { _, err := s.last(ctx); return err })
	return s
}

// within calls do until it succeeds.
func within(t *testing.T, what string, do func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		err := do(ctx)
		if err == nil {
			return
		}
		if isFatal(err) || ctx.Err() != nil {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestStreamEngine writes to a real engine, alone and as a cluster, from two servers, and reads it.
func TestStreamEngine(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			es := startEngines(t, n)
			one, two := openEngines(t, es), openEngines(t, es)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var want []string
			for number := uint64(1); number <= 20; number++ {
				record := bytes.Repeat([]byte{byte(number)}, int(number*number*2600)) // up to 1 MB
				want = append(want, string(record))
				first, second := one, two
				if number%2 == 0 {
					first, second = two, one
				}
				first.begin(number, record)
				if err := first.settle(ctx, number, record); err != nil {
					t.Fatal(err)
				}
				var conflict *conflictError
				if err := second.settle(ctx, number, []byte("late")); !errors.As(err, &conflict) ||
					!bytes.Equal(conflict.record, record) {
					t.Fatalf("got %v, want a conflict", err)
				}
				if err := second.settle(ctx, number, record); err != nil {
					t.Fatalf("what stands there, once more: %v", err)
				}
			}
			got, err := collect(ctx, two, 1)
			if err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("got %d records, %v", len(got), err)
			}
			heard := make(chan string, 10)
			two.listen(func(data []byte) { heard <- string(data) })
			within(t, "sign", func(context.Context) error {
				one.sign([]byte("alive"))
				select {
				case <-heard:
					return nil
				case <-time.After(10 * time.Millisecond):
					return errors.New("nothing was heard")
				}
			})
			short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
			defer cancel()
			if err := one.settle(short, 22, []byte("a gap")); !errors.Is(err, errUnsettled) {
				t.Errorf("a record that does not follow on: got %v", err)
			}
		})
	}
}

// TestTortureStream writes records while engines are killed, stopped and started again; each record
// that was settled is there afterwards, once and in its place. TORTURE=1, KILLS: how many.
func TestTortureStream(t *testing.T) {
	if os.Getenv("TORTURE") == "" {
		t.Skip("TORTURE=1 runs it")
	}
	kills, _ := strconv.Atoi(os.Getenv("KILLS"))
	kills = max(kills, 10)
	es := startEngines(t, 3)
	s := openEngines(t, es)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	var settled []string
	go func() {
		for number := uint64(1); ctx.Err() == nil; number++ {
			record := fmt.Appendf(nil, "%d %s", number, strings.Repeat("x", rand.IntN(100_000)))
			for err := errUnsettled; err != nil; {
				if err = s.settle(ctx, number, record); err != nil && !errors.Is(err, errUnsettled) {
					done <- err
					return
				}
				if ctx.Err() != nil && err != nil {
					break
				}
			}
			if ctx.Err() == nil {
				settled = append(settled, string(record))
			}
		}
		done <- nil
	}()
	for i := range kills {
		e := es.All[rand.IntN(3)]
		if leader := es.Leader("TP0"); i%2 == 0 && leader != nil {
			e = leader
		}
		switch i % 3 {
		case 0:
			e.Kill()
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond)
			if err := e.Start(); err != nil {
				t.Fatal(err)
			}
		case 1:
			e.Pause()
			time.Sleep(time.Duration(rand.IntN(8000)) * time.Millisecond)
			e.Resume()
		case 2:
			es.Kill()
			for _, e := range es.All {
				if err := e.Start(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := es.Ready(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records were settled", len(settled))
	var got []string
	within(t, "read", func(ctx context.Context) error {
		more, err := collect(ctx, s, uint64(len(got)+1))
		got = append(got, more...)
		return err
	})
	if len(got) < len(settled) || len(got) > len(settled)+1 {
		t.Fatalf("got %d records, %d were settled", len(got), len(settled))
	}
	for i, record := range settled {
		if got[i] != record {
			t.Fatalf("record %d: got %.20q, want %.20q", i+1, got[i], record)
		}
	}
}

// TestTortureStreamHoles takes a block away from one replica, which then lacks records: a server
// that is connected to it reads all records nevertheless, and says what is wrong. TORTURE=1.
func TestTortureStreamHoles(t *testing.T) {
	if os.Getenv("TORTURE") == "" {
		t.Skip("TORTURE=1 runs it")
	}
	es := startEngines(t, 3)
	s := openEngines(t, es)
	var want []string
	for number := uint64(1); number <= 300; number++ {
		record := fmt.Appendf(nil, "%d %s", number, strings.Repeat("x", rand.IntN(200_000)))
		within(t, "settle", func(ctx context.Context) error { return s.settle(ctx, number, record) })
		want = append(want, string(record))
	}
	damaged := es.All[0]
	if damaged == es.Leader("TP0") {
		damaged = es.All[1]
	}
	if err := damaged.Stop(); err != nil {
		t.Fatal(err)
	}
	blocks := damaged.Blocks("TP0")
	if err := os.Remove(blocks[len(blocks)/2]); err != nil {
		t.Fatal(err)
	}
	if err := damaged.Start(); err != nil {
		t.Fatal(err)
	}
	if err := es.Ready(); err != nil {
		t.Fatal(err)
	}
	facts, err := damaged.Stream("TP0")
	t.Logf("%d blocks; %s has %d records of %d, %v", len(blocks), damaged.Name, facts.State.Messages,
		facts.State.LastSeq, err)
	said := ""
	for i := 0; i < 100 && said == ""; i++ { // the others answer more often
		var log bytes.Buffer
		settings := engineSettings(es)
		settings.servers = damaged.Listen + "," + settings.servers
		s, err := dialStream(settings, newLogger(&log, slog.LevelWarn))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		within(t, "read", func(ctx context.Context) error {
			more, err := collect(ctx, s, uint64(len(got)+1))
			got = append(got, more...)
			return err
		})
		s.close()
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("got %d records, want %d unchanged", len(got), len(want))
		}
		said = log.String()
	}
	if t.Log(said); !strings.Contains(said, "lost this record") {
		t.Errorf("nothing was said of what %s lacks", damaged.Name)
	}
}

// TestReplicateEngine puts a store into the stream of three real engines, a stream that it makes,
// and a server that follows from nothing gets it.
func TestReplicateEngine(t *testing.T) {
	t.Parallel()
	es := startEngines(t, 3)
	s, err := dialStream(engineSettings(es), newLogger(io.Discard, slog.LevelError))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	d := storeOf(50_000, 100, true)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m := &replication{log: quiet, most: replicateMost, peers: goneAfter, shown: func(*progress) {}, stream: s}
	if err := m.run(ctx, d, smallOptions()); err != nil {
		t.Fatal(err)
	}
	var records [][]byte
	if err := s.read(ctx, 1, func(_ uint64, record []byte) error {
		records = append(records, append([]byte{}, record...))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got, rows := followed(t, records)
	if want := stateOf(t, d); !reflect.DeepEqual(got, want) || string(rows) != string(d.read(testPath)) {
		t.Errorf("got %d records, %+v, want %+v", len(records), got.tenancy, want.tenancy)
	}
}
