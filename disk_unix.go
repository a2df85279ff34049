//go:build unix && !linux && !solaris && !illumos && !aix

package main

import (
	"errors"
	"math"
	"os"
	"syscall"
)

// datasync is fsync where there is no fdatasync in the standard library.
func datasync(f *os.File) error { return f.Sync() }

// reserve knows nothing here.
func reserve(*os.File, int64, int64) error { return errors.ErrUnsupported }

// forget leaves it to the system when to forget.
func forget(*os.File, int64) {}

// lockedElsewhere takes a lock on f that ends with the process, however it ends. It reports
// whether another process has it.
func lockedElsewhere(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == syscall.EWOULDBLOCK
}

// holder knows nothing here.
func holder(*os.File) string { return "" }

// fileLimit returns how many files and connections the process may have open.
func fileLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxInt32
	}
	return int(min(uint64(limit.Cur), math.MaxInt32))
}

// freeDisk does not know.
func freeDisk(string) (free uint64, known bool) { return 0, false }
