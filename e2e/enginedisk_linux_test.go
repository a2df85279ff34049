package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"tp0/tools/proc"
	"tp0/tools/torture"
)

// smallDiskEngines starts three engines, each with its records on an ext4 of its own, so that the
// disk of whichever leads, or does not, can be filled.
func smallDiskEngines(t *testing.T) *proc.Engines {
	t.Helper()
	if _, err := proc.NATSServer(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	dir := t.TempDir()
	for i := range 3 {
		store := filepath.Join(dir, fmt.Sprintf("engine-%d", i+1), "store")
		if err := os.MkdirAll(store, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := mountKind("ext4", store, filepath.Join(dir, fmt.Sprintf("image-%d", i+1)), 64<<20); err != nil {
			t.Skipf("SKIPPED: no small ext4 can be made and mounted (that takes root, loop devices and mkfs.ext4): %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(store, 0); err != nil {
				t.Errorf("unmounting %s: %v", store, err)
			}
		})
	}
	es, err := proc.StartEngines(dir, 3, proc.WithOperator)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(es.Kill)
	for _, e := range es.All { // what is filled must be small
		if _, err := os.Stat(filepath.Join(e.Store(), "lost+found")); err != nil {
			t.Fatalf("%s does not keep its records on the disk that was made for it: %v", e.Name, err)
		}
	}
	return es
}

// whileSending is until, with bets that are sent and compared all the time.
func (h *history) whileSending(what string, is func() bool) time.Duration {
	h.t.Helper()
	began := time.Now()
	h.until(what, func() bool { h.look(); h.goOn(); return is() })
	return time.Since(began).Round(10 * time.Millisecond)
}

// everyOffice waits until all offices have a line with parts in their logs.
func (h *history) everyOffice(parts ...string) time.Duration {
	h.t.Helper()
	return h.whileSending(fmt.Sprintf("%q in the log of each office", parts), func() bool {
		return !slices.ContainsFunc(h.offices, func(o *office) bool { return len(o.lines(parts...)) == 0 })
	})
}

// engineDiskFull fills the disk of an engine, of the one that leads or of another one. Bets are
// taken without it, by themselves; the offices name it. It has switched its records off, and stays
// so with room again until it is restarted; then it has what it missed.
func engineDiskFull(t *testing.T, seed uint64, leads bool) {
	es := smallDiskEngines(t)
	h := newHistory(t, es, seed)
	grown := func(n int) func() bool { n += len(h.longest); return func() bool { return len(h.longest) >= n } }
	h.whileSending("some bets", grown(2000))
	e := h.leader()
	if !leads {
		e = es.All[slices.IndexFunc(es.All, func(other *proc.Engine) bool { return other != e })]
	}
	off := func() bool {
		var facts struct{ Disabled bool }
		return e.Query("/jsz", &facts) == nil && facts.Disabled
	}
	disk := smallDisk{&office{dir: e.Store()}, t}
	disk.fill()
	noticed := h.whileSending(e.Name+" to have no room", off)
	goneOn := h.whileSending("bets to be taken without "+e.Name, grown(1))
	h.whileSending("more of them", grown(5000))
	named := h.everyOffice("action: replica | result: fail", "server: "+e.Name)
	disk.free()
	time.Sleep(time.Second)
	if !off() {
		t.Errorf("%s has switched its records on by itself: docs/replication.md asks for a restart", e.Name)
	}
	w := weather{t: t, engines: es}
	if err := errors.Join(e.Stop(), e.Start()); err != nil {
		t.Fatal(err)
	}
	whole := func() bool { _, err := e.Get("/healthz"); return err == nil && w.unsettled() == "" }
	healed := h.whileSending(e.Name+" to be whole", whole)
	h.everyOffice("action: replica | result: success", "server: "+e.Name)
	h.end()
	h.until("all engines to have all records", whole)
	t.Logf("%s, leads: %v; %d offices; no room after %v, bets taken %v later, named after %v, whole %v after its restart; %+v",
		e.Name, leads, len(h.offices), noticed, goneOn, named, healed, h.done)
}

// TestTortureEngineDiskFull fills ENGINEDISKS disks: of an engine that follows, of one that leads.
func TestTortureEngineDiskFull(t *testing.T) {
	for i := range torture.Count(t, "ENGINEDISKS", 2) {
		t.Run(fmt.Sprintf("leads %v", i%2 == 1), func(t *testing.T) {
			t.Parallel()
			engineDiskFull(t, uint64(7000+i), i%2 == 1)
		})
	}
}
