// Package all is the one list of the kinds of store. In Go code a new kind is named here and
// in its own package, and nowhere else but in tests that hold tables of packages.
package all

import (
	"github.com/keymount/keymount/store/bundle"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/vault"
)

// All are the kinds of store, in the order in which messages name them.
func All() []kind.Kind {
	return []kind.Kind{bundle.Kind{}, vault.Kind{}}
}
