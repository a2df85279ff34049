package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// What is made for devices: archives, the installed files, the manual page, the unit, the image.

// must runs a command that has to succeed and returns its standard output.
func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd, err, &stdout, &stderr)
	}
	return stdout.String()
}

// needs skips the test where a program is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: %s is not here", program)
		}
	}
}

// makeCommand is make in a folder with sources.
func makeCommand(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("make", append([]string{"-s"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	return cmd
}

// TestDist makes archives of one commit twice: in other folders, with files of other times, for
// another user, umask, language and time zone; in torture with nothing compiled before. The bytes
// are the same.
func TestDist(t *testing.T) {
	t.Parallel()
	needs(t, "git", "make", "sha256sum")
	if testing.Short() || os.Getenv("CI") == "" && os.Getenv("TORTURE") == "" {
		t.Skip("SKIPPED: the archives take a minute to build: set CI=true or TORTURE=1")
	}
	if exec.Command("git", "-C", "..", "rev-parse", "HEAD").Run() != nil {
		t.Skip("SKIPPED: this is no checkout of git")
	}
	archives := func(folder string, env ...string) map[string][]byte {
		dir := filepath.Join(t.TempDir(), folder)
		must(t, exec.Command("git", "clone", "-q", "..", dir))
		old := time.Now().Add(time.Duration(len(folder)) * -100 * time.Hour)
		filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() && !strings.Contains(path, ".git") {
				return os.Chtimes(path, old, old)
			}
			return err
		})
		cmd := exec.Command("sh", "-c", `umask "$UMASK" && make -s dist TARGETS=linux/arm/5,linux/mipsle/softfloat`)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), append(env, "MAKEFLAGS=", "MAKELEVEL=")...)
		must(t, cmd)
		must(t, exec.Command("sh", "-c", `cd "$0" && sha256sum -c SHA256SUMS`, filepath.Join(dir, "dist")))
		files := map[string][]byte{}
		entries, err := os.ReadDir(filepath.Join(dir, "dist"))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if files[entry.Name()], err = os.ReadFile(filepath.Join(dir, "dist", entry.Name())); err != nil {
				t.Fatal(err)
			}
		}
		return files
	}
	first := archives("a", "UMASK=022", "TZ=UTC", "LC_ALL=C", "USER=ana")
	other := []string{"UMASK=077", "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "USER=blas", "LOGNAME=blas"}
	if os.Getenv("TORTURE") != "" { // it takes minutes
		other = append(other, "GOCACHE="+t.TempDir())
	}
	second := archives("another-folder", other...)
	if len(first) != 3 || len(second) != len(first) {
		t.Fatalf("got %d and %d files, want two archives and SHA256SUMS each", len(first), len(second))
	}
	for name, data := range first {
		if !bytes.Equal(second[name], data) {
			t.Errorf("%s: got other bytes from the same commit", name)
		}
		if strings.HasSuffix(name, ".tar.gz") {
			wantArchive(t, name, data)
		}
	}
}

// wantArchive wants an archive to hold what it should and nothing of who made it.
func wantArchive(t *testing.T, name string, data []byte) {
	t.Helper()
	plain, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for files := tar.NewReader(plain); ; {
		head, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		mode := int64(0o644)
		if filepath.Base(head.Name) == "tp0" {
			mode = 0o755
		}
		if head.Uid != 0 || head.Gid != 0 || head.Uname != "" || head.Mode != mode {
			t.Errorf("%s: got owner %d:%d %q and mode %o", head.Name, head.Uid, head.Gid, head.Uname, head.Mode)
		}
		folder, file := filepath.Split(head.Name)
		if folder != strings.TrimSuffix(name, ".tar.gz")+"/" {
			t.Errorf("%s: got folder %s", name, folder)
		}
		names = append(names, file)
	}
	want := []string{"tp0", "LICENSE", "README.md", "config.yaml", "tp0.1", "tp0.service"}
	if !slices.Equal(names, want) {
		t.Errorf("%s: got %q, want %q", name, names, want)
	}
}

