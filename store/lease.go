package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keymount/keymount/internal/secret"
)

const (
	// LeastLife is the shortest life of a credential that can be kept: the driver asks
	// every 60 to 90 s at best.
	LeastLife = 5 * time.Minute
	// keptAtLeast is how long a credential is given out before it is replaced.
	keptAtLeast = 2 * time.Minute
	// renewEvery is how often it is looked at what has to be renewed.
	renewEvery = 10 * time.Second
	// renewLimit ends one renewal, and maxRenewals is how many there are at a time.
	renewLimit  = 20 * time.Second
	maxRenewals = 4
)

// Leaser is a Store whose leases can be renewed.
type Leaser interface {
	Store
	// Renew asks that a lease may live as long again, with the login that made it, and
	// returns it as it is now, which may be shorter. It fails like Read.
	Renew(ctx context.Context, session Session, lease Lease) (Lease, error)
	// Ends says when the login ends that made a lease, and the lease with it; zero for
	// one that does not end.
	Ends(session Session, lease Lease) time.Time
}

// credential is something that was made for a volume and ends. Its bytes stay the
// same while it lives: it is renewed where that is possible, and when its end is
// near the next mount gets another one. The old one is left to expire.
type credential struct {
	session Session // without Proof: nobody may log in for it
	made    time.Time

	mu      sync.Mutex
	lease   Lease
	ends    time.Time // of the lease itself
	renewAt time.Time // zero: not any more
}

// newCredential begins the life of a lease. One that is too short is refused: each
// mount would make another one.
func (k *Keeper) newCredential(session Session, lease Lease, asked time.Time) (*credential, error) {
	session.Proof, session.Token = secret.Bytes{}, secret.Bytes{}
	c := &credential{session: session, made: asked}
	c.renewed(lease, asked, k.o.Replace)
	return c, k.longEnough(k.ends(c).Sub(asked))
}

// errShort marks an ErrInvalid: something was made that does not live long enough.
var errShort = errors.New("too short a life")

// longEnough refuses a life in which a replacement could not reach the pod.
func (k *Keeper) longEnough(life time.Duration) error {
	if least := max(LeastLife, k.o.Replace+keptAtLeast); life < least {
		return short{fmt.Errorf("%w: what the store made lives for %s, and the least is %s; raise the ttl of its role, or that of the login",
			ErrInvalid, life.Round(time.Second), least)}
	}
	return nil
}

// short is an error marked with errShort, its text unchanged.
type short struct{ error }

func (s short) Unwrap() []error { return []error{s.error, errShort} }

// renewed notes a lease as the store gave it. The next renewal is at two thirds of
// its life, or of what is left of a short one before it would be replaced, and a
// little earlier by chance.
func (c *credential) renewed(lease Lease, now time.Time, replace time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lease, c.ends, c.renewAt = lease, now.Add(lease.Duration), time.Time{}
	if lease.Renewable {
		kept := lease.Duration
		if kept*2/3 > kept-replace-keptAtLeast {
			kept -= replace
		}
		if kept > 0 { // or else it is too late, and the next mount replaces it
			c.renewAt = now.Add(max(jittered(kept*2/3), renewLater))
		}
	}
}

// ends is when a credential ends: with its lease or with the login that made it.
func (k *Keeper) ends(c *credential) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ends := c.ends
	if k.leaser != nil {
		if login := k.leaser.Ends(c.session, c.lease); !login.IsZero() && login.Before(ends) {
			ends = login
		}
	}
	return ends
}

// lives tells whether a credential can be given out: its end is further away than a
// replacement takes to reach the pod.
func (k *Keeper) lives(c *credential) bool {
	now := k.o.Now()
	return !now.Before(c.made) && now.Before(k.ends(c).Add(-k.o.Replace))
}

// renew prolongs what is due and still wanted.
func (k *Keeper) renew(ctx context.Context) {
	now := k.o.Now()
	var running errgroup.Group
	running.SetLimit(maxRenewals)
	for _, c := range k.due(now) {
		running.Go(func() error {
			k.renewOne(ctx, c)
			return nil
		})
	}
	_ = running.Wait() // nothing of it fails
}

// due are the credentials to renew, of volumes that were mounted a moment ago.
func (k *Keeper) due(now time.Time) []*credential {
	var due []*credential
	k.values.each(now.Add(-idle), func(v Value) {
		if c := v.credential; c != nil && c.isDue(now) {
			due = append(due, c)
		}
	})
	return due
}

func (c *credential) isDue(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.renewAt.IsZero() && !now.Before(c.renewAt) && now.Before(c.ends)
}

func (k *Keeper) renewOne(ctx context.Context, c *credential) {
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	c.mu.Lock()
	lease := c.lease
	c.mu.Unlock()
	asked := k.o.Now() // a life begins when it was asked for, at the earliest
	next, err := contained(func() (Lease, error) { return k.leaser.Renew(ctx, c.session, lease) })
	switch {
	case err == nil:
		next.ID, next.Login = lease.ID, lease.Login
		c.renewed(next, asked, k.o.Replace)
	case errors.Is(err, ErrUnavailable):
		c.later(k.o.Now().Add(jittered(renewLater)))
	case ctx.Err() == nil:
		// The store does not know it any more, or forbids it. A lease that is gone is
		// replaced at the next mount; one that only cannot be renewed lives on.
		k.log(ctx, err, c)
		c.stop(errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrSession))
	}
}

// renewLater is how long after a renewal that got no answer the next one is tried.
const renewLater = 30 * time.Second

func (c *credential) later(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewAt = at
}

// stop ends renewals; gone says that the credential has ended, too.
func (c *credential) stop(gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewAt = time.Time{}
	if gone {
		c.ends = c.made
	}
}

func (k *Keeper) log(ctx context.Context, err error, c *credential) {
	if k.o.Log == nil {
		return
	}
	k.o.Log.LogAttrs(ctx, slog.LevelWarn, "a lease is not renewed any more", slog.String("namespace", c.session.Identity.Namespace),
		slog.String("service_account", c.session.Identity.ServiceAccount), slog.String("pod", c.session.Identity.PodName),
		slog.String("class", c.session.Class), slog.String("error", err.Error()))
}
