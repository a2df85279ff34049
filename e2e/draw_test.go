package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// drawLot is an agency file of 200 bets of which the given number win.
func drawLot(t *testing.T, dir string, agency, winners int) *lot {
	t.Helper()
	l := newLot(agency)
	for i := range 200 {
		number := "7573"
		if i*winners/200 != (i+1)*winners/200 {
			number = "7574"
		}
		l.addBet("", "Ana", "Gómez", fmt.Sprint(100_000*agency+(i*7919)%100_000), "2000-01-01", number)
	}
	if len(l.winners) != winners {
		t.Fatalf("got %d winners made, want %d", len(l.winners), winners)
	}
	writeFile(t, dir, fmt.Sprintf("agency-%d.csv", agency), l.file.String())
	return l
}

// wantDraws wants the server to have drawn that often in all its lives.
func wantDraws(t *testing.T, want int, lives ...*process) {
	t.Helper()
	got := 0
	for _, p := range lives {
		got += len(p.lines("action: sorteo | result: success"))
	}
	if got != want {
		t.Errorf("got %d draws, want %d", got, want)
	}
}

// TestE2EDraw has the course's scenarios, with clients that resume and clients that do not.
func TestE2EDraw(t *testing.T) {
	t.Parallel()
	for _, winners := range [][]int{{2, 1, 0}, {1, 2, 3, 4, 5}} {
		for _, resume := range []string{"-resume=true", "-resume=false"} {
			t.Run(fmt.Sprint(winners, resume), func(t *testing.T) {
				dir, draw := t.TempDir(), fmt.Sprintf("-draw.agencies=%d", len(winners))
				o := openOffice(t, draw)
				var clients []*process
				var lots []*lot
				for i, n := range winners {
					lots = append(lots, drawLot(t, dir, i+1, n))
					clients = append(clients, o.client(t, dir, i+1, draw, resume, "-batch.maxAmount=10"))
				}
				for i, c := range clients {
					c.wantExit(exitDone)
					c.wantWinners(lots[i].winners)
					c.wantNoFail()
				}
				o.wantNoFail()
				wantRows(t, o.stored(t), lots...)
				o.stop()
				wantDraws(t, 1, o.process)
			})
		}
	}
}

// TestE2EDrawWaits has an agency that does not finish: the others wait, longer than conn.idle
// lets a connection be, and learn nothing, until it does. The server is killed before and after
// the draw.
func TestE2EDrawWaits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// 10 times this would end a connection that is owed nothing
	o := openOffice(t, "-draw.agencies=3", "-conn.idle=100ms")
	first := o.process
	lots := []*lot{drawLot(t, dir, 1, 3), drawLot(t, dir, 2, 0), drawLot(t, dir, 3, 5)}
	args := []string{"-draw.agencies=3", "-loop.amount=0"}
	waiting := []*process{o.client(t, dir, 1, args...), o.client(t, dir, 2, args...)}
	again := o.client(t, dir, 2, append(args, "-data.source=other", "-data.rejects=other.csv",
		"-data.file=empty.csv")...)
	again.wantExit(exitFailed) // no such file: an agency that does not finish
	late := o.client(t, dir, 3, "-loop.amount=1")
	late.wantExit(exitDone) // it does not take part in the draw
	for _, c := range waiting {
		c.waitFor("action: consulta_ganadores | result: in_progress")
		if n := len(c.lines("action: verify")); n != 1 {
			t.Errorf("%s: got %d connections that verified, want 1: a waiting client is not cut off", c.Name, n)
		}
	}
	if n := len(o.lines("10 times conn.idle")); n != 0 {
		t.Errorf("got %d connections cut, want none", n)
	}
	for _, agency := range []byte{3, 9} { // one that has not finished, and one that has never bet
		asker := o.dialAs(t, int(agency))
		asker.send([]byte{4, agency, 1})
		asker.wantAck(3, "")
		asker.Close()
	}
	o.kill()
	o.start(t)
	second := o.process
	last := o.client(t, dir, 3, args...)
	waiting = append(waiting, last)
	for i, c := range waiting {
		c.wantExit(exitDone)
		c.wantWinners(lots[i].winners)
		if n := len(c.lines("action: verify")); n != 1 {
			t.Errorf("%s: verified %d times, want once, on whatever connection it waits", c.Name, n)
		}
	}
	wantDraws(t, 1, first, second)
	o.kill()
	o.start(t)
	for i := range lots { // they ask again after the draw
		c := o.client(t, dir, i+1, args...)
		c.wantExit(exitDone)
		c.wantWinners(lots[i].winners)
	}
	wantDraws(t, 1, first, second, o.process)
	wantRows(t, o.stored(t), lots...)
	o.stop()
}

