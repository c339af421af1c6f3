package e2e_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/e2e/vaulttest"
)

// shopAPI1 is another pod of the same service account.
var shopAPI1 = auth.Pod{Namespace: "shop", Name: "api-1", UID: "uid-of-api-1", ServiceAccount: "api"}

const oneObject = `[{path: secret/shop/db, key: password, file: password}]`

// Both methods log in, and a login is shared by those whom keymount.yaml names.
func TestSessions(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	server.EnableKubernetes(t, "clusters/one", vaulttest.NewTokenReview(t, issuer))
	server.WriteRole(t, "clusters/one", "shop-api", kubernetesRole())
	for _, test := range []struct {
		name, auth, session string
		login               string
		want                int // logins of two pods, twice each
	}{
		{"jwt", "auth: {method: jwt}", "serviceAccount", "auth/jwt/login", 1},
		{"jwt, session of a pod", "auth: {method: jwt}", "pod", "auth/jwt/login", 2},
		{"kubernetes", "auth: {method: kubernetes, mount: clusters/one}", "serviceAccount", "auth/clusters/one/login", 1},
		{"kubernetes, session of a pod", "auth: {mount: clusters/one}", "pod", "auth/clusters/one/login", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			k, p := serveBefore(t, server, issuer, operator{Vault: []string{test.auth}, Session: test.session})
			for range 2 {
				for _, pod := range []auth.Pod{shopAPI, shopAPI1} {
					files, err := k.mount(t, pod, shopClass(oneObject))
					if err != nil {
						t.Fatal(err)
					}
					if got := files["password"]; got != "canary-password-4" {
						t.Errorf("password = %q", got)
					}
				}
			}
			if got := p.count(test.login); got != test.want {
				t.Errorf("%d logins, want %d", got, test.want)
			}
			if got := len(p.tokens()); got != test.want {
				t.Errorf("%d tokens, want %d", got, test.want)
			}
		})
	}
}

func kubernetesRole() map[string]any {
	return map[string]any{
		"bound_service_account_names": []string{"api"}, "bound_service_account_namespaces": []string{"shop"},
		"audience": "vault", "token_policies": []string{"shop"}, "token_ttl": "10m",
	}
}

// Two roles of one service account share nothing; pods that come at once share one
// login.
func TestSessionsAtOnce(t *testing.T) {
	issuer := newIssuer(t)
	k, p := serveBefore(t, newVault(t, issuer), issuer, operator{})
	var mounts sync.WaitGroup
	for i := range 16 {
		pod := shopAPI
		pod.Name, pod.UID = fmt.Sprintf("api-%d", i), fmt.Sprintf("uid-of-api-%d", i)
		role := []string{"shop-api", "shop-other"}[i%2]
		mounts.Go(func() {
			if _, err := k.mount(t, pod, class{Role: role, Objects: oneObject}); err != nil {
				t.Error(err)
			}
		})
	}
	mounts.Wait()
	if got := p.count("auth/jwt/login"); got != 2 {
		t.Errorf("%d logins, want one for each role", got)
	}
}

// Batch tokens, of which Vault stores nothing, are used for half of a short life; then keymount
// logs in again. It asks for no renewal, which Vault would refuse.
func TestBatchTokens(t *testing.T) {
	const logins, life, limit = 3, 4 * time.Second, time.Minute
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	batch := jwtRole()
	batch["token_type"], batch["token_ttl"] = "batch", life.String()
	server.WriteRole(t, "jwt", "shop-batch", batch)
	before := accessors(t, server)
	k, p := serveBefore(t, server, issuer, operator{})
	began := time.Now()
	for p.count("auth/jwt/login") < logins {
		if _, err := k.mount(t, shopAPI, class{"shop-batch", oneObject}); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > limit {
			t.Fatalf("%d logins within %s, want %d", p.count("auth/jwt/login"), limit, logins)
		}
	}
	if took := time.Since(began); took < (logins-1)*life/2 {
		t.Errorf("%d logins within %s, want one for half of %s", logins, took, life)
	}
	if got := p.count("auth/token/"); got != 0 {
		t.Errorf("%d requests about tokens, want none", got)
	}
	if after := accessors(t, server); after != before {
		t.Errorf("Vault stores %d tokens, and %d before", after, before)
	}
}

// accessors is the number of tokens that Vault stores.
func accessors(t *testing.T, server *vaulttest.Server) int {
	t.Helper()
	listed, err := server.Client(t).Logical().ListWithContext(t.Context(), "auth/token/accessors")
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := listed.Data["keys"].([]any)
	return len(keys)
}

// A token that somebody revoked is found out by the next mount, which logs in again,
// once, whatever it reads.
func TestRevokedToken(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	for name, objects := range map[string]string{
		"the same secret":            oneObject,
		"an engine not yet asked of": `[{path: plain/shop/db, key: password, file: password}]`,
		"many secrets": lines(
			`{path: secret/shop/db, file: a/}`, `{path: secret/shop/app, format: json, file: b}`,
			`{path: secret/shop/data, file: c/}`, `{path: secret/shop/db, version: 1, file: d/}`),
	} {
		t.Run(name, func(t *testing.T) {
			k, p := serveBefore(t, server, issuer, operator{})
			k.mounted(t, shopClass(oneObject))
			for _, token := range p.tokens() {
				if err := server.Client(t).Auth().Token().RevokeTreeWithContext(t.Context(), token); err != nil {
					t.Fatal(err)
				}
			}
			p.forget()
			if _, err := k.mount(t, shopAPI, shopClass(objects)); err != nil {
				t.Error(err)
			}
			if got := p.count("auth/jwt/login"); got != 1 {
				t.Errorf("%d logins, want 1", got)
			}
		})
	}
}

// A policy's denial costs no login, also when the role's tokens may not even look at
// themselves: a pod that asks for what it may not read does so for ever.
func TestDenialIsNoLogin(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	bare := jwtRole()
	bare["token_no_default_policy"] = true
	server.WriteRole(t, "jwt", "shop-bare", bare)
	for _, role := range []string{"shop-api", "shop-bare"} {
		t.Run(role, func(t *testing.T) {
			k, p := serveBefore(t, server, issuer, operator{})
			if _, err := k.mount(t, shopAPI, class{role, oneObject}); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := k.mount(t, shopAPI, class{role, `[{path: secret/blog/db, key: password, file: a}]`}); err == nil {
					t.Fatal("mounted, want a denial")
				}
			}
			if got := p.count("auth/jwt/login"); got != 1 {
				t.Errorf("%d logins, want 1", got)
			}
		})
	}
}
