package auth

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

const (
	// keysFresh is the age at which keys are fetched again, asked for or not.
	keysFresh = time.Hour
	// keysUsable is the age after which keys are not used any more when their
	// source has been down all the time.
	keysUsable = 24 * time.Hour
	// keysPause keeps tokens with made-up key ids from hammering the source.
	keysPause = 10 * time.Second
	// keysTimeout ends one fetch; it outlives the request that asked for it.
	keysTimeout = 10 * time.Second
)

// KeySource is where an issuer's public keys come from: the API server, an OIDC
// discovery document or a file.
type KeySource interface {
	// Keys returns the issuer's name, exactly as tokens carry it in iss, and its
	// current keys. It is called again at least hourly and for unknown key ids,
	// never twice at a time, and must return soon after ctx ends.
	Keys(ctx context.Context) (issuer string, keys jose.JSONWebKeySet, err error)
}

// Issuer remembers the keys of one KeySource. It is safe for concurrent use.
type Issuer struct {
	source KeySource
	flight singleflight.Group

	mu      sync.Mutex // guards what follows; not held while fetching
	name    string
	keys    map[string]jose.JSONWebKey
	fetched time.Time // when keys last came
	tried   time.Time // when they were last asked for
	err     error     // of the last try
}

// NewIssuer fetches nothing yet; the first token does.
func NewIssuer(source KeySource) *Issuer { return &Issuer{source: source} }

// Name is the issuer's iss, asked from the source once.
func (i *Issuer) Name(ctx context.Context, now time.Time) (string, error) {
	if err := i.refresh(ctx, now, func() bool { return i.name == "" }); err != nil {
		return "", err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.name == "" {
		return "", fmt.Errorf("%w: %w", ErrKeys, i.err)
	}
	return i.name, nil
}

// key finds a public key, fetching when the id is new or the keys are old.
func (i *Issuer) key(ctx context.Context, id string, now time.Time) (jose.JSONWebKey, error) {
	if id == "" {
		return jose.JSONWebKey{}, fmt.Errorf("%w: its header names no key (kid)", ErrToken)
	}
	stale := func() bool {
		_, known := i.keys[id]
		return !known || now.Sub(i.fetched) >= keysFresh || now.Before(i.fetched)
	}
	if err := i.refresh(ctx, now, stale); err != nil {
		return jose.JSONWebKey{}, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	key, known := i.keys[id]
	switch {
	case i.err != nil && (!known || now.Sub(i.fetched) >= keysUsable):
		return jose.JSONWebKey{}, fmt.Errorf("%w: %w", ErrKeys, i.err)
	case !known:
		return jose.JSONWebKey{}, fmt.Errorf("%w: issuer %q has no key %q", ErrToken, i.name, id)
	}
	return key, nil
}

// refresh fetches when wanted() says so and the last try is long enough ago. It
// fails only when ctx ends first: what the fetch brought is in the fields.
func (i *Issuer) refresh(ctx context.Context, now time.Time, wanted func() bool) error {
	i.mu.Lock()
	due := wanted() && (i.tried.IsZero() || now.Sub(i.tried) >= keysPause || now.Before(i.tried))
	i.mu.Unlock()
	if !due {
		return nil
	}
	done := i.flight.DoChan("", func() (any, error) {
		// Others wait for this too, so the caller who came first must not end it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
		defer cancel()
		i.fetch(ctx, now)
		return nil, nil
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: waiting for the issuer's keys: %w", ErrKeys, ctx.Err())
	}
}

func (i *Issuer) fetch(ctx context.Context, now time.Time) {
	name, set, err := i.source.Keys(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tried, i.err = now, err
	if err != nil {
		return
	}
	i.name, i.fetched = name, now
	i.keys = make(map[string]jose.JSONWebKey, len(set.Keys))
	for _, key := range set.Keys {
		// A private or symmetric key has no business here; IsPublic is false for both.
		if key.KeyID != "" && key.IsPublic() && key.Valid() {
			i.keys[key.KeyID] = key
		}
	}
}
