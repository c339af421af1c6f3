package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider/providertest"
)

// sign makes a token of issuer for the pod api, after a change.
func sign(tb testing.TB, issuer *providertest.Issuer, change func(*providertest.Claims)) secret.Bytes {
	tb.Helper()
	claims := issuer.ClaimsFor(api, audience)
	if change != nil {
		change(&claims)
	}
	token, err := issuer.Sign(claims)
	if err != nil {
		tb.Fatal(err)
	}
	return secret.New([]byte(token))
}

func wanted() auth.Expected { return auth.Expected{Audience: audience, Pod: api} }

// served is a Verifier for the tokens of issuer that has seen a good one.
func served(t *testing.T, s *source, issuer *providertest.Issuer) (*auth.Verifier, secret.Bytes) {
	t.Helper()
	s.publish(t, issuer)
	v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, s, time.Now)}, "node-1", time.Now)
	token := sign(t, issuer, nil)
	for range 2 {
		if _, err := v.Verify(t.Context(), token, wanted()); err != nil || !v.Remembers(token) {
			t.Fatalf("a good token: %v, remembered: %t", err, v.Remembers(token))
		}
	}
	return v, token
}

// A token that was good for its pod is good for nobody and nothing else.
func TestRememberedTokenIsCheckedAgainstEachRequest(t *testing.T) {
	var s source
	v, token := served(t, &s, newIssuer(t, "key-1"))
	for name, test := range map[string]struct {
		change func(*auth.Expected)
		want   string
	}{
		"another pod":             {func(e *auth.Expected) { e.Pod.Name, e.Pod.UID = "web-0", "uid-2" }, "it belongs to pod api-0 (uid uid-1), the request is for pod web-0 (uid uid-2)"},
		"the pod's successor":     {func(e *auth.Expected) { e.Pod.UID = "uid-2" }, "it belongs to pod api-0 (uid uid-1), the request is for pod api-0 (uid uid-2)"},
		"another service account": {func(e *auth.Expected) { e.Pod.ServiceAccount = "admin" }, "it belongs to service account shop/api, the pod runs as shop/admin"},
		"another namespace":       {func(e *auth.Expected) { e.Pod.Namespace = "blog" }, "it belongs to service account shop/api, the pod runs as blog/api"},
		"another audience":        {func(e *auth.Expected) { e.Audience = "vault" }, `it is for audience ["keymount"], the store wants "vault"`},
		"no audience":             {func(e *auth.Expected) { e.Audience = "" }, `it is for audience ["keymount"], the store wants ""`},
		"no pod, where one may be missing": {
			func(e *auth.Expected) { e.Pod.Name, e.Pod.UID, e.WithoutPod = "", "", true }, "it belongs to pod api-0 (uid uid-1), the request is for pod  (uid )",
		},
	} {
		want := wanted()
		test.change(&want)
		identity, err := v.Verify(t.Context(), token, want)
		if !errors.Is(err, auth.ErrToken) || err.Error() != "service account token refused: "+test.want || identity != (auth.Identity{}) {
			t.Errorf("for %s: got %+v, %v", name, identity, err)
		}
	}
	if _, err := v.Verify(t.Context(), token, wanted()); err != nil {
		t.Errorf("for its own pod again: %v", err)
	}
}

// What a good token has proven helps none that only looks like it.
func TestRememberedTokenVouchesForNoOther(t *testing.T) {
	var s source
	issuer := newIssuer(t, "key-1")
	v, token := served(t, &s, issuer)
	foreign, err := providertest.NewIssuer("https://elsewhere.invalid", "key-1")
	if err != nil {
		t.Fatal(err)
	}
	good := strings.Split(string(token.Reveal()), ".")
	forged := strings.Split(string(sign(t, newIssuer(t, "key-1"), nil).Reveal()), ".")
	for name, bad := range map[string]secret.Bytes{
		"a foreign issuer":                sign(t, foreign, nil),
		"a forger's key of the same name": secret.New([]byte(strings.Join(forged, "."))),
		"an unknown key":                  sign(t, newIssuer(t, "key-9"), nil),
		"a forger's signature":            secret.New([]byte(good[0] + "." + good[1] + "." + forged[2])),
		"forged claims":                   secret.New([]byte(good[0] + "." + forged[1] + "x." + good[2])),
		"no signature":                    secret.New([]byte(good[0] + "." + good[1] + ".")),
		"one byte more":                   secret.New([]byte(string(token.Reveal()) + "A")),
		"one byte less":                   secret.New(token.Reveal()[:token.Len()-1]),
	} {
		if _, err := v.Verify(t.Context(), bad, wanted()); !errors.Is(err, auth.ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v.Remembered() != 1 {
		t.Errorf("%d tokens are remembered, want the good one", v.Remembered())
	}
}

func TestRefusedTokensAreNotRemembered(t *testing.T) {
	var s source
	issuer := newIssuer(t, "key-1")
	s.publish(t, issuer)
	v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, &s, time.Now)}, "node-1", time.Now)
	for name, change := range map[string]func(*providertest.Claims){
		"expired":          func(c *providertest.Claims) { c.Expires = time.Now().Add(-time.Second) },
		"not yet valid":    func(c *providertest.Claims) { c.NotBefore = time.Now().Add(time.Hour) },
		"of another pod":   func(c *providertest.Claims) { c.Pod.UID = "uid-2" },
		"of another node":  func(c *providertest.Claims) { c.Node.Name = "node-2" },
		"of no account":    func(c *providertest.Claims) { c.ServiceAccount = providertest.Reference{} },
		"another audience": func(c *providertest.Claims) { c.Audience = []string{"vault"} },
		"odd claims":       func(c *providertest.Claims) { c.Extra = map[string]any{"kubernetes.io": "x"} },
	} {
		if _, err := v.Verify(t.Context(), sign(t, issuer, change), wanted()); !errors.Is(err, auth.ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v.Remembered() != 0 {
		t.Errorf("%d refused tokens are remembered", v.Remembered())
	}
}

func TestRememberedTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		v, token := served(t, &s, newIssuer(t, "key-1"))
		time.Sleep(time.Hour - time.Second)
		if _, err := v.Verify(t.Context(), token, wanted()); err != nil {
			t.Errorf("a second before its end: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := v.Verify(t.Context(), token, wanted()); !errors.Is(err, auth.ErrToken) || !strings.Contains(err.Error(), "it expired at ") {
			t.Errorf("at its end: %v", err)
		}
	})
}

