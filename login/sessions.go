package login

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/inflight"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

const (
	// loginLimit ends one login; the login outlives the mount that started it.
	loginLimit = 20 * time.Second
	// maxSessions bounds the sessions of one store; a node has a few hundred pods at most.
	maxSessions = 4096
	// maxRole is how long the name of a role can be, which a class chooses and a session
	// keeps.
	maxRole = 1024
	// doubtAfter is the age of a login from which a denial casts doubt on it.
	doubtAfter = time.Minute
)

// Sessions remembers the logins of one store, so that the pods of a service account share
// one. It gives a login only for an Identity, made from a token verified in this very
// request. It is safe for concurrent use.
type Sessions struct {
	// Spare is the least time before its end at which a login is renewed or replaced, so that
	// its credentials can be replaced in time; less for a short life, see session.go. Log
	// gets the logins that cannot be renewed or revoked; nil is none. Changed is called when
	// a Snapshot would differ from the last one; it returns at once and must not call
	// Sessions; nil is none. All are set before any other use.
	Spare   time.Duration
	Log     *slog.Logger
	Changed func()

	method  Method
	renewer Renewer // nil unless method is a Renewer
	perPod  bool
	now     func() time.Time
	flight  singleflight.Group
	flights *inflight.Group // the logins

	mu        sync.Mutex // guards the fields below and the sessions; not held during requests to the store
	sessions  map[sessionKey]*session
	uses      uint64    // number of uses of all sessions
	lastSweep time.Time // of all sessions, by due
}

// sessionKey identifies a shared login: two roles of one service account have two.
type sessionKey struct {
	Role, Issuer, Audience, Namespace, ServiceAccount, ServiceAccountUID, PodUID string
}

// NewSessions logs in with method, and renews and revokes with it if it is a [Renewer].
// perPod gives each pod its own login. now is the clock.
func NewSessions(method Method, perPod bool, now func() time.Time) *Sessions {
	s := &Sessions{method: method, perPod: perPod, now: now, flights: inflight.NewGroup(), sessions: map[sessionKey]*session{}}
	s.renewer, _ = method.(Renewer)
	return s
}

func (s *Sessions) key(identity auth.Identity, role string) sessionKey {
	k := sessionKey{
		Role: role, Issuer: identity.Issuer, Audience: identity.Audience, Namespace: identity.Namespace,
		ServiceAccount: identity.ServiceAccount, ServiceAccountUID: identity.ServiceAccountUID,
	}
	if s.perPod {
		k.PodUID = identity.PodUID
	}
	return k
}

// text is the key as one string; no part of it holds a NUL.
func (k sessionKey) text() string {
	return strings.Join([]string{k.Role, k.Issuer, k.Audience, k.Namespace, k.ServiceAccount, k.ServiceAccountUID, k.PodUID}, "\x00")
}

// Open returns the login of an identity with a role, and logs in when there is none.
// Concurrent calls share one login, which continues when any of them gives up. A refusal is
// the answer for a while, longer after each in a row.
func (s *Sessions) Open(ctx context.Context, identity auth.Identity, token secret.Bytes, role string) (Login, error) {
	return s.OpenLasting(ctx, identity, token, role, 0)
}

// OpenLasting is Open for a credential with the given life: the login lives as long, or is
// renewable, or has the longest life that the store gives.
func (s *Sessions) OpenLasting(ctx context.Context, identity auth.Identity, token secret.Bytes, role string, life time.Duration) (Login, error) {
	if len(role) > maxRole {
		return Login{}, store.Invalid.Errorf("a role of %d bytes is longer than %d", len(role), maxRole)
	}
	return s.open(ctx, request{identity, s.key(identity, role), token, life}, true)
}

// request is a call of OpenLasting.
type request struct {
	identity auth.Identity
	key      sessionKey
	token    secret.Bytes
	lasting  time.Duration
}

// tokenSum is the SHA-256 of a token, kept instead of the token.
type tokenSum [sha256.Size]byte

