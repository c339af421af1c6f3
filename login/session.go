package login

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
)

const (
	// idleAfter is the least time without a use before a session is idle; the driver mounts
	// every 60 to 90 s.
	idleAfter = 10 * time.Minute
	// pauseFirst and pauseMost bound the pause after a refused login and a failed renewal,
	// doubtMost the pause between two logins caused by denials.
	pauseFirst = 5 * time.Second
	pauseMost  = time.Minute
	doubtMost  = 10 * time.Minute
	// spareMost bounds the last part of a login's life in which it is not used any more, so
	// that in-flight reads can end.
	spareMost = time.Minute
	// maxOthers is how many other tokens of a service account may be tried while one token is
	// refused.
	maxOthers = 4
	// maxFormer bounds the former logins of a session; those with a dependent lease may be
	// more, up to maxNeeded.
	maxFormer = 4
	maxNeeded = 64
)

// session is the state of one shared login. The lock of [Sessions] guards it. Instants are
// only compared with the present clock, and a negative age means unknown: the clock may be
// set at any time.
type session struct {
	identity     auth.Identity // of the last use
	useNumber    uint64        // Sessions.uses at the last use
	lastUsed     time.Time
	podGone      bool      // the only pod of the session is gone and has not used it since
	vouchedUntil time.Time // the latest end of the verified tokens

	current *liveLogin   // nil without a login
	former  []*liveLogin // replaced but not expired: a lease may depend on them

	denied       error    // the refusal of the last login
	deniedToken  tokenSum // the refused token
	otherDenials int      // refusals of other tokens since
	loginPause   backoff  // after a refused login
	dropPause    backoff  // between two logins dropped before their end
}

// before tells whether s is evicted before other.
func (s *session) before(other *session) bool {
	if (s.current == nil) != (other.current == nil) {
		return s.current == nil
	}
	return s.useNumber < other.useNumber
}

func (s *session) idle(now time.Time, after time.Duration) bool {
	return s.podGone || now.Sub(s.lastUsed) >= after
}

// task is background work for a session.
type task int

const (
	nothing task = iota
	renew
	revoke
)

// task returns the task that is due: no renewal unless an unexpired token vouches for the
// identity, and no revocation while a lease depends on the login.
func (s *session) task(now time.Time, idle bool) task {
	switch h := s.current; {
	case h == nil, h.busy != nothing, !h.retry.elapsed(now):
		return nothing
	case idle:
		if now.Before(h.neededUntil) && !s.podGone {
			return nothing
		}
		return revoke
	case h.wantsRenewal(now) && now.Before(s.vouchedUntil):
		return renew
	}
	return nothing
}

// liveLogin is a login with its life.
type liveLogin struct {
	Login
	made        time.Time
	since       time.Time     // start of this life: the last renewal, or made
	life        time.Duration // from since to Expires
	full        time.Duration // the life that a renewal asks for
	renewAfter  time.Duration // from since
	neededUntil time.Time     // a lease depends on it until then
	retired     bool          // no longer renewed
	busy        task          // the task in flight
	retry       backoff       // after a failed renewal or revocation
}

func newLiveLogin(login Login, now time.Time, spare time.Duration) *liveLogin {
	h := &liveLogin{made: now}
	h.startLife(login, now, spare)
	return h
}

// startLife starts a life as the store gave it. A life shorter than the full one is the last:
// the login nears an end that no renewal moves. The next renewal is at two thirds of the
// life; of a short life earlier, at one third at the earliest, so that spare remains.
func (h *liveLogin) startLife(login Login, now time.Time, spare time.Duration) {
	h.Login, h.since, h.retry = login, now, backoff{}
	if login.Expires.IsZero() {
		h.Renewable = false
		return
	}
	h.life = login.Expires.Sub(now)
	if h.life < h.full-h.full/10 {
		h.Renewable = false
		return
	}
	h.full = h.life
	h.plan(spare)
}

