package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// sharedStore makes a store with some batches in a shared log, killed with the last of them in the
// log alone.
func sharedStore(t *testing.T) (*simDisk, *fakeStream, *oracle) {
	t.Helper()
	d, stream, o := newSimDisk(), newFakeStream(t), newOracle(2)
	s := openTest(t, d, sharedOptions(stream.link()))
	awaitTaking(t, s)
	w := &workload{s: s, o: o}
	if err := w.run(newRNG(1), 20); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	after := d.kill()
	d.mu.Unlock()
	d.powerOff()
	s.close()
	return after, stream, o
}

// TestJoinRefuses has stores and streams that are not of each other, or not what they were: each
// start says in one line what is wrong and what to do, and changes no row.
func TestJoinRefuses(t *testing.T) {
	rows := []struct {
		name   string
		change func(d *simDisk, s *fakeStream)
		alone  bool // started without the stream
		want   string
	}{
		{"nothing", func(*simDisk, *fakeStream) {}, false, ""},
		{"the stream is another store's", func(_ *simDisk, s *fakeStream) { s.id[3]++ },
			false, "the stream is of another store"},
		{"the stream was made anew", func(_ *simDisk, s *fakeStream) { s.records = nil },
			false, "it ends with record 0, and bets.csv has records up to"},
		{"the stream lost records", func(_ *simDisk, s *fakeStream) { s.records = s.records[:len(s.records)-3] },
			false, "the stream has lost records"},
		{"a record was changed", func(_ *simDisk, s *fakeStream) {
			for i := range s.records {
				s.records[i] = append(slices.Clone(s.records[i]), 1)
			}
		}, false, "is not the one that bets.csv has"},
		{"stream.servers is empty", func(*simDisk, *fakeStream) {},
			true, "is in a stream that servers share, and stream.servers is empty"},
		{"the store was never in it", func(d *simDisk, _ *fakeStream) {
			small, _ := smallStore(t)
			d.dir = small.dir
		}, false, "is not in the stream"},
		{"a bets file without a store", func(d *simDisk, _ *fakeStream) {
			data := d.read(testPath)
			d.dir = map[string]*simInode{}
			d.put(testPath, data)
		}, false, "is not in the stream"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d, stream, o := sharedStore(t)
			row.change(d, stream)
			before, options := d.read(testPath), sharedOptions(stream.link())
			if row.alone {
				options.shared = nil
			}
			s, err := openStore(context.Background(), d, options, quiet)
			if row.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				awaitTaking(t, s)
				if err := o.verify(s, d.read(testPath)); err != nil {
					t.Error(err)
				}
				s.close()
				return
			}
			if err == nil {
				s.close()
				t.Fatalf("got a start, want %q", row.want)
			}
			if text := err.Error(); !strings.Contains(text, row.want) || strings.Contains(text, "\n") {
				t.Errorf("got %q, want %q", text, row.want)
			}
			if !bytes.Equal(d.read(testPath), before) && row.name != "stream.servers is empty" {
				t.Error("a start that refuses has changed the bets file")
			}
		})
	}
}

// TestJoinWaits starts a server whose engine is away: it waits, says so once, and obeys a signal.
func TestJoinWaits(t *testing.T) {
	t.Parallel()
	d, stream, _ := sharedStore(t)
	k := stream.link()
	k.cut = true
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	said := &saidOnce{stop: stop}
	if _, err := openStore(ctx, d, sharedOptions(k), newLogger(said, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped while it waits: got %v, want %v", err, context.Canceled)
	}
	if n := strings.Count(said.String(), "the start waits for them"); n != 1 {
		t.Errorf("got %d lines about it, want 1:\n%s", n, said.String())
	}
}

// A saidOnce is a log that calls stop once it has a line.
type saidOnce struct {
	bytes.Buffer
	stop func()
}

func (s *saidOnce) Write(p []byte) (int, error) {
	s.stop()
	return s.Buffer.Write(p)
}

// TestDamageWhileFollowing puts records by hand into the stream behind a server's back: it stops
// and names the record.
func TestDamageWhileFollowing(t *testing.T) {
	rows := []struct {
		name   string
		change func(s *fakeStream)
		want   string
	}{
		{"another store's record", func(s *fakeStream) {
			id := s.id
			s.id[0]++
			record := s.stranger(false)
			s.id = id
			s.records = append(s.records, record)
		}, "of another store"},
		{"no record at all", func(s *fakeStream) { s.records = append(s.records, []byte("hello")) }, "not in the form"},
		{"a record twice", func(s *fakeStream) { s.records = append(s.records, s.records[len(s.records)-1]) },
			"does not follow on the record before"},
		{"records removed", func(s *fakeStream) { s.records = s.records[:2] }, "the stream has lost records"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d, stream, _ := sharedStore(t)
			var log bytes.Buffer
			s, err := openStore(context.Background(), d, sharedOptions(stream.link()), newLogger(&log, 0))
			if err != nil {
				t.Fatal(err)
			}
			awaitSame(t, stream, s)
			stream.change(func() { row.change(stream) })
			for done := false; !done; time.Sleep(time.Millisecond) {
				s.available() // so that it would claim the term
				select {
				case <-s.dead:
					done = true
				default:
				}
			}
			s.close()
			if !strings.Contains(log.String(), row.want) {
				t.Errorf("got %s, want %q", log.String(), row.want)
			}
		})
	}
}
