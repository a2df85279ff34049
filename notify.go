package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// notifyEvery is how often the supervisor is told of a change at least.
const notifyEvery = 5 * time.Second

// A supervisor is who has started the server and wants to hear of it: systemd, with a unit of
// Type=notify, or any other program that gives NOTIFY_SOCKET. What it is told are datagrams of
// KEY=value lines (sd_notify(3)). A supervisor that is gone or does not listen is no trouble.
type supervisor struct {
	conn     net.Conn      // nil: nobody has asked
	watchdog time.Duration // it ends a server that it has heard nothing of for so long; 0: never
}

// newSupervisor returns the one that the environment names, and tells it of the start.
func newSupervisor(getenv func(string) string) *supervisor {
	s := &supervisor{}
	socket := getenv("NOTIFY_SOCKET") // a path, or the name of an abstract socket behind an @
	if socket == "" {
		return s
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return s
	}
	s.conn = conn
	if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		microseconds, _ := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
		s.watchdog = time.Duration(microseconds) * time.Microsecond
	}
	s.tell(status("Recovering what the last run left."))
	return s
}

// tell sends lines in one datagram.
func (s *supervisor) tell(lines ...string) {
	if s.conn == nil {
		return
	}
	s.conn.SetWriteDeadline(time.Now().Add(time.Second)) // it must not hold up the server
	s.conn.Write([]byte(strings.Join(lines, "\n")))
}

// status is the line that `systemctl status` shows.
func status(sentence string) string {
	return "STATUS=" + string(appendHarmless(nil, sentence))
}

// A pulse is what the supervisor sees of the store.
type pulse struct {
	turns   uint64 // of the committer; grows as long as it moves
	idle    bool   // the committer has nothing to do
	trouble error  // why bets are not taken now; nil: they are
	standby string // who takes bets in place of a server that stands by; empty: this one does not
}

// sentence says whether bets are taken, which is taking if they are.
func (p pulse) sentence(taking string) string {
	switch {
	case p.standby != "":
		return "Standing by: " + p.standby + "."
	case p.trouble != nil:
		return "NOT taking bets: " + p.trouble.Error()
	}
	return taking
}

// watch tells that the server is ready, and, then and until ended is closed, whether bets are
// taken, and feeds the watchdog. A server is alive as long as its committer moves or has nothing to
// do: one whose disk hangs in a write or a sync is fed no more, and is started anew.
func (s *supervisor) watch(taking string, feel func() pulse, ended <-chan struct{}) {
	if s.conn == nil {
		return
	}
	last := feel()
	s.tell("READY=1", status(last.sentence(taking)))
	every := notifyEvery
	if s.watchdog > 0 {
		every = min(every, s.watchdog/4)
	}
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				last = s.look(taking, last, feel())
			}
		}
	}()
}

// look tells what has changed from one look at the store to the next, which it returns.
func (s *supervisor) look(taking string, last, now pulse) pulse {
	if s.watchdog > 0 && (now.idle || now.turns != last.turns) {
		s.tell("WATCHDOG=1")
	}
	if sentence := now.sentence(taking); sentence != last.sentence(taking) {
		s.tell(status(sentence))
	}
	return now
}
