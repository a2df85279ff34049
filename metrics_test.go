//go:build !nohttp && !notls

package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A metricFamily is a family as it was read.
type metricFamily struct {
	kind    string
	samples map[string]float64 // by what stands before the value
	order   []string
}

// The grammar of the text format: https://prometheus.io/docs/instrumenting/exposition_formats.
var (
	metricHelp   = regexp.MustCompile(`^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\\n]|\\\\|\\n)+)$`)
	metricKind   = regexp.MustCompile(`^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)$`)
	metricSample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})? (\S+)$`)
	metricLabel  = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)`)
)

// parseMetrics reads metrics by the grammar. A family is a HELP, a TYPE and all its samples,
// together and once.
func parseMetrics(text string) (map[string]*metricFamily, error) {
	families := map[string]*metricFamily{}
	if !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("the last line has no end")
	}
	var now *metricFamily
	help, name := "", ""
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		fail := func(what string) error { return fmt.Errorf("line %d: %s: %q", i+1, what, line) }
		if m := metricHelp.FindStringSubmatch(line); m != nil {
			if families[m[1]] != nil {
				return nil, fail("a second family of this name")
			}
			help = m[1]
			continue
		}
		if m := metricKind.FindStringSubmatch(line); m != nil {
			if m[1] != help {
				return nil, fail("a TYPE without its HELP before it")
			}
			name, now = m[1], &metricFamily{kind: m[2], samples: map[string]float64{}}
			families[name] = now
			continue
		}
		m := metricSample.FindStringSubmatch(line)
		if m == nil || now == nil {
			return nil, fail("is no line of the format")
		}
		suffix, own := strings.CutPrefix(m[1], name)
		switch {
		case !own, suffix != "" && now.kind != "histogram", suffix == "" && now.kind == "histogram":
			return nil, fail("is not of family " + name)
		}
		for labels := strings.Trim(m[2], "{}"); labels != ""; {
			l := metricLabel.FindStringSubmatch(labels)
			if l == nil {
				return nil, fail("has labels that are not of the format")
			}
			labels = labels[len(l[0]):]
			if !slices.Contains([]string{"agency", "reason", "result", "le", "replica", "version", "goversion"}, l[1]) {
				return nil, fail("has a label that is not bounded")
			}
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, fail("has no value")
		}
		if _, twice := now.samples[m[1]+m[2]]; twice {
			return nil, fail("is there twice")
		}
		now.samples[m[1]+m[2]] = value
		now.order = append(now.order, m[1]+m[2])
	}
	return families, nil
}

// checkHistogram wants buckets that only grow, end with +Inf, and agree with the count.
func checkHistogram(t *testing.T, name string, f *metricFamily) {
	t.Helper()
	before, bound, last := -1.0, math.Inf(-1), ""
	for _, sample := range f.order {
		le, bucket := strings.CutPrefix(sample, name+`_bucket{le="`)
		if !bucket {
			continue
		}
		le = strings.TrimSuffix(le, `"}`)
		at, err := strconv.ParseFloat(le, 64)
		if err != nil || at <= bound || f.samples[sample] < before {
			t.Errorf("%s: got %g behind %g of the bucket before", sample, f.samples[sample], before)
		}
		before, bound, last = f.samples[sample], at, le
	}
	if last != "+Inf" || f.samples[name+"_count"] != before {
		t.Errorf("%s: got a last bucket %q of %g and a count of %g", name, last, before, f.samples[name+"_count"])
	}
	if _, found := f.samples[name+"_sum"]; !found {
		t.Errorf("%s has no sum", name)
	}
}

// TestMetrics reads the metrics of each scene by the format's grammar, and with promtool where
// there is one.
func TestMetrics(t *testing.T) {
	for _, scene := range scenes {
		f := newFakeOffice()
		at := f.serve(t)
		scene.play(f)
		code, text, head := get(t, "http://"+at+"/metrics")
		if got := head.Get("Content-Type"); code != 200 || got != "text/plain; version=0.0.4; charset=utf-8" {
			t.Errorf("%s: got %d, %q", scene.name, code, got)
		}
		families, err := parseMetrics(text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", scene.name, err, text)
		}
		for name, family := range families {
			if family.kind == "histogram" {
				checkHistogram(t, name, family)
			}
			if total := strings.HasSuffix(name, "_total"); total != (family.kind == "counter") {
				t.Errorf("%s is a %s", name, family.kind)
			}
		}
		promtool(t, text, "check", "metrics")
	}
}

