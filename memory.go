package main

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// heedMemoryLimit tells Go's collector how much memory the kernel grants this process and those
// that share its control group (a container, a systemd unit). Without it the heap would grow
// until the kernel ends the process. A quarter is left for what is not Go's: the program's own
// pages and the buffers of its sockets. GOMEMLIMIT, where it is set, goes first.
// root is the system's root folder.
func heedMemoryLimit(root fs.FS) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit := memoryLimit(root); limit < math.MaxInt64 {
		debug.SetMemoryLimit(limit / 4 * 3)
	}
}

// returnMemory gives back to the system what the program does not need now. Go by itself keeps
// as much again as is in use, for garbage to come.
func returnMemory() {
	runtime.GC() // what lies in a sync.Pool outlives one collection
	debug.FreeOSMemory()
}

// memoryLimit returns the least limit of the process's control group and of all that it is in, in
// bytes; math.MaxInt64 where there is none.
//
// /proc/self/cgroup has a line a hierarchy, "0::/a/b" for version 2, "4:memory:/a/b" for
// version 1. In a container the path may be that of the host, of which there is only the root.
func memoryLimit(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	lines, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(lines)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		switch parts[1] {
		case "":
		case "memory":
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			text, _ := fs.ReadFile(root, path.Join(mount, group, file))
			if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit > 0 {
				least = min(least, limit) // "max" is no number
			}
			if group == "/" {
				break
			}
		}
	}
	return least
}
