package auth

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keymount/keymount/internal/secret"
)

const (
	// idleAfter is how long after the last who asked nobody is expected any more, at least; the
	// driver asks every 60 to 90 s.
	idleAfter = 10 * time.Minute
	// pauseFirst and pauseMost are the pauses after a refused login and a failed
	// renewal, doubtMost the longest between two logins that denials cost.
	pauseFirst = 5 * time.Second
	pauseMost  = time.Minute
	doubtMost  = 10 * time.Minute
	// spareMost is how long before its end a login is not used any more, so that reads
	// under way come to theirs.
	spareMost = time.Minute
	// maxOthers is how many tokens of a service account are tried while a refusal of
	// one is remembered.
	maxOthers = 4
	// maxFormer is how many logins are known that nobody gets any more; more if something
	// lives by them, but no more than maxNeeded.
	maxFormer = 4
	maxNeeded = 64
)

// session is what is remembered of those who share a login. The lock of [Sessions]
// guards it. Instants are only ever compared with the clock as it is now, and a
// negative age is one that is not known: the clock may be set at any time.
type session struct {
	identity Identity  // of who asked last
	turn     uint64    // of who asked last
	asked    time.Time // when
	left     bool      // the pod that had it alone is gone, and has not asked since
	vouched  time.Time // the end of the last of the tokens that were verified

	held   *held   // nil while there is no login
	former []*held // those before that have not ended: something may live by them

	denied   error    // why the last login was refused
	deniedTo tokenSum // the token that it was made with
	others   int      // how many others were refused since
	refused  backoff  // of those refusals
	replaced backoff  // of logins that were dropped before their end
}

// before tells whether a session is forgotten before another one.
func (s *session) before(other *session) bool {
	if (s.held == nil) != (other.held == nil) {
		return s.held == nil
	}
	return s.turn < other.turn
}

func (s *session) idle(now time.Time, after time.Duration) bool {
	return s.left || now.Sub(s.asked) >= after
}

// task is what has to be done for a session in the background.
type task int

const (
	nothing task = iota
	renew
	revoke
)

// task decides what is due: nobody renews for an identity that no unexpired token
// vouches for, and nobody revokes what something lives by.
func (s *session) task(now time.Time, idle bool) task {
	switch h := s.held; {
	case h == nil, h.busy != nothing, !h.retry.over(now):
		return nothing
	case idle:
		if now.Before(h.needed) && !s.left {
			return nothing
		}
		return revoke
	case h.wantsRenewal(now) && now.Before(s.vouched):
		return renew
	}
	return nothing
}

// held is a login that is in use.
type held struct {
	Login
	made       time.Time
	since      time.Time     // of its last renewal, or made
	life       time.Duration // from then to Expires
	full       time.Duration // the life that a renewal asks for
	renewAfter time.Duration // from since
	needed     time.Time     // something lives by it until then
	retired    bool          // nobody prolongs it any more
	busy       task          // is under way
	retry      backoff       // of renewals and revocations that failed
}

func newHeld(login Login, now time.Time, spare time.Duration) *held {
	h := &held{made: now}
	h.live(login, now, spare)
	return h
}

// live begins a life as the store gave it. One that is shorter than it was asked
// for is the last: the login nears an end that no renewal moves. The next renewal
// is at two thirds of a life; of a short one earlier, at one third at the earliest,
// so that as much as spare is left.
func (h *held) live(login Login, now time.Time, spare time.Duration) {
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

func (h *held) plan(spare time.Duration) {
	h.renewAfter = jittered(min(h.life*2/3, max(h.life/3, h.life-spare*5/4)))
}

// retire puts the login aside for another one: nobody prolongs it any more. One that
// is being revoked is gone.
func (s *session) retire(now time.Time) {
	if s.held == nil {
		return
	}
	if s.held.busy != revoke {
		s.held.retired = true
		s.former = append(s.former, s.held)
	}
	s.held = nil
	s.former = slices.DeleteFunc(s.former, func(h *held) bool { return h.over(now) })
	for len(s.former) > maxFormer {
		oldest := slices.IndexFunc(s.former, func(h *held) bool { return !now.Before(h.needed) })
		if oldest < 0 && len(s.former) <= maxNeeded {
			return
		}
		s.former = slices.Delete(s.former, max(oldest, 0), max(oldest, 0)+1)
	}
}

// reinstate gives out a former login again in place of the one in use, if there is one.
func (s *session) reinstate(old *held, now time.Time) {
	s.retire(now)
	s.former = slices.DeleteFunc(s.former, func(h *held) bool { return h == old })
	s.held, old.retired = old, false
	s.replaced = backoff{now, 2 * doubtMost}
}

// find is the login with that token, nil for none.
func (s *session) find(token secret.Bytes) *held {
	if s.held.is(token) {
		return s.held
	}
	for _, h := range s.former {
		if h.is(token) {
			return h
		}
	}
	return nil
}

// is tells whether it is the login with that token. There may be none.
func (h *held) is(token secret.Bytes) bool {
	return h != nil && string(h.Token.Reveal()) == string(token.Reveal())
}

// usable tells whether there is time to use the token before it ends, which a
// tenth of its life is, and a minute at most. When it is not renewed, what is made
// with it may need longer: as long as spare if there is another half of its life to
// it, and lasting in any case, unless no login is that long.
func (h *held) usable(now time.Time, spare, lasting time.Duration) bool {
	if h.busy == revoke {
		return false
	}
	if h.Expires.IsZero() {
		return true
	}
	left := min(h.life/10, spareMost)
	if !h.Renewable {
		left = min(max(left, spare), h.life/2)
		if lasting < h.full {
			left = max(left, lasting)
		}
	}
	age := now.Sub(h.since)
	return age >= 0 && age < h.life-left
}

// wantsRenewal is true when a good part of the life is over, and when the end is not
// known any more because the clock was set back.
func (h *held) wantsRenewal(now time.Time) bool {
	age := now.Sub(h.since)
	return h.Renewable && (age < 0 || age >= h.renewAfter && h.usable(now, 0, 0))
}

func (h *held) ended(now time.Time) bool { return h != nil && h.busy == nothing && h.over(now) }

func (h *held) over(now time.Time) bool { return !h.Expires.IsZero() && now.Sub(h.since) >= h.life }

// backoff is a pause after a failure, longer after each in a row.
type backoff struct {
	since time.Time
	pause time.Duration
}

// fail begins the next pause. A failure long after the last one is a first one.
func (b *backoff) fail(now time.Time, first, most time.Duration) {
	if age := now.Sub(b.since); age < 0 || age > 2*most {
		b.pause = 0
	}
	b.since, b.pause = now, min(max(2*b.pause, first), most)
}

func (b backoff) over(now time.Time) bool {
	age := now.Sub(b.since)
	return age < 0 || age >= b.pause
}

// jittered is d give or take a tenth, so that nodes and sessions do not march in
// step.
func jittered(d time.Duration) time.Duration {
	const share = 10
	if d < share {
		return d
	}
	return d - d/share + rand.N(2*(d/share)) //nolint:gosec // a jitter needs no unguessable numbers
}
