package e2e

import (
	"os/exec"
	"syscall"
)

// tieToTests has the system end the process when the tests end, however they do: then nobody is
// left who would.
func tieToTests(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
