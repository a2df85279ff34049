package main

import (
	"errors"
	"os"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE: reserve blocks behind the end of the file without moving the end.
const keepSize = 1

// datasync is fdatasync: against fsync it saves the write of the file's times, a second write at every commit.
func datasync(f *os.File) error {
	return control(f, "fdatasync", syscall.Fdatasync)
}

// reserve asks the file system for n bytes behind end, and the process's limit on file size (which fallocate with keepSize does not look at). A file
// system that cannot reserve says nothing about room: then the next write tells.
func reserve(f *os.File, end, n int64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err == nil && uint64(end+n) > uint64(limit.Cur) {
		return &os.PathError{Op: "reserve", Path: f.Name(), Err: syscall.EFBIG}
	}
	err := control(f, "fallocate", func(fd int) error { return syscall.Fallocate(fd, keepSize, end, n) })
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}

// control calls a system call on f's descriptor again until no signal interrupts it.
func control(f *os.File, name string, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for failed = call(int(fd)); failed == syscall.EINTR; {
			failed = call(int(fd))
		}
	})
	if err == nil && failed != nil {
		err = &os.PathError{Op: name, Path: f.Name(), Err: failed}
	}
	return err
}
