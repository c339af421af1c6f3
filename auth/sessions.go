package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// Sessions remembers the logins of one store, so that the pods of a service
// account share one. Nobody gets a login but with an Identity, which only a token
// verified in this very request makes. It is safe for concurrent use.
type Sessions struct {
	// Spare is how long before its end a login is renewed or replaced at the latest, so
	// that what is made with it has time to be replaced, too; of a short life less, see
	// session.go. Log, unless it is nil, is told of logins that cannot
	// be renewed or revoked. Changed, unless it is nil, is told that a Snapshot would be
	// another one now; it returns at once and asks nothing of Sessions. All are set before
	// anything else is done.
	Spare   time.Duration
	Log     *slog.Logger
	Changed func()

	method  Method
	renewer Renewer // nil when method is none
	perPod  bool
	now     func() time.Time
	flight  singleflight.Group

	mu       sync.Mutex // guards what follows and the sessions; not held while asking the store
	sessions map[sessionKey]*session
	turn     uint64     // counts who asks
	logging  int        // logins under way
	fewer    *sync.Cond // of them
	swept    time.Time  // when all sessions were last looked at
}

// sessionKey is who shares a login: two roles of one service account do not.
type sessionKey struct {
	Role, Issuer, Audience, Namespace, ServiceAccount, ServiceAccountUID, PodUID string
}

// NewSessions logs in with method, and renews and revokes with it if it is a
// [Renewer]. perPod gives each pod a login of its own. now is the clock.
func NewSessions(method Method, perPod bool, now func() time.Time) *Sessions {
	s := &Sessions{method: method, perPod: perPod, now: now, sessions: map[sessionKey]*session{}}
	s.renewer, _ = method.(Renewer)
	s.fewer = sync.NewCond(&s.mu)
	return s
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

// text is the key in one piece; none of its parts holds a NUL.
func (k sessionKey) text() string {
	return strings.Join([]string{k.Role, k.Issuer, k.Audience, k.Namespace, k.ServiceAccount, k.ServiceAccountUID, k.PodUID}, "\x00")
}

// Open returns the login of an identity with a role, and logs in when there is
// none. Those who ask at the same time share one login, whoever gives up first. A
// refusal counts for a while, longer each time: until then it is the answer.
func (s *Sessions) Open(ctx context.Context, identity Identity, token secret.Bytes, role string) (Login, error) {
	return s.OpenLasting(ctx, identity, token, role, 0)
}

// OpenLasting is Open for what is to live by the login: it has that long before it, or
// can be prolonged, or is as long as logins are.
func (s *Sessions) OpenLasting(ctx context.Context, identity Identity, token secret.Bytes, role string, life time.Duration) (Login, error) {
	return s.open(ctx, request{identity, s.key(identity, role), token, sumOf(token), life}, true)
}

// request is what somebody wants a login for.
type request struct {
	identity Identity
	key      sessionKey
	token    secret.Bytes
	by       tokenSum // of token
	lasting  time.Duration
}

// attempt is what came of a login, and of whose.
type attempt struct {
	login Login
	by    tokenSum
}

// open asks once more, if it may, where only another pod's token was refused.
func (s *Sessions) open(ctx context.Context, r request, again bool) (Login, error) {
	if login, known, err := s.known(r); known {
		return login, err
	}
	done := s.flight.DoChan(r.key.text(), func() (any, error) {
		if login, known, err := s.known(r); known {
			return attempt{login, r.by}, err // of a flight that has just ended
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginLimit)
		defer cancel()
		defer s.begun()()
		login, err := contained(fmt.Sprintf("login as role %q", r.key.Role), func() (Login, error) {
			return s.method.Login(ctx, r.identity, r.token, r.key.Role)
		})
		s.learn(r, login, err)
		return attempt{login, r.by}, err
	})
	select {
	case result := <-done:
		made, _ := result.Val.(attempt)
		if again && errors.Is(result.Err, ErrRefused) && made.by != r.by {
			return s.open(ctx, r, false)
		}
		return made.login, result.Err
	case <-ctx.Done():
		return Login{}, fmt.Errorf("login as role %q: no answer in time: %w", r.key.Role, ctx.Err())
	}
}

// begun counts a login under way; its result counts the end.
func (s *Sessions) begun() (ended func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logging++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logging--
		s.fewer.Broadcast()
	}
}

// settle waits for the logins under way.
func (s *Sessions) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.logging > 0 {
		s.fewer.Wait()
	}
}

// changed says so to whoever keeps Snapshots.
func (s *Sessions) changed() {
	if s.Changed != nil {
		s.Changed()
	}
}

// contained stops a panic: it would end the process, since what asks a store has a
// goroutine of its own. What it says may be anything and is not passed on.
func contained[T any](what string, f func() (T, error)) (result T, err error) {
	defer func() {
		if recover() != nil {
			var none T
			result, err = none, fmt.Errorf("%s ran into a bug", what)
		}
	}()
	return f()
}

