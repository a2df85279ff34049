package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// faultDisk is the disk on which a chosen call fails; simdisk_test.go has the one that knows
// what a power cut would leave.

// A diskCall is one call to a disk or to a file of it. n counts from 1.
type diskCall struct {
	n    int
	kind string // the method's name; "create" for an open that may make a file
	name string // base name of the file
}

func (c diskCall) String() string { return fmt.Sprintf("call %d, %s of %s", c.n, c.kind, c.name) }

// A diskFault is how a call fails.
type diskFault struct {
	err   error
	short int // a write: how many of its bytes reach the file all the same
}

// A faultDisk passes on to another disk, except for the calls for which fault returns one.
type faultDisk struct {
	disk   disk
	mu     sync.Mutex // protects following
	calls  int
	failed int                         // calls that failed
	fault  func(c diskCall) *diskFault // nil: none
	slow   func(name string)           // takes the time of a write or a sync; nil: it takes none
}

// setFault changes fault.
func (d *faultDisk) setFault(fault func(c diskCall) *diskFault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

// enter counts a call and says how it fails; nil if it does not.
func (d *faultDisk) enter(kind, name string) *diskFault {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.fault == nil {
		return nil
	}
	f := d.fault(diskCall{d.calls, kind, filepath.Base(name)})
	if f != nil {
		d.failed++
	}
	return f
}

// setSlow changes slow.
func (d *faultDisk) setSlow(slow func(name string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = slow
}

// take takes the time of a call.
func (d *faultDisk) take(name string) {
	d.mu.Lock()
	slow := d.slow
	d.mu.Unlock()
	if slow != nil {
		slow(name)
	}
}

// hasFailed reports whether a call has failed.
func (d *faultDisk) hasFailed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed > 0
}

func (d *faultDisk) open(name string, flag int) (file, error) {
	kind := "open"
	if flag&os.O_CREATE != 0 {
		kind = "create"
	}
	if f := d.enter(kind, name); f != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: f.err}
	}
	f, err := d.disk.open(name, flag)
	if err != nil {
		return nil, err
	}
	return &faultFile{f, d, name}, nil
}

func (d *faultDisk) rename(from, to string) error {
	if f := d.enter("rename", to); f != nil {
		return f.err
	}
	return d.disk.rename(from, to)
}

func (d *faultDisk) syncDir() error {
	if f := d.enter("syncDir", "."); f != nil {
		return f.err
	}
	return d.disk.syncDir()
}

// A faultFile is a file of a faultDisk.
type faultFile struct {
	file
	d    *faultDisk
	name string
}

func (f *faultFile) ReadAt(p []byte, at int64) (int, error) {
	if f := f.d.enter("read", f.name); f != nil {
		return 0, f.err
	}
	return f.file.ReadAt(p, at)
}

func (f *faultFile) WriteAt(p []byte, at int64) (int, error) {
	f.d.take(f.name)
	if fault := f.d.enter("write", f.name); fault != nil {
		n, _ := f.file.WriteAt(p[:min(fault.short, len(p))], at)
		return n, fault.err
	}
	return f.file.WriteAt(p, at)
}

func (f *faultFile) size() (int64, error) {
	if f := f.d.enter("size", f.name); f != nil {
		return 0, f.err
	}
	return f.file.size()
}

// failing calls next unless the call of that kind is to fail.
func (f *faultFile) failing(kind string, next func() error) error {
	if f := f.d.enter(kind, f.name); f != nil {
		return f.err
	}
	return next()
}

func (f *faultFile) truncate(size int64) error {
	return f.failing("truncate", func() error { return f.file.truncate(size) })
}
func (f *faultFile) datasync() error {
	f.d.take(f.name)
	return f.failing("datasync", f.file.datasync)
}
func (f *faultFile) sync() error { return f.failing("sync", f.file.sync) }
func (f *faultFile) lock() error { return f.failing("lock", f.file.lock) }
func (f *faultFile) reserve(end, n int64) error {
	return f.failing("reserve", func() error { return f.file.reserve(end, n) })
}

// openTestDisk opens the real disk for a bets file, until the test ends.
func openTestDisk(t testing.TB, path string) disk {
	t.Helper()
	d, _, err := openDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestFolderIsOpenedOnce moves the folder away from its name: its sync needs neither that nor a
// free descriptor, and so can't fail for want of one.
func TestFolderIsOpenedOnce(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	d := openTestDisk(t, filepath.Join(folder, "bets.csv"))
	if err := os.Rename(folder, folder+"2"); err != nil {
		t.Fatal(err)
	}
	if err := d.syncDir(); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// TestReserveByWriting has a file system that can't reserve: room is looked for in a file of
// its own, which is gone afterwards, and the bets file is as it was.
func TestReserveByWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bets.csv")
	f, err := openTestDisk(t, path).open(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.(osFile).tryRoom(100_000); err != nil {
		t.Errorf("got %v, want room", err)
	}
	if size, err := f.size(); size != 0 || err != nil {
		t.Errorf("size: got %d and %v, want 0", size, err)
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 2 { // and its .lock
		t.Errorf("got the files %v, want two", names)
	}
}
