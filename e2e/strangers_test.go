package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestE2EStrangers has 2,000 connections that nobody knows come to an office, of five kinds, and
// stay; five agencies send their files meanwhile, and the office stays small.
func TestE2EStrangers(t *testing.T) {
	t.Parallel()
	k, theirs := newKeyring(t, 5), newKeyring(t, 1)
	lots := makeLots(t, k.dir, 5, 2000, 4)
	o := k.office()
	unknown := keyConfig(t, theirs.file("agency-1.pem"))
	here, there := net.Pipe()
	go tls.Client(here, unknown).Handshake()
	hello := make([]byte, 4096) // what a client of TLS says first
	n, _ := there.Read(hello)
	hello = hello[:n]
	here.Close()
	var strangers, clients sync.WaitGroup
	defer strangers.Wait()
	const each = 400
	for worker := range 20 {
		beside(&strangers, func() {
			for range each * 5 / 20 {
				w := dialWire(t, o.address())
				switch worker % 5 {
				case 0: // says nothing
				case 1:
					w.Write([]byte("GET / HTTP/1.1\r\nHost: office\r\n\r\n"))
				case 2:
					w.Write(append([]byte{0x16, 3, 1, 0, 200}, bytes.Repeat([]byte{0xff}, 300)...))
				case 3: // is silent in the middle of the handshake, or of a message of it
					w.Write(hello[:n-worker%2])
				case 4:
					go tls.Client(w.Conn, unknown).Handshake()
				}
			}
		})
	}
	for agency := range 5 {
		beside(&clients, func() {
			file := fmt.Sprintf("agency-%d.pem", agency+1)
			c := o.client(t, k.dir, agency+1, "-tls.cert="+k.file(file), "-batch.maxAmount=50")
			c.wantExit(exitDone)
		})
	}
	clients.Wait()
	strangers.Wait()
	wantRows(t, o.stored(t), lots...)
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.Cmd.Process.Pid)); err == nil {
		var peak int
		fmt.Sscanf(string(status[bytes.Index(status, []byte("VmHWM:")):]), "VmHWM: %d kB", &peak)
		t.Logf("the office took %d KiB at most", peak)
		if peak > 64<<10 && !raceEnabled {
			t.Errorf("got %d KiB, want 64 MiB at most", peak)
		}
	}
	o.stop()
	if got := len(o.lines("action: handshake")); got > 10*60 {
		t.Errorf("got %d lines about strangers, want no more than 10 a second", got)
	}
}

// TestE2EOtherLanguages does what docs/security.md shows for clients in other languages: with
// openssl, where it is, and with Python's ssl module.
func TestE2EOtherLanguages(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, language := range []string{"openssl", "python3"} {
		t.Run(language, func(t *testing.T) {
			if _, err := exec.LookPath(language); err != nil {
				t.Skipf("there is no %s here", language)
			}
			k := newKeyring(t, 1)
			o := k.office()
			_, block, found := strings.Cut(string(text), "\n```sh name="+language+"\n")
			block, _, _ = strings.Cut(block, "\n```\n")
			if !found {
				t.Fatalf("docs/security.md: got no block %q", language)
			}
			cmd := exec.Command("sh", "-ec", strings.ReplaceAll(block, "office:12345", o.address()))
			cmd.Dir = filepath.Join(k.dir, "keys")
			output, err := cmd.Output()
			if want := " 02 00 00 00\n"; err != nil || string(output) != want {
				t.Errorf("got %q and %v, want %q", output, err, want)
			}
			o.stop()
		})
	}
}

