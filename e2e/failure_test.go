package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// wantHealth wants mode health to exit with status.
func wantHealth(t *testing.T, address string, status int) {
	t.Helper()
	_, errs, got := runProgram(t, t.TempDir(), nil, "-mode=health", "-server.address="+address)
	if got != status {
		t.Errorf("health: got status %d and %q, want %d", got, errs, status)
	}
	if got != exitDone {
		wantOneLine(t, "health", errs, address)
	}
}

// TestE2EFailures has what can be wrong outside the program: one clear line, exit status 1.
func TestE2EFailures(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	takenPort := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	nobody := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	dir := t.TempDir()
	writeFile(t, dir, "agency-1.csv", "A,B,1,2000-01-01,1\nA,B,x,2000-01-01,1\n")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := openOffice(t)
	client := func(args ...string) []string {
		return append([]string{"-mode=client", "-id=1", "-data.file=agency-1.csv", "-server.address=" + o.address()},
			args...)
	}
	for _, tt := range []struct {
		name string
		args []string
		errs []string
	}{
		{"port in use", []string{"-mode=server", "-server.host=127.0.0.1", "-server.port=" + takenPort,
			"-store.path=a.csv"}, []string{takenPort, "address already in use"}},
		{"address of another host", []string{"-mode=server", "-server.host=192.0.2.1", "-server.port=0",
			"-store.path=a.csv"}, []string{"192.0.2.1"}},
		{"store is a folder", []string{"-mode=server", "-server.port=0", "-store.path=folder"}, []string{"folder"}},
		{"store in a folder that is not there", []string{"-mode=server", "-server.port=0",
			"-store.path=nowhere/bets.csv"}, []string{"nowhere"}},
		{"store in use", []string{"-mode=server", "-server.port=0", "-store.path=" + filepath.Join(o.dir, "bets.csv")},
			[]string{"bets.csv", fmt.Sprintf("pid %d", o.Cmd.Process.Pid)}},
		{"no agency file", client("-data.file=missing.csv"), []string{"missing.csv", "data.file"}},
		{"agency file is a folder", client("-data.file=folder"), []string{"folder"}},
		{"rejects file is a folder", client("-data.rejects=folder"), []string{"folder", "data.rejects"}},
		{"nobody listens", client("-server.address="+nobody, "-retry.timeout=0s"),
			[]string{nobody, "refused", "retry.timeout"}},
		{"nobody listens for a while", client("-server.address="+nobody, "-retry.timeout=200ms"),
			[]string{nobody, "refused", "retry.timeout"}},
		{"no store to print", []string{"-mode=cat"}, []string{"bets.csv"}},
		{"nobody to be healthy", []string{"-mode=health", "-server.address=" + nobody}, []string{nobody, "refused"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, errs, status := runProgram(t, dir, nil, tt.args...)
			if status != exitFailed {
				t.Errorf("got status %d, want 1", status)
			}
			wantOneLine(t, "standard error", errs, tt.errs...)
		})
	}
	o.stop()
}

// TestE2EOtherFile has another file under a name that the server knows: nothing is sent, and the
// client says what to do.
func TestE2EOtherFile(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	dir, l := clientDir(t, 300)
	o.client(t, dir, 1).wantExit(exitDone)
	for _, tt := range []struct{ name, text string }{
		{"shorter", l.file.String()[:len(l.file.String())/2]},
		{"empty", ""},
		{"different", strings.Replace(l.file.String(), "1999-12-31", "1999-12-30", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := t.TempDir()
			writeFile(t, other, "agency-1.csv", tt.text)
			c := o.client(t, other, 1)
			c.wantExit(exitFailed)
			wantOneLine(t, "standard error", c.errs.String(), "another file", "data.source", "agency-1.csv")
			c = o.client(t, other, 1, "-data.source="+tt.name) // what it says to do
			c.wantExit(exitDone)
		})
	}
	t.Run("longer", func(t *testing.T) {
		before := strings.Count(o.stored(t), "\r\n")
		writeFile(t, dir, "agency-1.csv", l.file.String()+"Ana,Paz,1,2000-01-01,1\r\n")
		c := o.client(t, dir, 1)
		c.wantExit(exitDone)
		c.waitFor("action: loop_finished", "enviadas: 1 ")
		if got := strings.Count(o.stored(t), "\r\n"); got != before+1 {
			t.Errorf("got %d rows, want %d", got, before+1)
		}
	})
	o.stop()
}

// TestE2ETwoClientsOfOneSource starts three clients of one source at once, each
// with a copy of the file: the newer takes over, and each bet is stored once.
func TestE2ETwoClientsOfOneSource(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	dir, l := clientDir(t, 3000)
	var clients []*process
	for i := range 3 {
		copied := fmt.Sprintf("copy-%d.csv", i)
		writeFile(t, dir, copied, l.file.String())
		clients = append(clients, o.client(t, dir, 1, "-batch.maxAmount=20", "-data.source=one", "-data.file="+copied,
			fmt.Sprintf("-data.rejects=%d.csv", i)))
	}
	for _, c := range clients {
		c.wantExit(exitDone)
		c.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(l.sizes)))
	}
	wantRows(t, o.stored(t), l)
	o.stop()
}