// sum is that of the token: worked out where it is needed, since most logins are known.
func (r request) sum() tokenSum { return sha256.Sum256(r.token.Reveal()) }

// attempt is the result of a login, and the token it was made with.
type attempt struct {
	login Login
	sum   tokenSum
}

// open tries a second time, if again, when the refusal was about the token of another pod.
func (s *Sessions) open(ctx context.Context, r request, again bool) (Login, error) {
	if login, known, err := s.known(r); known {
		return login, err
	}
	return s.logIn(ctx, r, again)
}

func (s *Sessions) logIn(ctx context.Context, r request, again bool) (Login, error) {
	done := s.flight.DoChan(r.key.text(), func() (any, error) {
		if login, known, err := s.known(r); known {
			return attempt{login, r.sum()}, err // of a flight that has just ended
		}
		ctx, end := s.flights.Begin(ctx, loginLimit)
		defer end()
		login, err := contain.Do(func() (Login, error) {
			return s.method.Login(ctx, r.identity, r.token, r.key.Role)
		})
		if _, panicked := errors.AsType[*contain.Panic](err); panicked {
			err = fmt.Errorf("login as role %q: %w", r.key.Role, err)
		}
		err = refused(err)
		s.learn(r, login, err)
		return attempt{login, r.sum()}, err
	})
	select {
	case result := <-done:
		made, _ := result.Val.(attempt)
		if again && Refused(result.Err) && made.sum != r.sum() {
			return s.open(ctx, r, false)
		}
		return made.login, result.Err
	case <-ctx.Done():
		return Login{}, fmt.Errorf("login as role %q: no answer in time: %w", r.key.Role, context.Cause(ctx))
	}
}

// changed reports that the Snapshot has changed.
func (s *Sessions) changed() {
	if s.Changed != nil {
		s.Changed()
	}
}

// known is the answer of Open without a request to the store: a login or a refusal. A refusal
// is about one token: the token of another pod of the service account may be good, so a few
// others are tried.
func (s *Sessions) known(r request) (login Login, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, now := s.touchLocked(r.key, r.identity), s.now()
	switch {
	case one.current != nil && one.current.usable(now, s.Spare, r.lasting):
		return one.current.Login, true, nil
	case one.denied != nil && !one.loginPause.elapsed(now) && (one.deniedToken == r.sum() || one.otherDenials >= maxOthers):
		return Login{}, true, one.denied
	}
	return Login{}, false, nil
}

// learn stores the result of a login.
func (s *Sessions) learn(r request, login Login, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, now := s.touchLocked(r.key, r.identity), s.now()
	switch {
	case err == nil:
		login.Renewable = login.Renewable && s.renewer != nil
		one.retire(now)
		one.current = newLiveLogin(login, now, s.Spare)
		one.denied, one.loginPause, one.otherDenials = nil, backoff{}, 0
		s.changed()
	case !Refused(err):
	case one.denied != nil && !one.loginPause.elapsed(now): // another token, during the pause of the first
		one.denied, one.deniedToken = err, r.sum()
		one.otherDenials++
	default:
		one.denied, one.deniedToken, one.otherDenials = err, r.sum(), 0
		one.loginPause.fail(now, pauseFirst, pauseMost)
	}
}

// touchLocked returns the session of a key, made if missing, and marks it used; identity
// vouches for it until its token expires.
func (s *Sessions) touchLocked(key sessionKey, identity auth.Identity) *session {
	one, ok := s.sessions[key]
	if !ok {
		if len(s.sessions) >= maxSessions {
			s.evictLocked()
		}
		one = &session{}
		s.sessions[key] = one
	}
	s.useLocked(one, identity)
	return one
}

func (s *Sessions) useLocked(one *session, identity auth.Identity) {
	s.uses++
	one.identity, one.useNumber, one.lastUsed, one.podGone = identity, s.uses, s.now(), false
	if identity.Expires.After(one.vouchedUntil) {
		one.vouchedUntil = identity.Expires
	}
}

