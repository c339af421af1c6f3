package room

import (
	"context"

	"github.com/keymount/keymount/internal/turns"
)

// Texts is the size of the pool of answers.
const Texts = texts

// Pooled is a pool: what is free of it, and how many namespaces hold some.
type Pooled struct {
	Free       int64
	Namespaces int
}

// LongPlace takes a place of a long text.
func (a *Answers) LongPlace(ctx context.Context, of turns.Of) (leave func(), err error) {
	return a.long.Take(ctx, of)
}

// Pool is that of texts.
func (a *Answers) Pool() Pooled { return a.texts.pooled() }

// Pool is that of mounts without a place.
func (m *Mounts) Pool() Pooled { return m.pool.pooled() }

func (p *pool) pooled() Pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Pooled{p.free, len(p.held)}
}
