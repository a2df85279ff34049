//go:build unix

package proc

import (
	"os"
	"runtime"
	"syscall"
)

// peakRSS returns the most memory that an ended process had, in bytes; 0 if the system does not
// tell.
func peakRSS(state *os.ProcessState) int64 {
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	peak := int64(usage.Maxrss)
	if runtime.GOOS != "darwin" && runtime.GOOS != "ios" { // which count in bytes
		peak <<= 10
	}
	return peak
}
