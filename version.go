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

// parts can be left out of a build, each by any of its tags: make build TAGS=nohttp. Without TLS
// there is none of the others, whose libraries bring it.
var parts = []struct {
	name    string
	leftOut []string
}{{"TLS", []string{"notls"}}, {"HTTP", []string{"nohttp", "notls"}}, {"stream", []string{"nostream", "notls"}}}

// versionLine returns what -version prints: version, commit, Go, system and processor, the last
// with what it was built for in particular, and the parts that are built in.
//
//	tp0 v1.0 (commit 1904ee8c0ffe, go1.26.8, linux/arm GOARM=5, with TLS, with HTTP, with stream)
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
		with, built := "with ", strings.Split(set["-tags"], ",")
		if slices.ContainsFunc(part.leftOut, func(tag string) bool { return slices.Contains(built, tag) }) {
			with = "without "
		}
		facts = append(facts, with+part.name)
	}
	return "tp0 " + version + " (" + strings.Join(facts, ", ") + ")"
}
