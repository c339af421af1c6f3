package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"
)

// signer is a note.Signer whose key can be erased. The copies that Go's library makes of it
// are out of reach, in freed memory for a while: docs/audit.md says what that leaves.
type signer struct {
	vkey     string // public half
	verifier note.Verifier
	key      ed25519.PrivateKey
}

// newSigner makes a key with the name of the node.
func newSigner(node string) (*signer, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key to sign the trail: %w", err)
	}
	vkey, err := note.NewEd25519VerifierKey(keyName(node), public)
	if err != nil {
		return nil, fmt.Errorf("make a key to sign the trail: %w", err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("make a key to sign the trail: %w", err)
	}
	return &signer{vkey, verifier, key}, nil
}

// keyName is a node's name without the characters that a key's name cannot hold.
func keyName(node string) string {
	return strings.Map(func(r rune) rune {
		if r == '+' || unicode.IsSpace(r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(node, "_"))
}

func (s *signer) public() string { return s.vkey }

// Name implements [note.Signer].
func (s *signer) Name() string { return s.verifier.Name() }

// KeyHash implements [note.Signer].
func (s *signer) KeyHash() uint32 { return s.verifier.KeyHash() }

// Sign implements [note.Signer].
func (s *signer) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.key, text), nil }

// erase overwrites the key.
func (s *signer) erase() { clear(s.key) }
