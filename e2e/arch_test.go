package e2e

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tp0/tools/torture"
)

// The program on processors that are not this one, under qemu's emulation of user programs: what
// Go's compiler makes of the program for 32 bits, for another order of bytes, and without an FPU
// is the real thing; the system calls are those of the kernel here. So what stays untested is the
// kernel and the file system of a board.

// A machine is a kind of processor that the program is built for.
type machine struct {
	name string
	env  []string // for the compiler
	qemu string   // its emulator
	dir  string   // made by build; the program is in it
	made sync.Once
	err  error
}

// machines are those of the archives, one for each instruction set, and s390x as the 64-bit
// machine whose bytes stand the other way round.
var machines = []*machine{
	{name: "386", env: []string{"GOARCH=386"}, qemu: "qemu-i386-static"},
	{name: "arm", env: []string{"GOARCH=arm", "GOARM=5"}, qemu: "qemu-arm-static"},
	{name: "arm64", env: []string{"GOARCH=arm64"}, qemu: "qemu-aarch64-static"},
	{name: "mips", env: []string{"GOARCH=mips", "GOMIPS=softfloat"}, qemu: "qemu-mips-static"},
	{name: "mipsle", env: []string{"GOARCH=mipsle", "GOMIPS=softfloat"}, qemu: "qemu-mipsel-static"},
	{name: "riscv64", env: []string{"GOARCH=riscv64"}, qemu: "qemu-riscv64-static"},
	{name: "s390x", env: []string{"GOARCH=s390x"}, qemu: "qemu-s390x-static"},
}

// allMachines reports whether every machine is wanted: make test-arch.
func allMachines() bool { return os.Getenv("TEST_ARCH") == "all" }

// machineOf returns the machine of a name, or skips the test where it cannot run here.
func machineOf(t *testing.T, name string) *machine {
	t.Helper()
	for _, m := range machines {
		if m.name == name {
			m.needed(t)
			return m
		}
	}
	t.Fatalf("there is no machine %s", name)
	return nil
}

// native reports whether this kernel runs the machine's programs by itself.
func (m *machine) native() bool {
	return runtime.GOOS == "linux" &&
		(m.name == runtime.GOARCH || m.name == "386" && runtime.GOARCH == "amd64")
}

// needed skips the test where the machine cannot run here.
func (m *machine) needed(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath(m.qemu); err != nil && !m.native() {
		t.Skipf("SKIPPED: %s is not here (Debian: qemu-user-static)", m.qemu)
	}
}

// compile runs the go command for the machine.
func (m *machine) compile(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS="), m.env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, output)
	}
	return nil
}

// command returns the command that runs a program of the machine in dir.
func (m *machine) command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(m.qemu, append([]string{program}, args...)...)
	if m.native() {
		cmd = exec.Command(program, args...)
	}
	cmd.Dir = dir
	return cmd
}

// tp0 returns the command that runs tp0 on the machine; nil is this machine.
func (m *machine) tp0(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	if m == nil {
		cmd := programCommand(dir, nil, args...)
		cmd.Env = []string{"GORACE=atexit_sleep_ms=0"} // nothing of TLS=1
		return cmd
	}
	m.made.Do(func() {
		if m.dir, m.err = os.MkdirTemp("", "tp0-"+m.name+"-"); m.err == nil {
			m.err = m.compile("build", "-o", filepath.Join(m.dir, "tp0"), "..")
		}
		machinesMade.Store(m.dir, true)
	})
	if m.err != nil {
		t.Fatal(m.err)
	}
	cmd := m.command(dir, filepath.Join(m.dir, "tp0"), args...)
	cmd.Env = []string{}
	return cmd
}

// machinesMade has the folders of machines, which TestMain removes.
var machinesMade sync.Map

