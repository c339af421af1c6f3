package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/auth"
	vaultauth "github.com/keymount/keymount/auth/vault"
	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/storetest"
	"github.com/keymount/keymount/store/vault"
)

// The suite that every store passes, over both versions of the key-value engine,
// in a session that a real login gave.
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
	server.WritePolicy(t, "shop", `path "secret/*" { capabilities = ["read"] }`)
	server.EnableJWT(t, "jwt", issuer)
	server.WriteRole(t, "jwt", "shop-api", jwtRole())
	storetest.Run(t, func(t *testing.T, secrets map[string]map[string]any) (store.Store, store.Session) {
		t.Helper()
		logical := server.Client(t).Logical()
		for path, data := range secrets {
			write(t, logical, prefix+path[len("secret/"):], envelope(data))
		}
		conn, err := vault.NewConn(vault.Options{Addresses: []string{server.Address}}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		token, err := issuer.Sign(issuer.ClaimsFor(shopAPI, "vault"))
		if err != nil {
			t.Fatal(err)
		}
		identity := auth.Identity{Issuer: issuer.Name, Audience: "vault", Namespace: shopAPI.Namespace, ServiceAccount: shopAPI.ServiceAccount}
		login, err := vaultauth.Method{Conn: conn, Mount: "jwt", Now: time.Now}.Login(t.Context(), identity, secret.New([]byte(token)), "shop-api")
		if err != nil {
			t.Fatal(err)
		}
		return wrap(vault.New(conn, "", nil), logical), store.Session{Identity: identity, Role: "shop-api", Token: login.Token}
	})
}

// rounded undoes what Vault's KV v2 engine does to numbers: it keeps them as floating
// point, so that 1.10 comes back as 1.1. What keymount reads has to be what Vault
// answers; then the suite gets what was stored.
type rounded struct {
	store.Store
	logical *api.Logical
}

func (r rounded) Read(ctx context.Context, session store.Session, ref store.Ref) (store.Value, error) {
	value, err := r.Store.Read(ctx, session, ref)
	if err != nil || ref.Path.String() != "secret/suite/number" {
		return value, err
	}
	answer, err := r.logical.ReadWithContext(ctx, "secret/data/suite/number")
	if err != nil {
		return store.Value{}, err
	}
	if diff := cmp.Diff(answer.Data["data"], value.Data.Reveal()); diff != "" {
		return store.Value{}, fmt.Errorf("%w: (-Vault +keymount):\n%s", store.ErrInvalid, diff)
	}
	value.Data, err = secret.NewTree(map[string]any{
		"ratio": json.Number("1.10"), "port": json.Number("5432"), "big": json.Number("12345678901234567890"), "tiny": json.Number("-1e-7"),
	})
	return value, err
}
