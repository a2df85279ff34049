package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tp0/tools/torture"
)

// Slow media: cards and flash that take 50 to 300 ms for a sync. strace makes the syncs of a
// running server as slow, and writes down what goes to which file.

// A wear is what a server did to its disk.
type wear struct {
	bets, commits int
	took          time.Duration
	stored        int64            // bytes of bets.csv
	kernel        int64            // bytes that the kernel counts as written by the server, in whole folios
	device        int64            // bytes written to the block device; 0: not counted
	syncs         map[string]int   // by kind of file
	written       map[string]int64 // bytes, likewise
}

// A mediaLoad is what is sent to a server on a slow disk.
type mediaLoad struct {
	delay time.Duration // of each sync
	sync  string        // store.sync
	bets  int           // of each of five clients
	args  []string      // of the clients
}

// run runs the load.
func (l mediaLoad) run(t *testing.T) wear {
	t.Helper()
	dir, port := t.TempDir(), strconv.Itoa(freePort(t))
	elsewhere, err := os.MkdirTemp("/dev/shm", "tp0-trace-") // not on the disk that is looked at
	if err != nil {
		elsewhere = t.TempDir()
	}
	defer os.RemoveAll(elsewhere)
	trace := filepath.Join(elsewhere, "trace")
	for id := 1; id <= 5; id++ {
		text := must(t, plain.tp0(t, dir, "-mode=sample", fmt.Sprintf("-id=%d", id), fmt.Sprintf("-bets=%d", l.bets)))
		writeFile(t, dir, fmt.Sprintf("agency-%d.csv", id), text)
	}
	cmd := plain.tp0(t, dir, "-mode=server", "-server.host=127.0.0.1", "-server.port="+port, "-store.sync="+l.sync)
	args := []string{"strace", "-D", "-f", "-y", "-s", "0", "-o", trace, "-e", "trace=fdatasync,fsync,pwrite64", "-e",
		fmt.Sprintf("inject=fdatasync,fsync:delay_exit=%d", l.delay.Microseconds()), cmd.Path}
	traced := exec.Command(args[0], append(args[1:], cmd.Args[1:]...)...)
	traced.Dir, traced.Env = cmd.Dir, []string{"PATH=" + os.Getenv("PATH")}
	s := launchCommand(t, "server", traced)
	s.waitFor("action: listen | result: success")
	began, before := time.Now(), deviceBytes(t)
	var clients []*process
	for id := 1; id <= 5; id++ {
		client := plain.tp0(t, dir, append([]string{"-mode=client", fmt.Sprintf("-id=%d", id),
			"-server.address=127.0.0.1:" + port, "-data.file=agency-{id}.csv"}, l.args...)...)
		clients = append(clients, launchCommand(t, fmt.Sprintf("client %d", id), client))
	}
	w := wear{syncs: map[string]int{}, written: map[string]int64{}}
	for _, c := range clients {
		c.waitEnd(t, 10*time.Minute)
		w.bets += numberIn(t, c.waitFor("action: loop_finished"), "enviadas")
	}
	w.took = time.Since(began)
	io, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.Cmd.Process.Pid))
	if _, rest, found := strings.Cut(string(io), "\nwrite_bytes: "); found {
		fmt.Sscan(rest, &w.kernel)
	}
	s.stop()
	w.device = deviceBytes(t) - before
	w.commits = numberIn(t, s.waitFor("action: close_store"), "commits")
	info, err := os.Stat(filepath.Join(dir, "bets.csv"))
	if err != nil {
		t.Fatal(err)
	}
	w.stored = info.Size()
	w.read(t, trace)
	return w
}

// deviceBytes returns what was written to the block device whose statistics DISK_STAT names, such
// as /sys/block/loop0/stat for a file system that only this test writes to (TMPDIR).
func deviceBytes(t *testing.T) int64 {
	t.Helper()
	name := os.Getenv("DISK_STAT")
	if name == "" {
		return 0
	}
	must(t, exec.Command("sync", "-f", t.TempDir()))
	text, err := os.ReadFile(name)
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 7 {
		t.Fatalf("DISK_STAT=%s: got %v and %q", name, err, text)
	}
	sectors, _ := strconv.ParseInt(fields[6], 10, 64)
	return sectors * 512
}

