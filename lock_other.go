//go:build !unix || solaris || illumos || aix

package main

import (
	"io"
	"os"
)

// lockStore keeps path.lock open. This system has no lock in the standard library that ends with the process: see to it that one server has one store.
func lockStore(path string) (io.Closer, error) {
	return os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o644)
}

// syncFolder does nothing: this system cannot sync a folder.
func syncFolder(*os.File) error { return nil }

// lockFile does nothing: see lockStore.
func lockFile(*os.File) error { return nil }
