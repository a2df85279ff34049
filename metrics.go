//go:build !nohttp && !notls

package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The metrics, in the text format of Prometheus, version 0.0.4.

// metricsType is the format's content type, to the letter.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// A metricsText is written family by family: a head, then the samples.
type metricsText struct {
	out  []byte
	name string // of the family
}

// family begins a family: of a counter if it is a total, otherwise of a gauge.
func (m *metricsText) family(name, help string) {
	if strings.HasSuffix(name, "_total") {
		m.head(name, "counter", help)
	} else {
		m.head(name, "gauge", help)
	}
}

// head writes the head of a family.
func (m *metricsText) head(name, kind, help string) {
	m.name = name
	m.out = fmt.Appendf(m.out, "# HELP %s %s\n# TYPE %s %s\n", name, escapeHelp.Replace(help), name, kind)
}

// escapeHelp and escapeLabel write what would end a text or a label's value.
var (
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// sample writes a sample; labels are names and values by turns.
func (m *metricsText) sample(value float64, labels ...string) { m.part("", value, labels...) }

// part writes a sample whose name is the family's with a suffix.
func (m *metricsText) part(suffix string, value float64, labels ...string) {
	m.out = append(append(m.out, m.name...), suffix...)
	for i := 0; i < len(labels); i += 2 {
		m.out = fmt.Appendf(m.out, `%c%s="%s"`, "{,"[min(i, 1)], labels[i], escapeLabel.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		m.out = append(m.out, '}')
	}
	m.out = fmt.Appendf(m.out, " %s\n", strconv.FormatFloat(value, 'g', -1, 64)) // infinity is +Inf
}

// single writes a family of one sample.
func (m *metricsText) single(name, help string, value float64) {
	m.family(name, help)
	m.sample(value)
}

// byLabel writes a family with a sample for each value of a label.
func (m *metricsText) byLabel(name, help, label string, values map[string]uint64) {
	m.family(name, help)
	for _, value := range slices.Sorted(maps.Keys(values)) {
		m.sample(float64(values[value]), label, value)
	}
}

// histogram writes a histogram; its count is that of its last bucket.
func (m *metricsText) histogram(name, help string, h *histogram) {
	m.head(name, "histogram", help)
	var all uint64
	for i := range h.buckets {
		bound := math.Inf(1)
		if i < len(bucketBounds) {
			bound = bucketBounds[i]
		}
		all += h.buckets[i].Load()
		m.part("_bucket", float64(all), "le", strconv.FormatFloat(bound, 'g', -1, 64))
	}
	m.part("_sum", time.Duration(h.sum.Load()).Seconds())
	m.part("_count", float64(all))
}

// appendMetrics appends all metrics.
func appendMetrics(dst []byte, r *report, c *counts) []byte {
	m := &metricsText{out: dst}
	m.family("tp0_build_info", "Always 1; the labels say what was built with what.")
	m.sample(1, "version", r.Program.Version, "goversion", runtime.Version())
	m.process(r.Program.Started)
	m.intake(r, c)
	m.disk(r, c)
	m.connections(r)
	m.agencies(r)
	m.stream(r.Store.Stream)
	return m.out
}

// intake writes the metrics of bets, batches and whether they are taken.
func (m *metricsText) intake(r *report, c *counts) {
	m.single("tp0_available", "1 while bets are taken, 0 while not.", truth(r.Taking))
	m.single("tp0_recovery_duration_seconds", "What the recovery of the store took at the start.", r.Program.Recovery)
	m.family("tp0_bets_stored_total", "Bets stored since the start, by agency; 0: batches with bets of several "+
		"agencies.")
	for agency := range c.agencies {
		if n := c.agencies[agency].stored.Load(); n > 0 {
			m.sample(float64(n), "agency", strconv.Itoa(agency))
		}
	}
	m.family("tp0_bets_refused_total", "Bets refused since the start, by agency and reason.")
	for agency := range c.agencies {
		for why := range c.agencies[agency].refused {
			if n := c.agencies[agency].refused[why].Load(); n > 0 {
				m.sample(float64(n), "agency", strconv.Itoa(agency), "reason", refusal(why).reason())
			}
		}
	}
	m.family("tp0_batches_total", "Messages with bets since the start, by what became of them.")
	for _, answer := range []ackCode{ackStored, ackRefused, ackUnavailable} {
		m.sample(float64(c.batches[answer].Load()), "result", batchResults[answer])
	}
	m.histogram("tp0_commit_duration_seconds", "What it took to make a group of batches durable.", r.Store.commits)
}

// disk writes the metrics of the store and its disk.
func (m *metricsText) disk(r *report, c *counts) {
	m.single("tp0_disk_written_bytes_total", "Bytes written to the store since the start.", float64(c.written.Load()))
	m.single("tp0_disk_syncs_total", "Syncs of files of the store since the start.", float64(c.syncs.Load()))
	m.single("tp0_store_bets", "Bets in the store.", float64(r.Store.Bets))
	m.single("tp0_store_bytes", "Size of the bets file.", float64(r.Store.Bytes))
	m.family("tp0_store_sources", "Sources that the store remembers, by agency.")
	for _, a := range r.Agencies {
		m.sample(float64(a.Files), "agency", strconv.Itoa(int(a.Agency)))
	}
	m.single("tp0_store_sources_limit", "Sources that the store remembers of one agency at most.", sourceShare)
	m.single("tp0_log_segments", "Segments of the redo log that wait for a checkpoint.", float64(r.Store.Segments))
	m.single("tp0_log_segments_limit", "Segments that the redo log has at most.", walSlots)
	if r.Disk.Known {
		m.single("tp0_disk_free_bytes", "Bytes that are free on the store's disk.", float64(r.Disk.Free))
	}
}

// connections writes the metrics of connections.
func (m *metricsText) connections(r *report) {
	m.single("tp0_connections", "Connections of clients now.", float64(r.Connections.Open))
	m.single("tp0_connections_most", "Connections at once, at most since the start.", float64(r.Connections.Most))
	m.single("tp0_connections_limit", "Connections of clients at once that are taken.", float64(r.Connections.Limit))
	m.byLabel("tp0_connections_closed_total", "Connections that have ended since the start, by reason.",
		"reason", r.Connections.Ended)
	if r.Program.Handshakes != nil {
		m.byLabel("tp0_handshakes_total", "TLS handshakes since the start, by result.", "result", r.Program.Handshakes)
	}
}

// agencies writes the metrics of agencies and of the draw.
func (m *metricsText) agencies(r *report) {
	expected := 0
	m.family("tp0_agency_connected", "1 while a connection of the agency is open, 0 while not.")
	for _, a := range r.Agencies {
		m.sample(truth(a.Connected > 0), "agency", strconv.Itoa(int(a.Agency)))
		if a.Expected {
			expected++
		}
	}
	m.family("tp0_agency_line_down", "1 while an agency is gone that was here and has not finished, 0 otherwise.")
	for _, a := range r.Agencies {
		m.sample(truth(a.State == agencyDown), "agency", strconv.Itoa(int(a.Agency)))
	}
	m.family("tp0_agency_last_bet_timestamp_seconds", "When a bet of the agency was last stored, in seconds "+
		"since 1970.")
	for _, a := range r.Agencies {
		if !a.Last.IsZero() {
			m.sample(float64(a.Last.UnixMilli())/1000, "agency", strconv.Itoa(int(a.Agency)))
		}
	}
	m.single("tp0_agencies_finished", "Agencies that have said that they have sent all.", float64(r.Draw.Finished))
	m.single("tp0_agencies_expected", "Agencies that are expected.", float64(expected))
	m.single("tp0_draw_done", "1 once the draw has taken place.", truth(r.Draw.Done))
}

// stream writes the metrics of a log that servers share; nothing where there is none.
func (m *metricsText) stream(s *streamFigures) {
	if s == nil {
		return
	}
	m.single("tp0_stream_holding", "1 while this server holds the term, 0 while not.", truth(s.Mine))
	m.single("tp0_stream_standby", "1 while this server stands by: it could take bets, and another one does or none "+
		"is asked.", truth(s.Standby))
	m.single("tp0_stream_term", "Number of the term.", float64(s.Term))
	m.single("tp0_stream_quorum", "1 while the engine takes records, as far as this server has seen, 0 while not.",
		truth(s.Quorum))
	m.single("tp0_stream_record", "Number of the last record that this server has.", float64(s.Sequence))
	m.single("tp0_stream_lag_records", "Records that others have and this server has not.", float64(s.Lag))
	m.single("tp0_stream_servers_seen", "Other servers that were heard in the last minute.", float64(len(s.Fellows)))
	m.single("tp0_stream_conflicts_total", "Records of this server that another's overtook, since the start.",
		float64(s.Conflicts))
	m.single("tp0_stream_engine_connected", "1 while there is a connection to a server of the engine, 0 while not.",
		truth(s.Engine.Server != ""))
	m.single("tp0_stream_engine_connects_total", "Connections to servers of the engine since the start.",
		float64(s.Engine.Connects))
	m.histogram("tp0_stream_publish_duration_seconds", "From the sending of a record to the engine's answer that it "+
		"is stored.", s.Engine.took)
	m.replicas(s)
}

// replicas writes the metrics of the engine's replicas.
func (m *metricsText) replicas(s *streamFigures) {
	m.single("tp0_stream_replicas_checked", "1 while the engine's servers say what their replicas have, 0 while not.",
		truth(s.Unchecked == "" && len(s.Replicas) > 0))
	each := func(name, help string, value func(r *replicaFigures) float64) {
		m.family(name, help)
		for i := range s.Replicas {
			if r := &s.Replicas[i]; r.Replica {
				m.sample(value(r), "replica", r.Server)
			}
		}
	}
	each("tp0_stream_replica_messages", "Records in a replica, by the engine's server.",
		func(r *replicaFigures) float64 { return float64(r.Records) })
	each("tp0_stream_replica_missing", "Records that a replica lacks up to its last, by the engine's server.",
		func(r *replicaFigures) float64 { return float64(r.Missing) })
	each("tp0_stream_replica_last_record", "Number of the last record in a replica, by the engine's server.",
		func(r *replicaFigures) float64 { return float64(r.Last) })
	each("tp0_stream_replica_leads", "1 for the replica that leads, 0 for others, by the engine's server.",
		func(r *replicaFigures) float64 { return truth(r.Leads) })
	m.family("tp0_stream_replica_fault", "1 for each thing that the engine does not keep, by its server and "+
		"what it is.")
	for _, f := range s.Faults {
		m.sample(1, "replica", f.Server, "reason", string(f.Kind))
	}
}

// truth is 1 for true.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// process writes the metrics that every process has, as far as this system shows them in /proc.
func (m *metricsText) process(started time.Time) {
	m.single("process_start_time_seconds", "Start time, in seconds since 1970.", float64(started.UnixMilli())/1000)
	m.single("process_max_fds", "Open file descriptors at most.", float64(fileLimit()))
	if open, _ := os.ReadDir("/proc/self/fd"); len(open) > 0 {
		m.single("process_open_fds", "Open file descriptors.", float64(len(open)))
	}
	stat, _ := os.ReadFile("/proc/self/stat")
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the one that proc(5) counts as 3
	if len(fields) < 22 {
		return
	}
	number := func(i int) float64 {
		value, _ := strconv.ParseFloat(fields[i-3], 64)
		return value
	}
	const ticks = 100 // a second, on every Linux that Go knows
	m.single("process_cpu_seconds_total", "Processor time, user and system.", (number(14)+number(15))/ticks)
	m.single("process_virtual_memory_bytes", "Virtual memory.", number(23))
	m.single("process_resident_memory_bytes", "Resident memory.", number(24)*float64(os.Getpagesize()))
}