// evictLocked forgets the least recently used session of the namespace with most of them, one
// without a login first: neither refused pods nor many logins must cost others their login.
func (s *Sessions) evictLocked() {
	count := map[string]int{}
	for k := range s.sessions {
		count[k.Namespace]++
	}
	var key sessionKey
	var worst *session
	for k, one := range s.sessions {
		more := count[k.Namespace] - count[key.Namespace]
		if worst == nil || more > 0 || more == 0 && one.before(worst) {
			key, worst = k, one
		}
	}
	delete(s.sessions, key)
}

// idleAfter is longer where the driver mounts less often, as Spare says.
func (s *Sessions) idleAfter() time.Duration { return max(idleAfter, s.Spare) }

// Live is how many logins there are, and the next end of one, zero where none has an end.
func (s *Sessions) Live() (count int, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sessions {
		if one.current == nil {
			continue
		}
		count++
		if ends := one.current.Expires; !ends.IsZero() && (next.IsZero() || ends.Before(next)) {
			next = ends
		}
	}
	return count, next
}

// Vouch says that a pod of this identity was mounted from memory: its login is in use, and
// may be renewed. It never logs in.
func (s *Sessions) Vouch(identity auth.Identity, role string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.sessions[s.key(identity, role)]; ok {
		s.useLocked(one, identity)
	}
}

// DelayRevocation delays revocation of the login with that token until a time, even if the
// login is idle, because a lease depends on it.
func (s *Sessions) DelayRevocation(identity auth.Identity, role string, token secret.Bytes, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.sessions[s.key(identity, role)]; ok {
		if h := one.find(token); h != nil && until.After(h.neededUntil) {
			h.neededUntil = until
		}
	}
}

// Find returns the present state of the login with that token, current or former; false when
// it is unknown or forgotten, and when its end is unknown because the clock was set back.
func (s *Sessions) Find(identity auth.Identity, role string, token secret.Bytes) (Login, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.sessions[s.key(identity, role)]; ok {
		if h := one.find(token); h != nil && !s.now().Before(h.since) {
			login := h.Login
			login.Renewable = login.Renewable && !h.retired
			return login, true
		}
	}
	return Login{}, false
}

// Left says that a pod is gone: its own login, not a shared one, is revoked soon, with all
// leases made with it.
func (s *Sessions) Left(namespace, podUID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, one := range s.sessions {
		if s.perPod && key.Namespace == namespace && key.PodUID == podUID {
			one.podGone = true
		}
	}
}

// Forget drops a login that the store no longer accepts. It returns whether another try makes
// sense, and whether this call dropped the login. Unless the end of the login is certain,
// only a login at least a minute old is dropped. Denials must not cost a login each: there is
// a pause between two drops, longer each time.
func (s *Sessions) Forget(identity auth.Identity, role string, login Login, certain bool) (again, dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.sessions[s.key(identity, role)]
	if !ok || !one.current.is(login.Token) {
		return true, false // another call has dropped it, or logged in anew
	}
	now, first := s.now(), pauseFirst
	if !certain {
		first = doubtAfter
		if age := now.Sub(one.current.made); age >= 0 && age < doubtAfter {
			return false, false
		}
	}
	if !one.dropPause.elapsed(now) {
		return false, false
	}
	one.dropPause.fail(now, first, doubtMost)
	if !certain {
		one.retire(now) // it may live on, and its leases with it
	}
	one.current = nil
	s.changed()
	return true, true
}

// Reinstate says that a login dropped in doubt by this caller was not at fault, because
// other, which is empty after a failed login, does not help either. The old login is used and
// renewed again, so that no lease made with it has to be replaced; other lives to its end,
// because a request may be using it. The next doubt has to wait.
func (s *Sessions) Reinstate(identity auth.Identity, role string, old, other Login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.sessions[s.key(identity, role)]
	if !ok {
		return
	}
	now := s.now()
	if h := one.find(old.Token); h != nil && h != one.current && one.current == one.find(other.Token) && !h.expired(now) {
		one.reinstate(h, now)
		s.changed()
	}
}
