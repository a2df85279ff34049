//go:build unix

package proc

import "syscall"

// Pause stops the engine where it stands, as a machine that hangs does. Resume has it go on.
func (e *Engine) Pause() error {
	e.away.Store(true)
	return e.Cmd.Process.Signal(syscall.SIGSTOP)
}

func (e *Engine) Resume() error {
	e.away.Store(false)
	return e.Cmd.Process.Signal(syscall.SIGCONT)
}
