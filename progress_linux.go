package main

import (
	"os"
	"syscall"
	"unsafe" // for the one pointer that a system call is given
)

// askColumns returns how many columns the terminal has now, 0 where it does not say.
func askColumns(terminal *os.File) int {
	var size struct{ rows, columns, width, height uint16 } // struct winsize of ioctl_tty(2)
	syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	return int(size.columns)
}
