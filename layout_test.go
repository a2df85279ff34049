package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fileList finds a line of main.go's list of files, and the names in it: `config.go  settings: … (settings.go: the table)`.
var (
	fileList  = regexp.MustCompile(`(?m)^//\t(\w+\.go .*)$`)
	fileNames = regexp.MustCompile(`\b[\w*]+\.go\b`)
)

// TestLayout holds each file to the list in main.go's doc comment: it names only top-level things that are declared in files below it, or on its own
// line. Methods do not count, nor does the receiver of one: a type may have its methods in several files.
func TestLayout(t *testing.T) {
	files := parseSources(t)
	layer := map[string]int{} // of a file, from the top
	for i, line := range fileList.FindAllStringSubmatch(files["main.go"].doc, -1) {
		for _, pattern := range fileNames.FindAllString(line[1], -1) {
			matches, _ := filepath.Glob(pattern)
			if len(matches) == 0 {
				t.Errorf("main.go lists %s: there is no such file", pattern)
			}
			for _, name := range matches {
				layer[name] = i + 1
			}
		}
	}
	declared := map[string]string{} // top-level name → its file
	for name, f := range files {
		if layer[name] == 0 {
			t.Errorf("%s is not in main.go's list of files", name)
		}
		for top := range f.syntax.Scope.Objects {
			declared[top] = name
		}
	}
	for name, f := range files {
		said := map[string]bool{}
		for _, id := range f.syntax.Unresolved { // what the file itself does not declare
			home, ok := declared[id.Name]
			if ok && layer[home] < layer[name] && !f.free[id] && !said[id.Name] {
				said[id.Name] = true
				t.Errorf("%s: names %s, which %s declares: got a name from above, want names from below only", f.set.Position(id.Pos()), id.Name, home)
			}
		}
	}
}

// A sourceFile is a file of the program, parsed.
type sourceFile struct {
	set    *token.FileSet
	syntax *ast.File
	doc    string              // its package comment as it stands
	free   map[*ast.Ident]bool // receivers, and keys of literals: these are mostly fields
}

// parseSources parses the program's files, without tests.
func parseSources(t *testing.T) map[string]*sourceFile {
	t.Helper()
	names, _ := filepath.Glob("*.go")
	files := map[string]*sourceFile{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f := &sourceFile{set: token.NewFileSet(), free: map[*ast.Ident]bool{}}
		var err error
		if f.syntax, err = parser.ParseFile(f.set, name, nil, parser.ParseComments); err != nil {
			t.Fatal(err)
		}
		if f.syntax.Doc != nil {
			for _, c := range f.syntax.Doc.List {
				f.doc += c.Text + "\n"
			}
		}
		ast.Inspect(f.syntax, f.exempt)
		files[name] = f
	}
	return files
}

// exempt notes the names at n that are free.
func (f *sourceFile) exempt(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.FuncDecl:
		if n.Recv != nil {
			if star, ok := n.Recv.List[0].Type.(*ast.StarExpr); ok {
				f.free[star.X.(*ast.Ident)] = true
			} else {
				f.free[n.Recv.List[0].Type.(*ast.Ident)] = true
			}
		}
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok {
			f.free[key] = true
		}
	}
	return true
}
