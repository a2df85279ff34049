package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// The exit statuses that the program promises.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// builtVersion is the version that the program under test is built with.
const builtVersion = "e2e"

// program returns the path of the program under test. It is built at the first call: with the
// race detector where the tests have it. TP0=FILE tests a program that was built before.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("TP0"); path != "" {
		return filepath.Abs(path)
	}
	sources, _ := filepath.Glob("../*.go")
	for _, name := range append(sources, "../go.mod") {
		os.Stat(name) // so that `go test` takes no result from its cache when the program has changed
	}
	dir, err := os.MkdirTemp("", "tp0-e2e-")
	if err != nil {
		return "", err
	}
	programDir = dir
	path := filepath.Join(dir, "tp0")
	args := []string{"build", "-ldflags", "-X main.version=" + builtVersion, "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "..")...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd, err, output)
	}
	return path, nil
})

// programDir is the folder that program made, which TestMain removes.
var programDir string
