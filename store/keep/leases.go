package keep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

const (
	// LeastLife is the shortest life of a credential worth keeping: the driver mounts every
	// 60 to 90 s at best.
	LeastLife = 5 * time.Minute
	// keptAtLeast is the shortest time from making a credential to its replacement.
	keptAtLeast = 2 * time.Minute
	// renewEvery is the time between two rounds of renewals.
	renewEvery = 10 * time.Second
	// renewLimit ends one renewal, and maxRenewals bounds how many run at a time.
	renewLimit  = 20 * time.Second
	maxRenewals = 4
)

// credential is a secret made for a volume, which lives by a lease. Its bytes stay the same
// for its life: its lease is renewed where possible, and near its end the next mount gets a
// new credential. The old lease then expires by itself.
type credential struct {
	request login.Request // without Proof: no login may be made for it

	mu      sync.Mutex
	lease   store.Lease
	since   time.Time // start of the current lease, by the last answer of the store
	ends    time.Time // end of the lease itself, not of its login
	renewAt time.Time // zero: never
}

// newCredential starts the life of a lease. It refuses one that is too short, because each
// mount would make another credential.
func (k *Keeper) newCredential(request login.Request, lease store.Lease, requested time.Time) (*credential, error) {
	request.Proof, request.Joined = secret.Bytes{}, nil
	c := &credential{request: request}
	c.renewed(lease, requested, k.o.Replace)
	life := c.ends.Sub(requested)
	if login, final := k.loginEnds(c); final {
		life = min(life, login.Sub(requested))
	}
	err := k.longEnough(life)
	if err != nil {
		k.queueRevocation(c)
	}
	return c, err
}

// shortLife is the cause of an Invalid: the life of a new credential or certificate is too
// short.
type shortLife struct{ life, least time.Duration }

func (s shortLife) Error() string {
	return fmt.Sprintf("what the store made lives for %s, and the least is %s; raise the ttl of its role, or that of the login",
		s.life.Round(time.Second), s.least)
}

// longEnough refuses a life too short for a replacement to reach the pod.
func (k *Keeper) longEnough(life time.Duration) error {
	if least := k.leastLife(); life < least {
		return &store.Error{Reason: store.Invalid, Cause: shortLife{life, least}}
	}
	return nil
}

func (k *Keeper) leastLife() time.Duration { return max(LeastLife, k.o.Replace+keptAtLeast) }

// renewed stores a lease as the store gave it. The next renewal is at two thirds of its life;
// for a short life, at two thirds of the time before its replacement; and a little earlier by
// chance.
func (c *credential) renewed(lease store.Lease, now time.Time, replace time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lease, c.since, c.ends, c.renewAt = lease, now, now.Add(lease.Duration), time.Time{}
	if lease.Renewable {
		kept := lease.Duration
		if kept*2/3 > kept-replace-keptAtLeast {
			kept -= replace
		}
		if kept > 0 { // otherwise it is too late, and the next mount replaces it
			c.renewAt = now.Add(max(jittered(kept*2/3), renewLater))
		}
	}
}

// loginEnds is the end of the login that a credential depends on, zero for never, and whether
// that end is final.
func (k *Keeper) loginEnds(c *credential) (ends time.Time, final bool) {
	if k.store.Leaser == nil {
		return time.Time{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return k.store.Ends(c.request, c.lease)
}

// ends is the end of a credential, with its lease or with its login, and the time of its
// replacement: Replace earlier, so that the next one reaches the pod in time; the end of a
// login still renewed in the background needs no such margin. When the clock was set back the
// remaining time is unknown, so the credential has ended until it is renewed.
func (k *Keeper) ends(c *credential) (ends, replaced time.Time) {
	login, final := k.loginEnds(c)
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

// lives tells whether a mount may get the credential.
func (k *Keeper) lives(c *credential) bool {
	_, replaced := k.ends(c)
	return k.o.Now().Before(replaced)
}

// renew renews the due leases, in turns of namespaces. The next round has the rest.
func (k *Keeper) renew(ctx context.Context) {
	doRound(inTurns(k.due()), func(c *credential) { k.renewOne(ctx, c) })
}

// due lists the credentials to renew, of volumes with recent mounts only.
func (k *Keeper) due() []*credential {
	var due []*credential
	k.values.each(k.idle(), func(v value) {
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
	requested := k.o.Now() // the earliest possible start of a life
	next, err := contain.Do(func() (store.Lease, error) { return k.store.Renew(ctx, c.request, lease) })
	switch {
	case err == nil:
		next.ID, next.Login = lease.ID, lease.Login
		c.renewed(next, requested, k.o.Replace)
	case errors.Is(err, store.Unavailable):
		c.later(k.o.Now().Add(jittered(renewLater)))
	case ctx.Err() == nil:
		// The store no longer knows the lease, or forbids its renewal. The next mount
		// replaces a lease that is gone; a lease that cannot be renewed lives on.
		k.log(ctx, "renewal", err, c)
		c.stop(errors.Is(err, store.NotFound) || errors.Is(err, store.Invalid) || errors.Is(err, store.Ended))
	}
}

// expired tells whether the lease itself has ended.
func (c *credential) expired(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !now.Before(c.ends)
}

func (c *credential) current() store.Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lease
}

// renewLater is the pause after a renewal without an answer.
const renewLater = 30 * time.Second

func (c *credential) later(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewAt = at
}

// stop ends the renewals; gone also ends the credential.
func (c *credential) stop(gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renewAt = time.Time{}
	if gone {
		c.ends = c.since
	}
}

// rankOf puts values that cannot be read again last.
func rankOf(v value) rank {
	if v.made {
		return made
	}
	return again
}

// rankOfPath puts paths of such values behind what can be read again.
func rankOfPath(r store.Resolved) rank {
	if r.Makes {
		return toMade
	}
	return again
}

// full refuses to make a value without room for it.
func full(namespace string) error {
	return store.Invalid.Errorf("no room to keep what would be made: the credentials and certificates of namespace %q take its share of the memory, "+
		"and one more would be made anew at every mount; make fewer (pods can share one with lease: shared), "+
		"or raise the memory limit of keymount, or memoryMiB if it is set", namespace)
}

// logEviction logs the eviction of a credential or certificate still in use by a pod.
func (k *Keeper) logEviction(v value) {
	if k.o.Log == nil || v.reader == nil {
		return
	}
	k.o.Log.LogAttrs(context.Background(), slog.LevelWarn, "the memory is full of credentials: one is forgotten, since its namespace has more than its share",
		slog.String("namespace", v.reader.pod.Namespace), slog.String("pod", v.reader.pod.Name), slog.String("class", v.reader.class),
		slog.String("path", v.reader.path.String()))
}
