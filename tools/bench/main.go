// Bench measures tp0 against the disk it runs on: five client processes and one server process,
// durable answers, the log at INFO into files.
//
//	go run ./tools/bench
//
// It builds the program, makes agency files with -mode=sample, and then goes round after round
// through all it measures, so that what else the machine does meets each of them alike. The limit
// L, the same rows appended in 512 KiB writes with a sync after each, is measured before every
// load, and each load is divided by the median L of its round. Where redis-server is installed it
// gets the same rows beside each load (redis.go). Files are made in ./run/bench, on
// the disk of this checkout, and removed at the end.
//
// Settings, from the environment:
//
//	ROWS     bets of all clients together (2000000)
//	CLIENTS  client processes (5)
//	ROUNDS   rounds: figures are their medians (5)
//	WINDOWS  batch.window of each load (1,8,32,64)
//	DATASET  the course's data, a zip of agency-N.csv (../shared/data/dataset.zip; left out where it is not)
//	GROWTH   1: also ten times ROWS, and those of ten times CLIENTS
//	STREAM   1: a server whose log is in a stream too, and nothing else (stream.go)
//	PROGRAM  a tp0 that is built already, to compare two of them
//
// The exit status is 0 if everything could be measured and every bets.csv was complete, whatever
// the verdicts: they are for a reader.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Settings are what the environment says.
type settings struct {
	rows, clients, rounds int
	windows               []int
	dataset               string
	growth, streams       bool
	program               string // empty: build it
}

// A bench is one run of the tool.
type bench struct {
	settings
	dir    string // of all files; on the disk that is measured
	config string // an empty config file, so that ./config.yaml does not count
	data   *dataset
	real   *dataset // nil: there is no data set of the course
	table  *table
	serial int    // of the last store's folder
	keys   string // the folder of keys; empty: the program has none
	keyed  bool   // what is measured now has keys
	redis  string // the program to compare with; empty: there is none
	// beside starts what is to go on beside a load at the server's address; nil: nothing.
	beside func(address string) (stop func())
	// stream is what a server is told of the engines; nil: it has no stream. streamed: it was made.
	stream   []string
	streamed bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("interrupted; all processes were stopped")
		}
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// run measures everything and prints the table.
func run(ctx context.Context) error {
	s, err := readSettings(os.Getenv)
	if err != nil {
		return err
	}
	b := &bench{settings: s, dir: filepath.Join("run", "bench"), table: newTable(), redis: findRedis()}
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.config = filepath.Join(b.dir, "config.yaml")
	if err := os.WriteFile(b.config, nil, 0o644); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	b.table.print(os.Stdout, b.title())
	return nil
}

// readSettings reads the settings that getenv gives.
func readSettings(getenv func(string) string) (settings, error) {
	s := settings{dataset: "../shared/data/dataset.zip", program: getenv("PROGRAM"), growth: getenv("GROWTH") == "1",
		streams: getenv("STREAM") == "1"}
	if path := getenv("DATASET"); path != "" {
		s.dataset = path
	}
	var err error
	for _, n := range []struct {
		name string
		to   *int
		def  int
		most int
	}{{"ROWS", &s.rows, 2_000_000, 1 << 30}, {"CLIENTS", &s.clients, 5, maxAgencies}, {"ROUNDS", &s.rounds, 5, 1000}} {
		if *n.to, err = number(n.name, getenv(n.name), n.def, n.most); err != nil {
			return s, err
		}
	}
	windows := getenv("WINDOWS")
	if windows == "" {
		windows = "1,8,32,64"
	}
	for text := range strings.SplitSeq(windows, ",") {
		w, err := number("WINDOWS", text, 0, 1000)
		if err != nil {
			return s, err
		}
		s.windows = append(s.windows, w)
	}
	return s, nil
}

// number reads a number from 1 to most; def stands for an empty text.
func number(name, text string, def, most int) (int, error) {
	if text == "" && def > 0 {
		return def, nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s: got %q, takes 1 to %d", name, text, most)
	}
	return n, nil
}

// prepare builds the program and makes the data.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.program == "" {
		b.program = filepath.Join(b.dir, "tp0")
		// As the Makefile builds it; the version is left out, since it makes no difference to
		// speed.
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o",
			b.program, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building the program: %w", err)
		}
	}
	info, err := os.Stat(b.program)
	if err != nil {
		return err
	}
	b.table.add(binarySize, float64(info.Size())/mebi)
	if b.data, err = b.makeSamples(ctx, "data", b.rows, b.clients); err != nil {
		return err
	}
	if b.real, err = b.unpack(); err != nil {
		return err
	}
	return b.makeKeys(ctx)
}

// measure goes through all measurements, round after round.
func (b *bench) measure(ctx context.Context) error {
	for round := range b.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, b.rounds)
		steps := []func(context.Context) error{b.round, b.realLoad, b.answerTimes, b.idle, b.greetings, b.crowded, b.recovery}
		if b.streams {
			steps = []func(context.Context) error{b.streamRound}
		} else if b.growth {
			steps = append(steps, b.growthLoads)
		}
		for _, step := range steps {
			if err := step(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
