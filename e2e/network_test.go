package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A badNetwork is a proxy in front of a server that loses answers, cuts connections anywhere,
// delays bytes and cuts them into small pieces. TCP loses nothing in the middle: a lost answer is
// one that the server has sent and after which the connection is gone.
type badNetwork struct {
	listener net.Listener
	target   string
	lose     float64 // chance that an answer (ACK or RESUME) is lost
	cut      float64 // chance that the connection is cut at a random byte of what was read at once
	split    float64 // chance that what was read at once goes on in pieces, with pauses

	running sync.WaitGroup
	mu      sync.Mutex // protects following
	random  *rand.Rand
	done    networkCount
}

// A networkCount is what a bad network did.
type networkCount struct{ connections, answers, lost, cuts, splits int }

// openBadNetwork starts the proxy.
func openBadNetwork(t *testing.T, target string, lose, cut, split float64) *badNetwork {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &badNetwork{listener: listener, target: target, lose: lose, cut: cut, split: split,
		random: rand.New(rand.NewPCG(5, 5))}
	beside(&n.running, func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			beside(&n.running, func() { n.carry(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		n.running.Wait()
	})
	return n
}

func (n *badNetwork) address() string { return n.listener.Addr().String() }

// happens rolls the dice, and counts.
func (n *badNetwork) happens(chance float64, count *int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.random.Float64() >= chance {
		return false
	}
	*count++
	return true
}

// upTo returns a random number from 0 to most.
func (n *badNetwork) upTo(most int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.random.IntN(most + 1)
}

// carry carries one connection until either side, or the network, ends it.
func (n *badNetwork) carry(client net.Conn) {
	defer client.Close()
	n.happens(1, &n.done.connections)
	server, err := net.Dial("tcp", n.target)
	if err != nil {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	beside(&both, func() { n.pass(server, client, false) })
	beside(&both, func() { n.pass(client, server, true) })
	both.Wait()
}

// pass carries bytes one way.
func (n *badNetwork) pass(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	held := 0 // bytes of an answer that has not come whole
	for {
		read, err := from.Read(buf[held:])
		ready := held + read
		if answers {
			ready = n.survivors(buf[:ready])
		}
		cut := ready < 0
		if cut {
			ready = -ready - 1
		} else if read > 0 && n.happens(n.cut, &n.done.cuts) {
			ready, cut = n.upTo(ready), true
		}
		if n.send(to, buf[:ready]) != nil || cut || err != nil {
			return
		}
		held = copy(buf, buf[ready:held+read])
	}
}

// survivors returns how many bytes of the whole answers, or records of TLS, in p go on; if the one
// behind them is lost, -1 less that.
func (n *badNetwork) survivors(p []byte) (end int) {
	for {
		rest := p[end:]
		if len(rest) < 5 && (overTLS || len(rest) < 4) {
			return end
		}
		size, lose := 13, n.lose // RESUME
		switch {
		case overTLS:
			size = 5 + int(binary.BigEndian.Uint16(rest[3:]))
			lose /= 8 // a handshake has several records, and at 50 % none would come through
		case rest[0] == 2:
			size = 4 + int(binary.BigEndian.Uint16(rest[2:]))
		}
		if end+size > len(p) {
			return end
		}
		n.happens(1, &n.done.answers)
		if n.happens(lose, &n.done.lost) {
			return -end - 1
		}
		end += size
	}
}

// send writes, perhaps in pieces.
func (n *badNetwork) send(to io.Writer, p []byte) error {
	if len(p) == 0 || !n.happens(n.split, &n.done.splits) {
		_, err := to.Write(p)
		return err
	}
	for range 20 {
		size := min(1+n.upTo(len(p)/10), len(p))
		if _, err := to.Write(p[:size]); err != nil {
			return err
		}
		p = p[size:]
		time.Sleep(time.Duration(n.upTo(300)) * time.Microsecond)
	}
	_, err := to.Write(p)
	return err
}

// sendThrough sends five files through a bad network: all arrive once, and each refused record is
// rejected once.
func sendThrough(t *testing.T, records int, lose, cut, split float64, args ...string) networkCount {
	t.Helper()
	dir := t.TempDir()
	lots := makeLots(t, dir, 5, records, 4)
	o := openOffice(t)
	n := openBadNetwork(t, o.address(), lose, cut, split)
	var clients []*process
	for _, l := range lots {
		clients = append(clients, startClient(t, dir, l.agency, n.address(), append([]string{"-retry.timeout=1m"},
			args...)...))
	}
	for i, c := range clients {
		for over := false; !over; { // as long as it takes, while it goes on
			before := len(c.out.String())
			select {
			case <-c.Done:
				over = true
			case <-time.After(2 * patience):
				if len(c.out.String()) == before {
					c.wantExit(exitDone)
				}
			}
		}
		c.wantExit(exitDone)
		c.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(lots[i].sizes)))
		c.wantSummary(lots[i])
		lots[i].wantRejects(t, filepath.Join(dir, fmt.Sprintf("agency-%d.rejected.csv", i+1)))
	}
	o.stop()
	wantRows(t, o.stored(t), lots...)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.done
}

// TestE2EBadNetwork sends through networks that are bad in several ways.
func TestE2EBadNetwork(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		lose, cut, split float64
		args             []string
	}{
		{"1 % lost", 0.01, 0, 0, []string{"-batch.maxAmount=5", "-batch.window=1"}},
		{"10 % lost", 0.10, 0, 0, []string{"-batch.maxAmount=20"}},
		{"50 % lost", 0.50, 0, 0, []string{"-batch.maxAmount=50", "-batch.window=4"}},
		{"cut", 0, 0.10, 0, []string{"-batch.maxAmount=20"}},
		{"split", 0, 0, 0.5, nil},
		{"all of it", 0.05, 0.05, 0.3, []string{"-batch.maxAmount=10", "-batch.window=8"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Logf("%+v", sendThrough(t, 800, tt.lose, tt.cut, tt.split, tt.args...))
		})
	}
}
