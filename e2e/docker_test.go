package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestComposeGenerator compares what generar-compose.sh writes with golden files, and asks
// Compose to read it.
func TestComposeGenerator(t *testing.T) {
	t.Parallel()
	compose := composeCommand()
	for _, clients := range []string{"0", "1", "5"} {
		got := generateCompose(t, clients)
		golden := filepath.Join("testdata", "compose", clients+".yaml")
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s clients: got\n%s\nwant\n%s", clients, got, want)
		}
		if compose == nil {
			continue // the golden comparison stands by itself
		}
		args := append(compose[1:len(compose):len(compose)], "-f", golden, "config")
		if output, err := exec.Command(compose[0], args...).CombinedOutput(); err != nil {
			t.Errorf("%s clients: %s refuses it: %v\n%s", clients, compose, err, output)
		}
	}
}

// TestComposeDev keeps docker-compose-dev.yaml what the generator writes for five clients, except
// for its heading and the volume of the store.
func TestComposeDev(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docker-compose-dev.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := string(text[max(bytes.Index(text, []byte("services:")), 0):])
	got = strings.Replace(got, "      - bets:/data\n", "      - /data\n", 1)
	got, volume, _ := strings.Cut(got, "\n#")
	if !strings.HasSuffix(volume, "\nvolumes:\n  bets:\n") {
		t.Errorf("got end %q, want the volume bets", volume)
	}
	if want := string(generateCompose(t, "5")); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestComposeGeneratorUsage(t *testing.T) {
	t.Parallel()
	tests := [][]string{{}, {"FILE"}, {"FILE", "1", "2"}, {"", "1"}, {"FILE", ""}, {"FILE", "x"}, {"FILE", "-1"},
		{"FILE", "1.5"}, {"FILE", "05"}, {"FILE", "256"}, {"FILE", "99999999999999999999"}, {"FILE", "1 2"}}
	for _, args := range tests {
		for i := range args {
			args[i] = strings.Replace(args[i], "FILE", filepath.Join(t.TempDir(), "compose.yaml"), 1)
		}
		cmd := exec.Command("sh", append([]string{"../generar-compose.sh"}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != 2 {
			t.Errorf("%q: got exit status %d, want 2", args, got)
		}
		got := stderr.String()
		if !strings.HasPrefix(got, "usage: ") || strings.Count(got, "\n") != 1 {
			t.Errorf("%q: got %q, want one line of usage", args, got)
		}
		if len(args) > 0 && args[0] != "" {
			if _, err := os.Stat(args[0]); err == nil {
				t.Errorf("%q: got a file, want none", args)
			}
		}
	}
}

// generateCompose returns what generar-compose.sh writes.
func generateCompose(t *testing.T, clients string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "compose.yaml")
	if output, err := exec.Command("sh", "../generar-compose.sh", path, clients).CombinedOutput(); err != nil {
		t.Fatalf("generar-compose.sh %s: %v\n%s", clients, err, output)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// composeCommand returns the Compose that is here, the plugin or the program of its own; nil: none.
func composeCommand() []string {
	for _, command := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.Command(command[0], append(command[1:], "version")...).Run() == nil {
			return command
		}
	}
	return nil
}

// A stack is docker-compose-dev.yaml in a folder of its own, with an image, a project and
// container names of its own, so that it disturbs nobody's containers.
type stack struct {
	name    string   // of project and image; container names start with it
	dir     string   // holds the compose file, config.yaml and .data, as a checkout does
	compose []string // how Compose is called here
	clients []string // container names
	server  string   // container name
}

// agencyBets is how many bets each agency of the container test has.
const agencyBets = 2000

// TestContainers runs the stack of docker-compose-dev.yaml to its end, stops it, starts it again,
// and stops it in the middle of its work. It needs a Docker engine with Compose.
func TestContainers(t *testing.T) {
	t.Parallel()
	compose := composeCommand()
	if exec.Command("docker", "info").Run() != nil || compose == nil {
		t.Skip("SKIPPED: no Docker engine with Compose answers here")
	}
	s := newStack(t, compose)

	s.config(t, "batch:\n  maxAmount: 100\n")
	s.up(t)
	s.wantExits(t, s.clients...)
	stored := s.storedRows(t)
	s.signal(t, s.server)
	s.wantExits(t, s.server)

	s.up(t) // the finished clients come back as well and find all of their bets decided on
	s.wantExits(t, s.clients...)
	if again := s.storedRows(t); again != stored {
		t.Errorf("after a restart: got %d rows in the store, want %d", again, stored)
	}
	s.docker(t, "exec", s.server, "/tp0", "-mode=health")
	s.run(t, "down", "-v", "-t", "10")

	// A new config counts without a new image: now the work would take minutes.
	s.config(t, "loop:\n  period: 1s\nbatch:\n  maxAmount: 10\n")
	s.up(t)
	s.waitForLog(t, s.clients[4], "action: apuestas_enviadas | result: success")
	s.signal(t, append([]string{s.server}, s.clients...)...)
	s.wantExits(t, append([]string{s.server}, s.clients...)...)

	s.wantHealthWithKeys(t)
}

// wantHealthWithKeys runs a server with keys as docs/security.md says. The HEALTHCHECK that is in
// the image must find it healthy, with the server's own key. Where that key is missing there is no
// server.
func (s *stack) wantHealthWithKeys(t *testing.T) {
	t.Helper()
	image, keys, server := s.name+":latest", s.name+"-keys", s.name+"-keyed"
	t.Cleanup(func() { s.docker(t, "volume", "rm", keys) })
	s.docker(t, "run", "--rm", "-v", keys+":/data", image, "-mode=keys", "-agencies=1")
	run := func(how, cert string) []string {
		return []string{"run", how, "--name=" + server, "--read-only", "--cap-drop=ALL",
			"--security-opt=no-new-privileges:true", "--health-interval=1s", "-v", keys + ":/keys:ro", "-v", "/data",
			"-e", "TLS_CERT=/keys/keys/" + cert, "-e", "TLS_KNOWN=/keys/keys/known", image, "-mode=server"}
	}
	missing := exec.Command("docker", run("--rm", "absent.pem")...)
	output, _ := missing.CombinedOutput()
	if got := missing.ProcessState.ExitCode(); got != exitUsage || !bytes.Contains(output, []byte("tls.cert: ")) {
		t.Errorf("without the server's key: got exit status %d and %q, want %d and a line on tls.cert",
			got, output, exitUsage)
	}
	s.docker(t, run("-d", "server.pem")...)
	t.Cleanup(func() { s.docker(t, "rm", "-fv", server) })
	health := ""
	for end := time.Now().Add(time.Minute); health != "healthy\n" &&
		time.Now().Before(end); time.Sleep(time.Second / 5) {
		health = s.docker(t, "inspect", "--format={{.State.Health.Status}}", server)
	}
	if health != "healthy\n" {
		t.Errorf("with keys: got health %q, want healthy; its log:\n%s", health, s.docker(t, "logs", server))
	}
	s.signal(t, server)
	s.wantExits(t, server)
}

// newStack builds the image and lays out the folder. What it makes is removed at the end of the
// test.
func newStack(t *testing.T, compose []string) *stack {
	t.Helper()
	s := &stack{name: fmt.Sprintf("tp0test%d", os.Getpid()), dir: t.TempDir(), compose: compose}
	s.server = s.name + "-server"
	for id := 1; id <= 5; id++ {
		s.clients = append(s.clients, fmt.Sprintf("%s-client%d", s.name, id))
	}
	build := exec.Command("go", "build", "-o", filepath.Join(s.dir, "tp0"), "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	s.must(t, build)
	for _, file := range []string{"Dockerfile", ".dockerignore", "docker-compose-dev.yaml"} {
		text, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		own := strings.ReplaceAll(string(text), "container_name: ", "container_name: "+s.name+"-")
		s.write(t, file, strings.ReplaceAll(own, "image: tp0:latest", "image: "+s.name+":latest"))
	}
	s.write(t, "docker/data/.keep", "")
	for id := 1; id <= 5; id++ {
		rows := s.must(t, exec.Command(filepath.Join(s.dir, "tp0"), "-mode=sample", fmt.Sprintf("-id=%d", id),
			fmt.Sprintf("-bets=%d", agencyBets)))
		s.write(t, fmt.Sprintf(".data/agency-%d.csv", id), rows)
	}
	s.docker(t, "build", "-t", s.name+":latest", s.dir)
	t.Cleanup(func() { s.docker(t, "rmi", s.name+":latest") })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of the containers:\n%s", s.run(t, "logs", "--tail=20"))
		}
		s.run(t, "down", "-v", "-t", "10")
	})
	return s
}

// write writes a file of the folder, readable by the user of the containers.
func (s *stack) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// config replaces config.yaml.
func (s *stack) config(t *testing.T, text string) {
	t.Helper()
	s.write(t, "config.yaml", text)
}

// up starts all containers.
func (s *stack) up(t *testing.T) {
	t.Helper()
	s.run(t, "up", "-d")
}

// run runs Compose on the stack and returns its output.
func (s *stack) run(t *testing.T, args ...string) string {
	t.Helper()
	args = append(append(s.compose[1:len(s.compose):len(s.compose)], "-p", s.name, "-f", "docker-compose-dev.yaml"),
		args...)
	cmd := exec.Command(s.compose[0], args...)
	cmd.Dir = s.dir
	return s.must(t, cmd)
}

// docker runs docker and returns its output.
func (s *stack) docker(t *testing.T, args ...string) string {
	t.Helper()
	return s.must(t, exec.Command("docker", args...))
}

// must runs a command that has to succeed and returns what it wrote to its standard output.
func (s *stack) must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd, err, &stdout, &stderr)
	}
	return stdout.String()
}

