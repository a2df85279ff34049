//go:build !unix || solaris || illumos || aix

package main

import (
	"math"
	"os"
)

// lockedElsewhere does nothing: this system has no lock in the standard library that ends with
// the process. See to it that one server has one store.
func lockedElsewhere(*os.File) bool { return false }

// fileLimit knows of no limit here.
func fileLimit() int { return math.MaxInt32 }
