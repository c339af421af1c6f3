// Package keep remembers the answers of a store, so that the load on the store follows the
// number of secrets and not of pods. It keeps credentials and certificates for their whole
// life, and answers with the last good value during an outage of the store.
//
// memory.go stores the answers and merges concurrent reads of one secret into one request;
// shares.go bounds the answers of all stores by namespace, and rereads.go warns when they do
// not fit; keep.go decides how long an answer is fresh; leases.go renews leases and
// revocations.go revokes them; forgotten.go evicts values without mounts; snapshot.go hands
// credentials and certificates over to the next process.
package keep

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/keymount/keymount/internal/inflight"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// Options say how long a value is fresh, stale and kept.
type Options struct {
	// Refresh is how long a value is fresh after its first read, and after each change of it;
	// 0 reads at every mount.
	Refresh time.Duration
	// RefreshMax is how long a value is fresh at most: the time doubles with each read that
	// brings the same again. Less than Refresh is Refresh.
	RefreshMax time.Duration
	// Stale is the greatest age of a value that may answer in an outage of the store; 0 is
	// never.
	Stale time.Duration
	// PerPod keeps the values of each pod apart, as its logins are.
	PerPod bool
	// Replace is how long before its end a credential is replaced: longer than the
	// replacement takes to reach the pod.
	Replace time.Duration
	// Pool bounds the memory of the answers. Keepers may share one.
	Pool *Pool
	// Vouch is called for every request answered from memory, because its login is still in
	// use. nil is none.
	Vouch func(login.Request)
	// Forgotten is called for each value with an end when a sweep evicts it, but not for the
	// values of a volume known to be gone. nil is none.
	Forgotten func(context.Context, Forgotten)
	// Sweep is the time between two sweeps, which evict values without a mount for ten
	// sweeps, or more with a long Replace. 0 is a minute.
	Sweep time.Duration
	// Changed is called when a Snapshot would differ from the last one; it returns at once
	// and must not call the Keeper. nil is none.
	Changed func()
	Now     func() time.Time
	Log     *slog.Logger // gets leases that are not renewed; nil is none
}

const (
	// idleSweeps is the least number of sweeps without a mount before a value is evicted. It
	// counts sweeps and no time, because no pod can mount while the clock is wrong or the
	// node sleeps.
	idleSweeps = 10
	// sweepEvery is the default of Options.Sweep.
	sweepEvery = time.Minute
)

// Source is the origin of an answer.
type Source string

// The sources of an answer.
const (
	FromStore  Source = "store"
	FromMemory Source = "memory"
	Stale      Source = "stale" // the last good value, because the store gave no answer
)

// Answer is a value with its source. All who asked share the value, which never changes.
type Answer struct {
	*store.Value
	Source Source
	// Cause is the failure of the newer read, where this value is Stale; nil otherwise.
	Cause error
	// Read is when the store was asked for the value; zero where nothing is remembered. Ends is
	// its end as it is known now; zero for none.
	Read, Ends time.Time
}

// Keeper remembers the answers of a store: one login reads a secret at most once every
// Refresh, for any number of pods and volumes, and less often while it does not change. A
// value belongs to the login that read it: a request gets it only with an Identity, made from
// a token verified in this very request, and with the role of that login.
//
// Only while the store is unavailable does the last good value answer, for as long as Stale.
// A credential or certificate made for one volume is kept for its whole life, see leases.go.
type Keeper struct {
	store       login.Store
	o           Options
	values      *memory[key, value]
	paths       *memory[key, store.Resolved] // unused without a Resolver
	flights     *inflight.Group              // of both
	revocations revocations
	// refreshed is the time of the last call of Refresh.
	refreshed atomic.Pointer[time.Time]
	// leftOut tells whether the last Snapshot had no room for all values.
	leftOut atomic.Bool
}

// value is a remembered secret.
type value struct {
	*store.Value
	made       bool          // another read would make another credential or certificate
	refresh    time.Duration // how long it is fresh
	base       time.Duration // refresh without its jitter, which the next read may double
	requested  time.Time     // the earliest possible start of its life
	credential *credential   // the life of Lease
	reader     *reader       // for a value with an end, see [Forgotten]
}

