package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// A Watch is a look at a process's memory, again and again until it has ended.
type Watch struct {
	p     *Process
	ended chan struct{} // closed when the process has ended and peak is what it will be
	peak  int64         // most resident bytes that were seen; to be read after ended is closed
}

// Watch looks at the process's peak of memory that often until it has ended: a peak of its last
// moments may be missed. A look costs some 20 µs.
func (p *Process) Watch(every time.Duration) *Watch {
	w := &Watch{p: p, ended: make(chan struct{})}
	go w.run(every)
	return w
}

// run looks.
//
// The system's own account of an ended process serves only where there is no /proc: on Linux a
// child begins it with the peak of the process that started it.
func (w *Watch) run(every time.Duration) {
	defer close(w.ended)
	look := time.NewTicker(every)
	defer look.Stop()
	for {
		if peak, known := Memory(w.p.Cmd.Process.Pid, "VmHWM"); known {
			w.peak = peak
		}
		select {
		case <-w.p.Done:
			if w.peak == 0 {
				w.peak = peakRSS(w.p.Cmd.ProcessState)
			}
			return
		case <-look.C:
		}
	}
}

// Peak returns the most resident bytes that were seen, once the process has ended.
func (w *Watch) Peak() int64 {
	<-w.ended
	return w.peak
}

// Memory returns a figure of a process's memory: VmRSS, what is resident, or VmHWM, the most that
// was. known is false where the system has no /proc.
func Memory(pid int, name string) (bytes int64, known bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	return statusBytes(status, name)
}

// statusBytes returns a figure of /proc/PID/status, which gives it in KiB.
func statusBytes(status []byte, name string) (n int64, known bool) {
	for line := range bytes.Lines(status) {
		fields := bytes.Fields(line)
		if len(fields) == 3 && string(fields[0]) == name+":" {
			n, err := strconv.ParseInt(string(fields[1]), 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}

// CPUTime returns the processor time that a process has taken until now; 0 where the system has no
// /proc.
func CPUTime(pid int) time.Duration {
	const tick = 10 * time.Millisecond // of Linux's account, whatever the kernel's own is
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name of the program, in brackets, may have anything in it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	sum := 0
	for _, i := range []int{11, 12} { // in user mode, in the system
		if i < len(fields) {
			n, _ := strconv.Atoi(string(fields[i]))
			sum += n
		}
	}
	return time.Duration(sum) * tick
}
