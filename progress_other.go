//go:build !linux

package main

import "os"

// askColumns knows nothing here: a guess has to do.
func askColumns(*os.File) int { return 0 }
