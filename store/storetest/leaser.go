package storetest

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// LeaserSubject is a [store.Leaser] under test.
type LeaserSubject struct {
	Subject
	Leaser store.Leaser
	// Makes is a path; a read of it makes a credential with a renewable lease.
	Makes string
}

// Leaser checks the contract of [store.Leaser]:
//
//   - a renewed lease has a life no longer than before, again and again;
//   - a revocation may be repeated; after it a renewal gets an answer of the store;
//   - so do both for a lease unknown to the store;
//   - both fail like Read, and hold no part of a lease.
func Leaser(t *testing.T, open func(t *testing.T) LeaserSubject) {
	t.Helper()
	t.Run("renewed", func(t *testing.T) { open(t).testRenewed(t) })
	t.Run("revoked", func(t *testing.T) { open(t).testRevoked(t) })
	t.Run("unknown", func(t *testing.T) {
		s := open(t)
		s.testGone(t, store.Lease{ID: secret.New([]byte(Canary)), Login: s.Caller.Login, Duration: soon, Renewable: true})
	})
	faulty(t, func(t *testing.T) (Faults, []request) {
		t.Helper()
		s := open(t)
		lease := s.lease(t)
		return s.Faults, []request{
			{"Renew", func(ctx context.Context) (any, error) { return s.Leaser.Renew(ctx, s.Caller, lease) }},
			{"Revoke", func(ctx context.Context) (any, error) { return nil, s.Leaser.Revoke(ctx, s.Caller, lease) }},
		}
	})
}

// lease is a new one, as package login hands it on.
func (s LeaserSubject) lease(t *testing.T) store.Lease {
	t.Helper()
	value, err := s.Store.Read(t.Context(), s.Caller, ref(t, s.Makes))
	if err != nil {
		t.Fatal(err)
	}
	if value.Lease == nil || value.Lease.Duration <= 0 || !value.Lease.Renewable {
		t.Fatalf("reading %q makes no lease that can be renewed", s.Makes)
	}
	value.Lease.Login = s.Caller.Login
	return *value.Lease
}

func (s LeaserSubject) testRenewed(t *testing.T) {
	t.Helper()
	lease := s.lease(t)
	for range 2 {
		renewed, err := s.Leaser.Renew(t.Context(), s.Caller, lease)
		if err != nil {
			t.Fatal(err)
		}
		if renewed.Duration <= 0 || renewed.Duration > lease.Duration {
			t.Errorf("a lease of %s was renewed for %s", lease.Duration, renewed.Duration)
		}
		if renewed.ID.Len() == 0 {
			t.Fatal("the renewed lease cannot be ended: it has no ID")
		}
		lease = renewed
	}
	if err := s.Leaser.Revoke(t.Context(), s.Caller, lease); err != nil {
		t.Errorf("end a renewed lease: %v", err)
	}
}

func (s LeaserSubject) testRevoked(t *testing.T) {
	t.Helper()
	lease := s.lease(t)
	if err := s.Leaser.Revoke(t.Context(), s.Caller, lease); err != nil {
		t.Fatal(err)
	}
	s.testGone(t, lease)
}

// testGone asks for an unknown lease.
func (s LeaserSubject) testGone(t *testing.T, lease store.Lease) {
	t.Helper()
	id := string(lease.ID.Reveal())
	err := s.Leaser.Revoke(t.Context(), s.Caller, lease)
	if err != nil && !store.Answered(err) {
		t.Errorf("end a lease that is not there: %v; want nil or an answer", err)
	}
	checkError(t, err, id)
	renewed, err := s.Leaser.Renew(t.Context(), s.Caller, lease)
	if !store.Answered(err) || errors.Is(err, store.Doubt) {
		t.Errorf("renew a lease that is not there: %v; want an answer", err)
	}
	if !reflect.ValueOf(renewed).IsZero() {
		t.Error("a lease came with the error")
	}
	checkError(t, err, id)
}
