package main

import (
	"io"
	"os"
	"path/filepath"
)

// A disk is all that the store asks of the operating system. It is a seam: the real one below only passes on; the tests put in ones
// that fail at the n-th call, or that remember what a power cut would leave.
type disk interface {
	// open opens a file with the flags of os.OpenFile; a new one is readable by all and writable by its owner.
	open(name string, flag int) (file, error)
	rename(from, to string) error
	remove(name string) error
	// syncDir makes the creations, renames and removals in name's folder durable.
	syncDir(name string) error
}

// A file is one open file of a disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	size() (int64, error)
	// truncate sets the file's length; sync makes that durable, datasync need not.
	truncate(size int64) error
	// datasync makes the file's bytes and its length durable.
	datasync() error
	// sync is datasync, and for a truncation too.
	sync() error
	// reserve fails if the file could not grow from its end to end+n: no room, quota, or too large. It changes no byte and no length.
	reserve(end, n int64) error
	// forget tells the system that what stands before end, which is synced, will hardly be read soon, so that its memory may serve for what is written next.
	forget(end int64)
}

// osDisk is the real disk.
type osDisk struct{}

func (osDisk) open(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) remove(name string) error     { return os.Remove(name) }

// syncDir syncs the folder that name is in; it need not be a file that exists.
func (osDisk) syncDir(name string) error {
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return syncFolder(dir)
}

// An osFile is a file of the real disk.
type osFile struct{ *os.File }

// size asks the system each time: another program may have changed the file.
func (f osFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) truncate(size int64) error  { return f.Truncate(size) }
func (f osFile) sync() error                { return f.Sync() }
func (f osFile) datasync() error            { return datasync(f.File) }
func (f osFile) forget(end int64)           { forget(f.File, end) }
func (f osFile) reserve(end, n int64) error { return reserve(f.File, end, n) }
