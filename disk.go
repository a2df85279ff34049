package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// A disk is all that the store asks of the operating system. It is a seam: the real one below
// only passes on; the tests put in ones that fail at the n-th call, or that remember what a
// power cut would leave.
type disk interface {
	// open opens a file with the flags of os.OpenFile; a new one is its user's alone.
	open(name string, flag int) (file, error)
	rename(from, to string) error
	// syncDir makes the creations and renames in the store's folder durable.
	syncDir() error
}

// A file is one open file of a disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	size() (int64, error)
	// lock takes the file for this process alone, until it ends. Who only reads needs no lock.
	lock() error
	// truncate sets the file's length; sync makes that durable, datasync need not.
	truncate(size int64) error
	// datasync makes the file's bytes and its length durable.
	datasync() error
	// sync is datasync, and for a truncation too.
	sync() error
	// reserve fails if the file could not grow from its end to end+n: no room, quota, or too
	// large. It changes no byte and no length.
	reserve(end, n int64) error
	// forget tells the system that what stands before end, which is synced, will hardly be read
	// soon, so that its memory may serve for what is written next.
	forget(end int64)
}

// A fatalError is a failure after which nothing may be answered any more: a failed sync, which
// leaves unknown what is on the disk. What could not be opened has not failed to sync.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

// syncFailed makes err, with which a sync of what ended, a fatal one; nil: it has not failed.
func syncFailed(what string, err error) error {
	if err == nil {
		return nil
	}
	return &fatalError{fmt.Errorf("store: sync of %s: %w", what, err)}
}

// isFatal reports whether nothing may be answered after err.
func isFatal(err error) bool {
	var fatal *fatalError
	return errors.As(err, &fatal)
}

// lockFile takes f for this process alone, until it is closed. Its error says who has it:
// another server or client. A file system without locks is no reason not to go on.
func lockFile(f *os.File, who string) error {
	if lockedElsewhere(f) {
		return fmt.Errorf("in use by another %s%s", who, holder(f))
	}
	return nil
}

// An osDisk is the real disk, for one store.
type osDisk struct {
	// folder is opened once, at the start: later there might be no descriptor left for it, and a
	// sync that cannot be tried would be as bad as one that failed.
	folder *os.File
	guard  *os.File // PATH.lock
}

// openDisk takes the store of a bets file for this process alone. It returns the path that links
// lead to: whatever name a server is given, it finds the files beside the one bets file.
//
// PATH.lock keeps other servers off even before there is a bets file. It stays behind, since
// removing it would let two processes lock two files of one name. Against other names (a hard
// link, a bind mount) the bets file is locked too, when it is opened.
func openDisk(path string) (d *osDisk, real string, err error) {
	real, err = filepath.EvalSymlinks(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(path); err == nil {
			return nil, "", fmt.Errorf("store: %s is a link to nothing: mount what it leads to, "+
				"or make an empty file there", path)
		}
		real, err = filepath.EvalSymlinks(filepath.Dir(path))
		real = filepath.Join(real, filepath.Base(path))
	}
	if err != nil {
		return nil, "", fmt.Errorf("store: %w", err)
	}
	if info, err := os.Stat(real); err == nil && !info.Mode().IsRegular() {
		return nil, "", fmt.Errorf("store: %s is no regular file (%v): set store.path to the name of one",
			path, info.Mode())
	}
	d = new(osDisk)
	if d.folder, err = os.Open(filepath.Dir(real)); err == nil {
		d.guard, err = os.OpenFile(real+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err == nil {
		err = osFile{d.guard}.lock()
	}
	if err != nil {
		d.Close()
		return nil, "", fmt.Errorf("store: %w", err)
	}
	return d, real, nil
}

func (d *osDisk) open(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *osDisk) rename(from, to string) error { return os.Rename(from, to) }

func (d *osDisk) syncDir() error {
	err := d.folder.Sync()
	if errors.Is(err, syscall.EINVAL) || runtime.GOOS == "windows" {
		return nil // what has no sync of folders does it by itself
	}
	return err
}

// Close gives the store back.
func (d *osDisk) Close() error {
	return errors.Join(d.folder.Close(), d.guard.Close())
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

func (f osFile) lock() error {
	if err := lockFile(f.File, "server"); err != nil {
		return fmt.Errorf("%s is %w: stop that one, or set another store.path", f.Name(), err)
	}
	return nil
}

func (f osFile) truncate(size int64) error { return f.Truncate(size) }
func (f osFile) sync() error               { return f.Sync() }
func (f osFile) datasync() error           { return datasync(f.File) }
func (f osFile) forget(end int64)          { forget(f.File, end) }

// reserve asks the system. Where that can't reserve, nothing but a write tells whether there is
// room.
func (f osFile) reserve(end, n int64) error {
	err := reserve(f.File, end, n)
	if errors.Is(err, errors.ErrUnsupported) {
		return f.tryRoom(n)
	}
	return err
}

// tryRoom writes n bytes to a file of its own: what the bets file has at its end is evidence.
func (f osFile) tryRoom(n int64) error {
	try, err := os.OpenFile(f.Name()+".room", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(try.Name())
	defer try.Close()
	const more = 64 << 10 // what a file system notes besides needs room, too
	if _, err := try.Write(make([]byte, n+more)); err != nil {
		return err
	}
	return try.Sync() // some file systems find out only then
}
