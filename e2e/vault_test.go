package e2e_test

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/provider/providertest"
)

// policy is what Vault allows the role shop-api.
const policy = `
path "secret/data/shop/*"      { capabilities = ["read"] }
path "secret/metadata/shop/*"  { capabilities = ["read"] }
path "plain/shop/*"            { capabilities = ["read"] }
path "pki/issue/shop"          { capabilities = ["update"] }
path "pki/cert/ca"             { capabilities = ["read"] }
path "transit/encrypt/shop"    { capabilities = ["update"] }
path "database/creds/shop"     { capabilities = ["read"] }
path "database/static-creds/*" { capabilities = ["read"] }
`

// kv2 and kv1 are what the key-value engines hold, each version in its place.
var (
	kv2 = map[string][]map[string]any{
		"shop/db": {
			{"username": "canary-user-1", "password": "canary-password-1"},
			{"username": "canary-user-2", "password": "canary-password-2"},
			{"username": "canary-user-3", "password": "canary-password-3"},
			{"username": "canary-user-4", "password": "canary-password-4"},
		},
		"shop/app":  {{"name": "canary-name", "port": 5432, "tls": map[string]any{"on": true}}},
		"shop/data": {{"value": "canary-in-data"}},
		"blog/db":   {{"password": "canary-of-another-team"}},
		"data/shop": {{"value": "canary-below-data"}},
	}
	kv1 = map[string]map[string]any{
		"shop/db": {"username": "canary-plain-user", "password": "canary-plain-password"},
	}
)

// newVault is a Vault that is set up for the pod shop-api, through jwt auth.
func newVault(t *testing.T, issuer *providertest.Issuer) *vaulttest.Server {
	t.Helper()
	server := vaulttest.Start(t)
	fill(t, server, issuer)
	return server
}

func fill(t *testing.T, server *vaulttest.Server, issuer *providertest.Issuer) {
	t.Helper()
	server.MountKV2(t, "secret")
	server.MountKV1(t, "plain")
	logical := server.Client(t).Logical()
	for name, versions := range kv2 {
		for _, data := range versions {
			write(t, logical, "secret/data/"+name, map[string]any{"data": data})
		}
	}
	for name, data := range kv1 {
		write(t, logical, "plain/"+name, data)
	}
	write(t, logical, "secret/delete/shop/db", map[string]any{"versions": []int{2}})
	write(t, logical, "secret/destroy/shop/db", map[string]any{"versions": []int{3}})
	server.WritePolicy(t, "shop", policy)
	server.EnableJWT(t, "jwt", issuer)
	for _, role := range []string{"shop-api", "shop-other"} {
		server.WriteRole(t, "jwt", role, jwtRole())
	}
}

// jwtRole is bound to the service account of the pod shop-api.
func jwtRole() map[string]any {
	return map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject": "system:serviceaccount:shop:api", "token_policies": []string{"shop"}, "token_ttl": "10m",
	}
}

func write(t *testing.T, logical *api.Logical, path string, data map[string]any) {
	t.Helper()
	if _, err := logical.WriteWithContext(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

// throughJWT is the section auth for jwt.
const throughJWT = "auth: {method: jwt}"

// serveBefore runs keymount with a proxy before server.
func serveBefore(t *testing.T, server *vaulttest.Server, issuer *providertest.Issuer, o operator) (*keymount, *proxy) {
	t.Helper()
	p := newProxy(t, server.Address)
	o.Addresses = []string{p.URL}
	if len(o.Vault) == 0 {
		o.Vault = []string{throughJWT}
	}
	k := serve(t, issuer, o)
	p.guards(t, k)
	return k, p
}

// shopClass is a class of the role shop-api.
func shopClass(objects string) class { return class{Role: "shop-api", Objects: objects} }

// lines are the objects of a class, one a line.
func lines(objects ...string) string { return "- " + strings.Join(objects, "\n- ") }
