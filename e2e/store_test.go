package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tp0/tools/torture"
)

// noSnapshots keeps a server from writing a snapshot of its state, as a full disk would: a folder
// has the place of the file.
func (o *office) noSnapshots(t *testing.T) (again func()) {
	t.Helper()
	folder := filepath.Join(o.dir, "bets.csv.state.new")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return func() { os.Remove(folder) }
}

// TestE2EDrawNumberChanges has a life of the server with another winning number, or without a draw,
// in which nothing but the log can be written, and which ends with a kill. The winners are those of
// the number that is drawn, and the log seals what was drawn over.
func TestE2EDrawNumberChanges(t *testing.T) {
	t.Parallel()
	for _, between := range []string{"-draw.winner=7573", "-draw.agencies=0"} {
		t.Run(between, func(t *testing.T) {
			t.Parallel()
			o := openOffice(t, "-draw.agencies=1", "-draw.winner=7574")
			documents := func(from int) (bets []byte, winners []string) {
				bets = []byte{3, 0, 2}
				for i, number := range []int{7574, 7573} {
					bets = append(bets, wireBet(1, "Ana", "Paz", strconv.Itoa(from+i), "2000-01-01", number)...)
				}
				return bets, []string{strconv.Itoa(from)}
			}
			send := func(from int) (winners []string) {
				w := o.dial(t)
				defer w.Close()
				bets, winners := documents(from)
				w.send(bets)
				w.wantAck(0, "")
				return winners
			}
			winners := send(1001)
			o.stop()
			again := o.noSnapshots(t)
			o.args = append(o.args, between)
			o.start(t)
			winners = append(winners, send(2001)...)
			o.kill()
			again()
			o.args = o.args[:2]
			o.start(t)
			winners = append(winners, send(3001)...)
			w := o.dial(t)
			defer w.Close()
			w.send([]byte{4, 1, 0, 4, 1, 1})
			w.wantAck(4, "")
			want := []byte{5, 0, 3}
			for _, document := range winners {
				want = append(want, wireString(document)...)
			}
			wantReceived(t, w, want)
			sealed := o.waitFor("action: sorteo_sello | result: success", "apuestas: 6")
			o.stop()
			if got, want := field(sealed, "sha256"),
				fmt.Sprintf("%x", sha256.Sum256([]byte(o.stored(t)))); got != want {
				t.Errorf("seal: got %s, want %s", got, want)
			}
		})
	}
}

