//go:build unix

package bundle_test

import (
	"syscall"
	"testing"

	"github.com/keymount/keymount/store"
)

// A FIFO without a writer would block its reader.
func TestFIFO(t *testing.T) {
	n := newShop(t)
	n.remove(n.file)
	if err := syscall.Mkfifo(n.file, 0o600); err != nil {
		t.Fatal(err)
	}
	n.want("one")
	n.wantError(n.bundle.Check(t.Context()), store.Invalid, "invalid: bundle DIR/secrets.age: is not a regular file")
}
