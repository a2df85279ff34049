//go:build linux

package main

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// A socket is a TCP connection whose reads and writes Go's scheduler is not told of. It is told of
// system calls since they may take long; then its monitor, a thread, is woken each time that the
// program was idle, and looks every 20 µs. The calls here never wait: where the system has nothing
// to give or no room it says so, and then the connection waits as all do. At a window of 1 the
// monitor was a third of a client's time.
type socket struct {
	*net.TCPConn
	raw syscall.RawConn
}

// quick returns conn as a socket, if it is TCP.
func quick(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	return &socket{tcp, raw}
}

func (s *socket) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var failed syscall.Errno
	err = s.raw.Read(func(fd uintptr) bool {
		n, failed = transfer(syscall.SYS_READ, fd, p)
		return failed != syscall.EAGAIN
	})
	if err = s.failure("read", err, failed); err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

func (s *socket) Write(p []byte) (n int, err error) {
	var failed syscall.Errno
	err = s.raw.Write(func(fd uintptr) bool {
		for failed = 0; n < len(p) && failed == 0; {
			var more int
			more, failed = transfer(syscall.SYS_WRITE, fd, p[n:])
			n += more
		}
		return failed != syscall.EAGAIN
	})
	return n, s.failure("write", err, failed)
}

// failure returns the error of a read or a write: err is that of waiting, failed that of the call.
func (s *socket) failure(op string, err error, failed syscall.Errno) error {
	if waiting, ok := err.(*net.OpError); ok {
		waiting.Op = op // not raw-read
	}
	if err != nil || failed == 0 {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(),
		Err: os.NewSyscallError(op, failed)}
}

// transfer is one call of read or write, of a byte at least.
func transfer(call, fd uintptr, p []byte) (n int, failed syscall.Errno) {
	done, _, failed := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if failed == syscall.EINTR {
		return transfer(call, fd, p)
	}
	if failed != 0 {
		return 0, failed
	}
	return int(done), 0
}
