package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"
)

// maxReturns bounds how many leases wait to be given back; what is beyond expires.
const maxReturns = 1024

// returns are leases that nobody needs until their end: of volumes that are gone, or
// too short to be kept. It is safe for concurrent use.
type returns struct {
	mu     sync.Mutex
	leases []*credential
}

func (r *returns) add(c *credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.leases) < maxReturns {
		r.leases = append(r.leases, c)
	}
}

func (r *returns) take() []*credential {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.leases
	r.leases = nil
	return taken
}

// Leave says that a volume is gone: what was made for it is given back, as far as the
// store's policies allow that; else it expires. Who can say so in one namespace ends
// nothing of another.
func (k *Keeper) Leave(namespace, podUID, class string) {
	volume := volumeOf(namespace, podUID, class)
	gone := k.values.drop(func(one key) bool { return one.volume == volume })
	for _, v := range gone {
		k.orphaned(v)
	}
}

// orphaned gives back what was made for a volume that is gone.
func (k *Keeper) orphaned(v Value) {
	if v.credential != nil {
		k.giveBack(v.credential)
	}
}

// giveBack has a lease ended in the next round of Run.
func (k *Keeper) giveBack(c *credential) {
	if k.leaser != nil {
		k.returns.add(c)
	}
}

// giveAllBack ends the leases that wait for it, and leaves those for the next round
// of which the store did not hear.
func (k *Keeper) giveAllBack(ctx context.Context) {
	var running errgroup.Group
	running.SetLimit(maxRenewals)
	for _, c := range k.returns.take() {
		running.Go(func() error {
			k.endOne(ctx, c)
			return nil
		})
	}
	_ = running.Wait() // nothing of it fails
}

func (k *Keeper) endOne(ctx context.Context, c *credential) {
	if c.over(k.o.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	lease := c.current()
	_, err := contained(func() (struct{}, error) { return struct{}{}, k.leaser.Revoke(ctx, c.session, lease) })
	switch {
	case errors.Is(err, ErrUnavailable):
		k.returns.add(c)
	case errors.Is(err, ErrDenied), errors.Is(err, ErrDoubt):
		k.log(ctx, "return", fmt.Errorf("%w; a policy of the role could allow to update sys/leases/revoke", err), c)
	case err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrSession):
		k.log(ctx, "return", err, c)
	}
}

func (k *Keeper) log(ctx context.Context, tried string, err error, c *credential) {
	if k.o.Log == nil {
		return
	}
	k.o.Log.LogAttrs(ctx, slog.LevelWarn, "a lease is left to expire", slog.String("tried", tried), slog.String("namespace", c.session.Identity.Namespace),
		slog.String("service_account", c.session.Identity.ServiceAccount), slog.String("pod", c.session.Identity.PodName),
		slog.String("class", c.session.Class), slog.String("error", err.Error()))
}
