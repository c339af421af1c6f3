package auth

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/keymount/keymount/internal/secret"
)

const (
	// loginLimit ends one login; it outlives the mount that asked for it.
	loginLimit = 20 * time.Second
	// maxSessions is how many logins of one store are remembered; a node has a few
	// hundred pods at most.
	maxSessions = 4096
	// doubtAfter is how old a login has to be before a denial casts doubt on it.
	doubtAfter = time.Minute
)

// Method logs in to a store with a service account token.
type Method interface {
	// Login exchanges the token of a verified identity for the store's own. It
	// returns soon after ctx ends; its errors wrap a kind of package store and hold
	// no token.
	Login(ctx context.Context, identity Identity, token secret.Bytes, role string) (Login, error)
}

// Login is what a store gave at a login.
type Login struct {
	Token secret.Bytes
	// Expires is the end of the token's life; zero for one that does not end.
	Expires time.Time
}

// Sessions remembers the logins of one store, so that the pods of a service
// account share one. Nobody gets a login but with an Identity, which only a token
// verified in this very request makes. It is safe for concurrent use.
type Sessions struct {
	method Method
	perPod bool
	now    func() time.Time
	flight singleflight.Group

	mu     sync.Mutex
	logins map[sessionKey]remembered
}

// sessionKey is who shares a login: two roles of one service account do not.
type sessionKey struct {
	Role, Issuer, Audience, Namespace, ServiceAccount, ServiceAccountUID, PodUID string
}

type remembered struct {
	Login
	since time.Time
	// useUntil leaves time to use the token before it ends.
	useUntil time.Time
}

// NewSessions logs in with method. perPod gives each pod a login of its own. now
// is the clock.
func NewSessions(method Method, perPod bool, now func() time.Time) *Sessions {
	return &Sessions{method: method, perPod: perPod, now: now, logins: map[sessionKey]remembered{}}
}

func (s *Sessions) key(identity Identity, role string) sessionKey {
	k := sessionKey{
		Role: role, Issuer: identity.Issuer, Audience: identity.Audience, Namespace: identity.Namespace,
		ServiceAccount: identity.ServiceAccount, ServiceAccountUID: identity.ServiceAccountUID,
	}
	if s.perPod {
		k.PodUID = identity.PodUID
	}
	return k
}

// Open returns the login of an identity with a role, and logs in when there is
// none. Those who ask at the same time share one login, whoever gives up first.
func (s *Sessions) Open(ctx context.Context, identity Identity, token secret.Bytes, role string) (Login, error) {
	key := s.key(identity, role)
	if login, ok := s.remembered(key); ok {
		return login, nil
	}
	done := s.flight.DoChan(key.text(), func() (any, error) {
		if login, ok := s.remembered(key); ok {
			return login, nil // of a flight that has just ended
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginLimit)
		defer cancel()
		login, err := s.logIn(ctx, identity, token, role)
		if err == nil {
			s.remember(key, login)
		}
		return login, err
	})
	select {
	case result := <-done:
		login, _ := result.Val.(Login)
		return login, result.Err
	case <-ctx.Done():
		return Login{}, fmt.Errorf("login as role %q: no answer in time: %w", role, ctx.Err())
	}
}

// logIn contains a panic: it would end the process, since a flight has a goroutine
// of its own. What it says may be anything and is not passed on.
func (s *Sessions) logIn(ctx context.Context, identity Identity, token secret.Bytes, role string) (login Login, err error) {
	defer func() {
		if recover() != nil {
			login, err = Login{}, fmt.Errorf("login as role %q ran into a bug", role)
		}
	}()
	return s.method.Login(ctx, identity, token, role)
}

// Forget drops a login that the store does not accept any more, and tells whether
// another try makes sense. When it is not certain that the login has ended, it has
// to be a minute old: a denial must not cost a login each time.
func (s *Sessions) Forget(identity Identity, role string, login Login, certain bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.key(identity, role)
	known, ok := s.logins[key]
	if !ok || string(known.Token.Reveal()) != string(login.Token.Reveal()) {
		return true // somebody else has dropped it, or logged in anew
	}
	if !certain && s.now().Sub(known.since) < doubtAfter {
		return false
	}
	delete(s.logins, key)
	return true
}

func (s *Sessions) remembered(key sessionKey) (Login, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.logins[key]
	if !ok || !s.usable(known) {
		return Login{}, false
	}
	return known.Login, true
}

func (s *Sessions) usable(r remembered) bool {
	return r.Expires.IsZero() || s.now().Before(r.useUntil)
}

func (s *Sessions) remember(key sessionKey, login Login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, known := range s.logins {
		if !s.usable(known) || len(s.logins) >= maxSessions {
			delete(s.logins, other)
		}
	}
	// A tenth of the life, and a minute at most, is left for the reads under way.
	life := login.Expires.Sub(s.now())
	s.logins[key] = remembered{login, s.now(), login.Expires.Add(-min(life/10, time.Minute))}
}

// text is the key in one piece; none of its parts holds a NUL.
func (k sessionKey) text() string {
	return strings.Join([]string{k.Role, k.Issuer, k.Audience, k.Namespace, k.ServiceAccount, k.ServiceAccountUID, k.PodUID}, "\x00")
}
