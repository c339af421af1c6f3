package store

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keymount/keymount/auth"
)

// KeepOptions say how long what was read counts.
type KeepOptions struct {
	// Refresh is how long a secret counts before it is read again; 0 reads at every
	// mount.
	Refresh time.Duration
	// Stale is how long after it was read a secret may stand in for a store that gives
	// no answer; 0 is never.
	Stale time.Duration
	// PerPod keeps what each pod reads apart, as its logins are.
	PerPod bool
	// Replace is how long before its end a credential is replaced: longer than the
	// replacement takes to reach the pod.
	Replace time.Duration
	// Bytes is about how much memory what is kept takes at most.
	Bytes int64
	// Vouch is told of every session whose pod was mounted with what is remembered: its
	// login is still wanted. nil tells nobody.
	Vouch func(Session)
	// Forgotten is told of what has an end when it is forgotten, but not of volumes that
	// are known to be gone. nil tells nobody.
	Forgotten func(context.Context, Forgotten)
	// Sweep is how often it is looked at what nobody asks for: after ten times, or more
	// with a long Replace, it is forgotten. 0 is a minute.
	Sweep time.Duration
	// Changed is told that a Snapshot would be another one now; it returns at once and
	// asks nothing of the Keeper. nil tells nobody.
	Changed func()
	Now     func() time.Time
	Log     *slog.Logger // of leases that are not renewed; nil is none
}

const (
	// idleSweeps is after how many sweeps without a mount what was read is forgotten, at least.
	// It is no time of the clock: nobody can mount while that is wrong, or the node sleeps.
	idleSweeps = 10
	// sweepEvery is the default of how often there is one.
	sweepEvery = time.Minute
	// pathShare is which part of the memory is for what paths are: twice as many as
	// secrets of 4 KiB. What is beyond costs time and seldom a request.
	pathShare = 8
)

// Keep remembers what s answers, so that load follows secrets and not pods: a
// secret is read again at most every Refresh for one session, however many pods
// and volumes want it. What is remembered belongs to a session: nobody gets it but
// with an Identity, which only a token verified in this very request makes, and the
// role that it was read with. What it returns is a [Stateful], and a [Resolver] if s
// is one.
//
// While the store is out of reach, and only then, the last good value stands in for
// the next, for as long as Stale. What a store makes for one volume, a credential
// with a lease or a certificate, is kept as long as it lives, see lease.go.
func Keep(s Store, o KeepOptions) Kept {
	paths := o.Bytes / pathShare
	k := &Keeper{
		store: s, o: o,
		values: newMemory[key](o.Bytes-paths, heldBy, o.Now), paths: newMemory[key](paths, heldByPath, o.Now),
	}
	k.values.landed, k.values.orphaned = k.landed, k.orphaned
	k.values.lasting, k.values.crowded = made, k.crowded
	k.leaser, _ = s.(Leaser)
	resolver, ok := s.(Resolver)
	if !ok {
		return k
	}
	return &keptResolver{k, resolver}
}

// Kept is a Store that remembers.
type Kept interface {
	Store
	Memory
	// Leave says that a volume is gone: what was made for it is given back.
	Leave(namespace, podUID, class string)
	// Run renews and gives back leases, and forgets what nobody asks for any more, until
	// ctx ends.
	Run(ctx context.Context) error
}

// Memory is what was read of a store.
type Memory interface {
	// Refresh makes the next mount of each secret read it again.
	Refresh()
	// Held is about how many bytes it takes.
	Held() int64
}

// Keeper is what [Keep] makes of a store.
type Keeper struct {
	store   Store
	leaser  Leaser // nil for a store whose leases cannot be renewed
	o       KeepOptions
	values  *memory[key, Value]
	paths   *memory[key, Resolved] // of a Resolver
	returns returns
	// refreshed is when somebody asked that everything be read again.
	refreshed atomic.Pointer[time.Time]
}

// Read implements [Store].
func (k *Keeper) Read(ctx context.Context, session Session, ref Ref) (Value, error) {
	return k.read(ctx, session, ref, Resolved{Path: ref.Path})
}

