package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestE2EAddresses gives clients the addresses of two servers, the first of which takes no bets: it
// is away, takes connections and says nothing, or answers ACK 5 and closes. They go to the other.
func TestE2EAddresses(t *testing.T) {
	t.Parallel()
	hangs := openLiar(t, func(v *visit) { io.Copy(io.Discard, v.in) })
	refuses := openLiar(t, func(v *visit) {
		v.in.ReadByte()
		v.Write(ackOf(5, "standing by"))
	})
	nobody := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	bet := []string{"NOMBRE=Ana", "APELLIDO=Paz", "DOCUMENTO=1", "NACIMIENTO=2000-01-01", "NUMERO=7"}
	firsts := map[string]string{"away": nobody, "hangs": hangs.address, "refuses": refuses.address}
	if overTLS { // the other two speak none
		firsts = map[string]string{"away": nobody}
	}
	for name, first := range firsts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := openOffice(t)
			dir, l := clientDir(t, 300)
			both := first + "," + o.address()
			c := startClient(t, dir, 1, both, "-conn.idle=500ms")
			c.wantExit(exitDone)
			c.waitFor("action: connect | result: in_progress | address: "+first+" |", "next: "+o.address())
			c.waitFor("action: verify | result: success")
			wantRows(t, o.stored(t), l)
			if name != "hangs" { // health waits for 3 s
				_, errs, status := runProgram(t, dir, nil, "-mode=health", "-server.address="+both)
				if status != exitDone {
					t.Errorf("health: got status %d and %q, want 0", status, errs)
				}
			}
			_, errs, status := runProgram(t, dir, bet, "-mode=bet", "-id=1", "-server.address="+both,
				"-conn.idle=500ms")
			if hung := name == "hangs"; hung != (status == exitFailed) { // the bet may be stored there
				t.Errorf("bet: got status %d and %q", status, errs)
			} else if stored := strings.Contains(o.stored(t), "1,Ana,Paz,1,2000-01-01,7\r\n"); stored == hung {
				t.Errorf("bet: got it stored: %v", stored)
			}
			o.stop()
		})
	}
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		dir, _ := clientDir(t, 3)
		other := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		c := startClient(t, dir, 1, nobody+","+other, "-retry.timeout=0s")
		c.wantExit(exitFailed)
		c.waitFor("action: connect | result: in_progress | address: "+nobody+" |", "next: "+other)
		wantOneLine(t, "standard error", c.errs.String(), other, "refused", "gave up after 0s")
		_, errs, status := runProgram(t, dir, nil, "-mode=health", "-server.address="+nobody+","+other)
		if status != exitFailed {
			t.Errorf("health: got status %d, want 1", status)
		}
		wantOneLine(t, "health", errs, nobody+": ", "refused: "+other+": ")
	})
}

// TestE2EAddressesMove kills a server in the middle of a file: its client tries the other address,
// where nobody is, and comes back to the first once it is open again.
func TestE2EAddressesMove(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	dir, l := clientDir(t, 300)
	nobody := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c := startClient(t, dir, 1, o.address()+","+nobody, "-batch.maxAmount=1", "-loop.period=3ms")
	c.waitFor("action: apuestas_enviadas | result: success")
	o.kill()
	c.waitFor("action: connect | result: in_progress | address: "+o.address()+" |", "next: "+nobody)
	o.start(t)
	c.wantExit(exitDone)
	wantRows(t, o.stored(t), l)
	o.stop()
}
