//go:build !linux

package main

import (
	"errors"
	"os"
)

// datasync is fsync where there is no fdatasync in the standard library.
func datasync(f *os.File) error { return f.Sync() }

// reserve knows nothing here.
func reserve(*os.File, int64, int64) error { return errors.ErrUnsupported }

// forget leaves it to the system when to forget.
func forget(*os.File, int64) {}

// holder knows nothing here.
func holder(*os.File) string { return "" }

// freeDisk does not know.
func freeDisk(string) (free uint64, known bool) { return 0, false }
