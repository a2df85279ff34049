package proc

import (
	"os/exec"
	"syscall"
)

// Tie has the system kill the command when this process ends, however it does: then nobody is left
// who would end it.
func Tie(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
