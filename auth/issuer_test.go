package auth_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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

func (s *source) gateWith(gate chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = gate
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

// verify checks a token of issuer, within the 25 seconds that a mount has.
func verify(t *testing.T, v *auth.Verifier, issuer *providertest.Issuer) error {
	t.Helper()
	return verifyWithin(t, v, sign(t, issuer, nil), 25*time.Second)
}

func verifyWithin(t *testing.T, v *auth.Verifier, token secret.Bytes, limit time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := v.Verify(ctx, token, wanted())
	return err
}

func TestKeysAreFetchedOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		first, second := newIssuer(t, "key-1"), newIssuer(t, "key-2")
		s.publish(t, first)
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", &s, time.Now)}, "", time.Now)
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
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", &s, time.Now)}, "", time.Now)
		if err := verify(t, v, first); err != nil {
			t.Fatal(err)
		}
		s.publish(t, first, second)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if err := verify(t, v, junk); !errors.Is(err, auth.ErrToken) {
					t.Errorf("a made-up key: %v", err)
				}
			})
		}
		if err := verify(t, v, second); err != nil {
			t.Errorf("a new key, among junk: %v", err)
		}
		all.Wait()
		if s.asked() != 2 {
			t.Errorf("100 made-up key ids cost %d fetches beyond the two due", s.asked()-2)
		}
	})
}

func TestSourceDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		issuer := newIssuer(t, "key-1")
		s.fail(errors.New("connection refused"))
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", &s, time.Now)}, "", time.Now)
		err := verify(t, v, issuer)
		if !errors.Is(err, auth.ErrKeys) || err.Error() != "cannot check the service account token: connection refused" {
			t.Errorf("before any key came: %v", err)
		}
		s.publish(t, issuer)
		time.AfterFunc(10*time.Second, func() { s.fail(nil) })
		if err := verify(t, v, issuer); err != nil {
			t.Errorf("it came back within the call: %v", err)
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

// A source that hangs costs a token whose key is known two seconds, once.
func TestHangingSourceHardlyDelaysKnownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		issuer := newIssuer(t, "key-1")
		s.publish(t, issuer)
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", &s, time.Now)}, "", time.Now)
		if err := verify(t, v, issuer); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		s.gateWith(gate)
		time.Sleep(time.Hour - time.Minute - time.Second)
		for _, want := range []time.Duration{0, 2 * time.Second, 0, 0} {
			time.Sleep(time.Minute)
			began := time.Now()
			if err := verify(t, v, issuer); err != nil || time.Since(began) != want {
				t.Errorf("got %v after %s, want %s", err, time.Since(began), want)
			}
		}
		close(gate)
	})
}

func TestDeadIssuerDoesNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := newIssuer(t, "key-1")
		var good source
		good.publish(t, issuer)
		dead := source{gate: make(chan struct{})}
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("https://dead.invalid", &dead, time.Now), auth.NewIssuer(issuerName, &good, time.Now)}, "", time.Now)
		began := time.Now()
		if err := verify(t, v, issuer); err != nil || time.Since(began) != 0 {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}

// Reading keys that somebody else wrote may run into a bug; it ends this request
// and tells nothing of what was read.
func TestPanicOfASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, panicking{}, time.Now)}, "", time.Now)
		err := verify(t, v, newIssuer(t, "key-1"))
		if err == nil || err.Error() != "cannot check the service account token: reading the issuer's keys: keymount ran into a bug of its own; its log has the stack, please report it" {
			t.Errorf("got %v", err)
		}
	})
}

type panicking struct{}

func (panicking) Keys(context.Context) (string, jose.JSONWebKeySet, error) { panic("canary") }

// With -race: forged tokens are refused while keys are being replaced.
func TestForgedTokensDuringAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		issuer, forger, junk := newIssuer(t, "key-1"), newIssuer(t, "key-1"), newIssuer(t, "junk")
		s.publish(t, issuer)
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", &s, time.Now)}, "", time.Now)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 20 {
					if err := verify(t, v, forger); !errors.Is(err, auth.ErrToken) {
						t.Errorf("a forged token: %v", err)
					}
				}
			})
			all.Go(func() { _ = verify(t, v, junk) })
		}
		all.Wait()
	})
}

func TestKeysForOtherUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, change := range map[string]func(*jose.JSONWebKey){
			"encryption":        func(k *jose.JSONWebKey) { k.Use = "enc" },
			"another algorithm": func(k *jose.JSONWebKey) { k.Algorithm = "ES512" },
			"symmetric":         func(k *jose.JSONWebKey) { k.Key = []byte("symmetric") },
			"nameless":          func(k *jose.JSONWebKey) { k.KeyID = "" },
		} {
			var s source
			issuer := newIssuer(t, "key-1")
			s.publish(t, issuer)
			change(&s.keys.Keys[0])
			v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", &s, time.Now)}, "", time.Now)
			if err := verify(t, v, issuer); !errors.Is(err, auth.ErrToken) {
				t.Errorf("%s: a key that is not for this counts: %v", name, err)
			}
		}
	})
}

func TestSourceThatChangesItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		issuer := newIssuer(t, "key-1")
		s.publish(t, issuer)
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("https://other.invalid", &s, time.Now), auth.NewIssuer("", &s, time.Now)}, "", time.Now)
		if err := verify(t, v, issuer); err != nil {
			t.Errorf("the issuer without a name: %v", err)
		}
		issuer.Name = "https://other.invalid"
		const want = `cannot check the service account token: the source of the keys of issuer "https://other.invalid" is now that of "https://cluster.invalid"`
		if err := verify(t, v, issuer); err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
	})
}

// The caller who came first gives up; the fetch goes on for the others.
func TestFetchOutlivesItsFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := source{gate: make(chan struct{})}
		issuer := newIssuer(t, "key-1")
		s.publish(t, issuer)
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, &s, time.Now)}, "", time.Now)
		token, err := issuer.Sign(issuer.ClaimsFor(api, audience))
		if err != nil {
			t.Fatal(err)
		}
		ask := func(ctx context.Context) <-chan error {
			answer := make(chan error, 1)
			go func() {
				_, err := v.Verify(ctx, secret.New([]byte(token)), auth.Expected{Audience: audience, Pod: api})
				answer <- err
			}()
			synctest.Wait()
			return answer
		}
		ctx, cancel := context.WithCancel(t.Context())
		first, second := ask(ctx), ask(t.Context())
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

func TestClockJumpsBack(t *testing.T) {
	var s source
	issuer := newIssuer(t, "key-1")
	s.publish(t, issuer)
	now := time.Now()
	v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", &s, func() time.Time { return now })}, "", func() time.Time { return now })
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
	foreign := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", &source{keys: keys}, time.Now)}, "", time.Now)
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
