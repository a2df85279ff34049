// Dist builds the program for every kind of board and packs each into an archive with what
// belongs to it, and writes SHA256SUMS. The same commit gives the same bytes, whoever builds it,
// where and when: times, owners and order are fixed.
//
//	make dist      (which gives -version, -commit and -time)
//	go run ./tools/dist -targets linux/arm/5,linux/mipsle -out dist
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// allTargets are Go's names of system, processor, and variant where there are several.
const allTargets = "linux/amd64,linux/386,linux/arm/5,linux/arm/6,linux/arm/7,linux/arm64," +
	"linux/mips/softfloat,linux/mipsle/softfloat,linux/riscv64"

// A release is what all archives have in common.
type release struct {
	version, commit string
	time            time.Time // of every file in the archives
	out             string    // the folder of the archives
}

// An entry is a file of an archive.
type entry struct {
	name string
	mode int64
	data []byte
}

func main() {
	r := release{}
	flag.StringVar(&r.version, "version", "dev", "version of the program")
	flag.StringVar(&r.commit, "commit", "", "commit that it is built from")
	flag.StringVar(&r.out, "out", "dist", "folder of the archives, which is made anew")
	seconds := flag.Int64("time", 0, "time of the commit, in seconds since 1970")
	targets := flag.String("targets", allTargets, "what to build for: SYSTEM/PROCESSOR[/VARIANT], commas between")
	flag.Parse()
	r.time = time.Unix(*seconds, 0)
	if err := r.make(strings.Split(*targets, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

// make makes all archives and SHA256SUMS.
func (r *release) make(targets []string) error {
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	common, err := r.common()
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, target := range targets {
		name, archive, err := r.archive(target, common)
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		if err := os.WriteFile(filepath.Join(r.out, name), archive, 0o644); err != nil {
			return err
		}
		sum := fmt.Sprintf("%x  %s\n", sha256.Sum256(archive), name)
		sums.WriteString(sum)
		fmt.Printf("%s%9d bytes\n", strings.TrimSuffix(sum, "\n"), len(archive))
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

// common returns the files that are the same in each archive.
func (r *release) common() ([]entry, error) {
	if err := r.run("man"); err != nil {
		return nil, err
	}
	var files []entry
	for _, path := range []string{"LICENSE", "README.md", "config.yaml", "tp0.1", "deploy/tp0.service"} {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files = append(files, entry{filepath.Base(path), 0o644, data})
	}
	return files, nil
}

// archive builds for a target and packs it.
func (r *release) archive(target string, common []entry) (name string, archive []byte, err error) {
	parts := append(strings.Split(target, "/"), "", "")
	system, processor, variant := parts[0], parts[1], parts[2]
	binary := filepath.Join(r.out, "tp0")
	settings := []string{"OUT=" + binary, "GOOS=" + system, "GOARCH=" + processor}
	label := processor
	switch processor {
	case "arm":
		settings = append(settings, "GOARM="+variant)
		label += "v" + variant
	case "mips", "mipsle":
		settings = append(settings, "GOMIPS="+variant)
	}
	if err := r.run("build", settings...); err != nil {
		return "", nil, err
	}
	defer os.Remove(binary)
	program, err := os.ReadFile(binary)
	if err != nil {
		return "", nil, err
	}
	folder := fmt.Sprintf("tp0-%s-%s-%s", r.version, system, label)
	archive, err = r.pack(folder, append([]entry{{"tp0", 0o755, program}}, common...))
	return folder + ".tar.gz", archive, err
}

// pack returns the files in a folder as a compressed tape archive.
func (r *release) pack(folder string, files []entry) ([]byte, error) {
	var archive bytes.Buffer
	compressed, err := gzip.NewWriterLevel(&archive, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	tape := tar.NewWriter(compressed)
	for _, file := range files {
		head := &tar.Header{Typeflag: tar.TypeReg, Name: folder + "/" + file.name, Mode: file.mode,
			Size: int64(len(file.data)), ModTime: r.time, Format: tar.FormatUSTAR}
		if err := tape.WriteHeader(head); err != nil {
			return nil, err
		}
		if _, err := tape.Write(file.data); err != nil {
			return nil, err
		}
	}
	if err := tape.Close(); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

// run makes a target of the Makefile, which knows how to build.
func (r *release) run(target string, settings ...string) error {
	args := append([]string{"-s", target, "VERSION=" + r.version, "COMMIT=" + r.commit}, settings...)
	cmd := exec.Command("make", args...)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "GOFLAGS=") // nothing of the make around it
	cmd.Stderr = os.Stderr
	return cmd.Run()
}
