package auth_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuerName = "https://cluster.invalid"
	audience   = "keymount"
)

var api = auth.Pod{Namespace: "shop", Name: "api-0", UID: "uid-1", ServiceAccount: "api"}

// source is an API server whose keys, speed and health a test decides.
type source struct {
	mu    sync.Mutex
	keys  jose.JSONWebKeySet
	err   error
	calls int
	gate  chan struct{} // when set, an answer waits for it
}

func (s *source) Keys(ctx context.Context) (string, jose.JSONWebKeySet, error) {
	s.mu.Lock()
	s.calls++
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return "", jose.JSONWebKeySet{}, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return issuerName, s.keys, s.err
}

func (s *source) publish(t *testing.T, issuers ...*providertest.Issuer) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = jose.JSONWebKeySet{}
	for _, issuer := range issuers {
		data, err := issuer.KeySet()
		if err != nil {
			t.Fatal(err)
		}
		keys, err := auth.ParseKeys(data)
		if err != nil {
			t.Fatal(err)
		}
		s.keys.Keys = append(s.keys.Keys, keys.Keys...)
	}
}

func (s *source) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *source) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func newIssuer(t *testing.T, keyID string) *providertest.Issuer {
	t.Helper()
	issuer, err := providertest.NewIssuer(issuerName, keyID)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func verify(t *testing.T, v *auth.Verifier, issuer *providertest.Issuer) error {
	t.Helper()
	token, err := issuer.Sign(issuer.ClaimsFor(api, audience))
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(t.Context(), secret.New([]byte(token)), auth.Expected{Audience: audience, Pod: api})
	return err
}

func TestKeysAreFetchedOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		first, second := newIssuer(t, "key-1"), newIssuer(t, "key-2")
		s.publish(t, first)
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(&s)}, "", time.Now)
		for range 3 {
			if err := verify(t, v, first); err != nil {
				t.Fatal(err)
			}
		}
		if s.asked() != 1 {
			t.Errorf("three tokens cost %d fetches, want 1", s.asked())
		}

		s.publish(t, second) // the first key is withdrawn
		time.Sleep(59 * time.Minute)
		if err := verify(t, v, first); err != nil {
			t.Errorf("within the hour: %v", err)
		}
		time.Sleep(time.Minute)
		if err := verify(t, v, first); !errors.Is(err, auth.ErrToken) {
			t.Errorf("a withdrawn key counts after an hour: %v", err)
		}
		if err := verify(t, v, second); err != nil {
			t.Error(err)
		}
	})
}

func TestNewKeyIsFetchedAtOnceButJunkIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		first, second, junk := newIssuer(t, "key-1"), newIssuer(t, "key-2"), newIssuer(t, "junk")
		s.publish(t, first)
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(&s)}, "", time.Now)
		if err := verify(t, v, first); err != nil {
			t.Fatal(err)
		}
		s.publish(t, first, second)
		time.Sleep(10 * time.Second)
		if err := verify(t, v, second); err != nil {
			t.Errorf("a new key: %v", err)
		}
		for range 100 {
			if err := verify(t, v, junk); !errors.Is(err, auth.ErrToken) {
				t.Fatal(err)
			}
		}
		if s.asked() != 2 {
			t.Errorf("made-up key ids cost %d fetches beyond the two due", s.asked()-2)
		}
	})
}

func TestSourceDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		issuer := newIssuer(t, "key-1")
		s.fail(errors.New("connection refused"))
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(&s)}, "", time.Now)
		err := verify(t, v, issuer)
		if !errors.Is(err, auth.ErrKeys) || err.Error() != "cannot check the service account token: connection refused" {
			t.Errorf("before any key came: %v", err)
		}
		time.Sleep(time.Minute)
		s.fail(nil)
		s.publish(t, issuer)
		if err := verify(t, v, issuer); err != nil {
			t.Errorf("after it came back: %v", err)
		}
		s.fail(errors.New("connection refused"))
		time.Sleep(23 * time.Hour)
		if err := verify(t, v, issuer); err != nil {
			t.Errorf("known keys while the source is down: %v", err)
		}
		time.Sleep(time.Hour)
		if err := verify(t, v, issuer); !errors.Is(err, auth.ErrKeys) {
			t.Errorf("keys a day old are still used: %v", err)
		}
	})
}

