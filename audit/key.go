package audit

import (
	"crypto/rand"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/keymount/keymount/internal/regular"
)

// maxKey is more than a key has.
const maxKey = 4 << 10

// NewKey makes a key for audit.keyFile, and the public half that verifies with it.
func NewKey(name string) (private, public string, err error) {
	private, public, err = note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", "", fmt.Errorf("make a key named %q: %w; a name has no space and no +", name, err)
	}
	return private, public, nil
}

// ReadKey reads an audit.keyFile.
func ReadKey(file string) (note.Signer, error) {
	text, err := regular.Read(file, maxKey)
	if err != nil {
		return nil, fmt.Errorf("audit.keyFile: %w", err)
	}
	key, err := note.NewSigner(strings.TrimSpace(string(text)))
	if err != nil { // the error holds no key
		return nil, fmt.Errorf("audit.keyFile: %s holds no key (%w); make one with keymount audit key", file, err)
	}
	return key, nil
}
