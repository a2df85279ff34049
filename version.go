package main

import (
	"cmp"
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
	set := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			set[s.Key] = s.Value
		}
	}
	var facts []string
	if from := cmp.Or(commit, set["vcs.revision"]); from != "" {
		facts = append(facts, "commit "+from)
	}
	target := runtime.GOOS + "/" + runtime.GOARCH
	for _, variant := range []string{"GOARM", "GOMIPS", "GO386"} { // those that make a binary that may not run
		if set[variant] != "" {
			target += " " + variant + "=" + set[variant]
		}
	}
	facts = append(facts, runtime.Version(), target)
	for _, part := range parts {
		with := "with "
		if slices.Contains(strings.Split(set["-tags"], ","), part.leftOut) {
			with = "without "
		}
		facts = append(facts, with+part.name)
	}
	return "tp0 " + version + " (" + strings.Join(facts, ", ") + ")"
}
