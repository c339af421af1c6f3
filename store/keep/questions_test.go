package keep_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// resolving is a store that counts the paths it resolves, and keeps the requests.
type resolving struct {
	scripted
	requests []login.Request
	let      chan struct{} // nil does not wait
}

func (r *resolving) Resolve(_ context.Context, request login.Request, ref store.Ref) (store.Resolved, error) {
	r.requests = append(r.requests, request)
	if r.let != nil {
		<-r.let
	}
	return store.Resolved{Path: ref.Path, Makes: ref.Args != ""}, nil
}

// Where a path leads depends on the path, on whether it is written to, and on the login;
// not on the version, the query or the very arguments.
func TestKeepTellsPathsApart(t *testing.T) {
	inner := &resolving{}
	s := newKept(asked(inner), keep.Options{Refresh: time.Hour, Pool: poolOf(1 << 20), Now: time.Now})
	path, other := refTo(t, "kv/db").Path, refTo(t, "kv/other").Path
	resolve := func(as login.Request, ref store.Ref) {
		t.Helper()
		got, err := s.Resolve(t.Context(), as, ref)
		if err != nil || got.Path != ref.Path || got.Makes != (ref.Args != "") {
			t.Errorf("%+v is resolved to %+v, %v", ref, got, err)
		}
	}
	for range 2 {
		for _, ref := range []store.Ref{
			{Path: path},
			{Path: path, Version: "1"},
			{Path: path, Query: "a=b"},
			{Path: path, Shared: true},
			{Path: path, Args: "{}"},
			{Path: path, Args: `{"a":"b"}`},
			{Path: other},
		} {
			resolve(session("api", "a"), ref)
		}
	}
	if n := len(inner.requests); n != 3 {
		t.Errorf("three paths cost %d questions", n)
	}
	for name, change := range strangers() {
		as, before := session("api", "a"), len(inner.requests)
		change(&as)
		resolve(as, store.Ref{Path: path})
		resolve(as, store.Ref{Path: path, Args: "{}"})
		if n := len(inner.requests) - before; n != 2 {
			t.Errorf("another %s: two paths cost %d questions", name, n)
		}
	}
}

// A pod that starts hurries the path that a republish is waiting for.
func TestAPodThatWaitsHurriesThePathItJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &resolving{let: make(chan struct{})}
		s := newKept(asked(inner), keep.Options{Refresh: refresh, Pool: poolOf(1 << 20), Now: time.Now})
		resolve := func(waiting bool) {
			as := session("api", "a")
			as.Waiting = waiting
			go func() { _, _ = s.Resolve(t.Context(), as, refTo(t, "kv/db")) }()
			synctest.Wait()
		}
		joined := func() bool {
			select {
			case <-inner.requests[0].Joined:
				return true
			default:
				return false
			}
		}
		resolve(false)
		if joined() {
			t.Error("a pod that runs hurries")
		}
		resolve(true)
		if !joined() || len(inner.requests) != 1 {
			t.Errorf("joined: %t, of %d questions", joined(), len(inner.requests))
		}
		close(inner.let)
	})
}

// Each answer tells its source, and a stale one the failure that it stands in for.
func TestSourcesOfAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outage := &store.Error{Reason: store.Unavailable, Said: "an outage", RetryAfter: 5 * time.Second}
		inner := &scripted{}
		inner.gives(store.Value{})
		s := newKept(asked(inner), keep.Options{Refresh: refresh, Stale: stale, Pool: poolOf(1 << 20), Now: time.Now})
		for _, step := range []struct {
			name  string
			after time.Duration
			fail  error
			want  keep.Source
			cause error
		}{
			{"the first read", 0, nil, keep.FromStore, nil},
			{"from memory", refresh / 2, nil, keep.FromMemory, nil},
			{"in an outage", refresh, outage, keep.Stale, outage},
			{"in the pause that it asks for", time.Second, nil, keep.Stale, outage},
			{"after it", 5 * time.Second, nil, keep.FromStore, nil},
		} {
			time.Sleep(step.after)
			if inner.gives(store.Value{}); step.fail != nil {
				inner.fails(step.fail)
			}
			answer, err := s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db"))
			if err != nil || answer.Source != step.want || !errors.Is(answer.Cause, step.cause) {
				t.Errorf("%s: source %q, cause %v, %v; want %q, %v", step.name, answer.Source, answer.Cause, err, step.want, step.cause)
			}
		}
		if answer, known := s.recall(session("api", "a"), refTo(t, "kv/db")); !known || answer.Source != keep.FromMemory || answer.Cause != nil {
			t.Errorf("recalled: %+v, %t", answer, known)
		}
	})
}

