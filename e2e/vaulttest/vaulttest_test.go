package vaulttest_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/provider/providertest"
)

// shopAPI is the pod whose tokens the tests present.
var shopAPI = auth.Pod{Namespace: "shop", Name: "api-0", UID: "pod-uid", ServiceAccount: "api"}

func TestKeyValue(t *testing.T) {
	server := vaulttest.Start(t)
	logical := server.Client(t).Logical()

	t.Run("version 1", func(t *testing.T) {
		server.MountKV1(t, "plain")
		put(t, logical, "plain/shop/db", map[string]any{"password": "one"})
		if got := get(t, logical, "plain/shop/db").Data["password"]; got != "one" {
			t.Errorf("password = %v, want one", got)
		}
	})

	t.Run("version 2", func(t *testing.T) {
		server.MountKV2(t, "team/secret")
		for _, password := range []string{"one", "two"} {
			put(t, logical, "team/secret/data/shop/db", map[string]any{"data": map[string]any{"password": password}})
		}
		for version, want := range map[string]string{"1": "one", "2": "two", "0": "two"} {
			answer, err := logical.ReadWithDataWithContext(t.Context(), "team/secret/data/shop/db", map[string][]string{"version": {version}})
			if err != nil {
				t.Fatal(err)
			}
			data, _ := answer.Data["data"].(map[string]any)
			if got := data["password"]; got != want {
				t.Errorf("version %s: password = %v, want %s", version, got, want)
			}
		}
	})
}

