package vaulttest

import (
	"os"
	"testing"

	"github.com/keymount/keymount/e2e/programs"
)

// vaultBinary is the server of e2e/vault, built if this machine has not built this
// very source yet. Test packages that run side by side wait for one build.
func vaultBinary(tb testing.TB) string {
	tb.Helper()
	program, err := programs.Vault(tb.Context(), os.Stderr)
	if err != nil {
		tb.Fatal(err)
	}
	return program
}
