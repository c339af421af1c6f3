package main_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/keymount/keymount"

// allowedImports is the picture in docs/architecture.md as a table: a package of
// this module and the packages of this module that it may import. Data goes down
// that list once and imports never point up. A package that is not built yet may
// have its row already.
func allowedImports() map[string][]string {
	return map[string][]string{
		"internal/contain":   {},
		"internal/secret":    {},
		"internal/spelling":  {},
		"internal/lru":       {},
		"internal/inflight":  {},
		"internal/regular":   {},
		"internal/scrub":     {},
		"internal/surrogate": {},
		"internal/turns":     {},
		"internal/room":      {"internal/secret", "internal/turns"},
		"internal/socket":    {},
		"auth":               {"internal/contain", "internal/lru", "internal/regular", "internal/secret", "internal/spelling"},
		"schema":             {},
		"state":              {"internal/secret"},
		"internal/strict":    {"internal/spelling"},
		"internal/watchfile": {},
		"internal/kube":      {"auth", "internal/secret"},
		"store":              {"auth", "internal/secret", "internal/spelling"},
		"store/bundle":       {"store", "store/kind", "internal/regular", "internal/secret", "internal/spelling", "internal/strict", "internal/surrogate", "internal/watchfile"},
		"store/storetest":    {"access", "auth", "login", "store", "store/kind", "internal/secret", "internal/strict"},
		"login":              {"auth", "store", "internal/contain", "internal/inflight", "internal/secret"},
		"store/kind":         {"access", "login", "store", "internal/room", "internal/secret", "internal/spelling"},
		"store/all":          {"store/bundle", "store/kind", "store/vault"},
		"store/keep":         {"auth", "login", "store", "internal/contain", "internal/inflight", "internal/secret"},
		"store/queue":        {"login", "store"},
		"store/vault":        {"access", "auth", "login", "store", "store/kind", "internal/contain", "internal/regular", "internal/room", "internal/scrub", "internal/secret", "internal/spelling", "internal/turns", "internal/watchfile"},
		"access":             {"store", "internal/spelling"},
		"config":             {"access", "store/kind", "internal/spelling", "internal/strict"},
		"certificate":        {"internal/secret", "internal/spelling"},
		"form":               {"store", "internal/secret", "internal/spelling", "internal/surrogate", "internal/turns"},
		"class":              {"access", "auth", "store", "store/kind", "certificate", "form", "internal/lru", "internal/spelling", "internal/strict", "internal/surrogate"},
		"manifest":           {"internal/strict", "internal/surrogate"},
		"lint":               {"access", "audit", "class", "config", "manifest", "store", "store/kind", "internal/contain", "internal/spelling"},
		"convert":            {"access", "class", "manifest", "store", "store/kind", "store/vault", "internal/spelling"},
		"record":             {"auth", "access", "class", "store"},
		"audit":              {"record", "auth", "access", "class", "login", "store", "store/kind", "internal/contain", "internal/lru", "internal/regular", "internal/secret", "internal/spelling"},
		"observe":            {"audit", "record", "auth", "login", "store", "store/keep", "store/kind", "class", "internal/secret", "internal/contain", "internal/lru"},
		"provider": {
			"record", "auth", "access", "login", "store", "store/keep", "class", "certificate", "form",
			"internal/secret", "internal/contain", "internal/lru", "internal/regular", "internal/room", "internal/socket", "internal/spelling", "internal/turns",
		},
		"provider/providertest": {"auth"},
		"node": {
			"audit", "config", "provider", "observe", "class", "auth", "login", "state", "store", "store/keep", "store/kind", "store/queue", "internal/contain", "internal/kube", "internal/room", "internal/secret", "internal/socket",
		},
		"trial": {
			"access", "auth", "certificate", "class", "config", "form", "manifest", "node", "provider", "provider/providertest", "record", "store", "store/kind",
			"internal/secret", "internal/spelling", "internal/strict", "internal/surrogate",
		},
		"cli": {
			"trial", "access", "audit", "node", "config", "convert", "lint", "manifest", "provider", "provider/providertest", "class", "auth", "schema", "state", "store", "store/all", "store/kind", "store/bundle", "store/vault",
			"internal/contain", "internal/kube", "internal/secret", "internal/spelling",
		},
		".": {"cli"},
	}
}

