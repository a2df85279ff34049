package proc

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNATSServer(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "nats-server")
	if err := os.WriteFile(program, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("NATS_SERVER", filepath.Join(dir, "none"))
	if path, err := NATSServer(); err == nil {
		t.Errorf("NATS_SERVER names no program: got %s, want an error and not another one", path)
	}
	t.Setenv("NATS_SERVER", "")
	if path, err := NATSServer(); err != nil || path != program {
		t.Errorf("in PATH: got %s, %v, want %s", path, err, program)
	}
}

// TestEngines: an engine that was killed starts again where it was, and two of three go on without
// the third.
func TestEngines(t *testing.T) {
	if _, err := NATSServer(); err != nil {
		t.Skip("SKIPPED: ", err)
	}
	one, err := StartEngines(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Kill()
	e := one.All[0]
	if e.Kill(); e.Running() {
		t.Error("got an engine that runs after Kill")
	}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	if err := one.Ready(); err != nil {
		t.Errorf("started again: %v", err)
	}
	if err := e.Stop(); err != nil {
		t.Error(err)
	}
	three, err := StartEngines(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer three.Kill()
	e = three.All[0]
	var facts JSZ
	if err := e.Query("/jsz", &facts); err != nil {
		t.Fatal(err)
	}
	if facts.Meta.Leader == e.Name { // another would be elected only seconds later
		e = three.All[1]
	}
	e.Kill()
	if err := three.Ready(); err != nil {
		t.Errorf("one of three is gone: %v", err)
	}
}
