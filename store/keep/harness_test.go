package keep_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kept is a Keeper read as a mount does it: from memory where possible; otherwise the path is
// resolved and then read.
type kept struct{ *keep.Keeper }

func newKept(s login.Store, o keep.Options) kept { return kept{keep.New(s, o)} }

// poolOf has a memory for one Keeper.
func poolOf(bytes int64) *keep.Pool { return keep.NewPool(bytes, time.Now, nil) }

// Read resolves the path first.
func (k kept) Read(ctx context.Context, request login.Request, ref store.Ref) (keep.Answer, error) {
	resolved, err := k.Resolve(ctx, request, ref)
	if err != nil {
		return keep.Answer{}, err
	}
	return k.Keeper.Read(ctx, request, ref, resolved)
}

// recall answers without asking.
func (k kept) recall(request login.Request, ref store.Ref) (keep.Answer, bool) {
	resolved, known := k.Recall(request).Path(ref)
	if !known {
		return keep.Answer{}, false
	}
	return k.Recall(request).Value(ref, resolved)
}

// asked has whatever the inner store can do.
func asked(inner login.Reader) login.Store {
	s := login.Store{Reader: inner}
	s.Resolver, _ = inner.(login.Resolver)
	s.Leaser, _ = inner.(login.Leaser)
	return s
}

// readOnly is the inner store without its other abilities.
func readOnly(inner login.Reader) login.Store { return login.Store{Reader: inner} }

// logIn puts logins in front of a store that wants them.
func logIn(inner store.Store, sessions *login.Sessions, now func() time.Time) login.Store {
	o := login.Options{Store: inner, Sessions: sessions, Now: now}
	o.Resolver, _ = inner.(store.Resolver)
	o.Leaser, _ = inner.(store.Leaser)
	return login.Open(o)
}

// below is a counting store that is asked by a caller.
type below struct{ *counting }

func requestOf(caller store.Caller) login.Request {
	return login.Request{
		Identity: caller.Identity, Role: caller.Role,
		Volume: auth.Volume{Namespace: caller.Identity.Namespace, PodUID: caller.Identity.PodUID, Class: "app"},
	}
}

func (b below) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	return b.counting.Read(ctx, requestOf(caller), ref)
}

func (b below) Resolve(ctx context.Context, caller store.Caller, ref store.Ref) (store.Resolved, error) {
	return b.counting.Resolve(ctx, requestOf(caller), ref)
}

func (b below) Renew(ctx context.Context, caller store.Caller, lease store.Lease) (store.Lease, error) {
	return b.counting.Renew(ctx, requestOf(caller), lease)
}

func (b below) Revoke(ctx context.Context, caller store.Caller, lease store.Lease) error {
	return b.counting.Revoke(ctx, requestOf(caller), lease)
}
