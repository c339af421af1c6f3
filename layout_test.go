package main_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/go/packages"
)

// mostFiles is how many files package provider may have: a reader keeps an overview.
const mostFiles = 11

// TestProviderReadsOneWay keeps the files of package provider few and in an order: no
// two of them use each other.
func TestProviderReadsOneWay(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{
		Context: t.Context(),
		Mode:    packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports,
	}, "./provider")
	if err != nil || len(loaded) != 1 || len(loaded[0].Errors) > 0 {
		t.Fatalf("loaded %v: %v", loaded, err)
	}
	p := loaded[0]
	if len(p.GoFiles) == 0 || len(p.GoFiles) > mostFiles {
		t.Errorf("package provider has %d files, and may have %d", len(p.GoFiles), mostFiles)
	}
	for _, pair := range circles(p.Fset, p.Types, p.TypesInfo) {
		t.Errorf("%s and %s of package provider use each other; move what one of them uses", pair[0], pair[1])
	}
}

// mostNames is how many exported names package store may have: it is a contract, and has
// to fit into a head.
const mostNames = 25

// TestStoreIsTheContractAlone keeps package store small, and free of the rooms that put it
// to use.
func TestStoreIsTheContractAlone(t *testing.T) {
	loaded, err := packages.Load(&packages.Config{
		Context: t.Context(),
		Mode:    packages.NeedName | packages.NeedTypes | packages.NeedImports | packages.NeedDeps,
	}, "./store")
	if err != nil || len(loaded) != 1 || len(loaded[0].Errors) > 0 {
		t.Fatalf("loaded %v: %v", loaded, err)
	}
	var exported []string
	for _, name := range loaded[0].Types.Scope().Names() {
		if token.IsExported(name) {
			exported = append(exported, name)
		}
	}
	if len(exported) == 0 || len(exported) > mostNames {
		t.Errorf("package store exports %d names, and may export %d: %q", len(exported), mostNames, exported)
	}
	packages.Visit(loaded, nil, func(p *packages.Package) {
		if within(p.PkgPath, module+"/store/keep") || within(p.PkgPath, module+"/store/queue") {
			t.Errorf("package store imports %s, directly or not", p.PkgPath)
		}
	})
}

// TestCirclesAreFound makes sure that the search would find something: functions, types,
// methods and fields count, and a chain without an end does not.
func TestCirclesAreFound(t *testing.T) {
	for name, test := range map[string]struct {
		sources map[string]string
		want    [][2]string
	}{
		"one way": {map[string]string{
			"a.go": "package p; func A() { B() }", "b.go": "package p; func B() { C() }", "c.go": "package p; func C() {}",
		}, nil},
		"functions": {map[string]string{
			"a.go": "package p; func A() { B() }", "b.go": "package p; func B() { A() }",
		}, [][2]string{{"a.go", "b.go"}}},
		"a type and its method elsewhere": {map[string]string{
			"a.go": "package p; type A struct{}; func use() { A{}.m() }", "b.go": "package p; func (A) m() {}",
		}, [][2]string{{"a.go", "b.go"}}},
		"a field": {map[string]string{
			"a.go": "package p; type A struct{ n int }; var _ = f", "b.go": "package p; func f(a interface{ get() *A }) int { return a.get().n }",
			"c.go": "package p; var _ = A{}.n",
		}, [][2]string{{"a.go", "b.go"}}},
		"a local name is no use": {map[string]string{
			"a.go": "package p; func A() { B() }", "b.go": "package p; func B() { A := 1; _ = A }",
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			files := token.NewFileSet()
			var parsed []*ast.File
			for _, file := range slices.Sorted(maps.Keys(test.sources)) {
				source, err := parser.ParseFile(files, file, test.sources[file], 0)
				if err != nil {
					t.Fatal(err)
				}
				parsed = append(parsed, source)
			}
			info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
			checked, err := (&types.Config{Importer: importer.Default()}).Check("p", files, parsed, info)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, circles(files, checked, info)); diff != "" {
				t.Errorf("circles (-want +got):\n%s", diff)
			}
		})
	}
}

// circles are the pairs of files of a package of which each uses something that the
// other declares.
func circles(files *token.FileSet, p *types.Package, info *types.Info) [][2]string {
	fileOf := func(pos token.Pos) string { return filepath.Base(files.Position(pos).Filename) }
	uses := map[[2]string]bool{}
	for name, object := range info.Uses {
		if object.Pkg() == p {
			uses[[2]string{fileOf(name.Pos()), fileOf(object.Pos())}] = true
		}
	}
	var found [][2]string
	for pair := range uses {
		if back := [2]string{pair[1], pair[0]}; pair[0] < pair[1] && uses[back] {
			found = append(found, pair)
		}
	}
	slices.SortFunc(found, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return found
}
