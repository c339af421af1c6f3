package login

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/store"
)

const (
	// tendEvery is the time between two looks for logins to renew or revoke.
	tendEvery = 5 * time.Second
	// tendLimit ends one renewal or revocation, and tendAtOnce bounds how many run at a time.
	tendLimit  = 20 * time.Second
	tendAtOnce = 4
	// standstill is longer than tendEvery can take: after such a gap the clock was set, or
	// the process stood still.
	standstill = time.Minute
)

// Run renews logins in use at about two thirds of their life, while a verified token vouches
// for them, and revokes and forgets logins without a use for ten minutes. It never logs in.
// It returns when ctx has ended and its requests and all logins in flight as well, which it
// ends soon; it revokes nothing then, because pods live on and another keymount follows.
func (s *Sessions) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer s.flights.Settle()
	defer running.Wait()
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	slots := make(chan struct{}, tendAtOnce)
	var due []duty
	for {
		var slot chan<- struct{} // nil, and so never ready, unless something is due
		if len(due) > 0 {
			slot = slots
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			due = s.due()
		case slot <- struct{}{}:
			key := due[0].key
			due = due[1:]
			running.Go(func() {
				defer func() { <-slots }()
				s.tend(ctx, key)
			})
		}
	}
}

// duty is a task that is due for a session.
type duty struct {
	key  sessionKey
	task task
	ends time.Time
}

// due forgets expired sessions and lists the tasks for the others: renewals first, and among
// them the soonest end.
func (s *Sessions) due() []duty {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.resetIdleLocked(now)
	var due []duty
	for key, one := range s.sessions {
		idle := one.idle(now, s.idleAfter())
		if idle && one.current.ended(now) { // if not idle, the clock may be wrong and set back
			one.current = nil
		}
		if idle && (one.current == nil || s.renewer == nil) {
			delete(s.sessions, key)
		} else if task := one.task(now, idle); task != nothing {
			due = append(due, duty{key, task, one.current.Expires})
		}
	}
	slices.SortFunc(due, func(a, b duty) int { return cmp.Or(cmp.Compare(a.task, b.task), a.ends.Compare(b.ends)) })
	return due
}

// resetIdleLocked restarts the idle time of all sessions when the clock was set or the
// process stood still, because no pod could mount meanwhile.
func (s *Sessions) resetIdleLocked(now time.Time) {
	gone := now.Sub(s.lastSweep)
	if !s.lastSweep.IsZero() && (gone < 0 || gone > standstill) {
		for _, one := range s.sessions {
			one.lastUsed = now
		}
	}
	s.lastSweep = now
}

// job is a task in flight, with the session as it was at the start.
type job struct {
	task     task
	one      *session
	current  *liveLogin
	identity auth.Identity
	login    Login
	role     string
}

// begin takes the task due for a session now, which may be none by then.
func (s *Sessions) begin(key sessionKey) job {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.sessions[key]
	if !ok {
		return job{}
	}
	now := s.now()
	j := job{task: one.task(now, one.idle(now, s.idleAfter())), one: one, current: one.current, identity: one.identity, role: key.Role}
	if j.task != nothing {
		j.login = one.current.Login
		one.current.busy = j.task
	}
	return j
}

func (s *Sessions) tend(ctx context.Context, key sessionKey) {
	ctx, cancel := context.WithTimeout(ctx, tendLimit)
	defer cancel()
	switch j := s.begin(key); j.task {
	case renew:
		login, err := contain.Do(func() (Login, error) { return s.renewer.Renew(ctx, j.identity, j.login) })
		s.logFailure(ctx, j, s.renewed(j, login, err))
	case revoke:
		err := contain.Run(func() error { return s.renewer.Revoke(ctx, j.identity, j.login) })
		s.logFailure(ctx, j, s.revoked(j, err))
	case nothing:
	}
}

// renewed ends a renewal and returns the error to log.
func (s *Sessions) renewed(j job, login Login, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.current.busy = nothing
	defer s.changed()
	switch {
	case j.one.current != j.current: // dropped or replaced in flight
		return nil
	case err == nil:
		j.current.startLife(login, s.now(), s.Spare)
		return nil
	case errors.Is(err, store.Ended):
		j.one.current = nil
		return err
	case isRefusal(err): // the login lives on to its end
		j.current.Renewable = false
		return nil
	}
	return s.againLocked(j, err)
}

// isRefusal tells the answer of a store that will not change from an odd one, as of a server
// that is being repaired.
func isRefusal(err error) bool { return errors.Is(err, store.Denied) || errors.Is(err, store.Doubt) }

// revoked ends a revocation and returns the error to log.
func (s *Sessions) revoked(j job, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.current.busy = nothing
	defer s.changed()
	switch {
	case j.one.current != j.current: // replaced in flight
		return nil
	case err == nil, isRefusal(err), errors.Is(err, store.Ended):
		j.one.current = nil
		return nil
	}
	return s.againLocked(j, err)
}

// againLocked schedules another try of a failed job; it returns only the first failure in a
// row, to log.
func (s *Sessions) againLocked(j job, err error) error {
	first := j.current.retry.pause == 0
	j.current.retry.fail(s.now(), jittered(pauseFirst), jittered(pauseMost))
	if first {
		return err
	}
	return nil
}

func (s *Sessions) logFailure(ctx context.Context, j job, err error) {
	if s.Log == nil || err == nil || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	s.Log.LogAttrs(ctx, slog.LevelWarn, "a login is not renewed or revoked", append([]slog.Attr{
		slog.String("namespace", j.identity.Namespace), slog.String("service_account", j.identity.ServiceAccount),
		slog.String("role", j.role), slog.String("error", err.Error()),
	}, contain.Attrs(err)...)...)
}