func (k *Keeper) read(ctx context.Context, session Session, ref Ref, resolved Resolved) (Value, error) {
	if resolved.Makes {
		session.Lasting = k.leastLife()
	}
	got, err := k.values.get(ctx, k.key(session, ref, resolved), question[Value]{
		fresh: func(v Value, at time.Time) bool { return k.fresh(v, at, ref) },
		ask: func(ctx context.Context, old *Value, f *flight[Value]) (Value, error) {
			session := session.joined(f.hurry)
			var asked time.Time // a life begins when it was asked for, at the earliest
			value, err := patiently(ctx, old == nil, func() (Value, error) {
				asked = k.o.Now()
				return f.attempt(func() (Value, error) { return k.store.Read(ctx, session, ref) })
			})
			if err != nil {
				return Value{}, err
			}
			return k.begin(session, ref, value, asked)
		},
		instead: func(v Value, at time.Time, err error) bool { return k.instead(v, at, err, ref) },
		hold:    k.hold,
		waiting: session.Waiting,
	})
	if err != nil {
		return Value{}, err
	}
	if err := Spend(ctx, got.value.Data.Size()); err != nil {
		return Value{}, err
	}
	if k.o.Vouch != nil {
		k.o.Vouch(session)
	}
	got.value.Stale = got.cause
	return got.value, nil
}

// patiently asks again where nothing else would do.
func patiently[V any](ctx context.Context, needed bool, read func() (V, error)) (V, error) {
	if needed {
		return Patiently(ctx, read)
	}
	return read()
}

// begin says how long a value counts.
func (k *Keeper) begin(session Session, ref Ref, value Value, asked time.Time) (_ Value, err error) {
	value.made, value.refresh = value.Lease != nil || ref.Args != "", jittered(k.o.Refresh)
	if value.Lease != nil || !value.NotAfter.IsZero() {
		value.reader = readerOf(session, ref.Path)
	}
	switch {
	case value.Lease != nil:
		value.credential, err = k.newCredential(session, *value.Lease, asked)
	case ref.Args != "" && value.NotAfter.IsZero(): // a write is not done again without a reason
		value.refresh = unknownLife
	case ref.Args != "": // such as a certificate, which is renewed at two thirds of its life
		life := value.NotAfter.Sub(asked)
		value.refresh = k.kept(life)
		err = k.longEnough(life)
	}
	return value, err
}

// kept is how long a certificate counts.
func (k *Keeper) kept(life time.Duration) time.Duration {
	return jittered(min(life*2/3, life-k.o.Replace))
}

// unknownLife is how long what a write brought counts if nobody says when it ends.
const unknownLife = 24 * time.Hour

// jittered is a little less than d, so that nodes do not march in step.
func jittered(d time.Duration) time.Duration {
	const share = 10
	if d < share {
		return d
	}
	return d - rand.N(d/share) //nolint:gosec // a jitter needs no unguessable numbers
}

// fresh tells whether a value that was read at some time counts without asking.
func (k *Keeper) fresh(v Value, at time.Time, ref Ref) bool {
	now := k.o.Now()
	age := now.Sub(at)
	asked := k.refreshed.Load()
	switch {
	case v.credential != nil:
		return k.lives(v.credential)
	case !v.NotAfter.IsZero() && !now.Before(v.NotAfter): // a password that the store changes by itself
		return false
	case ref.Args != "" && !v.NotAfter.IsZero(): // another one would be made
	case ref.Version != "": // pinned: it is what it is
		return true
	case asked != nil && !at.After(*asked) && !now.Before(*asked):
		return false
	}
	return age >= 0 && age < v.refresh // the clock may have been set back
}

// Refresh makes the next mount of each secret read it again. Credentials and
// certificates stay as they are: another one would be made.
func (k *Keeper) Refresh() {
	now := k.o.Now()
	k.refreshed.Store(&now)
}

// Held implements [Memory].
func (k *Keeper) Held() int64 { return k.values.held() + k.paths.held() }

// instead tells whether an old value may stand in for an answer that failed: only
// where there was none, within the operator's limit and the value's own life.
func (k *Keeper) instead(v Value, at time.Time, err error, ref Ref) bool {
	now := k.o.Now()
	age := now.Sub(at)
	switch {
	case !errors.Is(err, ErrUnavailable), !v.NotAfter.IsZero() && !now.Before(v.NotAfter):
		return false
	case v.credential != nil:
		ends, _ := k.ends(v.credential)
		return now.Before(ends)
	case ref.Args != "" && !v.NotAfter.IsZero(): // a certificate counts until its end
		return true
	}
	return age >= 0 && age < k.o.Stale
}

