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
	// Revoke ends a lease with the login that made it. It may be repeated, and fails like
	// Read: ErrNotFound says that there is nothing to end.
	Revoke(ctx context.Context, session Session, lease Lease) error
	// Ends says when the login ends that made a lease, and the lease with it; zero for
	// one that does not end. It is final when nothing prolongs that login any more.
	Ends(session Session, lease Lease) (ends time.Time, final bool)
}

// credential is something that was made for a volume and ends. Its bytes stay the
// same while it lives: it is renewed where that is possible, and when its end is
// near the next mount gets another one. The old one is left to expire.
type credential struct {
	session Session // without Proof: nobody may log in for it

	mu      sync.Mutex
	lease   Lease
	since   time.Time // when the store spoke of it last
	ends    time.Time // of the lease itself
	renewAt time.Time // zero: not any more
}

// newCredential begins the life of a lease. One that is too short is refused: each
// mount would make another one.
func (k *Keeper) newCredential(session Session, lease Lease, asked time.Time) (*credential, error) {
	session.Proof, session.Token = secret.Bytes{}, secret.Bytes{}
	c := &credential{session: session}
	c.renewed(lease, asked, k.o.Replace)
	life := c.ends.Sub(asked)
	if login, final := k.login(c); final {
		life = min(life, login.Sub(asked))
	}
	err := k.longEnough(life)
	if err != nil {
		k.giveBack(c)
	}
	return c, err
}

// errShort marks an ErrInvalid: something was made that does not live long enough.
var errShort = errors.New("too short a life")

// longEnough refuses a life in which a replacement could not reach the pod.
func (k *Keeper) longEnough(life time.Duration) error {
	if least := k.leastLife(); life < least {
		return short{fmt.Errorf("%w: what the store made lives for %s, and the least is %s; raise the ttl of its role, or that of the login",
			ErrInvalid, life.Round(time.Second), least)}
	}
	return nil
}

func (k *Keeper) leastLife() time.Duration { return max(LeastLife, k.o.Replace+keptAtLeast) }

// short is an error marked with errShort, its text unchanged.
type short struct{ error }

func (s short) Unwrap() []error { return []error{s.error, errShort} }

// renewed notes a lease as the store gave it. The next renewal is at two thirds of
// its life, or of what is left of a short one before it would be replaced, and a
// little earlier by chance.
func (c *credential) renewed(lease Lease, now time.Time, replace time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lease, c.since, c.ends, c.renewAt = lease, now, now.Add(lease.Duration), time.Time{}
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

// login is when the login ends that a credential lives by; zero for never.
func (k *Keeper) login(c *credential) (ends time.Time, final bool) {
	if k.leaser == nil {
		return time.Time{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return k.leaser.Ends(c.session, c.lease)
}

// ends is when a credential ends: with its lease or with the login that made it. It
// is given out until replaced, which is so much earlier that the next one reaches the
// pod in time; a login that is renewed in the background needs no such distance. When
// the clock was set back nobody knows how much is left: it is over until it is renewed.
func (k *Keeper) ends(c *credential) (ends, replaced time.Time) {
	login, final := k.login(c)
	c.mu.Lock()
	if ends = c.ends; k.o.Now().Before(c.since) {
		ends = time.Time{}
	}
	c.mu.Unlock()
	replaced = ends.Add(-k.o.Replace)
	if login.IsZero() {
		return ends, replaced
	}
	last := login
	if final {
		last = login.Add(-k.o.Replace)
	}
	return earlier(ends, login), earlier(replaced, last)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// lives tells whether a credential can be given out.
func (k *Keeper) lives(c *credential) bool {
	_, replaced := k.ends(c)
	return k.o.Now().Before(replaced)
}

// renew prolongs what is due and still wanted.
func (k *Keeper) renew(ctx context.Context) {
	var running errgroup.Group
	running.SetLimit(maxRenewals)
	for _, c := range k.due() {
		running.Go(func() error {
			k.renewOne(ctx, c)
			return nil
		})
	}
	_ = running.Wait() // nothing of it fails
}

// due are the credentials to renew, of volumes that were mounted a moment ago.
func (k *Keeper) due() []*credential {
	var due []*credential
	k.values.each(k.idle(), func(v Value) {
		if c := v.credential; c != nil && c.isDue(k.o.Now()) {
			due = append(due, c)
		}
	})
	return due
}

func (c *credential) isDue(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	setBack := now.Before(c.since)
	return !c.renewAt.IsZero() && (setBack || !now.Before(c.renewAt) && now.Before(c.ends))
}

func (k *Keeper) renewOne(ctx context.Context, c *credential) {
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	defer k.changed()
	lease := c.current()
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
		k.log(ctx, "renewal", err, c)
		c.stop(errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrSession))
	}
}

// over tells whether the lease itself has ended.
func (c *credential) over(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !now.Before(c.ends)
}

func (c *credential) current() Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lease
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
		c.ends = c.since
	}
}

// made tells what another read would make another one of: it is kept longest.
func made(v Value) bool { return v.made }

// crowded tells the log of something made that is forgotten although a pod has it.
func (k *Keeper) crowded(v Value) {
	if k.o.Log == nil || v.reader == nil {
		return
	}
	k.o.Log.LogAttrs(context.Background(), slog.LevelWarn, "memoryMiB is full of credentials: one is forgotten, and the next mount makes another",
		slog.String("namespace", v.reader.pod.Namespace), slog.String("pod", v.reader.pod.Name), slog.String("class", v.reader.class),
		slog.String("path", v.reader.path.String()))
}
