package keep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/store"
)

// maxRevocations bounds the leases that wait for revocation; any more expire by themselves,
// of the namespace with most of them.
const maxRevocations = 1024

// revocations are leases no longer in use: their volumes are gone, or they are too short to
// be kept. It is safe for concurrent use.
type revocations struct {
	mu     sync.Mutex
	leases []*credential
}

func (r *revocations) add(c *credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leases = append(r.leases, c); len(r.leases) > maxRevocations {
		last := lastOfMost(r.leases)
		r.leases = slices.Delete(r.leases, last, last+1)
	}
}

// lastOfMost is the index of the last lease of the namespace with most of them.
func lastOfMost(leases []*credential) (last int) {
	count, most := map[string]int{}, 0
	for i, c := range leases {
		namespace := c.request.Identity.Namespace
		if count[namespace]++; count[namespace] >= most {
			last, most = i, count[namespace]
		}
	}
	return last
}

// inTurns sorts leases so that one of each namespace goes before the second of any.
func inTurns(leases []*credential) []*credential {
	count, turn := map[string]int{}, make(map[*credential]int, len(leases))
	for _, c := range leases {
		count[c.request.Identity.Namespace]++
		turn[c] = count[c.request.Identity.Namespace]
	}
	slices.SortStableFunc(leases, func(a, b *credential) int { return cmp.Compare(turn[a], turn[b]) })
	return leases
}

func (r *revocations) take() []*credential {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.leases
	r.leases = nil
	return taken
}

// Leave says that a volume is gone: Run revokes its leases where the policies of the store
// allow it; otherwise they expire. The namespace is part of the key, so that a caller with
// rights in one namespace cannot end leases of another.
func (k *Keeper) Leave(volume auth.Volume) {
	sum := volumeOf(volume)
	gone := k.values.drop(func(one key) bool { return one.volume == sum })
	for _, v := range gone {
		k.revokeValue(v)
	}
}

// revokeValue revokes the lease of a value, if it has one.
func (k *Keeper) revokeValue(v value) {
	if v.credential != nil {
		k.queueRevocation(v.credential)
	}
}

// queueRevocation has the next round of Run revoke a lease.
func (k *Keeper) queueRevocation(c *credential) {
	if k.store.Leaser != nil {
		k.revocations.add(c)
	}
}

// revokeQueued revokes the queued leases, and queues a lease again if the store was
// unavailable.
func (k *Keeper) revokeQueued(ctx context.Context) {
	queued := inTurns(k.revocations.take())
	for _, c := range queued[doRound(queued, func(c *credential) { k.revokeOne(ctx, c) }):] {
		k.revocations.add(c)
	}
}

// doRound calls do for the leases, a few at a time, until the next round is due, and returns
// the number of calls: a namespace with many leases does not hold up those that come later.
func doRound(leases []*credential, do func(*credential)) (done int) {
	var running errgroup.Group
	running.SetLimit(maxRenewals)
	for began := time.Now(); done < len(leases) && time.Since(began) < renewEvery; done++ {
		c := leases[done]
		running.Go(func() error {
			do(c)
			return nil
		})
	}
	_ = running.Wait() // nothing of it fails
	return done
}

func (k *Keeper) revokeOne(ctx context.Context, c *credential) {
	if c.expired(k.o.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	lease := c.current()
	err := contain.Run(func() error { return k.store.Revoke(ctx, c.request, lease) })
	switch {
	case errors.Is(err, store.Unavailable):
		k.revocations.add(c)
	case errors.Is(err, store.Denied), errors.Is(err, store.Doubt):
		k.log(ctx, "return", fmt.Errorf("%w; a policy of the role could allow to update sys/leases/revoke", err), c)
	case err != nil && !errors.Is(err, store.NotFound) && !errors.Is(err, store.Ended):
		k.log(ctx, "return", err, c)
	}
}

func (k *Keeper) log(ctx context.Context, tried string, err error, c *credential) {
	if k.o.Log == nil {
		return
	}
	k.o.Log.LogAttrs(ctx, slog.LevelWarn, "a lease is left to expire", append([]slog.Attr{
		slog.String("tried", tried), slog.String("namespace", c.request.Identity.Namespace),
		slog.String("service_account", c.request.Identity.ServiceAccount), slog.String("pod", c.request.Identity.PodName),
		slog.String("class", c.request.Volume.Class), slog.String("error", err.Error()),
	}, contain.Attrs(err)...)...)
}