// The keys of an issuer count for a remembered token exactly as for a new one: the
// same answers, after the same fetches and the same time, whatever the source does.
func TestRememberedTokenNeedsItsKey(t *testing.T) {
	const limit = 24500 * time.Millisecond // ends at no moment at which keys are fetched
	synctest.Test(t, func(t *testing.T) {
		issuer, next, other := newIssuer(t, "key-1"), newIssuer(t, "key-2"), newIssuer(t, "key-1")
		var a, b source
		both := func(do func(*source)) { do(&a); do(&b) }
		both(func(s *source) { s.publish(t, issuer) })
		v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, &a, time.Now)}, "", time.Now)
		w := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, &b, time.Now)}, "", time.Now)
		lasting := func(c *providertest.Claims) { c.Expires = c.Expires.Add(100 * time.Hour) }
		token := sign(t, issuer, lasting)
		for _, step := range []struct {
			name  string
			pause time.Duration
			do    func(*source)
			want  string // of the error
		}{
			{name: "first"},
			{name: "within the hour", pause: time.Hour - time.Second},
			{name: "after an hour", pause: time.Second},
			{name: "withdrawn, within the hour", pause: time.Hour - time.Second, do: func(s *source) { s.publish(t, next) }},
			{name: "withdrawn", pause: time.Second, want: `service account token refused: issuer "https://cluster.invalid" has no key "key-1"`},
			{name: "put back, at once", do: func(s *source) { s.publish(t, issuer, next) }},
			{name: "another key of that name", pause: time.Hour, do: func(s *source) { s.publish(t, other) }, want: `service account token refused: the signature is not that of issuer "https://cluster.invalid"`},
			{name: "put back", pause: time.Hour, do: func(s *source) { s.publish(t, issuer) }},
			{name: "source down", pause: 2 * time.Hour, do: func(s *source) { s.fail(errors.New("connection refused")) }},
			{name: "down for a day", pause: 22*time.Hour - time.Second},
			{name: "down for longer", pause: time.Second, want: "cannot check the service account token: connection refused"},
			{name: "up again", do: func(s *source) { s.fail(nil) }},
			{name: "slow", pause: time.Hour, do: func(s *source) { s.gateWith(make(chan struct{})) }},
		} {
			time.Sleep(step.pause)
			if step.do != nil {
				both(step.do)
			}
			another := sign(t, issuer, lasting)
			var all sync.WaitGroup
			var err, fresh error
			var took, tookFresh time.Duration
			began := time.Now()
			all.Go(func() {
				err = verifyWithin(t, v, token, limit)
				took = time.Since(began)
			})
			all.Go(func() {
				fresh = verifyWithin(t, w, another, limit)
				tookFresh = time.Since(began)
			})
			all.Wait()
			synctest.Wait() // for fetches that nobody waits for
			if (step.want != "" || err != nil) && fmt.Sprint(err) != step.want {
				t.Errorf("%s: got %v, want %s", step.name, err, step.want)
			}
			if fmt.Sprint(err) != fmt.Sprint(fresh) || took != tookFresh || a.asked() != b.asked() {
				t.Errorf("%s: remembered: %v after %s and %d fetches; new: %v after %s and %d", step.name, err, took, a.asked(), fresh, tookFresh, b.asked())
			}
		}
		time.Sleep(time.Minute) // until the slow fetches have ended
	})
}