// TestE2EChangedByte changes a byte of bets.csv behind the server's back: the draw's survey
// says so, and the server goes on.
func TestE2EChangedByte(t *testing.T) {
	t.Parallel()
	o := openOffice(t, "-draw.agencies=1")
	w := o.dial(t)
	defer w.Close()
	w.send(wireBatch(wireBet(1, "Ana", "Paz", "1", "2000-01-01", 7574)))
	w.wantAck(0, "")
	bets := filepath.Join(o.dir, "bets.csv")
	if err := os.WriteFile(bets, []byte(strings.Replace(o.stored(t), "Ana", "Eva", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.send([]byte{4, 1, 0, 4, 1, 1})
	w.wantAck(4, "")
	wantReceived(t, w, append([]byte{5, 0, 1}, wireString("1")...))
	o.waitFor("ERROR", "action: sorteo_sello | result: fail", "bets.csv", "copy")
	wantHealth(t, o.address(), exitDone)
	o.stop()
}

// TestE2EForget has a stopped server forget a source: the next client of that name sends the file
// from its start, and its bets are stored once more.
func TestE2EForget(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	dir, l := clientDir(t, 200)
	o.client(t, dir, 1).wantExit(exitDone)
	forget := func(name string) (out, errs string, status int) {
		return runProgram(t, o.dir, nil, "-mode=forget", "-id=1", "-data.source="+name)
	}
	_, errs, status := forget("agency-1.csv")
	if status != exitFailed {
		t.Errorf("while the server runs: got status %d, want 1", status)
	}
	wantOneLine(t, "while the server runs", errs, "in use")
	o.stop()
	if _, errs, status = forget("other.csv"); status != exitFailed {
		t.Errorf("a name that nobody used: got status %d, want 1", status)
	}
	wantOneLine(t, "a name that nobody used", errs, "other.csv")
	out, errs, status := forget("agency-1.csv")
	if status != exitDone || errs != "" || !strings.Contains(out, "action: forget | result: success") {
		t.Errorf("got status %d, %q and the log\n%s", status, errs, out)
	}
	o.start(t)
	c := o.client(t, dir, 1)
	c.wantExit(exitDone)
	c.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(l.sizes)))
	o.stop()
	twice := newLot(1)
	twice.rows = append(append(twice.rows, l.rows...), l.rows...)
	wantRows(t, o.stored(t), twice)
}

// TestE2EStopWhileAdopting stops a server that reads a large bets.csv of another program: it
// obeys at once, and leaves it for the next start.
func TestE2EStopWhileAdopting(t *testing.T) {
	t.Parallel()
	o := &office{dir: t.TempDir(), port: freePort(t)}
	rows := strings.Repeat("1,Santiago Lionel,Lorca,30904465,1999-03-17,2201\r\n", 400_000)
	writeFile(t, o.dir, "bets.csv", rows)
	p := launch(t, o.dir, "server", "-mode=server", "-server.host=127.0.0.1", "-server.port=0")
	p.waitFor("action: adopt | result: in_progress")
	p.stop()
	p.waitFor("action: shutdown | result: success")
	if o.stored(t) != rows {
		t.Error("the bets file has changed")
	}
	o.start(t)
	o.waitFor("action: store | result: success", "bets: 400000")
	o.stop()
	if o.stored(t) != rows {
		t.Error("the bets file has changed in the second start")
	}
}

// TestTortureWinners sends WINNERS bets that all win. Neither the server's memory nor its snapshot
// grows with them.
func TestTortureWinners(t *testing.T) {
	winners := torture.Count(t, "WINNERS", 3_000_000)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "agency-1.csv"))
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < winners; {
		var text strings.Builder
		for range min(10_000, winners-at) {
			at++
			fmt.Fprintf(&text, "Ana,Paz,%d,2000-01-01,7574\n", at)
		}
		if _, err := f.WriteString(text.String()); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	o := openOffice(t, "-draw.agencies=1")
	status := filepath.Join("/proc", strconv.Itoa(o.Cmd.Process.Pid), "status")
	c := o.client(t, dir, 1, "-draw.agencies=1")
	c.waitFor("action: consulta_ganadores | result: success", fmt.Sprintf("cant_ganadores: %d", winners))
	c.wantExit(exitDone)
	text, err := os.ReadFile(status)
	if err != nil {
		t.Skipf("SKIPPED: this system does not say how much memory a process has: %v", err)
	}
	_, most, _ := strings.Cut(string(text), "VmHWM:")
	kilobytes, err := strconv.Atoi(strings.Fields(most)[0])
	if err != nil || kilobytes > 64<<10 {
		t.Errorf("memory of the server: got %d KiB, %v, want at most 64 MiB", kilobytes, err)
	}
	o.stop()
	info, err := os.Stat(filepath.Join(o.dir, "bets.csv.state"))
	if err != nil || info.Size() > 1000 {
		t.Errorf("snapshot: got %d bytes, %v, want at most 1,000", info.Size(), err)
	}
	fmt.Printf("winning bets %d, most memory of the server %d KiB, snapshot %d bytes, found %s\n",
		winners, kilobytes, info.Size(), verdict(t))
}

// wantReceived wants the other side to send exactly these bytes next.
func wantReceived(t *testing.T, w *wire, want []byte) {
	t.Helper()
	if got := w.receive(len(want)); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