// TestInstall installs below another root and looks at what is there. The unit starts the program
// where it was installed, and systemd finds nothing wrong with it.
func TestInstall(t *testing.T) {
	t.Parallel()
	needs(t, "make", "install", "sed")
	root, build := t.TempDir(), t.TempDir()
	source := copySources(t, build)
	must(t, makeCommand(source, "install", "DESTDIR="+root, "PREFIX=/opt/tp0"))
	for name, mode := range map[string]os.FileMode{"bin/tp0": 0o755, "share/man/man1/tp0.1": 0o644,
		"lib/systemd/system/tp0.service": 0o644, "share/doc/tp0/README.md": 0o644, "share/doc/tp0/LICENSE": 0o644,
		"share/doc/tp0/config.yaml": 0o644} {
		info, err := os.Stat(filepath.Join(root, "opt/tp0", name))
		if err != nil {
			t.Errorf("%v", err)
		} else if info.Mode() != mode {
			t.Errorf("%s: got mode %v, want %v", name, info.Mode(), mode)
		}
	}
	binary := filepath.Join(root, "opt/tp0/bin/tp0")
	version := must(t, exec.Command(binary, "-version"))
	if !strings.HasPrefix(version, "tp0 ") {
		t.Errorf("got version %q", version)
	}
	unit := filepath.Join(root, "opt/tp0/lib/systemd/system/tp0.service")
	text, err := os.ReadFile(unit)
	if err != nil || !strings.Contains(string(text), "\nExecStart=/opt/tp0/bin/tp0 -mode=server\n") {
		t.Errorf("got error %v and unit\n%s\nwant it to start /opt/tp0/bin/tp0", err, text)
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIPPED: systemd-analyze is not here: the unit is not verified")
	}
	here := filepath.Join(root, "tp0.service") // with a program that is there
	writeFile(t, root, "tp0.service", strings.Replace(string(text), "/opt/tp0/bin/tp0", binary, 1))
	if output, err := exec.Command("systemd-analyze", "verify", "--man=no", here).CombinedOutput(); err != nil ||
		strings.Contains(string(output), "tp0.service") {
		t.Errorf("systemd-analyze verify: got %v\n%s", err, output)
	}
	output, err := exec.Command("systemd-analyze", "security", "--offline=true", here).CombinedOutput()
	if err != nil {
		t.Skipf("SKIPPED: systemd-analyze security does not run here: %v", err)
	}
	exposure := regexp.MustCompile(`exposure level.*: (\d+)\.\d`).FindSubmatch(output)
	if exposure == nil || len(exposure[1]) != 1 || exposure[1][0] > '1' {
		t.Errorf("systemd-analyze security: got %q, want below 2.0", exposure)
	}
}

// copySources copies the checkout into dir, so that nothing is written into it. What was built or
// left there by runs stays behind.
func copySources(t *testing.T, dir string) string {
	t.Helper()
	must(t, exec.Command("sh", "-c", `cd .. && for name in *; do case $name in
		run | dist | tp0 | tp0.* | bets.csv*) ;;
		*) cp -R "$name" "$0" ;;
		esac; done`, dir))
	return dir
}