// TestArchUnits runs all unit tests and the seeds of all fuzz targets on each machine.
func TestArchUnits(t *testing.T) {
	if !allMachines() {
		t.Skip("SKIPPED: the unit tests on other processors take minutes each: make test-arch")
	}
	for _, m := range machines {
		t.Run(m.name, func(t *testing.T) {
			m.needed(t)
			unit := filepath.Join(t.TempDir(), "unit.test")
			if err := m.compile("test", "-c", "-o", unit, ".."); err != nil {
				t.Fatal(err)
			}
			cmd := m.command("..", unit, "-test.timeout=1h")
			output, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
		})
	}
}

// TestArchExchange has a server on one machine and clients on another, both ways. The server is
// killed in between and the store goes on elsewhere and comes back. In the end bets.csv is, byte
// for byte, what this machine makes of the same files.
func TestArchExchange(t *testing.T) {
	t.Parallel()
	pairs := [][2]string{{"mips", "arm"}}
	if allMachines() {
		pairs = nil
		for i, m := range machines {
			next := machines[(i+3)%len(machines)].name
			pairs = append(pairs, [2]string{m.name, ""}, [2]string{"", m.name}, [2]string{m.name, next})
		}
	}
	for _, pair := range pairs {
		t.Run(fmt.Sprintf("server %q, clients %q", pair[0], pair[1]), func(t *testing.T) {
			t.Parallel()
			var server, client *machine
			if pair[0] != "" {
				server = machineOf(t, pair[0])
			}
			if pair[1] != "" {
				client = machineOf(t, pair[1])
			}
			exchange(t, server, client)
			if !allMachines() { // the other way round
				exchange(t, client, server)
			}
		})
	}
}

// exchange is one such pair of machines; nil is this machine.
func exchange(t *testing.T, server, client *machine) {
	t.Helper()
	const records = 300
	want := sendOn(t, t.TempDir(), records, nil, nil, nil)
	dir := t.TempDir()
	got := sendOn(t, dir, records, client, server, []*machine{server, nil, server})
	if got != want {
		t.Errorf("bets.csv: got %d bytes that differ from the %d of this machine", len(got), len(want))
	}
	// What one machine has written the other opens as it is, and the client verifies its file.
	for _, opener := range []*machine{nil, client} {
		if again := sendOn(t, dir, records, client, opener, nil); again != want {
			t.Errorf("bets.csv: got %d bytes that differ after another machine has opened it", len(again))
		}
	}
}

// sendOn has two agencies send their files, one after the other, and returns bets.csv. In the
// middle of the second one the server is killed and started again on each of the further machines.
func sendOn(t *testing.T, dir string, records int, client, server *machine, further []*machine) string {
	t.Helper()
	lots := makeLots(t, dir, 2, records, 12)
	port := strconv.Itoa(freePort(t))
	start := func(m *machine) *process {
		p := launchCommand(t, "server", m.tp0(t, dir, "-mode=server", "-server.host=127.0.0.1", "-server.port="+port))
		p.waitFor("action: listen | result: success")
		return p
	}
	s := start(server)
	for i, l := range lots {
		id := strconv.Itoa(l.agency)
		c := launchCommand(t, "client "+id, client.tp0(t, dir, "-mode=client", "-id="+id, "-batch.maxAmount=5",
			"-batch.window=2", "-server.address=127.0.0.1:"+port, "-data.file=agency-{id}.csv", "-retry.timeout=60s"))
		for _, m := range further {
			if i == 1 {
				s.waitFor("action: apuesta_recibida")
				s.kill()
				s = start(m)
			}
		}
		c.wantExit(exitDone)
		c.waitFor("action: verify | result: success")
		l.wantRejects(t, filepath.Join(dir, "agency-"+id+".rejected.csv"))
	}
	s.stop()
	stored, err := os.ReadFile(filepath.Join(dir, "bets.csv"))
	if err != nil {
		t.Fatal(err)
	}
	wantRows(t, string(stored), lots...)
	out, _, _ := runCommand(t, "cat", server.tp0(t, dir, "-mode=cat"))
	if out != string(stored) {
		t.Error("-mode=cat: got other bytes than bets.csv has")
	}
	return string(stored)
}