// New remembers the answers of s. It starts no goroutine: Run renews, revokes and evicts.
func New(s login.Store, o Options) *Keeper {
	flights := inflight.NewGroup()
	k := &Keeper{
		store: s, o: o, flights: flights,
		values: newMemory[key](o.Pool, heldBy, rankOf, flights, o.Now), paths: newMemory[key](o.Pool, heldByPath, rankOfPath, flights, o.Now),
	}
	k.values.onAnswer, k.values.onLate, k.values.onSilence = k.onAnswer, k.revokeValue, doubted
	k.values.onEvict, k.values.full, k.values.countsRereads = k.logEviction, full, true
	return k
}

// Resolve returns the one spelling of a path. It is fresh as long as a value that changes: the
// access rules judge it.
func (k *Keeper) Resolve(ctx context.Context, request login.Request, ref store.Ref) (store.Resolved, error) {
	if k.store.Resolver == nil {
		return store.Resolved{Path: ref.Path}, nil
	}
	keys := k.keysOf(request)
	got, err := k.paths.get(ctx, request.Identity.Namespace, keys.ofPath(&ref), question[store.Resolved]{
		fresh: func(_ store.Resolved, at time.Time) bool { return k.freshPath(at, k.o.Now()) },
		ask: func(ctx context.Context, old *store.Resolved, f *flight[store.Resolved]) (store.Resolved, error) {
			request := request
			request.Joined = f.joined
			return patiently(ctx, old == nil, func() (store.Resolved, error) {
				return f.attempt(func() (store.Resolved, error) { return k.store.Resolve(ctx, request, ref) })
			})
		},
		// A stale path may stay in use as long as the values at it, which have their own
		// limit.
		instead: func(_ store.Resolved, _ time.Time, err error) bool { return errors.Is(err, store.Unavailable) },
		pause:   k.pause,
		waiting: request.Waiting,
	})
	return got.value, err
}

// freshPath tells whether a path resolved at a time is used without asking the store.
func (k *Keeper) freshPath(at, now time.Time) bool {
	age := now.Sub(at)
	return age >= 0 && age < max(k.o.Refresh, time.Second)
}

// Read returns the value at a resolved path, from memory or from the store.
func (k *Keeper) Read(ctx context.Context, request login.Request, ref store.Ref, resolved store.Resolved) (Answer, error) {
	if resolved.Makes {
		request.Lasting = k.leastLife()
	}
	keys := k.keysOf(request)
	got, err := k.values.get(ctx, request.Identity.Namespace, keys.of(&ref, &resolved), question[value]{
		fresh: func(v value, at time.Time) bool { return k.fresh(v, at, ref, k.o.Now()) },
		ask: func(ctx context.Context, old *value, f *flight[value]) (value, error) {
			return k.ask(ctx, request, ref, old, f)
		},
		instead: func(v value, at time.Time, err error) bool { return k.instead(v, at, err, ref) },
		pause:   k.pause,
		makes:   resolved.Makes || ref.Args != "",
		waiting: request.Waiting,
	})
	if err != nil {
		return Answer{}, err
	}
	k.vouch(request)
	return k.answer(got.value, got.source, got.cause), nil
}

func (k *Keeper) answer(v value, source Source, cause error) Answer {
	a := Answer{Value: v.Value, Source: source, Cause: cause, Read: v.requested, Ends: v.NotAfter}
	if v.credential != nil {
		a.Ends, _ = k.ends(v.credential)
	}
	return a
}

// ask reads a secret from the store and starts its life.
func (k *Keeper) ask(ctx context.Context, request login.Request, ref store.Ref, old *value, f *flight[value]) (value, error) {
	request.Joined = f.joined
	var requested time.Time // the earliest possible start of a life
	read, err := patiently(ctx, old == nil, func() (store.Value, error) {
		requested = k.o.Now()
		var read store.Value
		_, err := f.attempt(func() (v value, err error) {
			read, err = k.store.Read(ctx, request, ref)
			return v, err
		})
		return read, err
	})
	if err != nil {
		return value{}, err
	}
	return k.begin(request, ref, read, requested, old)
}

func (k *Keeper) vouch(request login.Request) {
	if k.o.Vouch != nil {
		k.o.Vouch(request)
	}
}

// patiently retries only where no old value could answer instead.
func patiently[V any](ctx context.Context, needed bool, read func() (V, error)) (V, error) {
	if needed {
		return store.Patiently(ctx, read)
	}
	return read()
}

