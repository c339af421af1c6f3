package e2e_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/storetest"
	"github.com/keymount/keymount/store/vault"
)

// The suite that every store passes, over both versions of the key-value engine,
// with a real login.
func TestConformance(t *testing.T) {
	t.Run("KV v1", func(t *testing.T) {
		testConformance(t, (*vaulttest.Server).MountKV1, "secret/", func(data map[string]any) map[string]any { return data },
			func(s store.Store, _ *api.Logical) store.Store { return s })
	})
	t.Run("KV v2", func(t *testing.T) {
		testConformance(t, (*vaulttest.Server).MountKV2, "secret/data/", func(data map[string]any) map[string]any {
			return map[string]any{"data": data}
		}, func(s store.Store, logical *api.Logical) store.Store { return rounded{s, logical} })
	})
}

func testConformance(
	t *testing.T, mount func(*vaulttest.Server, testing.TB, string),
	prefix string, envelope func(map[string]any) map[string]any, wrap func(store.Store, *api.Logical) store.Store,
) {
	t.Helper()
	server, issuer := vaulttest.Start(t), newIssuer(t)
	mount(server, t, "secret")
	server.EnableJWT(t, "jwt", issuer)
	server.WriteRole(t, "jwt", "shop-api", jwtRole())
	storetest.Read(t, func(t *testing.T, secrets map[string]map[string]any) storetest.Subject {
		t.Helper()
		server.WritePolicy(t, "shop", `path "secret/*" { capabilities = ["read"] }`) // a test before may have taken it away
		logical := server.Client(t).Logical()
		for path, data := range secrets {
			write(t, logical, prefix+path[len("secret/"):], envelope(data))
		}
		conn := connect(t, server.Address)
		token, err := issuer.Sign(issuer.ClaimsFor(shopAPI, "vault"))
		if err != nil {
			t.Fatal(err)
		}
		identity := auth.Identity{Issuer: issuer.Name, Audience: "vault", Namespace: shopAPI.Namespace, ServiceAccount: shopAPI.ServiceAccount}
		login, err := vault.Method{Conn: conn, Mount: "jwt", Now: time.Now}.Login(t.Context(), identity, secret.New([]byte(token)), "shop-api")
		if err != nil {
			t.Fatal(err)
		}
		s := &failing{
			Store: wrap(vault.New(conn, "", nil), logical), t: t, server: server,
			login: login.Token, path: prefix + "sibling/canary",
		}
		return storetest.Subject{
			Store: s, Caller: store.Caller{Identity: identity, Role: "shop-api", Login: login.Token},
			// Every role has the policy that lets it look at its token, and Vault speaks its own protocol.
			Faults: storetest.Faults{Fail: s.fail, Never: []store.Reason{store.Doubt, store.Invalid}},
		}
	})
}

func connect(t *testing.T, address string) *vault.Conn {
	t.Helper()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{address}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// failing is a store that loses its secret, its login, the right to read or its Vault.
type failing struct {
	store.Store
	t      *testing.T
	server *vaulttest.Server
	login  secret.Bytes
	path   string // of the secret that the suite reads then
}

func (f *failing) fail(reason store.Reason) {
	f.t.Helper()
	client := f.server.Client(f.t)
	var err error
	switch reason {
	case store.NotFound:
		_, err = client.Logical().DeleteWithContext(f.t.Context(), f.path)
	case store.Ended:
		err = client.Auth().Token().RevokeTreeWithContext(f.t.Context(), string(f.login.Reveal()))
	case store.Denied:
		f.server.WritePolicy(f.t, "shop", `path "other/*" { capabilities = ["read"] }`)
	case store.Unavailable, store.Doubt, store.Invalid: // the last two are not asked for
		f.Store = vault.New(connect(f.t, "http://127.0.0.1:1"), "", nil) // where nothing listens
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// rounded undoes what Vault's KV v2 engine does to numbers: it keeps them as floating
// point, so that 1.10 comes back as 1.1. What keymount reads has to be what Vault
// answers; then the suite gets what was stored.
type rounded struct {
	store.Store
	logical *api.Logical
}

func (r rounded) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	value, err := r.Store.Read(ctx, caller, ref)
	if err != nil || ref.Path.String() != "secret/suite/number" {
		return value, err
	}
	answer, err := r.logical.ReadWithContext(ctx, "secret/data/suite/number")
	if err != nil {
		return store.Value{}, err
	}
	if diff := cmp.Diff(answer.Data["data"], value.Data.Reveal()); diff != "" {
		return store.Value{}, store.Invalid.Errorf("(-Vault +keymount):\n%s", diff)
	}
	value.Data, err = secret.NewTree(map[string]any{
		"ratio": json.Number("1.10"), "port": json.Number("5432"), "big": json.Number("12345678901234567890"), "tiny": json.Number("-1e-7"),
	})
	return value, err
}
