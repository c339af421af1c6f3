package kind

import (
	"errors"
	"fmt"

	"github.com/keymount/keymount/internal/secret"
)

// MadeUp are [Settings] of a store that secrets of a file can stand in for, to try a class
// without it. Settings without it have no such stand-in.
type MadeUp interface {
	// OpenMadeUp opens the stand-in: it reads no file and opens no connection, and answers and
	// refuses in the store's own words. A path of secrets is written as a class may have it.
	OpenMadeUp(env Env, secrets map[string]secret.Tree) (Layers, error)
}

// OpenMadeUp is that of [MadeUp], for any settings.
func OpenMadeUp(s Settings, env Env, secrets map[string]secret.Tree) (Layers, error) {
	if made, ok := s.(MadeUp); ok {
		return made.OpenMadeUp(env, secrets)
	}
	return Layers{}, errors.New("no secrets can stand in for a store of this kind; leave its secrets out")
}

// Unfit is a secret that cannot stand in at its path. The cause holds no value.
type Unfit struct {
	Path  string // as it was given
	Cause error
}

func (u *Unfit) Error() string { return fmt.Sprintf("%q: %s", u.Path, u.Cause) }

func (u *Unfit) Unwrap() error { return u.Cause }