// begin sets how long a value is fresh.
func (k *Keeper) begin(request login.Request, ref store.Ref, read store.Value, requested time.Time, old *value) (_ value, err error) {
	base := k.baseOf(read, requested, old)
	v := value{Value: &read, made: read.Lease != nil || ref.Args != "", refresh: jittered(base), base: base, requested: requested}
	if read.Lease != nil || !read.NotAfter.IsZero() {
		v.reader = readerOf(request, ref.Path)
	}
	switch {
	case read.Lease != nil:
		v.credential, err = k.newCredential(request, *read.Lease, requested)
	case ref.Args != "" && read.NotAfter.IsZero(): // repeat a write only for a reason
		v.refresh = unknownLife
	case ref.Args != "": // such as a certificate, renewed at two thirds of its life
		life := read.NotAfter.Sub(requested)
		v.refresh = k.kept(life)
		err = k.longEnough(life)
	}
	return v, err
}

// baseOf is how long a value is fresh that another read may change: twice as long as the value
// before if that was the same, and Refresh after all that may foretell a change.
func (k *Keeper) baseOf(read store.Value, requested time.Time, old *value) time.Duration {
	switch {
	case old == nil, !same(*old.Value, read), k.refreshedSince(old.requested):
		return k.o.Refresh
	case !read.NotAfter.IsZero() && read.NotAfter.Sub(requested) < k.o.RefreshMax: // its end nears
		return k.o.Refresh
	}
	return max(k.o.Refresh, min(2*old.base, k.o.RefreshMax))
}

// doubted is v after a read that the store did not answer: the next one may bring another.
func doubted(v value) value {
	v.base = 0
	return v
}

// same tells whether a secret has not changed, but for what the store says about it. The
// version alone does not tell: a secret that is made anew begins with the first again.
func same(old, read store.Value) bool {
	return old.Version == read.Version && old.Data.Without(old.About).Equal(read.Data.Without(read.About))
}

// kept is how long a certificate is fresh.
func (k *Keeper) kept(life time.Duration) time.Duration {
	return jittered(min(life*2/3, life-k.o.Replace))
}

// unknownLife is how long the answer of a write is fresh if it has no end.
const unknownLife = 24 * time.Hour

// jittered is d less up to a tenth, so that nodes do not march in step.
func jittered(d time.Duration) time.Duration {
	const share = 10
	if d < share {
		return d
	}
	return d - rand.N(d/share) //nolint:gosec // a jitter needs no unguessable numbers
}

// fresh tells whether a value read at a time is used without asking the store.
func (k *Keeper) fresh(v value, at time.Time, ref store.Ref, now time.Time) bool {
	age := now.Sub(at)
	switch {
	case v.credential != nil:
		return k.lives(v.credential)
	case !v.NotAfter.IsZero() && !now.Before(v.NotAfter): // a password rotated by the store
		return false
	case ref.Args != "" && !v.NotAfter.IsZero(): // another read would make another certificate
	case ref.Version != "": // a pinned version does not change
		return true
	case k.refreshedSince(at):
		return false
	}
	return age >= 0 && age < v.refresh // the clock may have been set back
}

// Refresh makes the next mount of each secret read it again. Credentials and certificates
// stay, because another read would make new ones.
func (k *Keeper) Refresh() {
	now := k.o.Now()
	k.refreshed.Store(&now)
}

// refreshedSince tells whether Refresh was called after a time, by a clock that may have been
// set back.
func (k *Keeper) refreshedSince(at time.Time) bool {
	refreshed := k.refreshed.Load()
	return refreshed != nil && !at.After(*refreshed) && !k.o.Now().Before(*refreshed)
}

// Held is the memory of all values and paths in bytes, approximately.
func (k *Keeper) Held() int64 { return k.values.held() + k.paths.held() }

// Most bounds Held, together with that of all Keepers of the same Pool.
func (k *Keeper) Most() int64 { return k.o.Pool.most }

// Evictions counts the answers evicted for room.
func (k *Keeper) Evictions() uint64 { return k.values.evicted() + k.paths.evicted() }

