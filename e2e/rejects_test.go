package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestE2EForeignRejects names things as rejects file and agency file that are not theirs: the
// client says so before it connects, and they stay as they are.
func TestE2EForeignRejects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{
		"agency-1.csv": "A,B,1,2000-01-01,1\nmalformed\n",
		"bets.csv":     "1,Ana,Paz,1,1999-03-17,7\r\n",
		"notes.txt":    "buy milk\n",
	}
	for name, text := range files {
		writeFile(t, dir, name, text)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "agency-1.csv"), filepath.Join(dir, "link.csv")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ setting, name string }{
		{"data.rejects", "/dev/full"}, {"data.rejects", "/dev/null"}, {"data.rejects", "fifo"}, {"data.rejects", "."},
		{"data.rejects", "bets.csv"}, {"data.rejects", "notes.txt"}, {"data.rejects", "agency-1.csv"},
		{"data.rejects", "link.csv"},
		{"data.file", "/dev/zero"}, {"data.file", "fifo"}, {"data.file", "."}, {"data.file", "missing.csv"},
	} {
		_, errs, status := runProgram(t, dir, nil, "-mode=client", "-id=1", "-data.file=agency-1.csv",
			"-"+tt.setting+"="+tt.name,
			"-server.address=127.0.0.1:1", "-retry.timeout=0s")
		if status != exitFailed {
			t.Errorf("%s=%s: got status %d, want 1", tt.setting, tt.name, status)
		}
		wantOneLine(t, tt.setting+"="+tt.name, errs, tt.name, tt.setting)
	}
	for name, text := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
			t.Errorf("%s: got %q, %v, want it as it was", name, got, err)
		}
	}
}

// TestE2ETwoClientsOfOneFile starts a client of a file that another one sends: it says who has it,
// and exits. Each refused record is in the rejects file once.
func TestE2ETwoClientsOfOneFile(t *testing.T) {
	t.Parallel()
	dir, l := clientDir(t, 300)
	o := openOffice(t)
	first := o.client(t, dir, 1, "-loop.period=1h", "-batch.maxAmount=100")
	first.waitFor("action: apuestas_enviadas")
	if err := os.Symlink("agency-1.csv", filepath.Join(dir, "other.csv")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"agency-1.csv", "other.csv"} {
		second := o.client(t, dir, 1, "-data.file="+name)
		second.wantExit(exitFailed)
		wantOneLine(t, name, second.errs.String(), name, "in use", fmt.Sprintf("pid %d", first.Cmd.Process.Pid))
	}
	first.kill() // its lock ends with it
	o.client(t, dir, 1).wantExit(exitDone)
	l.wantRejects(t, filepath.Join(dir, "agency-1.rejected.csv"))
	wantRows(t, o.stored(t), l)
	o.stop()
}

// TestE2ESharedRejects has sources that are told to share a rejects file: what is refused of each
// is logged and written, once, also when it stands on the same line as in the other.
func TestE2ESharedRejects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lots := []*lot{newLot(1), newLot(1), newLot(1)}
	for i, l := range lots {
		l.addMalformed("name,surname,document,born,number\n", "number is not 1 to 5 digits", "name", "surname",
			"document", "born", "number")
		for n := range 40 {
			l.addBet("", "Ana", "Paz", strconv.Itoa(100*i+n), "2000-01-01", "7")
		}
		l.addBet("document is not 1 to 10 digits", "Ana", "Paz", "x"+strconv.Itoa(i), "2000-01-01", "7")
		l.addMalformed("last\n", "1 fields where there should be 5", "last")
		writeFile(t, dir, fmt.Sprintf("day-%d.csv", i), l.file.String())
	}
	o := openOffice(t)
	send := func(day int, args ...string) *process {
		c := o.client(t, dir, 1, append(args, fmt.Sprintf("-data.file=day-%d.csv", day), "-data.rejects=shared.csv",
			"-batch.maxAmount=10")...)
		c.wantExit(exitDone)
		return c
	}
	logged := func(c *process, want int) {
		t.Helper()
		if got := len(c.lines("action: apuesta_rechazada")); got != want {
			t.Errorf("got %d refusals logged, want %d", got, want)
		}
	}
	logged(send(0), 3)
	logged(send(1, "-loop.amount=2"), 1) // it gets to the header alone
	logged(send(2), 3)
	logged(send(1), 2) // goes on
	for day := range lots {
		logged(send(day), 0) // nothing is left
	}
	var want []string
	for _, rows := range [][][]string{lots[0].rejects, lots[1].rejects[:1], lots[2].rejects, lots[1].rejects[1:]} {
		for _, row := range rows {
			want = append(want, strings.Join(row, ","))
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "shared.csv"))
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "shared.csv", strings.Split(strings.TrimSuffix(string(got), "\r\n"), "\r\n"), want)
	wantRows(t, o.stored(t), &lot{agency: 1, rows: append(append(append([]string{}, lots[0].rows...),
		lots[1].rows[:20]...),
		append(append([]string{}, lots[2].rows...), lots[1].rows[20:]...)...)})
	o.stop()
}
