package main

import (
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestLayout holds the files to the list in main.go's doc comment, which has a line for each. A
// file uses only what it declares itself or what a file below it declares, methods and fields
// included; interfaces and func values are the only way up. Every method stands in the file of
// its type. The variants of a file for several systems, disk_linux.go and its like, count as the
// file itself.
func TestLayout(t *testing.T) {
	text, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	layer := map[string]int{} // of a file, from the top
	for i, match := range regexp.MustCompile(`(?m)^//\t(\w+\.go) `).FindAllSubmatch(text, -1) {
		layer[string(match[1])] = i + 1
	}
	exports := standardLibrary(t)
	for _, variant := range [][]string{{"linux"}, {"darwin"}, {"windows"},
		{"linux", "notls"}, {"linux", "nohttp", "nostream"}} {
		context := build.Default
		context.GOOS, context.BuildTags = variant[0], variant[1:]
		for breach, example := range layoutBreaches(t, &context, exports, layer) {
			t.Errorf("%v: %s: %s", variant, breach, example)
		}
	}
	for name := range layer {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("main.go lists %s: there is no such file", name)
		}
	}
}

// TestReadmeJumps: each function that the README names with its file stands there.
func TestReadmeJumps(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	jumps := regexp.MustCompile("`(\\w+)` \\((\\w+\\.go)\\)").FindAllSubmatch(text, -1)
	if len(jumps) != 5 {
		t.Errorf("got %d functions with their files, want 5", len(jumps))
	}
	for _, jump := range jumps {
		file, err := os.ReadFile(string(jump[2]))
		if err != nil || !regexp.MustCompile(`(?m)^func (\(.*\) )?`+string(jump[1])+`\(`).Match(file) {
			t.Errorf("got no function %s in %s (%v), want one", jump[1], jump[2], err)
		}
	}
}

// layoutBreaches type-checks the files of one build and returns each breach with an example of it.
func layoutBreaches(t *testing.T, context *build.Context, exports importer.Lookup,
	layer map[string]int) map[string]string {
	t.Helper()
	found := map[string]string{}
	report := func(breach, example string) { found[breach] = example }
	set := token.NewFileSet()
	home := func(pos token.Pos) string { // the file of the list that pos stands in
		name := filepath.Base(set.Position(pos).Filename)
		if base, _, found := strings.Cut(name, "_"); found && layer[name] == 0 {
			name = base + ".go"
		}
		return name
	}
	names, _ := filepath.Glob("*.go")
	var files []*ast.File
	for _, name := range names {
		if match, _ := context.MatchFile(".", name); !match || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		if layer[home(file.Pos())] == 0 {
			report(name+" is not in main.go's list of files", "each has a line there")
		}
	}
	info := types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	// errors: what this system's library lacks
	config := types.Config{Importer: importer.ForCompiler(set, "gc", exports), Error: func(error) {}}
	pkg, _ := config.Check("main", set, files, &info)
	for id, object := range info.Defs {
		if method, ok := object.(*types.Func); ok && method.Signature().Recv() != nil {
			if owner := receiver(method); owner != nil && home(owner.Pos()) != home(id.Pos()) {
				report(home(id.Pos())+": methods of "+owner.Name(), object.Name()+" belongs into "+home(owner.Pos()))
			}
		}
	}
	for id, object := range info.Uses {
		if object.Pkg() != pkg || !belongsToPackage(object) || layer[home(object.Pos())] >= layer[home(id.Pos())] {
			continue
		}
		report(home(id.Pos())+" uses "+home(object.Pos()), object.Name()+" at "+set.Position(id.Pos()).String())
	}
	return found
}

// receiver returns the type whose method this is, nil for one of an interface.
func receiver(method *types.Func) *types.TypeName {
	typ := method.Signature().Recv().Type()
	if pointer, ok := typ.(*types.Pointer); ok {
		typ = pointer.Elem()
	}
	if named, ok := typ.(*types.Named); ok && !types.IsInterface(named) {
		return named.Obj()
	}
	return nil
}

// belongsToPackage reports whether object is one of the package's names, a field, or a method of
// a type that is no interface.
func belongsToPackage(object types.Object) bool {
	if field, ok := object.(*types.Var); ok && field.IsField() {
		return true
	}
	if method, ok := object.(*types.Func); ok && method.Signature().Recv() != nil {
		return receiver(method) != nil
	}
	return object.Parent() == object.Pkg().Scope()
}

// standardLibrary returns what finds the compiler's description of its packages.
func standardLibrary(t *testing.T) importer.Lookup {
	t.Helper()
	program, err := build.ImportDir(".", 0)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"list", "-export", "-f", "{{.ImportPath}} {{.Export}}"}, program.Imports...)
	list, err := exec.Command("go", args...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	exports := map[string]string{}
	for line := range strings.Lines(string(list)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exports[path] = file
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) }
}