// confinedImports are the modules that only some packages may know. The key is
// the beginning of an import path; every key that fits counts.
func confinedImports() map[string][]string {
	return map[string][]string{
		"filippo.io/age":                           {"store/bundle", "cli"},
		"github.com/go-jose":                       {"auth", "provider/providertest"},
		"github.com/google/go-cmp":                 {"store/storetest"},
		"github.com/prometheus":                    {"observe"},
		"github.com/spf13/cobra":                   {"cli"},
		"github.com/spf13/pflag":                   {"cli"},
		"software.sslmate.com/src/go-pkcs12":       {"certificate"},
		"github.com/pavlo-v-chernykh/keystore-go":  {"certificate"},
		"golang.org/x/mod":                         {"audit", "node"},
		"golang.org/x/tools":                       {}, // tests only
		"google.golang.org/grpc":                   {"record", "audit", "observe", "provider", "provider/providertest", "cli"},
		"k8s.io":                                   {"internal/kube"},
		"sigs.k8s.io/secrets-store-csi-driver":     {"provider", "provider/providertest", "trial", "cli"},
		"sigs.k8s.io/secrets-store-csi-driver/pkg": {"provider/providertest", "cli"},
		"github.com/hashicorp":                     {"store/vault"},
		"github.com/aws":                           {},
		"cloud.google.com":                         {},
		"github.com/Azure":                         {},
	}
}

// TestImports reads the imports of every file that is not a test.
func TestImports(t *testing.T) {
	allowed, confined := allowedImports(), confinedImports()
	for _, file := range sources(t) {
		importer := path.Dir(file)
		row, known := allowed[importer]
		if !known {
			t.Errorf("%s: package %q has no row in allowedImports of imports_test.go; decide what it may import", file, importer)
			continue
		}
		for _, imported := range importsOf(t, file) {
			if own, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(row, own) {
				t.Errorf("%s imports %s; package %q may import %q of this module, see docs/architecture.md", file, own, importer, row)
			}
			for prefix, importers := range confined {
				if within(imported, prefix) && !slices.Contains(importers, importer) {
					t.Errorf("%s imports %s; only %q may", file, imported, importers)
				}
			}
		}
	}
}

// TestImportsAreAcyclicByTable keeps the table itself honest: no row can reach
// its own package.
func TestImportsAreAcyclicByTable(t *testing.T) {
	allowed := allowedImports()
	var reaches func(from, to string) bool
	reaches = func(from, to string) bool {
		return slices.ContainsFunc(allowed[from], func(next string) bool { return next == to || reaches(next, to) })
	}
	for name, row := range allowed {
		for _, imported := range row {
			if _, ok := allowed[imported]; !ok {
				t.Errorf("the row of %q allows %q, which has no row", name, imported)
			}
			if imported == name || reaches(imported, name) {
				t.Errorf("%q and %q may import each other; imports point one way", name, imported)
			}
		}
	}
}

// within tells whether an import path is that of prefix or lies below it.
func within(imported, prefix string) bool {
	return imported == prefix || strings.HasPrefix(imported, prefix+"/")
}

// sources are the Go files of this module that are not tests, with slashes.
func sources(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && foreign(name):
			return filepath.SkipDir
		case !entry.IsDir() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	return files
}

// foreign folders hold no package of this module: another module, or what the go
// command ignores.
func foreign(folder string) bool {
	base := filepath.Base(folder)
	if base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	return err == nil
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(file), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	imports := make([]string, 0, len(parsed.Imports))
	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		imports = append(imports, name)
	}
	return imports
}
