package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// whose is a store whose values say for whom they were read, with which login, and
// which fails as often as not.
type whose struct {
	mu     sync.Mutex
	random *rand.Rand
}

func (w *whose) chance(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

func (w *whose) Login(ctx context.Context, i auth.Identity, _ secret.Bytes, role string) (auth.Login, error) {
	if err := w.mood(ctx); err != nil {
		return auth.Login{}, err
	}
	return auth.Login{Token: secret.New([]byte(ownerOf(i, role))), Expires: time.Now().Add(20 * time.Minute)}, nil
}

func ownerOf(i auth.Identity, role string) string {
	return i.Namespace + "/" + i.ServiceAccount + "/" + i.ServiceAccountUID + " as " + role
}

// mood takes its time, and fails in each way.
func (w *whose) mood(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(w.chance(3000)) * time.Millisecond):
	case <-ctx.Done():
		return fmt.Errorf("%w: cut off", store.ErrUnavailable)
	}
	kinds := []error{store.ErrUnavailable, store.ErrDenied, store.ErrNotFound, store.ErrSession, store.ErrDoubt}
	if n := w.chance(4 * len(kinds)); n < len(kinds) {
		return kinds[n]
	}
	return nil
}

func (w *whose) Resolve(ctx context.Context, _ store.Session, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path, Makes: ref.Path.Segments()[0] == "make"}, w.mood(ctx)
}

func (w *whose) Read(ctx context.Context, session store.Session, ref store.Ref) (store.Value, error) {
	if err := w.mood(ctx); err != nil {
		return store.Value{}, err
	}
	tree, err := secret.NewTree(map[string]any{
		"login": string(session.Token.Reveal()), "path": ref.Path.String(), "volume": session.Identity.PodUID + " " + session.Class,
	})
	value := store.Value{Data: tree}
	if ref.Path.Segments()[0] == "make" {
		value.Lease = &store.Lease{ID: secret.New([]byte("fake")), Duration: time.Hour, Renewable: true}
	}
	return value, err
}

func (w *whose) Renew(ctx context.Context, _ store.Session, lease store.Lease) (store.Lease, error) {
	return lease, w.mood(ctx)
}

func (w *whose) Revoke(ctx context.Context, _ store.Session, _ store.Lease) error {
	return w.mood(ctx)
}

func (w *whose) Ends(store.Session, store.Lease) (ends time.Time, final bool) {
	return time.Time{}, false
}

var _ store.Leaser = (*whose)(nil) // or its leases would not be renewed

// Whatever fails, whoever gives up, and however long it goes on: nobody gets what
// was read with another login, of another path, or made for another volume, also by the
// process before. A hundred identities ask for an hour, some of them recreated under the
// same name.
func TestNobodySeesWhatIsAnothers(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { askForAnHour(t, seed) })
		})
	}
}

// process is what ends at a restart.
type process struct {
	sessions *auth.Sessions
	kept     store.Kept
}

func newProcess(inner *whose) process {
	sessions := auth.NewSessions(inner, false, time.Now)
	return process{sessions, store.Keep(store.Limit(store.LogIn(inner, sessions, time.Now), 8), store.KeepOptions{
		Refresh: refresh, Stale: stale, Replace: replace, Bytes: 64 << 10, Now: time.Now,
		Vouch: func(s store.Session) { sessions.Vouch(s.Identity, s.Role) },
	})}
}

func (p process) restarted(t *testing.T, inner *whose) process {
	t.Helper()
	next := newProcess(inner)
	logins, err := next.sessions.Restore(snapshotOf(t, p.sessions))
	_, values := restarted(t, p.kept, next.kept)
	if err != nil || logins == 0 || values == 0 {
		t.Errorf("%d logins and %d values are taken over (%v): this test sees too little", logins, values, err)
	}
	return next
}

func askForAnHour(t *testing.T, seed uint64) {
	t.Helper()
	inner := &whose{random: rand.New(rand.NewPCG(seed, seed))} //nolint:gosec // a schedule that can be repeated
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var background, asking sync.WaitGroup
	var now atomic.Pointer[process]
	start := func(p process) {
		now.Store(&p)
		background.Go(func() { _ = p.kept.Run(ctx) })
		background.Go(func() { _ = p.sessions.Run(ctx) })
	}
	start(newProcess(inner))
	background.Go(func() {
		<-time.After(30 * time.Minute)
		start(now.Load().restarted(t, inner))
	})
	var mu sync.Mutex
	answers := 0
	for n := range 100 {
		asking.Go(func() {
			for ctx.Err() == nil {
				if askOnce(ctx, t, inner, now.Load().kept, n) {
					mu.Lock()
					answers++
					mu.Unlock()
				}
			}
		})
	}
	asking.Wait()
	background.Wait()
	<-time.After(time.Minute) // a question that nobody waits for ends by itself
	if answers < 1000 {
		t.Errorf("only %d answers in an hour: this test sees too little", answers)
	}
}

// askOnce reads something as the n-th pod, gives up now and then, and looks whose it
// is.
func askOnce(ctx context.Context, t *testing.T, w *whose, kept store.Kept, n int) bool {
	t.Helper()
	generation := w.chance(2) // of a service account that is deleted and made again
	as := store.Session{Role: fmt.Sprintf("role-%d", w.chance(2)), Class: fmt.Sprintf("class-%d", w.chance(2)), Waiting: w.chance(2) == 0, Identity: auth.Identity{
		Issuer: "issuer", Audience: "vault", Namespace: fmt.Sprintf("n%d", n%7), ServiceAccount: fmt.Sprintf("sa%d", n%20),
		ServiceAccountUID: fmt.Sprintf("uid-%d-%d", n%20, generation), PodName: fmt.Sprintf("p%d", n), PodUID: fmt.Sprintf("uid-of-p%d", n),
		Expires: time.Now().Add(time.Hour),
	}}
	path, err := store.ParsePath([]string{"kv", "make"}[w.chance(2)] + fmt.Sprintf("/%d", w.chance(3)))
	if err != nil {
		t.Error(err)
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.chance(40_000))*time.Millisecond)
	defer cancel()
	switch w.chance(20) {
	case 0:
		kept.Leave(as.Identity.Namespace, as.Identity.PodUID, as.Class)
	case 1:
		kept.Refresh()
	}
	value, err := recallOrRead(ctx, kept, as, store.Ref{Path: path})
	if err != nil {
		<-ctx.Done()
		return false
	}
	for key, want := range map[string]string{"login": ownerOf(as.Identity, as.Role), "path": path.String(), "volume": as.Identity.PodUID + " " + as.Class} {
		part, _ := value.Data.Get(key)
		if got := fmt.Sprint(part.Reveal()); got != want && (key != "volume" || strings.HasPrefix(path.String(), "make/")) {
			t.Errorf("%s got a value whose %s is %s, want %s", ownerOf(as.Identity, as.Role), key, got, want)
		}
	}
	<-ctx.Done()
	return true
}

// recallOrRead is what a mount does.
func recallOrRead(ctx context.Context, kept store.Kept, as store.Session, ref store.Ref) (store.Value, error) {
	if recaller, ok := kept.(store.Recaller); ok {
		if resolved, known := recaller.RecallPath(as, ref); known {
			if value, known := recaller.Recall(as, ref, resolved); known {
				return value, nil
			}
		}
	}
	return kept.Read(ctx, as, ref)
}
