package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What a store asks of names, rights and full file systems; limits_linux_test.go has descriptors.

// TestE2EOneServerOneStore starts a second server on a store under every name that it can have. The
// first one goes on, and who only reads is let in under any name.
func TestE2EOneServerOneStore(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	dir, l := clientDir(t, 50)
	o.client(t, dir, 1).wantExit(exitDone)
	bets := filepath.Join(o.dir, "bets.csv")
	names := []struct {
		name string
		make func(dir string) (path string, err error)
	}{
		{"its own name", func(string) (string, error) { return bets, nil }},
		{"symbolic link", func(dir string) (string, error) {
			path := filepath.Join(dir, "link.csv")
			return path, os.Symlink(bets, path)
		}},
		{"link to a link", func(dir string) (string, error) {
			path := filepath.Join(dir, "link.csv")
			return path, os.Symlink(filepath.Join(filepath.Dir(dir), "link.csv"), path)
		}},
		{"link to the folder", func(dir string) (string, error) {
			path := filepath.Join(dir, "folder")
			return filepath.Join(path, "bets.csv"), os.Symlink(o.dir, path)
		}},
		{"hard link", func(dir string) (string, error) {
			path := filepath.Join(dir, "hard.csv")
			return path, os.Link(bets, path)
		}},
		{"bind mount of the file", func(dir string) (string, error) {
			path := filepath.Join(dir, "bound.csv")
			writeFile(t, dir, "bound.csv", "")
			return path, bind(t, bets, path)
		}},
		{"bind mount of the folder", func(dir string) (string, error) {
			return filepath.Join(dir, "bets.csv"), bind(t, o.dir, dir)
		}},
		{"lock file removed", func(string) (string, error) { return bets, os.Remove(bets + ".lock") }},
	}
	root := t.TempDir()
	if err := os.Symlink(bets, filepath.Join(root, "link.csv")); err != nil {
		t.Fatal(err)
	}
	for i, row := range names {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(root, fmt.Sprint(i))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path, err := row.make(dir)
			if err != nil {
				t.Skipf("SKIPPED: no %s can be made here: %v", row.name, err)
			}
			_, errs, status := runProgram(t, dir, nil, "-mode=server", "-server.port=0", "-store.path="+path)
			if status != exitFailed {
				t.Errorf("got status %d, want 1", status)
			}
			wantOneLine(t, "standard error", errs, "in use by another server", fmt.Sprintf("pid %d", o.Cmd.Process.Pid))
			out, errs, status := runProgram(t, dir, nil, "-mode=cat", "-store.path="+path)
			if out != o.stored(t) || status != exitDone {
				t.Errorf("cat: got %d bytes, %q, status %d", len(out), errs, status)
			}
		})
	}
	o.client(t, dir, 1, "-data.source=again").wantExit(exitDone)
	o.stop()
	twice := newLot(1)
	twice.rows = append(l.rows, l.rows...)
	wantRows(t, o.stored(t), twice)
}

// bind mounts from at to, until the test ends.
func bind(t *testing.T, from, to string) error {
	err := syscall.Mount(from, to, "", syscall.MS_BIND, "")
	if err == nil {
		t.Cleanup(func() { syscall.Unmount(to, 0) })
	}
	return err
}

// TestE2EStoreIsNoFile gives a server what is no regular file: it is refused before anything is
// made beside it.
func TestE2EStoreIsNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, err := range map[string]error{
		"folder":  os.Mkdir(filepath.Join(dir, "folder"), 0o755),
		"pipe":    syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644),
		"full":    os.Symlink("/dev/full", filepath.Join(dir, "full")),
		"null":    os.Symlink("/dev/null", filepath.Join(dir, "null")),
		"nothing": os.Symlink("elsewhere/bets.csv", filepath.Join(dir, "nothing")),
	} {
		if err != nil {
			t.Fatal(err)
		}
		_, errs, status := runProgram(t, dir, nil, "-mode=server", "-server.port=0", "-store.path="+name)
		if status != exitFailed {
			t.Errorf("%s: got status %d, want 1", name, status)
		}
		wantOneLine(t, name, errs, name)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("got %v and %v, want the 5 that were there", entries, err)
	}
	for _, name := range []string{"/dev/full.lock", "/dev/null.lock"} {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

// TestE2EFilesAreTheUsersAlone looks at the rights of all that a server makes, whatever the umask.
func TestE2EFilesAreTheUsersAlone(t *testing.T) {
	t.Parallel()
	o := &office{dir: t.TempDir(), port: freePort(t)}
	o.process = launchShell(t, o.dir, "umask 0", "-mode=server", "-server.host=127.0.0.1",
		fmt.Sprintf("-server.port=%d", o.port))
	o.waitFor("action: listen")
	dir, _ := clientDir(t, 50)
	o.client(t, dir, 1).wantExit(exitDone)
	o.stop()
	err := filepath.WalkDir(o.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: got %v, want -rw-------", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// launchShell starts the program in dir behind a shell's command, such as umask.
func launchShell(t *testing.T, dir, command string, args ...string) *process {
	t.Helper()
	cmd := programCommand(dir, nil, args...)
	cmd.Args = append([]string{"sh", "-c", command + ` && exec "$0" "$@"`, cmd.Path}, args...)
	cmd.Path = "/bin/sh"
	return launchCommand(t, "server behind "+command, cmd)
}

// TestE2EFullFileSystems fills file systems of other habits than tmpfs's: ext3 can't reserve room,
// and btrfs needs some to write over what it has. A full disk is said once; a server that is
// stopped on one ends well; nothing is lost.
func TestE2EFullFileSystems(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tmpfs", "ext3", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := mountSmallDisk(t, kind, 128<<20)
			dir := t.TempDir()
			l := makeSample(t, dir, 1, 20_000)
			c := d.client(t, dir, 1, "-batch.maxAmount=5", "-batch.window=4", "-loop.period=1ms", "-retry.timeout=2m")
			c.waitFor("action: apuestas_enviadas")
			d.fill()
			d.waitFor("action: store | result: fail")
			wantHealth(t, d.address(), exitFailed)
			time.Sleep(2 * time.Second) // some probes for room
			if lines := d.lines("action: store | result: "); len(lines) != 2 {
				t.Errorf("got the lines\n%s\nwant those of the start and of the full disk", strings.Join(lines, "\n"))
			}
			d.signal(syscall.SIGTERM)
			d.wantShutdown(syscall.SIGTERM, "close_listener", "close_store")
			d.free()
			d.start(t)
			c.waitFor("action: apuestas_enviadas")
			d.fill()
			d.waitFor("action: store | result: fail")
			d.free()
			d.waitFor("action: store | result: success", "room")
			c.wantExit(exitDone)
			d.stop()
			wantRows(t, d.stored(t), l)
		})
	}
}
