package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

// demoVault is a user's Vault, in which the demo makes mounts of its own.
type demoVault struct {
	address, token, caFile string

	conn *vault.Conn
	name string // of everything the demo makes there
}

// open mounts an engine and an auth method, which the end of the stage removes.
func (d demoVault) open(ctx context.Context, s *stage) (demoStore, error) {
	if d.token == "" {
		d.token = os.Getenv("VAULT_TOKEN")
	}
	if d.token == "" {
		return demoStore{}, usagef("--vault-addr needs --vault-token, or VAULT_TOKEN in the environment")
	}
	conn, err := vault.NewConn(vault.Options{Addresses: []string{d.address}, CAFile: d.caFile}, time.Now)
	if err != nil {
		return demoStore{}, err
	}
	d.conn, d.name = conn, "keymount-demo-"+strings.ToLower(rand.Text()[:8])
	key, err := s.issuer.PublicKey()
	if err != nil {
		return demoStore{}, err
	}
	return d.store(), d.setUp(ctx, s, key)
}

func (d demoVault) store() demoStore {
	return demoStore{
		name: "vault", role: "shop", audience: vault.DefaultAudience, prefix: d.name + "/",
		config: fmt.Sprintf(`  - name: vault
    refresh: 0s # the story does not wait
    vault: {addresses: [%q], caFile: %q, auth: {method: jwt, mount: %[3]s}}
    access:
      - namespaces: ["*"]
        serviceAccounts: ["*"]
        roles: ["{namespace}"]
        paths: ["%[3]s/{namespace}/**"]
`, d.address, d.caFile, d.name),
		shown:  []string{"(in Vault)", "the store: 3 secrets in " + d.name + " at " + d.address},
		hint:   fmt.Sprintf("   vault kv patch %s/shop/db password=something-else\n", d.name),
		rotate: d.rotate,
	}
}

// setUp makes the engine, the auth method, a policy and a role, all of one name.
// They go with the stage, also after a failure half-way.
func (d demoVault) setUp(ctx context.Context, s *stage, publicKey string) error {
	policy := fmt.Sprintf("path %q { capabilities = [\"read\"] }", d.name+"/data/shop/*")
	for _, step := range []struct {
		path string
		body map[string]any
	}{
		{"sys/mounts/" + d.name, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}}},
		{"sys/auth/" + d.name, map[string]any{"type": "jwt"}},
		{"auth/" + d.name + "/config", map[string]any{"jwt_validation_pubkeys": []string{publicKey}, "bound_issuer": demoIssuer}},
		{"sys/policies/acl/" + d.name, map[string]any{"policy": policy}},
		{"auth/" + d.name + "/role/shop", map[string]any{
			"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{vault.DefaultAudience},
			"bound_subject": "system:serviceaccount:shop:api", "token_policies": []string{d.name}, "token_ttl": "10m",
		}},
	} {
		if err := d.call(ctx, http.MethodPost, step.path, step.body); err != nil {
			return err
		}
		if strings.HasPrefix(step.path, "sys/") {
			s.strikes = append(s.strikes, func() error { return d.remove(context.WithoutCancel(ctx), step.path) })
		}
	}
	return nil
}

// rotate writes the secrets, with a new password. A KV v2 engine refuses writes in
// its first moments.
func (d demoVault) rotate(ctx context.Context) error {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for path, data := range map[string]map[string]any{
		"shop/db":       {"username": "shop", "password": rand.Text()},
		"shop/tls":      {"tls.crt": "demo certificate", "tls.key": "demo key"},
		"shop/features": {"checkout": map[string]any{"express": true}},
	} {
		_, err := store.Patiently(ctx, func() (struct{}, error) {
			err := d.call(ctx, http.MethodPost, d.name+"/data/"+path, map[string]any{"data": data})
			if errors.Is(err, store.Invalid) { // a new engine refuses writes while it gets its versions
				err = &store.Error{Reason: store.Unavailable, Cause: err}
			}
			return struct{}{}, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d demoVault) remove(ctx context.Context, path string) error {
	const limit = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return d.call(ctx, http.MethodDelete, path, nil)
}

func (d demoVault) call(ctx context.Context, method, path string, body map[string]any) error {
	request := vault.Request{Method: method, Path: path, Token: secret.New([]byte(d.token))}
	if body != nil {
		request.Body = body
	}
	if _, err := d.conn.Do(ctx, request); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