// Ends are the values with an end.
type Ends struct {
	Leases int // how many are credentials with a lease
	// Lease is the next end of a credential, and Value that of a certificate or a password
	// rotated by the store; zero for none.
	Lease, Value time.Time
}

// Ends looks at what volumes with recent mounts have.
func (k *Keeper) Ends() Ends {
	var credentials []*credential
	var all Ends
	sooner := func(a, b time.Time) time.Time {
		if a.IsZero() || !b.IsZero() && b.Before(a) {
			return b
		}
		return a
	}
	k.values.each(k.idle(), func(v value) {
		if v.credential != nil {
			credentials = append(credentials, v.credential)
		} else {
			all.Value = sooner(all.Value, v.NotAfter)
		}
	})
	all.Leases = len(credentials)
	for _, c := range credentials { // without the lock of the memory: their logins have their own
		ends, _ := k.ends(c)
		all.Lease = sooner(all.Lease, ends)
	}
	return all
}

// instead tells whether an old value may answer in place of err: only in an outage, within
// Stale and within the life of the value.
func (k *Keeper) instead(v value, at time.Time, err error, ref store.Ref) bool {
	now := k.o.Now()
	age := now.Sub(at)
	switch {
	case !errors.Is(err, store.Unavailable), !v.NotAfter.IsZero() && !now.Before(v.NotAfter):
		return false
	case v.credential != nil:
		ends, _ := k.ends(v.credential)
		return now.Before(ends)
	case ref.Args != "" && !v.NotAfter.IsZero(): // a certificate is good until its end
		return true
	}
	return age >= 0 && age < k.o.Stale
}

// pause is how long a failure is the answer without a request to the store: otherwise each
// retry of a pod would cost the store another denial.
func (k *Keeper) pause(err error, before time.Duration) time.Duration {
	const first = 5 * time.Second
	_, short := errors.AsType[shortLife](err)
	switch {
	case login.Refused(err): // about the token of one pod: package login remembers it
		return 0
	case short: // a new credential or certificate was unusable: do not make another at once
		return maxPause
	case errors.Is(err, store.Denied), errors.Is(err, store.Doubt), errors.Is(err, store.Ended):
		return min(max(first, 2*before), maxPause)
	case errors.Is(err, store.NotFound):
		return min(k.o.Refresh, first)
	case errors.Is(err, store.Invalid):
		return min(k.o.Refresh, maxPause)
	}
	if e, ok := errors.AsType[*store.Error](err); ok && e.Reason == store.Unavailable {
		return min(e.RetryAfter, first)
	}
	return 0
}

// Run renews leases, revokes the leases of volumes that are gone, and evicts values without
// mounts, until ctx ends. It revokes nothing then, because pods live on. It returns when all
// in-flight reads have ended, which it ends soon: a credential that comes later is lost.
func (k *Keeper) Run(ctx context.Context) error {
	sweep, renew := time.NewTicker(cmp.Or(k.o.Sweep, sweepEvery)), time.NewTicker(renewEvery)
	defer sweep.Stop()
	defer renew.Stop()
	var running sync.WaitGroup
	defer k.flights.Settle()
	defer running.Wait()
	// One round of each at a time, because a store that hangs takes long; two channels, so
	// that slow revocations do not delay renewals.
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
			round(ending, k.revokeQueued)
		}
	}
}

// idle is the number of sweeps without a mount before eviction: more where the driver mounts
// less often, as Replace says.
func (k *Keeper) idle() int { return max(idleSweeps, int((k.o.Replace+LeastLife)/sweepEvery)) }

// warningSize is the memory of a warning beside its characters, as a member of two lists.
const warningSize = 2 * 16

// valueSize is the memory of a value itself, beside the texts in it.
const valueSize = int(unsafe.Sizeof(store.Value{}))

// credentialSize is the approximate memory of a lease: its login and texts.
const credentialSize = 1024

// heldBy is the memory of a value, in bytes.
func heldBy(v value) int64 {
	held := valueSize + v.Data.Held() + v.Envelope.Held() + len(v.Version)
	for _, text := range v.Warnings { // a text, which the envelope names as well
		held += len(text) + warningSize
	}
	if v.Lease != nil {
		held += credentialSize + v.Lease.ID.Held()
	}
	return int64(held)
}

func heldByPath(r store.Resolved) int64 { return int64(len(r.Path.String())) }
