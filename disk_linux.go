package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE: reserve blocks behind the end of the file without moving the
// end.
const keepSize = 1

// fadvise64 is the number of that system call, which package syscall does not have for all. The
// 32-bit systems each pass its arguments in another way; there the system forgets by itself.
var fadvise64 = map[string]uintptr{
	"amd64": 221, "arm64": 223, "loong64": 223, "riscv64": 223, "ppc64": 233, "ppc64le": 233,
	"s390x": 253, "mips64": 5215, "mips64le": 5215,
}[runtime.GOARCH]

// datasync is fdatasync: against fsync it saves the write of the file's times, a second write at
// every commit.
func datasync(f *os.File) error {
	return control(f, "fdatasync", syscall.Fdatasync)
}

// reserve asks the file system for n bytes behind end, and the process's limit on file size
// (which fallocate with keepSize does not look at). It fails with errors.ErrUnsupported where
// the file system cannot reserve.
func reserve(f *os.File, end, n int64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err == nil && uint64(end+n) > uint64(limit.Cur) {
		return &os.PathError{Op: "reserve", Path: f.Name(), Err: syscall.EFBIG}
	}
	return control(f, "fallocate", func(fd int) error { return syscall.Fallocate(fd, keepSize, end, n) })
}

// forget is posix_fadvise with POSIX_FADV_DONTNEED. It is advice: what becomes of it makes no
// difference to what the file says.
func forget(f *os.File, end int64) {
	const dontNeed = 4
	if fadvise64 != 0 {
		syscall.Syscall6(fadvise64, f.Fd(), 0, uintptr(end), dontNeed, 0, 0)
	}
}

// holder names the process that has the lock on f, where the system tells.
func holder(f *os.File) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	node := ":" + fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino)
	locks, _ := os.ReadFile("/proc/locks") // 1: FLOCK ADVISORY WRITE 4711 08:01:131 0 EOF
	for line := range strings.Lines(string(locks)) {
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], node) {
			return ", pid " + fields[4]
		}
	}
	return ""
}

// freeDisk returns how many bytes this user may still write to the disk that dir is on.
func freeDisk(dir string) (free uint64, known bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, false
	}
	return fs.Bavail * uint64(fs.Bsize), true
}

// control calls a system call on f's descriptor again until no signal interrupts it.
func control(f *os.File, name string, call func(fd int) error) error {
	err := call(int(f.Fd()))
	for err == syscall.EINTR {
		err = call(int(f.Fd()))
	}
	if err != nil {
		return &os.PathError{Op: name, Path: f.Name(), Err: err}
	}
	return nil
}
