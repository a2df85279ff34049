package main

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// The linker sets these (Makefile, tools/dist).
var (
	version = "dev"
	commit  = "" // empty where the program was built by hand
)

// versionLine returns what -version prints: version, commit, Go, system and processor, the last
// with what it was built for in particular.
//
//	tp0 v1.0 (commit 1904ee8c0ffe, go1.26.8, linux/mips GOMIPS=softfloat)
func versionLine() string {
	from, target := commit, runtime.GOOS+"/"+runtime.GOARCH
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOARM", "GOMIPS", "GO386": // of the variants only these make a binary that may not run
			target += " " + s.Key + "=" + s.Value
		case "vcs.revision":
			if from == "" {
				from = s.Value
			}
		}
	}
	facts := []string{runtime.Version(), target}
	if from != "" {
		facts = append([]string{"commit " + from}, facts...)
	}
	return "tp0 " + version + " (" + strings.Join(facts, ", ") + ")"
}
