//go:build unix

package bundle_test

import (
	"syscall"
	"testing"

	"github.com/keymount/keymount/store"
)

// A FIFO without a writer would hold up whoever opens it.
func TestFIFO(t *testing.T) {
	n := newShop(t)
	n.remove(n.file)
	if err := syscall.Mkfifo(n.file, 0o600); err != nil {
		t.Fatal(err)
	}
	n.want("one")
	n.wantError(n.bundle.Check(t.Context()), store.ErrInvalid, "invalid: bundle DIR/secrets.age: is not a regular file")
}
