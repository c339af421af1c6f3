package cli

import (
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/store"
)

// Leavers are, for tests, what watchVolumes tells when there are two stores.
func Leavers(first, second store.Kept, sessions *auth.Sessions) func(v kube.Volume, last bool) {
	gone := &leavers{}
	gone.add(first, sessions)
	gone.add(second, sessions)
	return gone.left
}
