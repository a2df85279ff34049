//go:build unix && !solaris && !illumos && !aix

package main

import (
	"math"
	"os"
	"syscall"
)

// lockedElsewhere takes a lock on f that ends with the process, however it ends. It reports
// whether another process has it.
func lockedElsewhere(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == syscall.EWOULDBLOCK
}

// fileLimit returns how many files and connections the process may have open.
func fileLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxInt32
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}