// TestTortureLarge32 sends an agency file of over 3 GiB from a 32-bit client to a 32-bit server,
// so that every position in it, in bets.csv and in RESUME grows past what 31 and 32 bits count.
func TestTortureLarge32(t *testing.T) {
	size := int64(torture.Count(t, "LARGE", 3200)) << 20
	m := machineOf(t, "386")
	if !m.native() {
		t.Skip("SKIPPED: gigabytes take hours under emulation: an amd64 machine runs 386 by itself")
	}
	dir, port := t.TempDir(), strconv.Itoa(freePort(t))
	want, rows := writeLargeFile(t, filepath.Join(dir, "agency-1.csv"), size)
	start := func() *process {
		p := launchCommand(t, "server", m.tp0(t, dir, "-mode=server", "-server.host=127.0.0.1", "-server.port="+port,
			"-log.level=WARNING"))
		wantHealthSoon(t, m, dir, port)
		return p
	}
	s := start()
	send := func() *process {
		return launchCommand(t, "client", m.tp0(t, dir, "-mode=client", "-id=1", "-server.address=127.0.0.1:"+port,
			"-data.file=agency-1.csv", "-log.level=WARNING", "-batch.maxAmount=65535", "-retry.timeout=10m"))
	}
	began, c := time.Now(), send()
	for part := int64(1); part <= 2; part++ { // past 1 and past 2 GiB
		for stored := int64(0); stored < part*(1100<<20); time.Sleep(50 * time.Millisecond) {
			if info, err := os.Stat(filepath.Join(dir, "bets.csv")); err == nil {
				stored = info.Size()
			}
		}
		s.kill()
		s = start()
	}
	c.waitEnd(t, 20*time.Minute)
	t.Logf("%d bets, %d MiB, in %v", rows, size>>20, time.Since(began).Round(time.Second))
	c = send() // all of it is decided on: the client reads it and compares
	c.waitEnd(t, 10*time.Minute)
	s.stop()
	file, err := os.Open(filepath.Join(dir, "bets.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sum := sha256.New()
	if n, err := io.Copy(sum, file); err != nil || fmt.Sprintf("%x", sum.Sum(nil)) != want {
		t.Errorf("bets.csv: got %d bytes (%v) that are not the rows of the file", n, err)
	}
}

// waitEnd waits for the end of a process that may take long; it must exit with 0.
func (p *process) waitEnd(t *testing.T, limit time.Duration) {
	t.Helper()
	select {
	case <-p.Done:
	case <-time.After(limit):
		t.Fatalf("%s: still running after %v", p.Name, limit)
	}
	p.wantExit(exitDone)
}

// wantHealthSoon waits until the server at a port takes bets.
func wantHealthSoon(t *testing.T, m *machine, dir, port string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		cmd := m.tp0(t, dir, "-mode=health", "-server.address=127.0.0.1:"+port)
		if cmd.Run() == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the server takes no bets")
		}
	}
}

// writeLargeFile writes an agency file of about size bytes, of long rows, and returns the SHA-256
// of what bets.csv must be and the number of rows.
func writeLargeFile(t *testing.T, path string, size int64) (sum string, rows int) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out, want := bufio.NewWriterSize(file, 1<<20), sha256.New()
	stored := bufio.NewWriterSize(want, 1<<20)
	random := rand.New(rand.NewPCG(3, 2))
	name := strings.Repeat("Ana María ", 50)
	for written := int64(0); written < size; rows++ {
		row := fmt.Sprintf("%s,%d,%d,1999-03-17,%d\r\n", name, random.Uint64(), rows%1_000_000_000+1, random.IntN(9999))
		out.WriteString(row)
		stored.WriteString("1," + row)
		written += int64(len(row))
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	stored.Flush()
	return fmt.Sprintf("%x", want.Sum(nil)), rows
}
