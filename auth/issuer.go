package auth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/keymount/keymount/internal/contain"
)

const (
	// keysFresh is the age at which keys are fetched again, even when all ids are known.
	keysFresh = time.Hour
	// keysUsable is the age after which keys are not used any more, if their source has been
	// down all the time.
	keysUsable = 24 * time.Hour
	// keysPause is the time between two fetches; it keeps tokens with made-up key ids from
	// hammering the source.
	keysPause = 2 * time.Second
	// keysTimeout ends one fetch; the fetch outlives the request that started it.
	keysTimeout = 10 * time.Second
	// keysPatience is how long a token with a known key waits for a fresh set.
	keysPatience = 2 * time.Second
)

// KeySource is the origin of an issuer's public keys: the API server, an OIDC discovery
// document or a file.
type KeySource interface {
	// Keys returns the issuer's name, exactly as tokens carry it in iss, and its
	// current keys. It is called again at least hourly and for unknown key ids,
	// never twice at a time, and must return soon after ctx ends.
	Keys(ctx context.Context) (issuer string, keys jose.JSONWebKeySet, err error)
}

// Issuer remembers the keys of one KeySource. It is safe for concurrent use.
type Issuer struct {
	source KeySource
	now    func() time.Time
	flight singleflight.Group

	mu      sync.Mutex // guards the fields below; not held while fetching
	name    string
	keys    map[string]jose.JSONWebKey
	fetched time.Time // when keys last came
	tried   time.Time // when the last fetch ended
	err     error     // of the last fetch
}

// NewIssuer fetches nothing yet; the first token does. name is the iss of its tokens; empty
// takes the name from the source. now is the clock.
func NewIssuer(name string, source KeySource, now func() time.Time) *Issuer {
	return &Issuer{name: name, source: source, now: now}
}

// known is the issuer's name, empty until the source has told it.
func (i *Issuer) known() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.name
}

// ask is the issuer's name; it asks until the source answers or ctx ends.
func (i *Issuer) ask(ctx context.Context) (string, error) {
	for {
		if name := i.known(); name != "" {
			return name, nil
		}
		if err := i.refetch(ctx); err != nil {
			return "", err
		}
	}
}

// key finds a public key. A key that is new or too old is fetched until the source answers or
// ctx ends; a key merely an hour old does not depend on the source.
func (i *Issuer) key(ctx context.Context, id string) (jose.JSONWebKey, error) {
	if id == "" {
		return jose.JSONWebKey{}, fmt.Errorf("%w: its header names no key (kid)", ErrToken)
	}
	if key, usable := i.remembered(ctx, id); usable {
		return key, nil
	}
	for {
		if err := i.refetch(ctx); err != nil {
			return jose.JSONWebKey{}, err
		}
		i.mu.Lock()
		key, known := i.keys[id]
		name, failed := i.name, i.err
		i.mu.Unlock()
		switch {
		case failed != nil: // once more
		case known:
			return key, nil
		default:
			return jose.JSONWebKey{}, fmt.Errorf("%w: issuer %q has no key %q", ErrToken, name, id)
		}
	}
}

// remembered finds a key fetched within a day. After an hour it first fetches a fresh set,
// but does not wait for a source in trouble.
func (i *Issuer) remembered(ctx context.Context, id string) (jose.JSONWebKey, bool) {
	key, age, failing := i.look(id)
	if age < keysFresh {
		return key, true
	}
	if age >= keysUsable {
		return jose.JSONWebKey{}, false
	}
	fetched := i.fetchShared(ctx)
	if failing {
		return key, true
	}
	patience := time.NewTimer(keysPatience)
	defer patience.Stop()
	select {
	case <-fetched:
	case <-patience.C:
	case <-ctx.Done():
	}
	key, age, _ = i.look(id) // gone when the fresh set lacks it
	return key, age < keysUsable
}

// look returns a key and the age of its set; an unknown key, or a clock set back, counts as
// too old to use.
func (i *Issuer) look(id string) (key jose.JSONWebKey, age time.Duration, failing bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	key, known := i.keys[id]
	age = i.now().Sub(i.fetched)
	if !known || age < 0 {
		age = keysUsable
	}
	return key, age, i.err != nil
}

// refetch waits until a fetch is due and for its result, which is then in the fields. Its
// error says that ctx ended first; the cause is the error of the last fetch.
func (i *Issuer) refetch(ctx context.Context) error {
	pause := time.NewTimer(i.pause())
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return i.gaveUp(ctx)
	}
	select {
	case <-i.fetchShared(ctx):
		return nil
	case <-ctx.Done():
		return i.gaveUp(ctx)
	}
}

func (i *Issuer) gaveUp(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return fmt.Errorf("%w: %w", ErrKeys, i.err)
	}
	return fmt.Errorf("%w: waiting for the issuer's keys: %w", ErrKeys, ctx.Err())
}

// pause is the time until the next fetch may begin.
func (i *Issuer) pause() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	since := i.now().Sub(i.tried)
	if i.tried.IsZero() || since < 0 {
		return 0
	}
	return max(0, keysPause-since)
}

// fetchShared fetches once for all concurrent callers. The fetch does not end with ctx, which
// belongs to the first caller.
func (i *Issuer) fetchShared(ctx context.Context) <-chan singleflight.Result {
	return i.flight.DoChan("", func() (any, error) {
		if i.pause() > 0 {
			return nil, nil // another fetch has just ended
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
		defer cancel()
		i.fetch(ctx)
		return nil, nil
	})
}

func (i *Issuer) fetch(ctx context.Context) {
	name, set, err := i.askSource(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err == nil && i.name != "" && i.name != name {
		err = fmt.Errorf("the source of the keys of issuer %q is now that of %q", i.name, name)
	}
	i.tried, i.err = i.now(), err
	if err != nil {
		return
	}
	i.name, i.fetched = name, i.tried
	i.keys = make(map[string]jose.JSONWebKey, len(set.Keys))
	for _, key := range set.Keys {
		if signs(key) {
			i.keys[key.KeyID] = key
		}
	}
}

// askSource contains a panic: it would end the process, since the fetch runs in a
// goroutine of its own.
func (i *Issuer) askSource(ctx context.Context) (name string, keys jose.JSONWebKeySet, err error) {
	name, err = contain.Do(func() (name string, err error) {
		name, keys, err = i.source.Keys(ctx)
		return name, err
	})
	if _, panicked := errors.AsType[*contain.Panic](err); panicked {
		err = fmt.Errorf("reading the issuer's keys: %w", err)
	}
	return name, keys, err
}

// signs tells whether a key may verify tokens: a named public key, not meant for another use.
// IsPublic is false for private and for symmetric keys.
func signs(key jose.JSONWebKey) bool {
	return key.KeyID != "" && key.IsPublic() && key.Valid() && (key.Use == "" || key.Use == "sig")
}
