//go:build !unix || solaris || illumos || aix

package main

import (
	"errors"
	"math"
	"os"
)

// datasync is fsync where there is no fdatasync in the standard library.
func datasync(f *os.File) error { return f.Sync() }

// reserve knows nothing here.
func reserve(*os.File, int64, int64) error { return errors.ErrUnsupported }

// forget leaves it to the system when to forget.
func forget(*os.File, int64) {}

// lockedElsewhere does nothing: this system has no lock in the standard library that ends with
// the process. See to it that one server has one store.
func lockedElsewhere(*os.File) bool { return false }

// holder knows nothing here.
func holder(*os.File) string { return "" }

// fileLimit returns how many files and connections the process may have open.
func fileLimit() int { return math.MaxInt32 }

// freeDisk does not know.
func freeDisk(string) (free uint64, known bool) { return 0, false }