func TestPKI(t *testing.T) {
	server := vaulttest.Start(t)
	root := server.MountPKI(t, "pki", "shop")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		t.Fatalf("the root is no certificate: %s", root)
	}
	for _, name := range []string{"a.shop.svc", "b.shop.svc"} {
		answer := put(t, server.Client(t).Logical(), "pki/issue/shop", map[string]any{"common_name": name})
		encoded, _ := answer.Data["certificate"].(string)
		block, _ := pem.Decode([]byte(encoded))
		if block == nil {
			t.Fatalf("%s: no certificate in the answer", name)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTransit(t *testing.T) {
	server := vaulttest.Start(t)
	server.MountTransit(t, "transit", "shop")
	logical := server.Client(t).Logical()
	plain := base64.StdEncoding.EncodeToString([]byte("card number"))
	encrypted := put(t, logical, "transit/encrypt/shop", map[string]any{"plaintext": plain})
	decrypted := put(t, logical, "transit/decrypt/shop", map[string]any{"ciphertext": encrypted.Data["ciphertext"]})
	if got := decrypted.Data["plaintext"]; got != plain {
		t.Errorf("decrypted = %v, want %s", got, plain)
	}
}

func TestDatabase(t *testing.T) {
	server, postgres := vaulttest.Start(t), vaulttest.StartPostgres(t)
	server.MountDatabase(t, "database", postgres, "shop", time.Minute)
	client := server.Client(t)

	t.Run("dynamic", func(t *testing.T) {
		answer := get(t, client.Logical(), "database/creds/shop")
		if answer.LeaseID == "" || answer.LeaseDuration != 60 {
			t.Errorf("a lease of %d s (id given: %t), want 60 s with an id", answer.LeaseDuration, answer.LeaseID != "")
		}
		if err := login(t, postgres, answer); err != nil {
			t.Errorf("log in: %v", err)
		}
		if err := client.Sys().RevokeWithContext(t.Context(), answer.LeaseID); err != nil {
			t.Fatal(err)
		}
		if err := login(t, postgres, answer); !refused(err) {
			t.Errorf("log in after the lease was revoked: %v, want a refusal", err)
		}
	})

	t.Run("static", func(t *testing.T) {
		postgres.CreateUser(t, "shop_static", "first")
		server.AddStaticRole(t, "database", "shop-static", "shop_static", time.Hour)
		answer := get(t, client.Logical(), "database/static-creds/shop-static")
		if answer.LeaseID != "" || answer.Data["ttl"] == nil {
			t.Errorf("answer = lease %t, ttl %v; want no lease and a ttl", answer.LeaseID != "", answer.Data["ttl"])
		}
		if err := login(t, postgres, answer); err != nil {
			t.Errorf("log in: %v", err)
		}
	})

	t.Run("stopped", func(t *testing.T) {
		postgres.Stop(t)
		if _, err := client.Logical().ReadWithContext(t.Context(), "database/creds/shop"); err == nil {
			t.Error("a credential of a stopped database, want an error")
		}
	})
}

func TestJWT(t *testing.T) {
	server, issuer := vaulttest.Start(t), newIssuer(t, "https://cluster.example")
	server.WritePolicy(t, "shop", `path "secret/data/shop/*" { capabilities = ["read"] }`)
	server.EnableJWT(t, "jwt", issuer)
	server.WriteRole(t, "jwt", "shop", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject": "system:serviceaccount:shop:api", "token_policies": []string{"shop"}, "token_ttl": "10m",
	})
	testLogins(t, server, issuer, "jwt")
}

func TestKubernetes(t *testing.T) {
	server, issuer := vaulttest.Start(t), newIssuer(t, "https://cluster.example")
	server.WritePolicy(t, "shop", `path "secret/data/shop/*" { capabilities = ["read"] }`)
	server.EnableKubernetes(t, "clusters/one", vaulttest.NewTokenReview(t, issuer))
	server.WriteRole(t, "clusters/one", "shop", map[string]any{
		"bound_service_account_names": []string{"api"}, "bound_service_account_namespaces": []string{"shop"},
		"audience": "vault", "token_policies": []string{"shop"}, "token_ttl": "10m",
	})
	testLogins(t, server, issuer, "clusters/one")
}

// testLogins presents the same tokens to either method: each case changes one
// thing in a token that is good.
func testLogins(t *testing.T, server *vaulttest.Server, issuer *providertest.Issuer, mount string) {
	t.Helper()
	otherPod := shopAPI
	otherPod.ServiceAccount = "worker"
	expired := issuer.ClaimsFor(shopAPI, "vault")
	expired.NotBefore, expired.Expires = expired.NotBefore.Add(-2*time.Hour), expired.Expires.Add(-2*time.Hour)
	for _, test := range []struct {
		name   string
		issuer *providertest.Issuer
		claims providertest.Claims
		role   string
		ok     bool
	}{
		{"good", issuer, issuer.ClaimsFor(shopAPI, "vault"), "shop", true},
		{"wrong role", issuer, issuer.ClaimsFor(shopAPI, "vault"), "blog", false},
		{"wrong audience", issuer, issuer.ClaimsFor(shopAPI, "elsewhere"), "shop", false},
		{"service account not bound", issuer, issuer.ClaimsFor(otherPod, "vault"), "shop", false},
		{"expired", issuer, expired, "shop", false},
		{"key of a stranger with the issuer's name", newIssuer(t, issuer.Name), issuer.ClaimsFor(shopAPI, "vault"), "shop", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, err := test.issuer.Sign(test.claims)
			if err != nil {
				t.Fatal(err)
			}
			client := server.Client(t)
			client.ClearToken()
			answer, err := client.Logical().WriteWithContext(t.Context(), "auth/"+mount+"/login", map[string]any{"jwt": token, "role": test.role})
			if !test.ok {
				if err == nil {
					t.Fatal("logged in, want a refusal")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(answer.Auth.Policies, " "); got != "default shop" {
				t.Errorf("policies = %q, want default and shop", got)
			}
		})
	}
}

// A reviewer answers nobody but the Vault that was set up with it, as an API server
// wants a caller that may ask for reviews.
func TestTokenReviewKnowsItsCaller(t *testing.T) {
	server, issuer := vaulttest.Start(t), newIssuer(t, "https://cluster.example")
	review, other := vaulttest.NewTokenReview(t, issuer), vaulttest.NewTokenReview(t, issuer)
	review.URL = other.URL // whose certificate is the same, httptest's, and whose caller is not
	server.EnableKubernetes(t, "kubernetes", review)
	server.WriteRole(t, "kubernetes", "shop", map[string]any{
		"bound_service_account_names": []string{"*"}, "bound_service_account_namespaces": []string{"*"}, "audience": "vault",
	})
	token, err := issuer.Sign(issuer.ClaimsFor(shopAPI, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = server.Client(t).Logical().WriteWithContext(t.Context(), "auth/kubernetes/login", map[string]any{"jwt": token, "role": "shop"})
	if status(err) != http.StatusForbidden {
		t.Errorf("log in: %v, want 403", err)
	}
}

func TestSealAndStop(t *testing.T) {
	server := vaulttest.Start(t)
	server.MountKV1(t, "secret")
	logical := server.Client(t).Logical()
	put(t, logical, "secret/shop", map[string]any{"password": "one"})

	server.Seal(t)
	if _, err := logical.ReadWithContext(t.Context(), "secret/shop"); status(err) != http.StatusServiceUnavailable {
		t.Errorf("read while sealed: %v, want 503", err)
	}
	server.Unseal(t)
	if got := get(t, logical, "secret/shop").Data["password"]; got != "one" {
		t.Errorf("password after unsealing = %v, want one", got)
	}
	server.Stop(t)
	if _, err := logical.ReadWithContext(t.Context(), "secret/shop"); err == nil || status(err) != 0 {
		t.Errorf("read after Stop: %v, want no answer at all", err)
	}
}

func TestTLS(t *testing.T) {
	t.Run("valid", func(t *testing.T) {
		authority := vaulttest.NewAuthority(t, time.Hour)
		server := vaulttest.StartTLS(t, authority)
		server.MountKV2(t, "secret")
		if err := healthOver(t, server, authority.File); err != nil {
			t.Error(err)
		}
		err := healthOver(t, server, vaulttest.NewAuthority(t, time.Hour).File)
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
			t.Errorf("with another authority: %v, want an unknown authority", err)
		}
	})
	t.Run("another name", func(t *testing.T) {
		authority := vaulttest.NewAuthority(t, time.Hour)
		server := vaulttest.StartTLS(t, authority, "vault.example")
		server.MountKV2(t, "secret") // the set-up works all the same
		err := healthOver(t, server, authority.File)
		if _, ok := errors.AsType[x509.HostnameError](err); !ok {
			t.Errorf("at %s: %v, want a certificate for another name", server.Address, err)
		}
	})
	t.Run("expired", func(t *testing.T) {
		authority := vaulttest.NewAuthority(t, -time.Hour)
		server := vaulttest.StartTLS(t, authority)
		server.MountKV2(t, "secret") // the set-up works all the same
		err := healthOver(t, server, authority.File)
		if _, ok := errors.AsType[x509.CertificateInvalidError](err); !ok {
			t.Errorf("with an ordinary clock: %v, want an expired certificate", err)
		}
	})
}

// healthOver asks as somebody who trusts caFile and has an ordinary clock.
func healthOver(t *testing.T, server *vaulttest.Server, caFile string) error {
	t.Helper()
	config := api.DefaultConfig()
	config.Address, config.MaxRetries = server.Address, 0
	if err := config.ConfigureTLS(&api.TLSConfig{CACert: caFile}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(config.HttpClient.CloseIdleConnections)
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Sys().HealthWithContext(t.Context())
	return err
}

func newIssuer(t *testing.T, name string) *providertest.Issuer {
	t.Helper()
	issuer, err := providertest.NewIssuer(name, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func put(t *testing.T, logical *api.Logical, path string, data map[string]any) *api.Secret {
	t.Helper()
	answer, err := logical.WriteWithContext(t.Context(), path, data)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func get(t *testing.T, logical *api.Logical, path string) *api.Secret {
	t.Helper()
	answer, err := logical.ReadWithContext(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if answer == nil {
		t.Fatalf("read %s: nothing there", path)
	}
	return answer
}

// login uses a credential that the database engine gave.
func login(t *testing.T, postgres *vaulttest.Postgres, credential *api.Secret) error {
	t.Helper()
	username, _ := credential.Data["username"].(string)
	password, _ := credential.Data["password"].(string)
	database := postgres.Open(t, username, password)
	defer func() { _ = database.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return database.PingContext(ctx)
}

// refused tells PostgreSQL's refusal of a password from any other failure.
func refused(err error) bool {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	return ok && answer.Code == "28P01"
}

// status is the HTTP status of Vault's answer, 0 when there was none.
func status(err error) int {
	if answer, ok := errors.AsType[*api.ResponseError](err); ok {
		return answer.StatusCode
	}
	return 0
}
