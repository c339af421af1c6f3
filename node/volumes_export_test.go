package node

import (
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
)

// Removed is, for tests, the function that watchVolumes calls when there are two stores.
func Removed(first, second revoker, sessions *login.Sessions) func(v auth.Volume, last bool) {
	r := &removals{}
	r.add(first, sessions)
	r.add(second, sessions)
	return r.removed
}