// What is remembered is bounded: the expired go first, then the longest unused.
func TestRememberedTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		issuer := newIssuer(t, "key-1")
		v, used := served(t, &s, issuer)
		unused := sign(t, issuer, nil)
		if _, err := v.Verify(t.Context(), unused, wanted()); err != nil {
			t.Fatal(err)
		}
		one := func() {
			time.Sleep(time.Second)
			for _, token := range []secret.Bytes{used, sign(t, issuer, nil)} {
				if _, err := v.Verify(t.Context(), token, wanted()); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range auth.MaxProofs - 2 {
			one()
		}
		if v.Remembered() != auth.MaxProofs || !v.Remembers(unused) {
			t.Errorf("%d tokens are remembered, one that is not used any more: %t", v.Remembered(), v.Remembers(unused))
		}
		one()
		if v.Remembered() != auth.MaxProofs || v.Remembers(unused) || !v.Remembers(used) {
			t.Errorf("%d tokens are remembered; the unused: %t, the used: %t", v.Remembered(), v.Remembers(unused), v.Remembers(used))
		}
		time.Sleep(2 * time.Hour)
		if _, err := v.Verify(t.Context(), sign(t, issuer, nil), wanted()); err != nil {
			t.Fatal(err)
		}
		if v.Remembered() != 1 {
			t.Errorf("%d tokens are remembered, want the one that has not expired", v.Remembered())
		}
	})
}

// A token full of claims proves as much as any, and is not kept.
func TestLongTokensAreNotRemembered(t *testing.T) {
	var s source
	issuer := newIssuer(t, "key-1")
	v, _ := served(t, &s, issuer)
	long := sign(t, issuer, func(c *providertest.Claims) {
		for i := range 1000 {
			c.Audience = append(c.Audience, fmt.Sprint("audience-", i))
		}
	})
	for range 2 {
		if _, err := v.Verify(t.Context(), long, wanted()); err != nil || v.Remembers(long) {
			t.Errorf("got %v, remembered: %t", err, v.Remembers(long))
		}
	}
	names := sign(t, issuer, func(c *providertest.Claims) {
		longest := strings.Repeat("n", 253)
		c.Namespace, c.ServiceAccount.Name, c.Pod.Name = longest[:63], longest, longest
		c.Node = providertest.Reference{Name: "node-1", UID: strings.Repeat("u", 36)}
		c.Subject = "system:serviceaccount:" + c.Namespace + ":" + c.ServiceAccount.Name
	})
	want := wanted()
	want.Pod = auth.Pod{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("n", 253), UID: api.UID, ServiceAccount: strings.Repeat("n", 253)}
	if _, err := v.Verify(t.Context(), names, want); err != nil || !v.Remembers(names) {
		t.Errorf("a pod with long names: %v, remembered: %t", err, v.Remembers(names))
	}
}

// With -race: good tokens, stolen ones and forged ones at once, while keys come
// and go. No stolen or forged token is ever taken.
func TestRememberedTokensConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s source
		issuer, forger := newIssuer(t, "key-1"), newIssuer(t, "key-1")
		v, token := served(t, &s, issuer)
		forged := sign(t, forger, nil)
		stranger := wanted()
		stranger.Pod.UID = "uid-2"
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 30 {
					if _, err := v.Verify(t.Context(), token, wanted()); err != nil {
						t.Errorf("a good token: %v", err)
					}
					if _, err := v.Verify(t.Context(), sign(t, issuer, nil), wanted()); err != nil {
						t.Errorf("a new one: %v", err)
					}
					time.Sleep(time.Minute)
				}
			})
			all.Go(func() {
				for range 90 {
					if _, err := v.Verify(t.Context(), forged, wanted()); !errors.Is(err, auth.ErrToken) {
						t.Errorf("a forged token: %v", err)
					}
					if _, err := v.Verify(t.Context(), token, stranger); !errors.Is(err, auth.ErrToken) {
						t.Errorf("a stolen token: %v", err)
					}
					time.Sleep(time.Minute)
				}
			})
		}
		all.Wait()
		s.publish(t, forger) // whose key is now the accepted one of that name
		time.Sleep(time.Hour)
		if _, err := v.Verify(t.Context(), token, wanted()); !errors.Is(err, auth.ErrToken) {
			t.Errorf("a token of a key that is gone: %v", err)
		}
	})
}

// BenchmarkVerify is one token, seen before or not.
func BenchmarkVerify(b *testing.B) {
	issuer, err := providertest.NewIssuer(issuerName, "key-1")
	if err != nil {
		b.Fatal(err)
	}
	data, err := issuer.KeySet()
	if err != nil {
		b.Fatal(err)
	}
	keys, err := auth.ParseKeys(data)
	if err != nil {
		b.Fatal(err)
	}
	token := sign(b, issuer, nil)
	v := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, &source{keys: keys}, time.Now)}, "", time.Now)
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			fresh := auth.NewVerifier([]*auth.Issuer{auth.NewIssuer(issuerName, &source{keys: keys}, time.Now)}, "", time.Now)
			if _, err := fresh.Verify(b.Context(), token, wanted()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(b.Context(), token, wanted()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
