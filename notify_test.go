package main

import (
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// listenNotify plays systemd: it returns what hears the datagrams, and a getenv that names it.
func listenNotify(t *testing.T, watchdog time.Duration) (hear func() string, getenv func(string) string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Skipf("SKIPPED: no datagram sockets in the file system here: %v", err)
	}
	t.Cleanup(func() { socket.Close() })
	hear = func() string {
		t.Helper()
		datagram := make([]byte, 4096)
		socket.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := socket.Read(datagram)
		if err != nil {
			t.Fatalf("got no datagram: %v", err)
		}
		return string(datagram[:n])
	}
	env := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": strconv.FormatInt(watchdog.Microseconds(), 10)}
	return hear, func(key string) string { return env[key] }
}

// TestSupervisorLook: what is told from one look at the store to the next. The word behind it shows
// that nothing else was.
func TestSupervisorLook(t *testing.T) {
	full := errors.New("writing bets.csv:\nno space")
	for _, tt := range []struct {
		name      string
		last, now pulse
		want      string
	}{
		{"idle", pulse{turns: 1, idle: true}, pulse{turns: 1, idle: true}, "WATCHDOG=1"},
		{"moves", pulse{turns: 1}, pulse{turns: 2}, "WATCHDOG=1"},
		{"begins to work", pulse{turns: 1, idle: true}, pulse{turns: 1}, ""},
		{"hangs", pulse{turns: 2}, pulse{turns: 2}, ""},
		{"full", pulse{turns: 2}, pulse{turns: 3, trouble: full},
			"WATCHDOG=1 STATUS=NOT taking bets: writing bets.csv:\\x0ano space"},
		{"still full", pulse{turns: 2, trouble: full}, pulse{turns: 3, trouble: full}, "WATCHDOG=1"},
		{"full, and hangs", pulse{turns: 3, trouble: full}, pulse{turns: 3, trouble: full}, ""},
		{"room again", pulse{turns: 3, trouble: full}, pulse{turns: 4, idle: true}, "WATCHDOG=1 STATUS=Taking bets."},
		{"stands by", pulse{turns: 4, idle: true}, pulse{turns: 5, trouble: errStandby, standby: "office-b takes bets"},
			"WATCHDOG=1 STATUS=Standing by: office-b takes bets."},
		{"another one takes over", pulse{turns: 5, trouble: errStandby, standby: "office-b takes bets"},
			pulse{turns: 6, trouble: errStandby, standby: "office-c takes bets"},
			"WATCHDOG=1 STATUS=Standing by: office-c takes bets."},
		{"full, and could stand by", pulse{turns: 6, trouble: errStandby, standby: "office-c takes bets"},
			pulse{turns: 7, trouble: full}, "WATCHDOG=1 STATUS=NOT taking bets: writing bets.csv:\\x0ano space"},
		{"takes the term", pulse{turns: 7, trouble: errStandby, standby: "office-c takes bets"},
			pulse{turns: 8, idle: true}, "WATCHDOG=1 STATUS=Taking bets."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hear, getenv := listenNotify(t, time.Minute)
			s := newSupervisor(getenv)
			hear()
			s.look("Taking bets.", tt.last, tt.now)
			s.tell("end")
			var got []string
			for text := hear(); text != "end"; text = hear() {
				got = append(got, text)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestWatchdogAndDisk: a store whose disk hangs in a sync shows no pulse; before and after it does.
func TestWatchdogAndDisk(t *testing.T) {
	d, hanging, goOn := &faultDisk{disk: newSimDisk()}, make(chan struct{}), make(chan struct{})
	s := openTest(t, d, testOptions())
	alive := func() bool {
		last := s.pulse()
		time.Sleep(time.Millisecond)
		now := s.pulse()
		return now.idle || now.turns != last.turns
	}
	if !alive() {
		t.Error("an idle store has no pulse")
	}
	var once sync.Once
	d.setFault(func(c diskCall) *diskFault {
		if c.kind == "datasync" {
			once.Do(func() { close(hanging); <-goOn })
		}
		return nil
	})
	g, err := s.submit(&session{}, anonymousBet(0))
	if err != nil {
		t.Fatal(err)
	}
	<-hanging
	if alive() {
		t.Error("a store whose disk hangs has a pulse")
	}
	close(goOn)
	<-g.done
	waitFor(t, "a pulse", alive)
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

// TestSupervisorNone: without a socket, with one that is not there, and for another process's
// watchdog nothing is told and nothing fails.
func TestSupervisorNone(t *testing.T) {
	for _, socket := range []string{"", filepath.Join(t.TempDir(), "gone"), "@tp0-nobody-listens"} {
		s := newSupervisor(func(key string) string {
			if key == "NOTIFY_SOCKET" {
				return socket
			}
			return "1000000"
		})
		if s.conn != nil {
			t.Errorf("%q: got a connection", socket)
		}
		s.tell("READY=1")
		s.watch("Taking bets.", func() pulse { t.Error("it looked at the store"); return pulse{} }, nil)
	}
	_, getenv := listenNotify(t, time.Minute)
	other := newSupervisor(func(key string) string {
		if key == "WATCHDOG_PID" {
			return "1"
		}
		return getenv(key)
	})
	if other.watchdog != 0 {
		t.Error("the watchdog of another process is fed")
	}
}
