package store

import (
	"context"
	"time"
)

// abilities are what a Store may have beside Read.
type (
	resolves interface {
		Resolve(ctx context.Context, session Session, ref Ref) (Resolved, error)
	}
	leases interface {
		Renew(ctx context.Context, session Session, lease Lease) (Lease, error)
		Revoke(ctx context.Context, session Session, lease Lease) error
		Ends(session Session, lease Lease) (ends time.Time, final bool)
	}
)

// Decorator is a Store around another one, with a method for whatever that one may
// be able to.
type Decorator interface {
	Store
	resolves
	leases
}

// Decorate is d without what s cannot do: a [Resolver] if s is one, and a [Leaser]
// if s is one. Every decorator of this package and others ends in it.
func Decorate(s Store, d Decorator) Store {
	_, resolver := s.(Resolver)
	_, leaser := s.(Leaser)
	switch {
	case resolver && leaser:
		return d
	case resolver:
		return struct {
			Store
			resolves
		}{d, d}
	case leaser:
		return struct {
			Store
			leases
		}{d, d}
	}
	return struct{ Store }{d}
}

// Decorated does what a Decorator has no opinion on: it asks Store, which can do it
// if anybody calls.
type Decorated struct{ Store }

// Resolve implements [Resolver].
func (d Decorated) Resolve(ctx context.Context, session Session, ref Ref) (Resolved, error) {
	if resolver, ok := d.Store.(Resolver); ok {
		return resolver.Resolve(ctx, session, ref)
	}
	return Resolved{Path: ref.Path}, nil
}

// Renew implements [Leaser].
func (d Decorated) Renew(ctx context.Context, session Session, lease Lease) (Lease, error) {
	if leaser, ok := d.Store.(Leaser); ok {
		return leaser.Renew(ctx, session, lease)
	}
	return lease, nil
}

// Revoke implements [Leaser].
func (d Decorated) Revoke(ctx context.Context, session Session, lease Lease) error {
	if leaser, ok := d.Store.(Leaser); ok {
		return leaser.Revoke(ctx, session, lease)
	}
	return nil
}

// Ends implements [Leaser].
func (d Decorated) Ends(session Session, lease Lease) (ends time.Time, final bool) {
	if leaser, ok := d.Store.(Leaser); ok {
		return leaser.Ends(session, lease)
	}
	return time.Time{}, false
}