// hold is how long a failure counts: a denial must not cost the store a request
// each time that a pod is tried again.
func (k *Keeper) hold(err error, before time.Duration) time.Duration {
	const first = 5 * time.Second
	switch {
	case errors.Is(err, auth.ErrRefused): // of one pod's token: those who log in remember it
		return 0
	case errors.Is(err, errShort): // something was made that cannot be used: not another one at once
		return maxHold
	case errors.Is(err, ErrDenied), errors.Is(err, ErrDoubt), errors.Is(err, ErrSession):
		return min(max(first, 2*before), maxHold)
	case errors.Is(err, ErrNotFound):
		return min(k.o.Refresh, first)
	case errors.Is(err, ErrInvalid):
		return min(k.o.Refresh, maxHold)
	case errors.Is(err, ErrUnavailable):
		return min(asked(err), first)
	}
	return 0
}

// Run renews leases, gives those of volumes that are gone back, and forgets what
// nobody asks for any more, until ctx ends. Then it gives nothing back: pods live on. It
// returns when questions under way have their answers, in 25 s at most.
func (k *Keeper) Run(ctx context.Context) error {
	sweep, renew := time.NewTicker(cmp.Or(k.o.Sweep, sweepEvery)), time.NewTicker(renewEvery)
	defer sweep.Stop()
	defer renew.Stop()
	var running sync.WaitGroup
	defer k.values.settle()
	defer k.paths.settle()
	defer running.Wait()
	// One round of each at a time, since a store that hangs takes long; and the ends of
	// leases do not hold up those that go on.
	renewing, ending := make(chan struct{}, 1), make(chan struct{}, 1)
	round := func(free chan struct{}, do func(context.Context)) {
		select {
		case free <- struct{}{}:
			running.Go(func() { do(ctx); <-free })
		default:
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			k.sweep(ctx)
		case <-renew.C:
			round(renewing, k.renew)
			round(ending, k.giveAllBack)
		}
	}
}

// idle is how many sweeps nobody has to ask: more where the driver does so less often,
// which Replace says.
func (k *Keeper) idle() int { return max(idleSweeps, int((k.o.Replace+LeastLife)/sweepEvery)) }

// keptResolver is a Keeper of a [Resolver].
type keptResolver struct {
	*Keeper
	resolver Resolver
}

// Resolve implements [Resolver]. What a path is counts as long as what is there.
func (k *keptResolver) Resolve(ctx context.Context, session Session, ref Ref) (Resolved, error) {
	got, err := k.paths.get(ctx, k.pathKey(session, ref), question[Resolved]{
		fresh: k.freshPath,
		ask: func(ctx context.Context, old *Resolved, f *flight[Resolved]) (Resolved, error) {
			session := session.joined(f.hurry)
			return patiently(ctx, old == nil, func() (Resolved, error) {
				return f.attempt(func() (Resolved, error) { return k.resolver.Resolve(ctx, session, ref) })
			})
		},
		// What a path is may stand in for as long as what is there, which has its own limit.
		instead: func(_ Resolved, _ time.Time, err error) bool { return errors.Is(err, ErrUnavailable) },
		hold:    k.hold,
		waiting: session.Waiting,
	})
	return got.value, err
}

// freshPath tells whether what a path is counts without asking.
func (k *keptResolver) freshPath(_ Resolved, at time.Time) bool {
	age := k.o.Now().Sub(at)
	return age >= 0 && age < max(k.o.Refresh, time.Second)
}

// Read implements [Store].
func (k *keptResolver) Read(ctx context.Context, session Session, ref Ref) (Value, error) {
	resolved, err := k.Resolve(ctx, session, ref)
	if err != nil {
		return Value{}, err
	}
	return k.read(ctx, session, ref, resolved)
}

// credentialSize is about what the life of a lease takes: a session and its texts.
const credentialSize = 1024

// heldBy is what a value takes in memory, in bytes.
func heldBy(v Value) int64 {
	held := v.Data.Held() + v.Envelope.Held() + len(v.Version)
	for _, text := range v.Warnings {
		held += len(text)
	}
	if v.Lease != nil {
		held += credentialSize + v.Lease.ID.Held()
	}
	return int64(held)
}

func heldByPath(r Resolved) int64 { return int64(len(r.Path.String())) }
