package auth

import (
	"crypto"
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keymount/keymount/internal/secret"
)

const (
	// maxProofs is how many tokens are remembered: a few for each pod of a node.
	maxProofs = 1024
	// maxProvenToken is the longest token that is remembered, in bytes. Names at
	// their longest make 3.5 KiB; what is longer may hold claims without end.
	maxProvenToken = 4 << 10
)

// proof is what the signature of a token proves, and by which key. It follows from
// the bytes of both and from nothing else, and is therefore the one thing that may
// be remembered: for whom and when it counts is asked at every request.
type proof struct {
	token  tokenSum
	key    jose.JSONWebKey
	claims claims
}

// tokenSum is the SHA-256 of a token, so that no token is kept.
type tokenSum [sha256.Size]byte

func sumOf(token secret.Bytes) tokenSum { return sha256.Sum256(token.Reveal()) }

// isBy tells whether the proof is one by this key: another key under the old one's
// name proves nothing until the signature was checked with it.
func (p proof) isBy(key jose.JSONWebKey) bool {
	public, ok := p.key.Key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Key) && p.key.Algorithm == key.Algorithm
}

// proofs remembers tokens that were good for a request. It is safe for concurrent
// use; what is in it is never changed.
type proofs struct {
	mu    sync.Mutex
	known map[tokenSum]*keptProof
}

func newProofs() *proofs { return &proofs{known: map[tokenSum]*keptProof{}} }

type keptProof struct {
	proof
	used time.Time // last, with success
}

func (p *proofs) find(token tokenSum) (proof, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, ok := p.known[token]; ok {
		return r.proof, true
	}
	return proof{}, false
}

// keep remembers a proof that was good for a request just now, first or again.
func (p *proofs) keep(proven proof, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, again := p.known[proven.token]; again {
		known.proof, known.used = proven, now
		return
	}
	p.makeRoomLocked(now)
	p.known[proven.token] = &keptProof{proven, now}
}

// makeRoomLocked forgets what has expired, and where that is not enough the token
// that has not been used for longest.
func (p *proofs) makeRoomLocked(now time.Time) {
	maps.DeleteFunc(p.known, func(_ tokenSum, r *keptProof) bool { return !now.Before(r.claims.Expiry.Time()) })
	if len(p.known) < maxProofs {
		return
	}
	var oldest *keptProof
	for _, r := range p.known {
		if oldest == nil || r.used.Before(oldest.used) {
			oldest = r
		}
	}
	delete(p.known, oldest.token)
}
