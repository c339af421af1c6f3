package auth

import "github.com/keymount/keymount/internal/secret"

// MaxProofs is how many tokens a Verifier remembers.
const MaxProofs = maxProofs

// Remembered is how many tokens the Verifier remembers.
func (v *Verifier) Remembered() int {
	v.proofs.mu.Lock()
	defer v.proofs.mu.Unlock()
	return v.proofs.known.Len()
}

// Remembers tells whether the signature of a token was checked before.
func (v *Verifier) Remembers(token secret.Bytes) bool {
	_, ok := v.proofs.find(sumOf(token))
	return ok
}
