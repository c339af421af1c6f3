package storetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
)

// LoginSubject is a [login.Method] under test.
type LoginSubject struct {
	Method   login.Method
	Identity auth.Identity
	Token    secret.Bytes // proves Identity to the store, which has Role for it
	Role     string
	// UnknownRole is a role unknown to the store; empty for a store without roles.
	UnknownRole string
	// Secrets are more texts to look for in errors, such as a key of the node's own.
	Secrets []string
	Now     func() time.Time
	// Use asks the store for something with a login.
	Use func(ctx context.Context, l login.Login) error
	// Faults are those of a login. Renewals may fail for other reasons.
	Faults
}

// Login checks the contract of [login.Method]:
//
//   - a good token gives a usable login, with an end in the future or none;
//   - for an unknown token or role there is an answer of the store;
//   - without an answer it is Unavailable, and soon so when the context ends;
//   - no error holds a token;
//   - a [login.Renewer] renews a login, and has nothing to renew after its end.
func Login(t *testing.T, open func(t *testing.T) LoginSubject) {
	t.Helper()
	t.Run("good", func(t *testing.T) { s := open(t); s.check(t, s.logIn(t)) })
	t.Run("bad token", func(t *testing.T) {
		s := open(t)
		s.refused(t, secret.New([]byte(Canary+".bad.token")), s.Role)
	})
	t.Run("unknown role", func(t *testing.T) {
		if s := open(t); s.UnknownRole != "" {
			s.refused(t, s.Token, s.UnknownRole)
		}
	})
	faulty(t, func(t *testing.T) (Faults, []request) {
		t.Helper()
		s := open(t)
		return s.Faults, []request{{"Login", func(ctx context.Context) (any, error) {
			return s.Method.Login(ctx, s.Identity, s.Token, s.Role)
		}}}
	}, open(t).secrets()...)
	t.Run("renewer", func(t *testing.T) {
		renewer, ok := open(t).Method.(login.Renewer)
		if !ok {
			t.Logf("%T renews no logins", renewer)
			return
		}
		testRenewer(t, open)
	})
}

// secrets are the texts forbidden in errors.
func (s LoginSubject) secrets() []string { return append(s.Secrets, string(s.Token.Reveal())) }

func (s LoginSubject) logIn(t *testing.T) login.Login {
	t.Helper()
	l, err := s.Method.Login(t.Context(), s.Identity, s.Token, s.Role)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// check checks a new login.
func (s LoginSubject) check(t *testing.T, l login.Login) {
	t.Helper()
	if l.Token.Len() == 0 {
		t.Error("the login holds no token")
	}
	if !l.Expires.IsZero() && !l.Expires.After(s.Now()) {
		t.Errorf("the login ended at %s, and it is %s", l.Expires, s.Now())
	}
	if err := s.Use(t.Context(), l); err != nil {
		t.Errorf("the login cannot be used: %v", err)
	}
	checkSecrets(t, "the login", l, append(s.secrets(), string(l.Token.Reveal())))
}

func (s LoginSubject) refused(t *testing.T, token secret.Bytes, role string) {
	t.Helper()
	l, err := s.Method.Login(t.Context(), s.Identity, token, role)
	if !store.Answered(err) {
		t.Errorf("error = %v; want an answer of the store", err)
	}
	checkNone(t, l, err)
	checkError(t, err, append(s.secrets(), string(token.Reveal()))...)
}

func testRenewer(t *testing.T, open func(t *testing.T) LoginSubject) {
	t.Helper()
	t.Run("renewed", func(t *testing.T) {
		s := open(t)
		renewed, err := s.renewer(t).Renew(t.Context(), s.Identity, s.logIn(t))
		if err != nil {
			t.Fatal(err)
		}
		s.check(t, renewed)
	})
	t.Run("revoked", func(t *testing.T) { open(t).testRevoked(t) })
	for _, reason := range reasons() {
		t.Run(string(reason), func(t *testing.T) { open(t).testRenewals(t, reason) })
	}
}

func (s LoginSubject) renewer(t *testing.T) login.Renewer {
	t.Helper()
	renewer, ok := s.Method.(login.Renewer)
	if !ok {
		t.Fatalf("%T renews no logins", s.Method)
	}
	return renewer
}

// testRevoked ends a login, twice.
func (s LoginSubject) testRevoked(t *testing.T) {
	t.Helper()
	l, renewer := s.logIn(t), s.renewer(t)
	secrets := append(s.secrets(), string(l.Token.Reveal()))
	if err := renewer.Revoke(t.Context(), s.Identity, l); err != nil {
		t.Fatal(err)
	}
	if err := s.Use(t.Context(), l); !store.Answered(err) {
		t.Errorf("used after its end: %v; want an answer of the store", err)
	}
	renewed, err := renewer.Renew(t.Context(), s.Identity, l)
	if !store.Answered(err) {
		t.Errorf("renewed after its end: %v; want an answer of the store", err)
	}
	checkNone(t, renewed, err)
	checkError(t, err, secrets...)
	err = renewer.Revoke(t.Context(), s.Identity, l)
	if err != nil && !store.Answered(err) {
		t.Errorf("ended again: %v; want nil or an answer of the store", err)
	}
	checkError(t, err, secrets...)
}

// testRenewals checks the failures of renewing and revoking a login.
func (s LoginSubject) testRenewals(t *testing.T, reason store.Reason) {
	t.Helper()
	if slices.Contains(s.Never, reason) {
		t.Logf("the subject is never %q", reason)
		return
	}
	l, renewer := s.logIn(t), s.renewer(t)
	secrets := append(s.secrets(), string(l.Token.Reveal()))
	s.Fail(reason)
	renewed, err := renewer.Renew(t.Context(), s.Identity, l)
	s.checkRenewal(t, reason, err, secrets)
	checkNone(t, renewed, err)
	s.checkRenewal(t, reason, renewer.Revoke(t.Context(), s.Identity, l), secrets)
}

// checkRenewal: the store has answered or not, in words of its own.
func (s LoginSubject) checkRenewal(t *testing.T, reason store.Reason, err error, secrets []string) {
	t.Helper()
	if err == nil || store.Answered(err) != (reason != store.Unavailable) {
		t.Errorf("error = %v, where a login is %q", err, reason)
	}
	checkError(t, err, secrets...)
}
