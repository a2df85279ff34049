//go:build linux && (amd64 || arm64 || loong64 || mips64 || mips64le || ppc64 || ppc64le || riscv64 || s390x)

package main

import (
	"os"
	"syscall"
)

// forget is posix_fadvise with POSIX_FADV_DONTNEED, which package syscall has no function for. It is advice: what becomes of it makes no difference to what the file says.
// (The 32-bit systems each pass its arguments in another way; there the system forgets by itself.)
func forget(f *os.File, end int64) {
	const dontNeed = 4
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) {
		syscall.Syscall6(syscall.SYS_FADVISE64, fd, 0, uintptr(end), dontNeed, 0, 0)
	})
}
