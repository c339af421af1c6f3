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
	if name == "" || keyName(name) != name {
		return "", "", fmt.Errorf("%q is no name for a key; it has no space, no + and at least one character", name)
	}
	private, public, err = note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
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
		return nil, fmt.Errorf("audit.keyFile: %s holds no key (%w); make one with keymount audit keygen", file, err)
	}
	return key, nil
}
