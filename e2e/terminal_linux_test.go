package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
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

// setColumns sets the width of a terminal, as a window does that is dragged.
func setColumns(t *testing.T, terminal *os.File, columns uint16) {
	t.Helper()
	size := [4]uint16{24, columns}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), syscall.TIOCSWINSZ,
		uintptr(unsafe.Pointer(&size))); errno != 0 {
		t.Fatal(errno)
	}
}

// TestE2EBarWidth makes the terminal narrow while a client draws on it: the bar follows, and of
// forty columns percent and time left have theirs. COLUMNS, which no program keeps up to date,
// does not count.
func TestE2EBarWidth(t *testing.T) {
	t.Parallel()
	dir, _ := clientDir(t, 600)
	o := openOffice(t)
	screen, terminal := openTerminal(t)
	setColumns(t, terminal, 100)
	cmd := programCommand(dir, []string{"TERM=xterm", "COLUMNS=132"}, "-mode=client", "-id=1", "-batch.maxAmount=1",
		"-loop.period=50ms", "-server.address="+o.address(), "-data.file=agency-1.csv")
	cmd.Args = append([]string{"sh", "-c", `exec "$@" 2>"$0"`, terminal.Name()}, cmd.Args...)
	cmd.Path = "/bin/sh"
	var drawn lineLog
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := screen.Read(buf)
			drawn.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	c := launchCommand(t, "client", cmd)
	// frames waits for a drawing of which ok is true.
	frames := func(what string, ok func(frame string) bool) {
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			parts := strings.Split(drawn.String(), "\r\x1b[?7l")
			for _, part := range parts[1:] {
				if frame, _, whole := strings.Cut(part, "\x1b[K\x1b[?7h"); whole && ok(frame) {
					return
				}
			}
		}
		t.Fatalf("got no drawing that is %s in %q", what, drawn.String())
	}
	frames("of 100 columns", func(frame string) bool {
		return strings.Contains(frame, "refused ") && len(frame) > 40 && len(frame) < 100
	})
	setColumns(t, terminal, 40)
	frames("of 40 columns", func(frame string) bool {
		return strings.Contains(frame, "% ") && strings.Contains(frame, "  left ") && len(frame) < 40
	})
	c.signal(syscall.SIGTERM)
	c.wantExit(exitDone)
}