// TestE2EBetsAfterDraw has an agency's bets come after the draw: all are rejected, and it goes on
// to its winners.
func TestE2EBetsAfterDraw(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := openOffice(t, "-draw.agencies=1")
	early, late := drawLot(t, dir, 1, 2), drawLot(t, dir, 2, 4)
	c := o.client(t, dir, 1, "-draw.agencies=1")
	c.wantExit(exitDone)
	c.wantWinners(early.winners)
	c = o.client(t, dir, 2, "-draw.agencies=1", "-batch.maxAmount=30")
	c.wantExit(exitDone)
	c.wantWinners(nil)
	rejected := newLot(2)
	for record := range strings.SplitSeq(strings.TrimSuffix(late.file.String(), "\r\n"), "\r\n") {
		rejected.addBet("the draw has taken place", strings.Split(record, ",")...)
	}
	rejected.wantRejects(t, filepath.Join(dir, "agency-2.rejected.csv"))
	bet := []string{"NOMBRE=A", "APELLIDO=B", "DOCUMENTO=1", "NACIMIENTO=2000-01-01", "NUMERO=1"}
	b := launchCommand(t, "bet", programCommand(t.TempDir(), bet,
		"-mode=bet", "-id=1", "-server.address="+o.address()))
	b.wantExit(exitFailed)
	wantOneLine(t, "standard error", b.errs.String(), "the draw has taken place")
	o.stop()
	wantRows(t, o.stored(t), early)
}

// TestE2ETwoClientsOfOneAgency has two files of one agency: it has finished with the first of
// them, and the draw waits for the other agency all the same.
func TestE2ETwoClientsOfOneAgency(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := openOffice(t, "-draw.agencies=2")
	l := drawLot(t, dir, 1, 2)
	other := drawLot(t, dir, 2, 1)
	args := []string{"-draw.agencies=2"}
	one := o.client(t, dir, 1, args...)
	one.waitFor("action: verify | result: success")
	writeFile(t, dir, "second.csv", l.file.String()) // a file is one client's
	two := o.client(t, dir, 1, append(args, "-data.file=second.csv")...)
	two.waitFor("action: verify | result: success")
	asker := o.dial(t)
	asker.send([]byte{4, 1, 1})
	asker.wantAck(3, "")
	asker.Close()
	c := o.client(t, dir, 2, args...)
	c.wantExit(exitDone)
	c.wantWinners(other.winners)
	for _, p := range []*process{one, two} {
		p.wantExit(exitDone)
		p.wantWinners(append(append([]string{}, l.winners...), l.winners...))
	}
	o.stop()
	wantDraws(t, 1, o.process)
}

// TestE2EDrawUnderKills kills the server again and again while three agencies send, finish and
// ask: there is one draw, and each learns its winners.
func TestE2EDrawUnderKills(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &office{dir: t.TempDir(), port: freePort(t), args: []string{"-draw.agencies=3"}}
	o.start(t)
	lives := []*process{o.process}
	var lots []*lot
	var clients []*process
	for agency := 1; agency <= 3; agency++ {
		lots = append(lots, drawLot(t, dir, agency, agency*3))
		clients = append(clients, o.client(t, dir, agency, "-draw.agencies=3", "-batch.maxAmount=3",
			"-loop.period=2ms"))
	}
	for range 8 {
		time.Sleep(30 * time.Millisecond)
		o.kill()
		o.start(t)
		lives = append(lives, o.process)
	}
	for i, c := range clients {
		c.wantExit(exitDone)
		c.wantWinners(lots[i].winners)
	}
	o.stop()
	got := 0
	for _, p := range lives {
		got += len(p.lines("action: sorteo | result: success"))
	}
	if got > 1 { // a server that is killed at that instant may not have said it
		t.Errorf("got %d draws, want 1", got)
	}
	wantRows(t, o.stored(t), lots...)
}
