package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tp0/tools/torture"
)

// What the whole program does with rights, namespaces and file systems that only Linux lets a
// test arrange.

// TestE2EPidOne stops a server and a client that are process 1 of a pid namespace, as in a
// container.
func TestE2EPidOne(t *testing.T) {
	t.Parallel()
	bothSignals(t, "pid 1", func(t *testing.T, sig syscall.Signal) {
		cmd := programCommand(t.TempDir(), nil, "-mode=server", "-server.port=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		}
		probe := exec.Command("/bin/true")
		probe.SysProcAttr = cmd.SysProcAttr
		if err := probe.Run(); err != nil {
			t.Skipf("SKIPPED: no pid namespace can be made here: %v", err)
		}
		p := launchCommand(t, "server with pid 1", cmd)
		if port := numberIn(t, p.waitFor("action: listen | result: success"), "port"); port == 0 {
			t.Errorf("got port 0 in the log, want the one that the system chose")
		}
		p.signal(sig)
		p.wantShutdown(sig, "close_listener", "close_store")
	})
}

// TestE2ESignalInBlackHole stops a client whose dial is never answered.
func TestE2ESignalInBlackHole(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil { // a queue of one, which nobody takes anything from
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	dialWire(t, address)
	bothSignals(t, "black hole", func(t *testing.T, sig syscall.Signal) {
		dir, _ := clientDir(t, 10)
		c := startClient(t, dir, 1, address)
		c.waitFor("action: config")
		c.signal(sig)
		c.wantShutdown(sig, "close_file")
	})
}

// otherUser makes cmd run as a user who is not root and owns nothing. The program is copied to
// where that user may run it.
func otherUser(t *testing.T, cmd *exec.Cmd, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: not root, so no other user can be taken on")
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	from, err := os.Open(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, "program"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	cmd.Path = to.Name()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// TestE2EForeignFolder starts a server in a folder that belongs to somebody else, and one whose
// files do.
func TestE2EForeignFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := programCommand(dir, nil, "-mode=server", "-server.port=0")
	otherUser(t, cmd, dir)
	out, errs, status := runCommand(t, "server in a foreign folder", cmd)
	if status != exitFailed {
		t.Errorf("got status %d, want 1, and the log\n%s", status, out)
	}
	wantOneLine(t, "standard error", errs, "bets.csv", "65534")

	o := openOffice(t)
	o.stop() // its files belong to root
	cmd = programCommand(o.dir, nil, "-mode=server", "-server.port=0")
	otherUser(t, cmd, o.dir)
	_, errs, status = runCommand(t, "server with foreign files", cmd)
	if status != exitFailed {
		t.Errorf("got status %d, want 1", status)
	}
	wantOneLine(t, "standard error", errs, "bets.csv", "65534")
}

// TestE2EFileSizeLimit has a server whose files may not grow over a limit: it refuses with ACK 5,
// and what it has answered is there. Without the limit the client finishes.
func TestE2EFileSizeLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := makeSample(t, dir, 2, 110_000)
	o := &office{dir: t.TempDir(), port: freePort(t)}
	limited := programCommand(o.dir, nil, "-mode=server", "-server.host=127.0.0.1",
		fmt.Sprintf("-server.port=%d", o.port))
	limited.Args = append([]string{"sh", "-c", `ulimit -f 8200; exec "$0" "$@"`, limited.Path}, limited.Args[1:]...)
	limited.Path = "/bin/sh"
	p := launchCommand(t, "limited server", limited)
	p.waitFor("action: listen")
	c := o.client(t, dir, 2, "-retry.timeout=1s")
	p.waitFor("action: store | result: fail", "ACK 5")
	wantHealth(t, o.address(), exitFailed)
	c.wantExit(exitFailed)
	p.stop()
	o.start(t)
	c = o.client(t, dir, 2)
	c.wantExit(exitDone)
	c.waitFor("action: verify | result: success | apuestas: 110000")
	wantHealth(t, o.address(), exitDone)
	wantRows(t, o.stored(t), l)
	o.stop()
}

// A smallDisk is a small file system with a server on it.
type smallDisk struct {
	*office
	t *testing.T
}

// mountSmallDisk mounts a file system of that kind and size, and starts a server on it.
func mountSmallDisk(t *testing.T, kind string, size int64) *smallDisk {
	t.Helper()
	dir := t.TempDir()
	if err := mountKind(kind, dir, filepath.Join(t.TempDir(), "image"), size); err != nil {
		t.Skipf("SKIPPED: no small %s can be made and mounted (that takes root, and mkfs.%s): %v", kind, kind, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	d := &smallDisk{&office{dir: dir, port: freePort(t)}, t}
	d.start(t)
	return d
}

// mountKind mounts a tmpfs, or what mkfs makes of a file.
func mountKind(kind, dir, image string, size int64) error {
	if kind == "tmpfs" {
		return syscall.Mount("tp0-test", dir, kind, 0, fmt.Sprintf("size=%d", size))
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	for _, args := range [][]string{{"mkfs." + kind, "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	return nil
}

// fill takes all the room there is, also what a file system finds when it has written all.
func (d *smallDisk) fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.dir, "ballast"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for more := true; more; f.Sync() {
		_, err := f.Write(make([]byte, 4096))
		for more = err == nil; err == nil; {
			_, err = f.Write(make([]byte, 4096))
		}
	}
}

// free gives the room back.
func (d *smallDisk) free() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "ballast")); err != nil {
		d.t.Fatal(err)
	}
}

// fillAndFree fills and frees the disk under a client that sends, again and again; every fourth
// time the server is killed while the disk is full. All that was sent is there in the end, once.
func fillAndFree(t *testing.T, cycles int) (rounds int) {
	t.Helper()
	d := mountSmallDisk(t, "tmpfs", 48<<20)
	dir := t.TempDir()
	l := makeLots(t, dir, 1, 3000, 10)[0]
	var c *process
	rejects := func() string { return filepath.Join(dir, fmt.Sprintf("rejects-%d.csv", rounds)) }
	send := func() {
		c = d.client(t, dir, 1, fmt.Sprintf("-data.source=round %d", rounds), "-batch.maxAmount=5", "-loop.period=1ms",
			"-retry.timeout=2m", "-data.rejects="+rejects())
	}
	finish := func() {
		c.wantExit(exitDone)
		c.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(l.sizes)))
		l.wantRejects(t, rejects())
		rounds++
	}
	send()
	for cycle := range cycles {
		c.waitFor("action: apuestas_enviadas") // it sends
		troubles := len(d.lines("action: store | result: fail"))
		d.fill()
		for len(d.lines("action: store | result: fail")) == troubles {
			select {
			case <-c.Done: // it was quicker than that
				finish()
				send()
			case <-time.After(5 * time.Millisecond):
			}
		}
		wantHealth(t, d.address(), exitFailed)
		if cycle%4 == 3 {
			d.kill()
			d.start(t)
		}
		_, end, _ := d.out.from(0)
		d.free()
		if cycle%4 != 3 {
			d.waitFrom(end, "action: store | result: success", "room")
		}
		finish()
		wantHealth(t, d.address(), exitDone)
		send()
	}
	finish()
	d.stop()
	all := newLot(1)
	for range rounds {
		all.rows = append(all.rows, l.rows...)
	}
	wantRows(t, d.stored(t), all)
	return rounds
}

// TestE2EFullDisk fills the disk a few times.
func TestE2EFullDisk(t *testing.T) {
	t.Parallel()
	t.Logf("%d files sent", fillAndFree(t, 4))
}

// TestE2EFullDiskAtFullLoad fills the disk under ten clients that send as fast as they can: what
// the server has in hand then is more than one record of the log may be.
func TestE2EFullDiskAtFullLoad(t *testing.T) {
	t.Parallel()
	d, dir := mountSmallDisk(t, "tmpfs", 160<<20), t.TempDir()
	var lots []*lot
	var clients []*process
	for id := 1; id <= 10; id++ {
		lots = append(lots, makeSample(t, dir, id, 150_000))
	}
	for id := 1; id <= 10; id++ {
		clients = append(clients, d.client(t, dir, id, "-batch.maxAmount=1000", "-batch.window=32", "-loop.period=0s",
			"-retry.timeout=2m"))
	}
	clients[0].waitFor("action: apuestas_enviadas")
	d.fill()
	d.waitFor("action: store | result: fail")
	d.free()
	d.waitFor("action: store | result: success", "room")
	for _, c := range clients {
		c.wantExit(exitDone)
	}
	d.stop()
	wantRows(t, d.stored(t), lots...)
}

// TestTortureFull fills the disk FULL times.
func TestTortureFull(t *testing.T) {
	cycles := torture.Count(t, "FULL", 100)
	rounds := fillAndFree(t, cycles)
	fmt.Printf("full-disk cycles             %9d\nof them with a kill -9       %9d\n", cycles, cycles/4)
	fmt.Printf("files sent, compared         %9d\nlost, twice, out of order    %9s\n", rounds, verdict(t))
}