// The caller who came first gives up; the fetch goes on for the others.
func TestFetchOutlivesItsFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := source{gate: make(chan struct{})}
		issuer := newIssuer(t, "key-1")
		s.publish(t, issuer)
		keys := auth.NewIssuer(&s)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { _, err := keys.Name(ctx, time.Now()); first <- err }()
		synctest.Wait()
		second := make(chan error, 1)
		go func() { _, err := keys.Name(t.Context(), time.Now()); second <- err }()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, auth.ErrKeys) || !errors.Is(err, context.Canceled) {
			t.Errorf("the first caller got %v", err)
		}
		close(s.gate)
		if err := <-second; err != nil {
			t.Errorf("the second caller got %v", err)
		}
		if s.asked() != 1 {
			t.Errorf("two callers cost %d fetches", s.asked())
		}
	})
}

func TestFetchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := source{gate: make(chan struct{})}
		began := time.Now()
		_, err := auth.NewIssuer(&s).Name(t.Context(), time.Now())
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 10*time.Second {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}

func TestClockJumpsBack(t *testing.T) {
	var s source
	issuer := newIssuer(t, "key-1")
	s.publish(t, issuer)
	now := time.Now()
	v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(&s)}, "", func() time.Time { return now })
	if err := verify(t, v, issuer); err != nil {
		t.Fatal(err)
	}
	now = now.Add(-30 * time.Second)
	if err := verify(t, v, issuer); err != nil {
		t.Errorf("half a minute back: %v", err)
	}
	if s.asked() != 2 {
		t.Errorf("keys of the future were trusted: %d fetches", s.asked())
	}
}

func TestFileKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "jwks.json")
	keys := auth.FileKeys{Issuer: issuerName, File: file}
	for content, want := range map[string]string{
		"{":           "not a JSON Web Key Set: unexpected end of JSON input",
		"{}":          "a JSON Web Key Set without keys",
		`{"keys":[]}`: "a JSON Web Key Set without keys",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := keys.Keys(t.Context())
		if want = `keys of issuer "` + issuerName + `": ` + file + ": " + want; err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

// Keys that could not have signed a token, or could be used to forge one, are
// left out of the set.
func TestOnlyNamedPublicKeysCount(t *testing.T) {
	var s source
	issuer := newIssuer(t, "key-1")
	s.publish(t, issuer)
	s.keys.Keys[0].Key = []byte("symmetric")
	v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(&s)}, "", time.Now)
	if err := verify(t, v, issuer); err == nil || !strings.Contains(err.Error(), `has no key "key-1"`) {
		t.Errorf("a symmetric key counts: %v", err)
	}
}

func FuzzTokens(f *testing.F) {
	issuer, err := providertest.NewIssuer(issuerName, "key-1")
	if err != nil {
		f.Fatal(err)
	}
	token, err := issuer.Sign(issuer.ClaimsFor(api, audience))
	if err != nil {
		f.Fatal(err)
	}
	data, err := issuer.KeySet()
	if err != nil {
		f.Fatal(err)
	}
	keys, err := auth.ParseKeys(data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`{"keymount":{"token":"` + token + `"}}`)
	f.Add(`{"keymount":{"token":"a.b.c"}}`)
	f.Add(`{"":{}}`)
	// Nobody but the issuer can make a token that counts: whatever the fuzzer
	// finds, it finds without this key.
	foreign := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(&source{keys: keys})}, "", time.Now)
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := auth.ParseTokens(text)
		if err != nil {
			return
		}
		got, err := tokens.For(audience)
		if err != nil {
			return
		}
		identity, err := foreign.Verify(t.Context(), got, auth.Expected{Audience: audience, Pod: api})
		if err == nil && identity.ServiceAccount != api.ServiceAccount {
			t.Errorf("%+v was let in", identity)
		}
	})
}
