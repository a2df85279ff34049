// Engine prints the path of the replicated engine's program, which tests and tools start. Where
// there is none it installs one, in a folder outside the module.
//
//	go run ./tools/engine
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"tp0/tools/proc"
)

// patience is how long the download and the build may take on a slow machine.
const patience = 10 * time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	path, err := proc.InstallEngine(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