// A mount that is answered says that its login is in use, and one that fails does not.
func TestMountsVouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var vouched []string
		inner := &scripted{}
		s := newKept(asked(inner), keep.Options{Refresh: refresh, Pool: poolOf(1 << 20), Now: time.Now, Vouch: func(r login.Request) {
			vouched = append(vouched, r.Identity.ServiceAccount+" as "+r.Role)
		}})
		read := func(want ...string) {
			t.Helper()
			_, _ = s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db"))
			if !slices.Equal(vouched, want) {
				t.Errorf("vouched for %q, want %q", vouched, want)
			}
			vouched = nil
		}
		inner.fails(store.NotFound.Errorf("no"))
		read()
		time.Sleep(refresh)
		inner.gives(store.Value{})
		read("api as shop")
		read("api as shop") // from memory
	})
}

// A password that the store changes is not mounted after its end, however long values are
// fresh and old ones may answer.
func TestPasswordsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &scripted{}
		s := newKept(asked(inner), keep.Options{Refresh: time.Hour, Stale: 24 * time.Hour, Pool: poolOf(1 << 20), Now: time.Now})
		inner.gives(store.Value{NotAfter: time.Now().Add(time.Minute)})
		for _, step := range []struct {
			after time.Duration
			reads int
		}{{0, 1}, {time.Minute - time.Second, 1}, {time.Second, 2}} {
			time.Sleep(step.after)
			if _, err := s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db")); err != nil || inner.reads != step.reads {
				t.Errorf("after %s: %d reads, want %d (%v)", step.after, inner.reads, step.reads, err)
			}
		}
		inner.fails(store.Invalid.Errorf("no"))
		if _, err := s.Read(t.Context(), session("api", "a"), refTo(t, "kv/db")); !errors.Is(err, store.Invalid) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// lessor keeps the requests that come for leases.
type lessor struct {
	*counting
	requests []login.Request
}

func (l *lessor) Renew(ctx context.Context, request login.Request, lease store.Lease) (store.Lease, error) {
	l.requests = append(l.requests, request)
	return l.counting.Renew(ctx, request, lease)
}

func (l *lessor) Revoke(ctx context.Context, request login.Request, lease store.Lease) error {
	l.requests = append(l.requests, request)
	return l.counting.Revoke(ctx, request, lease)
}

// A pod's token lives for its mount alone: no lease keeps it.
func TestLeasesKeepNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &lessor{counting: &counting{lease: store.Lease{ID: secret.New([]byte("lease")), Duration: 20 * time.Minute, Renewable: true}}}
		s := remember(inner)
		running(t, s, func() {
			as := session("api", "a")
			as.Proof, as.Waiting = secret.New([]byte("the pod's token")), true
			for range 20 {
				if _, err := s.Read(t.Context(), as, refTo(t, "make/db")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
			}
			s.Leave(as.Volume)
			time.Sleep(time.Minute)
		})
		if inner.renews == 0 || len(inner.revokes) == 0 {
			t.Fatalf("%d renewals, %d revoked", inner.renews, len(inner.revokes))
		}
		for _, request := range inner.requests {
			if request.Proof.Len() != 0 || request.Joined != nil || request.Identity != session("api", "a").Identity || request.Role != "shop" {
				t.Errorf("a lease is asked for with %+v", request)
			}
		}
	})
}
