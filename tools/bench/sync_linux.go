package main

import (
	"os"
	"syscall"
)

// datasync is fdatasync, as the program uses it.
func datasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
