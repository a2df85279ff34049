package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// openTerminal returns both sides of a pseudo terminal.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("SKIPPED: no pseudo terminals: %v", err)
	}
	t.Cleanup(func() { screen.Close() })
	var unlock, number int32
	for request, value := range map[uintptr]*int32{syscall.TIOCSPTLCK: &unlock, syscall.TIOCGPTN: &number} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, screen.Fd(), request,
			uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Skipf("SKIPPED: no pseudo terminals: %v", errno)
		}
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("SKIPPED: no pseudo terminals: %v", err)
	}
	return screen, terminal
}

// TestE2EBarAfterResume runs clients on a terminal: the last bar of one that resumed shows what was
// refused in all.
func TestE2EBarAfterResume(t *testing.T) {
	t.Parallel()
	dir, l := clientDir(t, 600)
	o := openOffice(t)
	for _, args := range [][]string{{"-loop.amount=3"}, {}, {}} {
		screen, terminal := openTerminal(t)
		cmd := programCommand(dir, []string{"TERM=xterm", "COLUMNS=120"}, append(args, "-mode=client", "-id=1",
			"-server.address="+o.address(), "-data.file=agency-1.csv")...)
		cmd.Stderr = terminal
		shown := make(chan string)
		go func() {
			var text strings.Builder
			for buf := make([]byte, 4096); ; {
				n, err := screen.Read(buf)
				text.Write(buf[:n])
				if err != nil { // nobody has the terminal open any more
					shown <- text.String()
					return
				}
			}
		}()
		if out, err := cmd.Output(); err != nil {
			t.Fatalf("client: %v: %s", err, out)
		}
		terminal.Close()
		text := <-shown
		last := text[strings.LastIndex(text, "\x1b[?7l")+1:]
		if len(args) == 0 && !strings.Contains(last, fmt.Sprintf("refused %d ", len(l.rejects))) {
			t.Errorf("got %q as the last bar, want %d refused", last, len(l.rejects))
		}
	}
	o.stop()
}
