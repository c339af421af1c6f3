package main_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/kind"
)

// namesOfKinds are the files that may name a kind of store, beside its own package, and
// why. A pattern is one of [path.Match].
func namesOfKinds() map[string]string {
	return map[string]string{
		"store/all/all.go":     "the one list of kinds",
		"class/dialect.go":     "a dialect is named after the provider that it is of",
		"class/vault.go":       "the dialect of vault-csi-provider",
		"class/vault_store.go": "the store that a class of vault-csi-provider means",
		"cli/bundle*.go":       "the command bundle writes bundles",
		"convert/*.go":         "other tools' objects that are about a Vault become a store of that kind",
		"cli/demo_vault.go":    "the demo with a Vault",
		"cli/stage.go":         "the demo makes a bundle",
	}
}

// TestKindsAreNamedInTheirPlaces keeps a new kind of store in its own package: it reads
// every file that is not a test for the packages of kinds and for texts that are a kind's
// name.
func TestKindsAreNamedInTheirPlaces(t *testing.T) {
	kinds, used := all.All(), map[string]bool{}
	if len(kinds) == 0 {
		t.Fatal("there are no kinds of store")
	}
	for _, file := range sources(t) {
		named := kindsNamedIn(t, file, kinds)
		if pattern := mayNameKinds(t, file); pattern != "" {
			used[pattern] = used[pattern] || len(named) > 0
			continue
		}
		for _, place := range named {
			t.Errorf("%s; a kind is named in its own package and in store/all alone: ask its traits or its settings, "+
				"or give a reason in namesOfKinds of kinds_test.go", place)
		}
	}
	for pattern := range namesOfKinds() {
		if !used[pattern] {
			t.Errorf("%s names no kind of store; remove it from namesOfKinds of kinds_test.go", pattern)
		}
	}
}

// TestKindsHaveTheirFolders keeps each kind where the documentation looks for it: in a
// package of its name, with a struct Settings in kind.go.
func TestKindsHaveTheirFolders(t *testing.T) {
	for _, k := range all.All() {
		want := module + "/store/" + k.Name() + ".Settings"
		if got := typeName(reflect.TypeOf(k.New()).Elem()); got != want {
			t.Errorf("the settings of the kind %q are %s, want %s", k.Name(), got, want)
		}
		file := "store/" + k.Name() + "/kind.go"
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if parsed.Scope.Lookup("Settings") == nil {
			t.Errorf("%s declares no Settings, where tools/configdoc looks for them", file)
		}
	}
}

// mayNameKinds is the exception that a file is, or empty.
func mayNameKinds(t *testing.T, file string) string {
	t.Helper()
	for pattern := range namesOfKinds() {
		fits, err := path.Match(pattern, file)
		if err != nil {
			t.Fatal(err)
		}
		if fits {
			return pattern
		}
	}
	return ""
}

// kindsNamedIn are the places in a file that name a kind that the file does not belong to.
func kindsNamedIn(t *testing.T, file string, kinds []kind.Kind) []string {
	t.Helper()
	positions := token.NewFileSet()
	parsed, err := parser.ParseFile(positions, filepath.FromSlash(file), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		literal, ok := n.(*ast.BasicLit) // of an import, too
		if !ok || literal.Kind != token.STRING {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, k := range kinds {
			own := "store/" + k.Name()
			isImport := within(text, module+"/"+own)
			if (isImport || text == k.Name()) && !strings.HasPrefix(file, own+"/") {
				places = append(places, fmt.Sprintf("%s names the kind %q as %s", positions.Position(literal.Pos()), k.Name(), literal.Value))
			}
		}
		return true
	})
	return places
}