// promtool runs promtool with text on its input, where there is one.
func promtool(t *testing.T, text string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("SKIPPED: promtool " + strings.Join(args, " ") + ": there is no promtool (Debian's package prometheus)")
		return
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("metric names")) {
		t.Errorf("promtool %v: %v: %s", args, err, out)
	}
}

// TestMetricsValues has what a scene must say.
func TestMetricsValues(t *testing.T) {
	f := newFakeOffice()
	at := f.serve(t)
	visits := f.evening()
	visits[3].end(endClient)
	f.counts.callers[4].Since = time.Now().Add(-time.Hour)
	f.counts.agencies[4].last.Store(time.Now().Add(-time.Hour).UnixNano())
	f.counts.written.Add(4096)
	f.counts.syncs.Add(2)
	_, text, _ := get(t, "http://"+at+"/metrics")
	families, err := parseMetrics(text)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		maps.Copy(all, family.samples)
	}
	stored := float64(f.counts.agencies[1].stored.Load())
	for sample, want := range map[string]float64{
		`tp0_available`: 1, `tp0_bets_stored_total{agency="1"}`: stored, `tp0_store_bets`: float64(f.fake.said.Bets),
		`tp0_bets_refused_total{agency="2",reason="number is over the highest that is valid"}`: 3,
		`tp0_batches_total{result="refused"}`:                                                  1,
		`tp0_batches_total{result="unavailable"}`:                                              0,
		`tp0_commit_duration_seconds_count`:                                                    420,
		`tp0_disk_written_bytes_total`:                                                         4096,
		`tp0_disk_syncs_total`:                                                                 2,
		`tp0_connections`:                                                                      4,
		`tp0_connections_most`:                                                                 5,
		`tp0_connections_limit`:                                                                1024,
		`tp0_connections_closed_total{reason="client"}`:                                        1,
		`tp0_agency_connected{agency="4"}`:                                                     0,
		`tp0_agency_line_down{agency="4"}`:                                                     1,
		`tp0_agency_line_down{agency="5"}`:                                                     0,
		`tp0_agencies_expected`:                                                                5,
		`tp0_agencies_finished`:                                                                0,
		`tp0_draw_done`:                                                                        0,
		`tp0_recovery_duration_seconds`:                                                        0.012,
		`tp0_store_sources{agency="3"}`:                                                        1,
		`tp0_store_sources_limit`:                                                              sourceShare,
		`tp0_log_segments_limit`:                                                               walSlots,
	} {
		if got, found := all[sample]; !found || got != want {
			t.Errorf("%s: got %g (%t), want %g", sample, got, found, want)
		}
	}
}

// TestMetricsEscapes has labels and helps with all that must be escaped.
func TestMetricsEscapes(t *testing.T) {
	m := &metricsText{}
	m.family("x", "a\\b\nc\"d")
	m.sample(math.Inf(1), "reason", "a\\b\nc\"d,e=\"}")
	want := "# HELP x a\\\\b\\nc\"d\n# TYPE x gauge\nx{reason=\"a\\\\b\\nc\\\"d,e=\\\"}\"} +Inf\n"
	if string(m.out) != want {
		t.Errorf("got %q, want %q", m.out, want)
	}
	if _, err := parseMetrics(string(m.out)); err != nil {
		t.Error(err)
	}
}

// TestRules has promtool check the alerts, and play the cases of testdata/rules_test.yaml.
func TestRules(t *testing.T) {
	promtool(t, "", "check", "rules", "deploy/prometheus-rules.yaml")
	promtool(t, "", "test", "rules", "testdata/rules_test.yaml")
}

// TestHistogram has quantiles of what was observed.
func TestHistogram(t *testing.T) {
	var h histogram
	if got := h.quantile(0.99); got != 0 {
		t.Errorf("of nothing: got %g", got)
	}
	for range 98 {
		h.observe(800 * time.Microsecond)
	}
	h.observe(40 * time.Millisecond)
	h.observe(time.Minute)
	for _, tt := range []struct{ part, low, high float64 }{{0.5, 0.0005, 0.001}, {0.99, 0.025, 0.05}, {1, 10, 10}} {
		if got := h.quantile(tt.part); got < tt.low || got > tt.high {
			t.Errorf("quantile %g: got %g, want %g to %g", tt.part, got, tt.low, tt.high)
		}
	}
}
