package keep_test

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
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/queue"
)

// whose is a store with values that name the identity, the login and the path that they were
// read with; it fails as often as not.
type whose struct {
	mu     sync.Mutex
	random *rand.Rand
}

func (w *whose) chance(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

func (w *whose) Login(ctx context.Context, i auth.Identity, _ secret.Bytes, role string) (login.Login, error) {
	if err := w.mood(ctx); err != nil {
		return login.Login{}, err
	}
	return login.Login{Token: secret.New([]byte(ownerOf(i, role))), Expires: time.Now().Add(20 * time.Minute)}, nil
}

func ownerOf(i auth.Identity, role string) string {
	return i.Namespace + "/" + i.ServiceAccount + "/" + i.ServiceAccountUID + " as " + role
}

// mood takes its time, and fails in each way.
func (w *whose) mood(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(w.chance(3000)) * time.Millisecond):
	case <-ctx.Done():
		return store.Unavailable.Errorf("cut off")
	}
	kinds := []error{store.Unavailable, store.Denied, store.NotFound, store.Ended, store.Doubt}
	if n := w.chance(4 * len(kinds)); n < len(kinds) {
		return kinds[n]
	}
	return nil
}

func (w *whose) Resolve(ctx context.Context, _ store.Caller, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path, Makes: ref.Path.Segments()[0] == "make"}, w.mood(ctx)
}

func (w *whose) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	if err := w.mood(ctx); err != nil {
		return store.Value{}, err
	}
	tree, err := secret.NewTree(map[string]any{"login": string(caller.Login.Reveal()), "path": ref.Path.String()})
	value := store.Value{Data: tree}
	if ref.Path.Segments()[0] == "make" {
		value.Lease = &store.Lease{ID: secret.New([]byte("fake")), Duration: time.Hour, Renewable: true}
	}
	return value, err
}

func (w *whose) Renew(ctx context.Context, _ store.Caller, lease store.Lease) (store.Lease, error) {
	return lease, w.mood(ctx)
}

func (w *whose) Revoke(ctx context.Context, _ store.Caller, _ store.Lease) error {
	return w.mood(ctx)
}

var _ store.Leaser = (*whose)(nil) // or its leases would not be renewed

// marked notes in each value which volume it was read for.
type marked struct{ login.Reader }

func (m marked) Read(ctx context.Context, request login.Request, ref store.Ref) (store.Value, error) {
	value, err := m.Reader.Read(ctx, request, ref)
	if err != nil {
		return store.Value{}, err
	}
	data, _ := value.Data.Reveal().(map[string]any)
	data["volume"] = request.Volume.PodUID + " " + request.Volume.Class
	value.Data, err = secret.NewTree(data)
	return value, err
}

// With any failures and for any length of time, no mount gets a value read with another login
// or of another path, or made for another volume, also by the process before. A hundred
// identities read for an hour, some of them recreated under the same name.
func TestNobodySeesWhatIsAnothers(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { askForAnHour(t, seed) })
		})
	}
}

// process is the part of a node that ends at a restart.
type process struct {
	sessions *login.Sessions
	kept     kept
}

func newProcess(inner *whose) process {
	sessions := login.NewSessions(inner, false, time.Now)
	s := queue.Limit(logIn(inner, sessions, time.Now), 8)
	s.Reader = marked{s.Reader}
	return process{sessions, newKept(s, keep.Options{
		Refresh: refresh, Stale: stale, Replace: replace, Pool: poolOf(64 << 10), Now: time.Now,
		Vouch: func(s login.Request) { sessions.Vouch(s.Identity, s.Role) },
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

// askOnce reads a secret as the n-th pod, gives up now and then, and checks the owner of the
// value.
func askOnce(ctx context.Context, t *testing.T, w *whose, kept kept, n int) bool {
	t.Helper()
	generation := w.chance(2) // of a service account that is deleted and made again
	as := login.Request{Role: fmt.Sprintf("role-%d", w.chance(2)), Waiting: w.chance(2) == 0, Identity: auth.Identity{
		Issuer: "issuer", Audience: "vault", Namespace: fmt.Sprintf("n%d", n%7), ServiceAccount: fmt.Sprintf("sa%d", n%20),
		ServiceAccountUID: fmt.Sprintf("uid-%d-%d", n%20, generation), PodName: fmt.Sprintf("p%d", n), PodUID: fmt.Sprintf("uid-of-p%d", n),
		Expires: time.Now().Add(time.Hour),
	}}
	as.Volume = auth.Volume{Namespace: as.Identity.Namespace, PodUID: as.Identity.PodUID, Class: fmt.Sprintf("class-%d", w.chance(2))}
	path, err := store.ParsePath([]string{"kv", "make"}[w.chance(2)] + fmt.Sprintf("/%d", w.chance(3)))
	if err != nil {
		t.Error(err)
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.chance(40_000))*time.Millisecond)
	defer cancel()
	switch w.chance(20) {
	case 0:
		kept.Leave(as.Volume)
	case 1:
		kept.Refresh()
	}
	value, err := recallOrRead(ctx, kept, as, store.Ref{Path: path})
	if err != nil {
		<-ctx.Done()
		return false
	}
	for key, want := range map[string]string{"login": ownerOf(as.Identity, as.Role), "path": path.String(), "volume": as.Identity.PodUID + " " + as.Volume.Class} {
		part, _ := value.Data.Get(key)
		if got := fmt.Sprint(part.Reveal()); got != want && (key != "volume" || strings.HasPrefix(path.String(), "make/")) {
			t.Errorf("%s got a value whose %s is %s, want %s", ownerOf(as.Identity, as.Role), key, got, want)
		}
	}
	<-ctx.Done()
	return true
}

// recallOrRead reads as a mount does.
func recallOrRead(ctx context.Context, kept kept, as login.Request, ref store.Ref) (keep.Answer, error) {
	if answer, known := kept.recall(as, ref); known {
		return answer, nil
	}
	return kept.Read(ctx, as, ref)
}
