//go:build unix && !solaris && !illumos && !aix

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// lockStore takes the store of path for this process alone, by a lock on path.lock that ends with the process, however it ends. The file holds
// the pid of the process that has the lock; it stays behind, since removing it would let two processes lock two files of one name.
func lockStore(path string) (io.Closer, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if err != syscall.EWOULDBLOCK {
			return nil, fmt.Errorf("store: locking %s: %w", f.Name(), err)
		}
		holder, _ := io.ReadAll(io.LimitReader(f, 20))
		return nil, fmt.Errorf("store: %s is in use by another server, pid %s: stop that one, or set another store.path", path, strings.TrimSpace(string(holder)))
	}
	if err := f.Truncate(0); err == nil { // the pid is a courtesy: the lock holds without it
		fmt.Fprintf(io.NewOffsetWriter(f, 0), "%d\n", os.Getpid())
	}
	return f, nil
}

// syncFolder makes what happened in a folder durable.
func syncFolder(dir *os.File) error {
	err := dir.Sync()
	if pathErr, ok := err.(*os.PathError); ok && pathErr.Err == syscall.EINVAL {
		return nil // a file system that has no sync of folders does it by itself
	}
	return err
}

// lockFile takes f for this process alone, until it is closed. Its error says who
// has it. A file system without locks is no reason not to go on.
func lockFile(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == syscall.EWOULDBLOCK {
		return fmt.Errorf("in use by another client%s", holder(f))
	}
	return nil
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
