package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocumentsNameWhatIsThere holds the documents for developers against the code: files,
// folders, and the names of Go in them.
func TestDocumentsNameWhatIsThere(t *testing.T) {
	known := readRepository(t)
	for _, document := range []string{"docs/architecture.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		if len(quoted(string(text))) == 0 {
			t.Errorf("%s names nothing", document)
		}
		for _, mistake := range known.missing(string(text)) {
			t.Errorf("%s names %s", document, mistake)
		}
	}
}

// TestMissingNamesAreFound makes sure that the search would find something.
func TestMissingNamesAreFound(t *testing.T) {
	known := repository{
		paths:    map[string]bool{"store": true, "store/store.go": true, "store/keep": true, "store/keep/keep.go": true, "kinds_test.go": true},
		declared: map[string][]string{"store/store.go": {"Store", "Read"}, "store/keep/keep.go": {"Keeper", "fresh"}},
	}
	for text, want := range map[string][]string{
		"`store/store.go`, `store/keep`, `store/`, `kinds_test.go`": nil,
		"`store.go` is somewhere":                                   nil,
		"`store/stores.go`":                                         {"`store/stores.go`, which is not there"},
		"`store/queue`, `store/queue/`":                             {"`store/queue`, which is not there", "`store/queue/`, which is not there"},
		"`kind_test.go`":                                            {"`kind_test.go`, which is not there"},
		"`secret/data/shop`, `store/<name>`, `a.yaml/b`":            nil,
		"`store.Store`, `keep.Keeper`, `&store.Store{...}`":         nil,
		"`store.Stores`":                                            {"`store.Stores`, which package store lacks"},
		"`&keep.Keep{}`, `keep.Open(1)`":                            {"`keep.Keep`, which package keep lacks", "`keep.Open`, which package keep lacks"},
		"`other.Name`":                                              nil,
		"`store/keep/keep.go`, `fresh` and `Keeper`":                nil,
		"`store/keep/keep.go`, `fresh` and `stale`":                 {"`stale`, which store/keep/keep.go lacks"},
		"`Reads` in `store/store.go`":                               {"`Reads`, which store/store.go lacks"},
		"    `store/stores.go` in a block of code":                  nil,
	} {
		if diff := cmp.Diff(want, known.missing(text)); diff != "" {
			t.Errorf("missing in %s (-want +got):\n%s", text, diff)
		}
	}
}

// repository is what a document can name.
type repository struct {
	paths    map[string]bool     // files and folders, with slashes
	declared map[string][]string // by file: names of functions, methods, types and values
}

func readRepository(t *testing.T) repository {
	t.Helper()
	known := repository{map[string]bool{}, map[string][]string{}}
	err := filepath.WalkDir(".", func(name string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && name == ".git" {
			return filepath.SkipDir
		}
		if name != "." {
			known.paths[filepath.ToSlash(name)] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range sources(t) {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		known.declared[file] = declaredIn(parsed)
	}
	return known
}

// declaredIn are the names that a file declares outside of functions, methods among them.
func declaredIn(file *ast.File) []string {
	var names []string
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			names = append(names, f.Name.Name)
			continue
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				names = append(names, n.Name.Name)
			case *ast.ValueSpec:
				for _, name := range n.Names {
					names = append(names, name.Name)
				}
			}
			return true
		})
	}
	return names
}

var (
	code     = regexp.MustCompile("`([^`\n]+)`")
	fileName = regexp.MustCompile(`^[\w.-]+\.(go|md|tpl|json|ya?ml|sh)$`)
	goName   = regexp.MustCompile(`^&?([a-z]+)\.([A-Z]\w*)`)
	inFile   = regexp.MustCompile("`(\\w+)` in `([\\w./-]+\\.go)`")
	ofFile   = regexp.MustCompile("`([\\w./-]+\\.go)`, `(\\w+)`(?: and `(\\w+)`)?")
)

// quoted are the texts in backquotes, in their order, but for blocks of code.
func quoted(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		for _, match := range code.FindAllStringSubmatch(line, -1) {
			found = append(found, match[1])
		}
	}
	return found
}

// missing are the files, folders and names of Go in a document that are not there.
func (r repository) missing(text string) []string {
	var mistakes []string
	for _, name := range quoted(text) {
		match := goName.FindStringSubmatch(name)
		switch {
		case !r.exists(name):
			mistakes = append(mistakes, "`"+name+"`, which is not there")
		case match != nil && !fileName.MatchString(name) && !r.exports(match[1], match[2]):
			mistakes = append(mistakes, "`"+match[1]+"."+match[2]+"`, which package "+match[1]+" lacks")
		}
	}
	lacks := func(file, name string) {
		if name != "" && r.paths[file] && !slices.Contains(r.declared[file], name) {
			mistakes = append(mistakes, "`"+name+"`, which "+file+" lacks")
		}
	}
	for _, match := range ofFile.FindAllStringSubmatch(text, -1) {
		lacks(match[1], match[2])
		lacks(match[1], match[3])
	}
	for _, match := range inFile.FindAllStringSubmatch(text, -1) {
		lacks(match[2], match[1])
	}
	return mistakes
}

// exists is false for the name of a file or folder that is not there. A path begins with a
// folder of this repository or is the name of a file: all else is no path of ours.
func (r repository) exists(name string) bool {
	first, _, isPath := strings.Cut(name, "/")
	switch {
	case strings.ContainsAny(name, "<*… ") || r.paths[strings.TrimSuffix(name, "/")]:
		return true
	case isPath:
		return !r.paths[first]
	case !fileName.MatchString(name) || name == "keymount.yaml": // which is an operator's
		return true
	}
	return slices.ContainsFunc(slices.Collect(maps.Keys(r.paths)), func(file string) bool { return path.Base(file) == name })
}

// exports tells whether a package of this name exports something; true for a package of
// another module.
func (r repository) exports(name, exported string) bool {
	known := false
	for file, names := range r.declared {
		if path.Base(path.Dir(file)) == name {
			if known = true; slices.Contains(names, exported) {
				return true
			}
		}
	}
	return !known
}
