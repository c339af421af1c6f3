package vaulttest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keymount/keymount/e2e/programs"
)

// vaultBinary is the server of e2e/vault, built if this machine has not built this
// very source yet. Test packages that run side by side wait for one build.
func vaultBinary(tb testing.TB) string {
	tb.Helper()
	e2e, err := programs.FindModule(tb.Context(), "", "github.com/keymount/keymount/e2e") // wherever the test's package lies
	if err != nil {
		tb.Fatal(err)
	}
	folder, err := programs.Build(tb.Context(), os.Stderr, filepath.Join(e2e.Dir, "vault"), "-ldflags=-s -w", ".")
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(folder, "vault")
}