// known is what Open answers without asking the store: a login or a refusal.
// A refusal is that of a token: another pod's of the same service account may be good,
// and a few of them are tried.
func (s *Sessions) known(r request) (login Login, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, now := s.touchLocked(r.key, r.identity), s.now()
	switch {
	case one.held != nil && one.held.usable(now, s.Spare, r.lasting):
		return one.held.Login, true, nil
	case one.denied != nil && !one.refused.over(now) && (one.deniedTo == r.by || one.others >= maxOthers):
		return Login{}, true, one.denied
	}
	return Login{}, false, nil
}

// learn remembers what came of a login.
func (s *Sessions) learn(r request, login Login, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, now := s.touchLocked(r.key, r.identity), s.now()
	switch {
	case err == nil:
		login.Renewable = login.Renewable && s.renewer != nil
		one.retire(now)
		one.held = newHeld(login, now, s.Spare)
		one.denied, one.refused, one.others = nil, backoff{}, 0
		s.changed()
	case !errors.Is(err, ErrRefused):
	case one.denied != nil && !one.refused.over(now): // another token's, while one is remembered
		one.denied, one.deniedTo = err, r.by
		one.others++
	default:
		one.denied, one.deniedTo, one.others = err, r.by, 0
		one.refused.fail(now, pauseFirst, pauseMost)
	}
}

// touchLocked is the session of a key; identity vouches for it as long as its
// token lives.
func (s *Sessions) touchLocked(key sessionKey, identity Identity) *session {
	one, ok := s.sessions[key]
	if !ok {
		if len(s.sessions) >= maxSessions {
			s.evictLocked()
		}
		one = &session{}
		s.sessions[key] = one
	}
	s.turn++
	one.identity, one.turn, one.asked, one.left = identity, s.turn, s.now(), false
	if identity.Expires.After(one.vouched) {
		one.vouched = identity.Expires
	}
	return one
}

// evictLocked forgets the session that was asked for longest ago, one without a
// login first: whoever is refused must not cost others their login.
func (s *Sessions) evictLocked() {
	var key sessionKey
	var worst *session
	for k, one := range s.sessions {
		if worst == nil || one.before(worst) {
			key, worst = k, one
		}
	}
	delete(s.sessions, key)
}

// idleAfter is longer where the driver asks less often, which Spare says.
func (s *Sessions) idleAfter() time.Duration { return max(idleAfter, s.Spare) }

// Vouch says that a pod of this identity was mounted with what was read before:
// its login is still wanted, and may be renewed. It never logs in.
func (s *Sessions) Vouch(identity Identity, role string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.key(identity, role)
	if _, ok := s.sessions[key]; ok {
		s.touchLocked(key, identity)
	}
}

// Hold keeps the login with that token from being revoked before until, asked for
// or not: something lives by it, such as a credential with a lease.
func (s *Sessions) Hold(identity Identity, role string, token secret.Bytes, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one, ok := s.sessions[s.key(identity, role)]; ok {
		if h := one.find(token); h != nil && until.After(h.needed) {
			h.needed = until
		}
	}
}

// Find is the login with that token as it is now, whether it is still given out or
// not; false when it is not known, or not any more, and when its end is not known since
// the clock was set back.
func (s *Sessions) Find(identity Identity, role string, token secret.Bytes) (Login, bool) {
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

// Left says that a pod is gone: a login that is its alone is revoked soon, with all
// that lives by it.
func (s *Sessions) Left(namespace, podUID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, one := range s.sessions {
		if s.perPod && key.Namespace == namespace && key.PodUID == podUID {
			one.left = true
		}
	}
}

// Forget drops a login that the store does not accept any more, and tells whether
// another try makes sense, and whether it was this call that dropped it. When it is not
// certain that the login has ended, it has to be a minute old. A denial must not cost a
// login each time: the next one is dropped after a pause, longer each time.
func (s *Sessions) Forget(identity Identity, role string, login Login, certain bool) (again, dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.sessions[s.key(identity, role)]
	if !ok || !one.held.is(login.Token) {
		return true, false // somebody else has dropped it, or logged in anew
	}
	now, first := s.now(), pauseFirst
	if !certain {
		first = doubtAfter
		if age := now.Sub(one.held.made); age >= 0 && age < doubtAfter {
			return false, false
		}
	}
	if !one.replaced.over(now) {
		return false, false
	}
	one.replaced.fail(now, first, doubtMost)
	if !certain {
		one.retire(now) // it may live on, and what was made with it
	}
	one.held = nil
	s.changed()
	return true, true
}

// Reinstate says that a login which this caller dropped in doubt was not to blame:
// other, which is empty if nobody could log in, does not help either. The old one is
// given out and renewed again, so that nothing that lives by it has to be replaced, and
// the other one lives to its end, since somebody may be using it. The next doubt waits.
func (s *Sessions) Reinstate(identity Identity, role string, old, other Login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.sessions[s.key(identity, role)]
	if !ok {
		return
	}
	now := s.now()
	if h := one.find(old.Token); h != nil && h != one.held && one.held == one.find(other.Token) && !h.over(now) {
		one.reinstate(h, now)
		s.changed()
	}
}