func (h *liveLogin) plan(spare time.Duration) {
	h.renewAfter = jittered(min(h.life*2/3, max(h.life/3, h.life-spare*5/4)))
}

// retire makes the current login a former one, which is no longer renewed. A login in
// revocation is dropped.
func (s *session) retire(now time.Time) {
	if s.current == nil {
		return
	}
	if s.current.busy != revoke {
		s.current.retired = true
		s.former = append(s.former, s.current)
	}
	s.current = nil
	s.former = slices.DeleteFunc(s.former, func(h *liveLogin) bool { return h.expired(now) })
	for len(s.former) > maxFormer {
		oldest := slices.IndexFunc(s.former, func(h *liveLogin) bool { return !now.Before(h.neededUntil) })
		if oldest < 0 && len(s.former) <= maxNeeded {
			return
		}
		s.former = slices.Delete(s.former, max(oldest, 0), max(oldest, 0)+1)
	}
}

// reinstate makes a former login the current one again, and retires the current one, if there
// is one.
func (s *session) reinstate(old *liveLogin, now time.Time) {
	s.retire(now)
	s.former = slices.DeleteFunc(s.former, func(h *liveLogin) bool { return h == old })
	s.current, old.retired = old, false
	s.dropPause = backoff{now, 2 * doubtMost}
}

// find returns the login with a token, nil without one.
func (s *session) find(token secret.Bytes) *liveLogin {
	if s.current.is(token) {
		return s.current
	}
	for _, h := range s.former {
		if h.is(token) {
			return h
		}
	}
	return nil
}

// is tells whether h has this token. h may be nil.
func (h *liveLogin) is(token secret.Bytes) bool {
	return h != nil && string(h.Token.Reveal()) == string(token.Reveal())
}

// usable tells whether the rest of the life is long enough: a tenth of it, and a minute at
// most. A login without further renewal needs more for the credentials made with it: spare,
// but at most half its life, and lasting in any case, unless lasting exceeds the life of
// every login.
func (h *liveLogin) usable(now time.Time, spare, lasting time.Duration) bool {
	if h.busy == revoke {
		return false
	}
	if h.Expires.IsZero() {
		return true
	}
	margin := min(h.life/10, spareMost)
	if !h.Renewable {
		margin = min(max(margin, spare), h.life/2)
		if lasting < h.full {
			margin = max(margin, lasting)
		}
	}
	age := now.Sub(h.since)
	return age >= 0 && age < h.life-margin
}

// wantsRenewal is true after renewAfter, and when the clock was set back and the end is
// therefore unknown.
func (h *liveLogin) wantsRenewal(now time.Time) bool {
	age := now.Sub(h.since)
	return h.Renewable && (age < 0 || age >= h.renewAfter && h.usable(now, 0, 0))
}

func (h *liveLogin) ended(now time.Time) bool { return h != nil && h.busy == nothing && h.expired(now) }

func (h *liveLogin) expired(now time.Time) bool {
	return !h.Expires.IsZero() && now.Sub(h.since) >= h.life
}

// backoff is a pause after a failure, longer after each failure in a row.
type backoff struct {
	since time.Time
	pause time.Duration
}

// fail starts the next pause. A failure long after the last one starts at first again.
func (b *backoff) fail(now time.Time, first, most time.Duration) {
	if age := now.Sub(b.since); age < 0 || age > 2*most {
		b.pause = 0
	}
	b.since, b.pause = now, min(max(2*b.pause, first), most)
}

func (b backoff) elapsed(now time.Time) bool {
	age := now.Sub(b.since)
	return age < 0 || age >= b.pause
}

// jittered is d give or take a tenth, so that nodes and sessions do not march in step.
func jittered(d time.Duration) time.Duration {
	const share = 10
	if d < share {
		return d
	}
	return d - d/share + rand.N(2*(d/share)) //nolint:gosec // a jitter needs no unguessable numbers
}
