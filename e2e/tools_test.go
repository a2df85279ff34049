package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tp0/tools/proc"
)

// runTool builds one of the tools and runs it in dir. It returns what it wrote.
func runTool(t *testing.T, tool, dir string, env ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), tool)
	build := exec.Command("go", "build", "-o", path, "../tools/"+tool)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, output)
	}
	cmd := exec.Command(path)
	proc.Tie(cmd)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", tool, err, output)
	}
	return string(output)
}

// TestE2ERun is `make run` with small files: what the tool reads in the logs is what the program
// writes there.
func TestE2ERun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, filepath.Join(dir, "tp0")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, ".data"), 0o755); err != nil {
		t.Fatal(err)
	}
	for agency := 1; agency <= 5; agency++ {
		makeSample(t, filepath.Join(dir, ".data"), agency, 200)
	}
	if got := runTool(t, "run", dir); !strings.Contains(got, "all numbers agree") {
		t.Errorf("got\n%s\nwant all numbers to agree", got)
	}
}

// makeSample writes the sample file of an agency into dir and returns its lot.
func makeSample(t *testing.T, dir string, agency, bets int) *lot {
	t.Helper()
	sample, errs, status := runProgram(t, t.TempDir(), nil,
		"-mode=sample", fmt.Sprintf("-id=%d", agency), fmt.Sprintf("-bets=%d", bets))
	if status != exitDone || strings.Count(sample, "\r\n") != bets {
		t.Fatalf("mode sample: got status %d, %d rows and %q, want 0 and %d", status, strings.Count(sample, "\r\n"),
			errs, bets)
	}
	return lotOf(t, dir, agency, sample)
}

// TestE2EBench is a small `make bench`: it finds all its figures, and the store complete.
func TestE2EBench(t *testing.T) {
	t.Parallel()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	got := runTool(t, "bench", t.TempDir(), "PROGRAM="+path, "ROWS=3000", "CLIENTS=2", "ROUNDS=1", "WINDOWS=8",
		"DATASET=none.zip")
	if !strings.Contains(got, "complete") || !strings.Contains(got, "window 8: ") {
		t.Errorf("got\n%s\nwant a table", got)
	}
}