// The lines of strace: a call with the file that it is of, and the rest of one that was
// interrupted.
var (
	callLine = regexp.MustCompile(`^(\d+) +(fdatasync|fsync|pwrite64)\(\d+<([^>]*)>.*?(?:= (-?\d+)|<unfinished)`)
	restLine = regexp.MustCompile(`^(\d+) +<\.\.\. (?:fdatasync|fsync|pwrite64) resumed>.*= (-?\d+)`)
)

// read adds up what strace has written down.
func (w *wear) read(t *testing.T, trace string) {
	t.Helper()
	file, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	under := map[string]string{} // kind of file, by thread
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if call := callLine.FindStringSubmatch(lines.Text()); call != nil {
			kind := "folder"
			switch name := filepath.Base(call[3]); {
			case strings.Contains(name, ".wal"):
				kind = "log"
			case strings.Contains(name, ".state"):
				kind = "snapshot"
			case strings.HasPrefix(name, "bets.csv"):
				kind = "bets.csv"
			}
			if call[2] != "pwrite64" {
				w.syncs[kind]++
				continue
			}
			under[call[1]] = kind
			w.add(kind, call[4])
		} else if rest := restLine.FindStringSubmatch(lines.Text()); rest != nil && under[rest[1]] != "" {
			w.add(under[rest[1]], rest[2])
		}
	}
}

// add adds bytes that were written.
func (w *wear) add(kind, bytes string) {
	if n, err := strconv.ParseInt(bytes, 10, 64); err == nil && n > 0 {
		w.written[kind] += n
	}
}

// String is the row of a table: what 1,000 bets cost.
func (w wear) String() string {
	per := func(n int64) float64 { return float64(n) / float64(w.bets) * 1000 / 1024 }
	all := 0
	for _, n := range w.syncs {
		all += n
	}
	return fmt.Sprintf("%d bets in %v: %.0f bets/s, %d commits of %.0f KiB, %d syncs; KiB for 1,000 bets: "+
		"log %.0f, bets.csv %.0f, snapshots %.1f, by the kernel %.0f, on the device %.0f",
		w.bets, w.took.Round(10*time.Millisecond), float64(w.bets)/w.took.Seconds(), w.commits,
		float64(w.stored)/float64(w.commits)/1024, all, per(w.written["log"]), per(w.written["bets.csv"]),
		per(w.written["snapshot"]), per(w.kernel), per(w.device))
}

// TestSlowMedia: five clients at default settings fill the groups of a server whose syncs are slow.
// So what they send in a second is bounded by the bytes that a group takes, not by the syncs that
// their batches need.
func TestSlowMedia(t *testing.T) {
	t.Parallel()
	needs(t, "strace")
	w := mediaLoad{delay: 100 * time.Millisecond, sync: "always", bets: 10_000}.run(t)
	t.Log(w)
	batches := w.bets / 150
	if w.commits > batches/10 {
		t.Errorf("got %d commits for %d batches, want a tenth at most", w.commits, batches)
	}
}

// TestTortureSlowMedia makes the table of docs/performance.md.
func TestTortureSlowMedia(t *testing.T) {
	bets := torture.Count(t, "BETS", 40_000)
	needs(t, "strace")
	course := []string{"-batch.maxAmount=10", "-loop.period=1s", "-loop.amount=40"} // batches of 10, one a second
	for _, row := range []mediaLoad{
		{0, "always", bets, nil},
		{50 * time.Millisecond, "always", bets, nil},
		{150 * time.Millisecond, "always", bets, nil},
		{300 * time.Millisecond, "always", bets, nil},
		{300 * time.Millisecond, "1s", bets, nil},
		{300 * time.Millisecond, "always", bets / 10, []string{"-batch.window=1"}},
		{150 * time.Millisecond, "always", 1000, course},
		{150 * time.Millisecond, "1s", 1000, course},
		{150 * time.Millisecond, "10s", 1000, course},
	} {
		fmt.Printf("%v a sync, store.sync=%s %v\n    %v\n", row.delay, row.sync, row.args, row.run(t))
	}
}
