package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"text/tabwriter"

	"tp0/tools/proc"
)

const mebi = 1 << 20

// A metric is a row of the table.
type metric struct {
	name, unit   string
	digits       int     // behind the point
	goal, beyond float64 // 0: there is none
	lower        bool    // less is better
	worst        bool    // the worst round counts, not the median: for limits that must never be passed
}

// atMost returns the metric with a goal, and one beyond it, of which less is better.
func (m metric) atMost(goal, beyond float64) metric {
	m.goal, m.beyond, m.lower = goal, beyond, true
	return m
}

// The metrics that do not depend on a window.
var (
	limitRate       = metric{name: "L: 512 KiB a sync", unit: "M bets/s", digits: 2}
	limitBytes      = metric{name: "L: in bytes", unit: "MB/s", digits: 0}
	twiceOfLimit    = metric{name: "L: of it, if each row goes to a log too", digits: 2}
	smallRate       = metric{name: "8 KiB a sync", unit: "M bets/s", digits: 3}
	smallSpread     = metric{name: "8 KiB a sync: p99 / p50", digits: 2} // what answer times cannot be better than
	answerP50       = metric{name: "answer time, window 1: p50", unit: "ms", digits: 2}
	answerP99       = metric{name: "answer time, window 1: p99", unit: "ms", digits: 2}
	answerSpread    = metric{name: "answer time, window 1: p99 / p50", digits: 2}.atMost(3, 2)
	realTime        = metric{name: "the course's data, start to exit", unit: "s", digits: 3}.atMost(0.15, 0.05)
	idleRSS         = metric{name: "idle server: memory", unit: "MiB", digits: 1, worst: true}.atMost(6, 4)
	idleConnection  = metric{name: "1,000 idle connections: each", unit: "KiB", digits: 1}.atMost(16, 8)
	startTime       = metric{name: "start with an empty store", unit: "ms", digits: 1}
	recoveryTime    = metric{name: "recovery: start to listen", unit: "ms", digits: 1}
	recoveredLog    = metric{name: "recovery: log replayed", unit: "MB", digits: 1}
	recoveryRate    = metric{name: "recovery: log by that time", unit: "MB/s", digits: 0, goal: 200}
	recoveryOfLimit = metric{name: "recovery: of L in bytes (disk speed)", digits: 2, beyond: 1}
	binarySize      = metric{name: "binary, stripped", unit: "MiB", digits: 2}.atMost(4, 3)
	moreBets        = metric{name: "ten times the bets: rate against usual", digits: 2, goal: 0.9}
	moreClients     = metric{name: "ten times the clients as well: rate against that", digits: 2, goal: 1}
	growthServerRSS = metric{name: "grown: server memory", unit: "MiB", digits: 1, worst: true}.atMost(16, 10)
	growthClientRSS = metric{name: "grown: client memory", unit: "MiB", digits: 1, worst: true}.atMost(12, 8)
)

// A table gathers the figures of all rounds. Its rows are in the order in which they got their
// first figure.
type table struct {
	metrics []metric
	figures map[metric][]float64
}

func newTable() *table { return &table{figures: map[metric][]float64{}} }

// add adds a figure.
func (t *table) add(m metric, figure float64) {
	if t.figures[m] == nil {
		t.metrics = append(t.metrics, m)
	}
	t.figures[m] = append(t.figures[m], figure)
}

// median returns the median of what a metric has so far.
func (t *table) median(m metric) float64 { return median(t.figures[m]) }

// addLoad adds the figures of a load whose round had the limit L, in bets a second.
func (t *table) addLoad(window int, l load, limit float64) {
	row := func(name, unit string, digits int, goal, beyond float64, lower bool) metric {
		name = fmt.Sprintf("window %d: %s", window, name)
		return metric{name: name, unit: unit, digits: digits, goal: goal, beyond: beyond, lower: lower}
	}
	ratio, ratioBeyond := windowGoal(window)
	t.add(row("rate", "M bets/s", 2, 0, 0, false), l.rate/1e6)
	t.add(row("rate of L", "", 3, ratio, ratioBeyond, false), l.rate/limit)
	cpu, cpuBeyond := 0.15, 0.10
	if window == 1 { // the goals are for pipelined clients
		cpu, cpuBeyond = 0, 0
	}
	t.add(row("batches a sync", "", 1, 0, 0, false), l.batches)
	t.add(row("server CPU", "µs/bet", 3, cpu, cpuBeyond, true), l.serverCPU)
	t.add(row("client CPU", "µs/bet", 3, cpu, cpuBeyond, true), l.clientCPU)
	// Fewer than there are: it waited for the disk, or others had them.
	t.add(row("processors busy with it", "", 2, 0, 0, false), l.busy)
	for _, m := range []struct {
		name         string
		goal, beyond float64
		rss          float64
	}{{"server peak memory", 16, 10, l.serverRSS}, {"client peak memory", 12, 8, l.clientRSS}} {
		if m.rss > 0 {
			peak := row(m.name, "MiB", 1, m.goal, m.beyond, true)
			peak.worst = true
			t.add(peak, m.rss/mebi)
		}
	}
}

// windowGoal returns which part of L is the goal at a window.
func windowGoal(window int) (goal, beyond float64) {
	switch window {
	case 1:
		return 0.08, 0.11
	case 8:
		return 0.25, 0.40
	case 32, 64:
		return 0.40, 0.65
	}
	return 0, 0
}

// median returns the middle of the figures.
func median(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// verdict says how the figures stand to the goals: met, beyond or missed; nothing where there is
// no goal.
func (m metric) verdict(figures []float64) string {
	counts := median(figures)
	if m.worst && m.lower {
		counts = slices.Max(figures)
	} else if m.worst {
		counts = slices.Min(figures)
	}
	reached := func(goal float64) bool {
		return goal != 0 && (m.lower && counts <= goal || !m.lower && counts >= goal)
	}
	switch {
	case m.goal == 0 && m.beyond == 0:
		return ""
	case reached(m.beyond):
		return "beyond"
	case m.goal == 0 || reached(m.goal):
		return "met"
	}
	return "missed"
}

// title says what was measured where.
func (b *bench) title() string {
	return fmt.Sprintf("%d bets (%.1f MB) of %d clients, medians of %d rounds; %s/%s, %d processors, %s",
		b.data.bets, float64(b.data.want.bytes)/1e6, len(b.data.files), b.rounds,
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
}

// print prints the table.
func (t *table) print(out io.Writer, title string) {
	fmt.Fprintf(out, "%s\n\n", title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tmedian\tmin–max\tunit\tgoal\tbeyond\tverdict")
	for _, m := range t.metrics {
		figures := t.figures[m]
		text := func(v float64) string { return strconv.FormatFloat(v, 'f', m.digits, 64) }
		bound := func(v float64) string {
			if v == 0 {
				return "-"
			}
			return strconv.FormatFloat(v, 'f', -1, 64)
		}
		spread := text(slices.Min(figures)) + "–" + text(slices.Max(figures))
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.name, text(median(figures)), spread, m.unit,
			bound(m.goal), bound(m.beyond), m.verdict(figures))
	}
	w.Flush()
	fmt.Fprintln(out, "\nevery bets.csv was complete: all rows, each agency's in its file's order")
	if _, known := proc.Memory(os.Getpid(), "VmRSS"); !known {
		fmt.Fprintln(out, "not measured: idle memory, which needs /proc")
	}
	fmt.Fprintln(out, "the reader against encoding/csv, and allocations a bet: Go's benchmarks,",
		"go test -run '^$' -bench . -benchmem .")
}