// TestE2EKeyOfOpenssl makes a key as docs/security.md shows for who has openssl alone.
func TestE2EKeyOfOpenssl(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl here")
	}
	k := newKeyring(t, 1)
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```sh name=openssl-key\n")
	block, _, _ = strings.Cut(block, "```")
	cmd := exec.Command("sh", "-ec", block)
	cmd.Dir = filepath.Join(k.dir, "keys")
	sum, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", block, err)
	}
	k.write(k.read("known") + "agency-9 sha256:" + strings.TrimSpace(string(sum)) + " 2026-11-24\n")
	o := k.office()
	_, errs, status := runProgram(t, k.dir, nil, "-mode=health", "-server.address="+o.address(),
		"-tls.cert=keys/agency-9.pem")
	if status != exitDone {
		t.Errorf("got status %d and %q", status, errs)
	}
	o.stop()
}

// TestE2EBuilds builds the program as `make build` does: with all, without the status page and the
// stream (whose libraries have TLS in them), and without TLS too. The README has the sizes. The
// smallest refuses keys, page and stream in a line, and works.
func TestE2EBuilds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		tags, said string // said: where the README has the size
		most       int64  // bytes: 3.6 MiB, 6.5 and 8.25 MiB
	}{{"notls", `without TLS too ([0-9.]+)`, 3_774_873},
		{"nohttp nostream", `without status page and stream ([0-9.]+)`, 6_815_744},
		{"all", `size \| ([0-9.]+) MB`, 8_650_752}} {
		path := filepath.Join(dir, test.tags)
		cmd := exec.Command("make", "-s", "-C", "..", "build", "TAGS="+test.tags, "OUT='"+path+"'")
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, output)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("tags %q: %d bytes", test.tags, info.Size())
		if runtime.GOARCH != "amd64" {
			continue
		}
		if info.Size() > test.most {
			t.Errorf("tags %q: got %d bytes, want %d at most", test.tags, info.Size(), test.most)
		}
		said := 0.0
		if row := regexp.MustCompile(test.said + ` \(amd64\)`).FindSubmatch(readme); row != nil {
			said, _ = strconv.ParseFloat(string(row[1]), 64)
		}
		if real := float64(info.Size()) / 1e6; said < 0.95*real || said > 1.05*real {
			t.Errorf("tags %q: the README says %g MB, and it is %.1f", test.tags, said, real)
		}
	}
	small := func(name string, args ...string) *process {
		cmd := exec.Command(filepath.Join(dir, "notls"), args...)
		cmd.Dir = dir
		return launchCommand(t, name, cmd)
	}
	for _, refused := range []struct{ args, part string }{
		{"-mode=server -tls.cert=x", "tls.cert: TLS is not built in"},
		{"-mode=server -tls.known=x", "tls.known: TLS is not built in"},
		{"-mode=client -id=1 -tls.cert=x", "tls.cert: TLS is not built in"},
		{"-mode=health -tls.cert=x", "tls.cert: TLS is not built in"},
		{"-mode=keys -agencies=1", "-mode=keys: TLS is not built in"},
		{"-mode=server -status.address=127.0.0.1:0", "status.address: this build has no status page"},
		{"-mode=server -status.hosts=x", "status.hosts: this build has no status page"},
		{"-mode=server -stream.servers=x:1", "stream.servers: the stream is not built in"},
		{"-mode=replicate", "-mode=replicate: the stream is not built in"},
		{"-mode=replicate -stream.servers=x:1", "-mode=replicate: the stream is not built in"},
	} {
		p := small("the smallest", append(strings.Fields(refused.args), "-server.port=0")...)
		p.wantExit(exitUsage)
		wantOneLine(t, refused.args, p.errs.String(), refused.part)
	}
	lots := makeLots(t, dir, 1, 100, 8)
	port := fmt.Sprint(freePort(t))
	server := small("server", "-mode=server", "-server.host=127.0.0.1", "-server.port="+port)
	server.waitFor("action: listen | result: success")
	client := small("client", "-mode=client", "-id=1", "-data.file=agency-1.csv", "-server.address=127.0.0.1:"+port)
	client.wantExit(exitDone)
	server.stop()
	stored, _ := os.ReadFile(filepath.Join(dir, "bets.csv"))
	wantRows(t, string(stored), lots...)
}
