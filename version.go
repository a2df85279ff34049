package main

import (
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// The linker sets these (Makefile, tools/dist).
var (
	version = "dev"
	commit  = "" // empty where the program was built by hand
)

// parts can be left out of a build: make build TAGS=notls.
var parts = []struct{ name, leftOut string }{{"TLS", "notls"}, {"HTTP", "nohttp"}}

// versionLine returns what -version prints: version, commit, Go, system and processor, the last
// with what it was built for in particular, and the parts that are built in.
//
//	tp0 v1.0 (commit 1904ee8c0ffe, go1.26.8, linux/mips GOMIPS=softfloat, with TLS, with HTTP)
func versionLine() string {
	from, target, tags := commit, runtime.GOOS+"/"+runtime.GOARCH, ""
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOARM", "GOMIPS", "GO386": // of the variants only these make a binary that may not run
			target += " " + s.Key + "=" + s.Value
		case "-tags":
			tags = s.Value
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
	for _, part := range parts {
		if slices.Contains(strings.Split(tags, ","), part.leftOut) {
			facts = append(facts, "without "+part.name)
		} else {
			facts = append(facts, "with "+part.name)
		}
	}
	return "tp0 " + version + " (" + strings.Join(facts, ", ") + ")"
}
