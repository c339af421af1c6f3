package auth

import (
	"crypto"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keymount/keymount/internal/lru"
	"github.com/keymount/keymount/internal/secret"
)

const (
	// maxProofs bounds the remembered tokens: a few for each pod of a node.
	maxProofs = 1024
	// maxProvenToken is the longest token to remember, in bytes. Names at their longest make
	// 3.5 KiB; a longer token may hold any number of claims.
	maxProvenToken = 4 << 10
)

// proof is the claims of a token with a checked signature, and the key of that signature. It
// follows from the bytes of both alone, and is therefore the one thing that may be
// remembered: every request checks audience, pod and times again.
type proof struct {
	token  tokenSum
	key    jose.JSONWebKey
	claims claims
}

// tokenSum is the SHA-256 of a token, kept instead of the token.
type tokenSum [sha256.Size]byte

func sumOf(token secret.Bytes) tokenSum { return sha256.Sum256(token.Reveal()) }

// isBy tells whether the proof is by this key: a new key under the old name proves nothing
// until it has verified the signature.
func (p proof) isBy(key jose.JSONWebKey) bool {
	public, ok := p.key.Key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Key) && p.key.Algorithm == key.Algorithm
}

// proofs remembers the proofs of accepted tokens. It is safe for concurrent use; a proof in
// it is never changed.
type proofs struct {
	mu    sync.Mutex
	known *lru.Cache[tokenSum, proof]
}

func newProofs() *proofs { return &proofs{known: lru.New[tokenSum, proof](maxProofs, 0)} }

// find does not count as a use of a proof, because the request may still be refused; keep
// does.
func (p *proofs) find(token tokenSum) (proof, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known.Peek(token)
}

// keep remembers the proof of an accepted request, first or again. A new proof evicts expired
// ones and, if there is still no room, the least recently used.
func (p *proofs) keep(proven proof, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.known.Peek(proven.token); !again {
		p.known.RemoveFunc(func(_ tokenSum, old proof) bool { return !now.Before(old.claims.Expiry.Time()) })
	}
	p.known.Add(proven.token, proven, 0)
}
