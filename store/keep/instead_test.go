package keep_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// asking is a store whose answer is the whole question.
type asking struct{ reads int }

func (a *asking) Read(_ context.Context, _ login.Request, ref store.Ref) (store.Value, error) {
	a.reads++
	tree, err := secret.NewTree(map[string]any{"value": fmt.Sprintf("%s, version %q, query %q, args %q", ref.Path, ref.Version, ref.Query, ref.Args)})
	return store.Value{Data: tree}, err
}

// Each part of a question makes it another one, and only the same one is answered from
// memory.
func TestKeepTellsQuestionsApart(t *testing.T) {
	refs := []store.Ref{
		{Path: refTo(t, "kv/db").Path},
		{Path: refTo(t, "kv/other").Path},
		{Path: refTo(t, "kv/db").Path, Version: "1"},
		{Path: refTo(t, "kv/db").Path, Version: "2"},
		{Path: refTo(t, "kv/db").Path, Query: "list=true"},
		{Path: refTo(t, "kv/db").Path, Query: "list=false"},
		{Path: refTo(t, "kv/db").Path, Args: `{"list":"true"}`},
		{Path: refTo(t, "kv/db").Path, Args: `{"list":"false"}`},
	}
	inner := &asking{}
	s := newKept(asked(inner), keep.Options{Refresh: time.Hour, Pool: poolOf(1 << 20), Now: time.Now})
	for range 2 {
		for _, ref := range refs {
			value, err := s.Read(t.Context(), session("api", "a"), ref)
			if err != nil {
				t.Fatal(err)
			}
			part, err := value.Data.Get("value")
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("%s, version %q, query %q, args %q", ref.Path, ref.Version, ref.Query, ref.Args)
			expectText(t, fmt.Sprint(part.Reveal()), want)
		}
	}
	if inner.reads != len(refs) {
		t.Errorf("%d questions cost %d reads", len(refs), inner.reads)
	}
}

// Only for an answer that the store did not give stands the old value in: whatever else
// goes wrong is told, of a secret as of what its path is.
func TestOnlySilenceLetsAnOldValueStandIn(t *testing.T) {
	for name, failure := range map[string]error{
		"a bug":         errors.New("a bug"),
		"a panic":       &contain.Panic{},
		"a deadline":    context.DeadlineExceeded,
		"gave up":       fmt.Errorf("login: %w", context.Canceled),
		"denied":        store.Denied.Errorf("no"),
		"not found":     store.NotFound.Errorf("no"),
		"doubt":         store.Doubt.Errorf("no"),
		"invalid":       store.Invalid.Errorf("no"),
		"another fault": &store.Error{Reason: "another"},
	} {
		for part, path := range map[string]string{"a secret": "kv/db", "a credential": "make/db"} {
			t.Run(name+", "+part, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					inner := &counting{lease: store.Lease{Duration: 20 * time.Minute}}
					o := keep.Options{Refresh: refresh, Stale: stale, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now}
					resolving := newKept(asked(inner), o)
					reads := asked(inner)
					reads.Resolver = nil // so that the read is what fails
					for _, s := range []kept{resolving, newKept(reads, o)} {
						inner.set(func(c *counting) { c.fail = nil })
						got(t, s, session("api", "a"), path)
						inner.set(func(c *counting) { c.fail = failure })
						<-time.After(16 * time.Minute) // a credential is to be replaced, and has not ended
						if text := got(t, s, session("api", "a"), path); text != failure.Error() {
							t.Errorf("got %s, want %v", text, failure)
						}
						if s.Keeper == resolving.Keeper {
							if resolved, err := s.Resolve(t.Context(), session("api", "a"), refTo(t, path)); err == nil {
								t.Errorf("what the path is stands in, %+v, want %v", resolved, failure)
							}
						}
					}
				})
			})
		}
	}
}

// ending is a store whose logins do not live.
type ending struct {
	counting
	logins int
	good   int // logins up to this one live
}

func (e *ending) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	e.logins++
	return login.Login{Token: secret.New(fmt.Append(nil, e.logins)), Expires: time.Now().Add(time.Hour)}, nil
}

func (e *ending) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	if string(caller.Login.Reveal()) > fmt.Sprint(e.good) {
		return store.Value{}, store.Ended.Errorf("permission denied; invalid token")
	}
	return e.counting.Read(ctx, requestOf(caller), ref)
}

// A token that the store does not know any more says nothing of the secret: the last good
// value stands in, and nobody reads of a denial.
func TestLoginsThatEndAreNoDenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &ending{good: 1}
		s := newKept(logIn(inner, login.NewSessions(inner, false, time.Now), time.Now), keep.Options{
			Refresh: refresh, Stale: stale, Pool: poolOf(1 << 20), Now: time.Now,
		})
		expectText(t, got(t, s, session("api", "a"), "kv/db"), "kv/db of api as shop, 1")
		inner.good = 0
		for range 10 {
			<-time.After(2 * refresh)
			expectText(t, got(t, s, session("api", "a"), "kv/db"), "kv/db of api as shop, 1, stale")
		}
		const want = "store unavailable: the login has ended before its time, and the next one is made in a moment: permission denied; invalid token"
		expectText(t, got(t, s, session("api", "a"), "kv/new"), want)
		inner.good = inner.logins + 1
		<-time.After(20 * time.Minute)
		expectText(t, got(t, s, session("api", "a"), "kv/db"), "kv/db of api as shop, 2")
	})
}