// signal sends SIGTERM to containers, one after another in one command.
func (s *stack) signal(t *testing.T, names ...string) {
	t.Helper()
	s.docker(t, append([]string{"kill", "--signal=SIGTERM"}, names...)...)
}

// wantExits waits until containers have ended, which takes at most a minute, each with status 0.
func (s *stack) wantExits(t *testing.T, names ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := s.must(t, exec.CommandContext(ctx, "docker", append([]string{"wait"}, names...)...))
	if want := strings.Repeat("0\n", len(names)); got != want {
		t.Fatalf("%q: got exit statuses %q, want %q", names, got, want)
	}
}

// waitForLog waits until a container's log holds a text.
func (s *stack) waitForLog(t *testing.T, name, text string) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for !strings.Contains(s.docker(t, "logs", name), text) {
		if time.Now().After(end) {
			t.Fatalf("%s: got nothing in a minute, want %q in its log", name, text)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// storedRows returns how many bets the server's container shows with mode cat, after checking
// that each agency has its own: all but those whose number is over bets.maxNumber.
func (s *stack) storedRows(t *testing.T) int {
	t.Helper()
	rows := strings.Split(strings.TrimSuffix(s.docker(t, "exec", s.server, "/tp0", "-mode=cat"), "\r\n"), "\r\n")
	for id := 1; id <= 5; id++ {
		text, err := os.ReadFile(filepath.Join(s.dir, fmt.Sprintf(".data/agency-%d.csv", id)))
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for _, row := range strings.Split(strings.TrimSuffix(string(text), "\r\n"), "\r\n") {
			if !strings.HasSuffix(row, ",9999") {
				want = append(want, row)
			}
		}
		for _, row := range rows {
			if bet, own := strings.CutPrefix(row, fmt.Sprintf("%d,", id)); own {
				got = append(got, bet)
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("agency %d: got %d rows in the store, want %d in the file's order", id, len(got), len(want))
		}
	}
	return len(rows)
}