// TestManualPage renders the manual page and holds README, -h and the page to one table: each
// mode and setting, with its variables and default, is in all three.
func TestManualPage(t *testing.T) {
	t.Parallel()
	help, _, _ := runProgram(t, t.TempDir(), nil, "-h")
	cmd := exec.Command("go", "run", "../tools/man", "-version", "v1.2")
	cmd.Stdin = strings.NewReader(help)
	page := must(t, cmd)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rendered := renderManual(t, page)
	setting := regexp.MustCompile(`(?m)^  ([\w.]+) +(\(flag only\)|[A-Z_]+(?:, [A-Z_]+)*) +(.+)\n` +
		`      (.+)\n      takes (.+)$`)
	rows := setting.FindAllStringSubmatch(help, -1)
	if len(rows) < 20 {
		t.Fatalf("got %d settings in -h", len(rows))
	}
	for _, row := range rows {
		key, env, def, what, takes := row[1], strings.Trim(row[2], "()"), row[3], row[4], row[5]
		want := key + " " + what + ". Takes " + takes + ". Environment: " + env + ". Default: " + def + "."
		if rendered != "" && !strings.Contains(rendered, want) {
			t.Errorf("the rendered page: want %q in it", want)
		}
		if env == "flag only" {
			continue
		}
		for _, name := range append(strings.Split(env, ", "), key) {
			if !strings.Contains(string(readme), "`"+name+"`") {
				t.Errorf("README: want `%s` in it", name)
			}
		}
	}
	row := regexp.MustCompile("(?m)^\\| `([a-zA-Z.]+\\.[a-zA-Z.]+)`")
	for _, word := range row.FindAllStringSubmatch(string(readme), -1) {
		if !strings.Contains(help, "\n  "+word[1]+" ") {
			t.Errorf("README has a setting %s, -h does not", word[1])
		}
	}
	modes, _, _ := strings.Cut(help, "\nsettings")
	for _, mode := range regexp.MustCompile(`(?m)^  (\w+) +(.+)$`).FindAllStringSubmatch(modes, -1) {
		if rendered != "" && !strings.Contains(rendered, mode[1]+" "+mode[2]) {
			t.Errorf("the rendered page: want mode %s", mode[1])
		}
		if !strings.Contains(string(readme), "`"+mode[1]) {
			t.Errorf("README: want mode %s", mode[1])
		}
	}
}

// renderManual returns a manual page as a reader sees it, with single spaces; empty where nothing
// renders it. A warning is a mistake in the page.
func renderManual(t *testing.T, page string) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "tp0.1", page)
	var cmd *exec.Cmd
	if _, err := exec.LookPath("man"); err == nil {
		cmd = exec.Command("man", "--warnings", "-l", filepath.Join(dir, "tp0.1"))
	} else if _, err := exec.LookPath("groff"); err == nil {
		cmd = exec.Command("groff", "-ww", "-man", "-Tascii", filepath.Join(dir, "tp0.1"))
	} else {
		t.Log("SKIPPED: neither man nor groff is here: the manual page is not rendered")
		return ""
	}
	cmd.Env = append(os.Environ(), "MANWIDTH=500", "LC_ALL=C", "MANPAGER=cat", "GROFF_NO_SGR=1",
		"MANOPT=--no-hyphenation --no-justification")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.Len() > 0 {
		t.Errorf("%v: got %v and\n%s", cmd, err, &stderr)
	}
	text := regexp.MustCompile(".\b").ReplaceAllString(stdout.String(), "") // bold and underlined
	return strings.Join(strings.Fields(text), " ")
}

// TestImage builds the image for two processors from the one Dockerfile and looks at its labels.
func TestImage(t *testing.T) {
	t.Parallel()
	if exec.Command("docker", "info").Run() != nil {
		t.Skip("SKIPPED: no Docker engine answers here")
	}
	for _, arch := range []string{"amd64", "arm64"} {
		source := copySources(t, t.TempDir())
		must(t, exec.Command("cp", "-R", "../.dockerignore", source))
		image := "tp0test-image:" + arch
		must(t, makeCommand(source, "docker-image", "ARCH="+arch, "IMAGE="+image, "VERSION=v1.2", "COMMIT=abc",
			"SOURCE=here"))
		t.Cleanup(func() { exec.Command("docker", "rmi", image).Run() })
		const format = `{{.Os}}/{{.Architecture}} {{.Config.User}} ` +
			`{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}`
		const label = "org.opencontainers.image."
		want := "linux/" + arch + " 10001:10001 " +
			label + "description=A lottery's central office, and its agencies' client;" +
			label + "licenses=MIT;" + label + "revision=abc;" + label + "source=here;" +
			label + "title=tp0;" + label + "version=v1.2;\n"
		if got := must(t, exec.Command("docker", "inspect", "--format", format, image)); got != want {
			t.Errorf("%s: got %q, want %q", arch, got, want)
		}
		if arch != runtime.GOARCH {
			continue
		}
		out := must(t, exec.Command("docker", "run", "--rm", "--read-only", "--cap-drop=ALL",
			"--security-opt=no-new-privileges:true", image, "-version"))
		if !strings.HasPrefix(out, "tp0 v1.2 (commit abc, ") {
			t.Errorf("got %q from the container", out)
		}
	}
}
