package auth

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// tendEvery is how often it is looked at what has to be renewed or revoked.
	tendEvery = 5 * time.Second
	// tendLimit ends one renewal or revocation, and tendAtOnce is how many there are
	// at a time.
	tendLimit  = 20 * time.Second
	tendAtOnce = 4
	// standstill is more than tendEvery ever takes: the clock was set, or the process
	// stood still.
	standstill = time.Minute
)

// Run renews the logins of those who still ask, at about two thirds of their life,
// while a verified token vouches for them, and revokes and forgets those that
// nobody asked for in ten minutes. It never logs in. It returns when ctx ends and
// its requests and all logins have, in 20 s at most; it revokes nothing then: pods
// live on and another keymount follows.
func (s *Sessions) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer s.settle()
	defer running.Wait()
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	slots := make(chan struct{}, tendAtOnce)
	var due []duty
	for {
		var slot chan<- struct{} // waited for only when there is something to do
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

// duty is a session that needs something done.
type duty struct {
	key  sessionKey
	task task
	ends time.Time
}

// due forgets what is over and lists the sessions that need something done:
// renewals first, and of these the soonest end.
func (s *Sessions) due() []duty {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.standLocked(now)
	var due []duty
	for key, one := range s.sessions {
		idle := one.idle(now, s.idleAfter())
		if idle && one.held.ended(now) { // or else the clock may be wrong, and set back
			one.held = nil
		}
		if idle && (one.held == nil || s.renewer == nil) {
			delete(s.sessions, key)
		} else if task := one.task(now, idle); task != nothing {
			due = append(due, duty{key, task, one.held.Expires})
		}
	}
	slices.SortFunc(due, func(a, b duty) int { return cmp.Or(cmp.Compare(a.task, b.task), a.ends.Compare(b.ends)) })
	return due
}

// standLocked starts the time without anybody asking anew when the clock was set or
// the process stood still: nobody could ask.
func (s *Sessions) standLocked(now time.Time) {
	gone := now.Sub(s.swept)
	if !s.swept.IsZero() && (gone < 0 || gone > standstill) {
		for _, one := range s.sessions {
			one.asked = now
		}
	}
	s.swept = now
}

// job is a task under way, with the session as it was when it began.
type job struct {
	task     task
	one      *session
	held     *held
	identity Identity
	login    Login
	role     string
}

// begin takes what is due for a session now, which may be nothing any more.
func (s *Sessions) begin(key sessionKey) job {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.sessions[key]
	if !ok {
		return job{}
	}
	now := s.now()
	j := job{task: one.task(now, one.idle(now, s.idleAfter())), one: one, held: one.held, identity: one.identity, role: key.Role}
	if j.task != nothing {
		j.login = one.held.Login
		one.held.busy = j.task
	}
	return j
}

func (s *Sessions) tend(ctx context.Context, key sessionKey) {
	ctx, cancel := context.WithTimeout(ctx, tendLimit)
	defer cancel()
	switch j := s.begin(key); j.task {
	case renew:
		login, err := contained("renewing a login", func() (Login, error) { return s.renewer.Renew(ctx, j.identity, j.login) })
		s.tell(ctx, j, s.renewed(j, login, err))
	case revoke:
		_, err := contained("revoking a login", func() (Login, error) { return Login{}, s.renewer.Revoke(ctx, j.identity, j.login) })
		s.tell(ctx, j, s.revoked(j, err))
	case nothing:
	}
}

// renewed ends a renewal and returns what there is to say of it.
func (s *Sessions) renewed(j job, login Login, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.held.busy = nothing
	defer s.changed()
	switch {
	case j.one.held != j.held: // dropped or replaced meanwhile
		return nil
	case err == nil:
		j.held.live(login, s.now(), s.Spare)
		return nil
	case errors.Is(err, ErrRefused):
		j.one.held = nil
		return err
	case errors.Is(err, ErrLast):
		j.held.Renewable = false
		return nil
	}
	return s.againLocked(j, err)
}

// revoked ends a revocation and returns what there is to say of it.
func (s *Sessions) revoked(j job, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	j.held.busy = nothing
	defer s.changed()
	switch {
	case j.one.held != j.held: // replaced meanwhile
		return nil
	case err == nil, errors.Is(err, ErrRefused):
		j.one.held = nil
		return nil
	}
	return s.againLocked(j, err)
}

// againLocked has a job that failed tried again later; only the first failure in a
// row is told.
func (s *Sessions) againLocked(j job, err error) error {
	first := j.held.retry.pause == 0
	j.held.retry.fail(s.now(), jittered(pauseFirst), jittered(pauseMost))
	if first {
		return err
	}
	return nil
}

func (s *Sessions) tell(ctx context.Context, j job, err error) {
	if s.Log == nil || err == nil || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	s.Log.LogAttrs(ctx, slog.LevelWarn, "a login is not renewed or revoked", slog.String("namespace", j.identity.Namespace),
		slog.String("service_account", j.identity.ServiceAccount), slog.String("role", j.role), slog.String("error", err.Error()))
}
