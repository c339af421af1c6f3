package vaulttest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// Paths are without "v1/" and without a slash at their ends, such as "secret" or
// "team/db".

// MountKV1 mounts a key-value engine without versions.
func (s *Server) MountKV1(tb testing.TB, path string) {
	tb.Helper()
	s.mount(tb, path, &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}})
}

// MountKV2 mounts a key-value engine with versions.
func (s *Server) MountKV2(tb testing.TB, path string) {
	tb.Helper()
	s.mount(tb, path, &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}})
	client := s.Client(tb)
	// For an instant it answers 400 to everything, because it is "upgrading".
	eventually(tb, "wait for the engine at "+path, func(ctx context.Context) error {
		_, err := client.Logical().ReadWithContext(ctx, path+"/config")
		return err //nolint:wrapcheck // eventually says what was tried
	})
}

// MountPKI mounts a certificate authority and a role that issues any name, for an
// hour when the caller does not say for how long. It returns the root in PEM.
func (s *Server) MountPKI(tb testing.TB, path, role string) []byte {
	tb.Helper()
	s.mount(tb, path, &api.MountInput{Type: "pki", Config: api.MountConfigInput{MaxLeaseTTL: "24h"}})
	root := s.write(tb, path+"/root/generate/internal", map[string]any{
		"common_name": "vaulttest root", "key_type": "ec", "ttl": "24h",
	})
	s.write(tb, path+"/roles/"+role, map[string]any{
		"allow_any_name": true, "enforce_hostnames": false, "key_type": "ec", "ttl": "1h", "max_ttl": "12h",
	})
	certificate, ok := root.Data["certificate"].(string)
	if !ok {
		tb.Fatalf("mount %s: the root has no certificate", path)
	}
	return []byte(certificate)
}

// MountTransit mounts encryption as a service with one key.
func (s *Server) MountTransit(tb testing.TB, path, key string) {
	tb.Helper()
	s.mount(tb, path, &api.MountInput{Type: "transit"})
	s.write(tb, path+"/keys/"+key, nil)
}

// MountDatabase mounts an engine that makes users in postgres, and a role whose
// users live for ttl and may do nothing but log in. Read path/creds/role for one.
func (s *Server) MountDatabase(tb testing.TB, path string, postgres *Postgres, role string, ttl time.Duration) {
	tb.Helper()
	s.mount(tb, path, &api.MountInput{Type: "database"})
	s.write(tb, path+"/config/postgres", map[string]any{
		"plugin_name":    "postgresql-database-plugin",
		"connection_url": postgres.URL("{{username}}", "{{password}}"),
		"allowed_roles":  "*",
		"username":       Superuser,
		"password":       postgres.Password,
	})
	s.write(tb, path+"/roles/"+role, map[string]any{
		"db_name":             "postgres",
		"creation_statements": `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
		"default_ttl":         seconds(ttl),
		"max_ttl":             seconds(2 * ttl),
	})
}

// AddStaticRole lets the engine at path change the password of an existing user
// of the database every period, at least 5 s. Read path/static-creds/role for it.
func (s *Server) AddStaticRole(tb testing.TB, path, role, username string, period time.Duration) {
	tb.Helper()
	s.write(tb, path+"/static-roles/"+role, map[string]any{
		"db_name": "postgres", "username": username, "rotation_period": seconds(period),
	})
}

// WritePolicy makes or replaces a policy, in Vault's own language.
func (s *Server) WritePolicy(tb testing.TB, name, rules string) {
	tb.Helper()
	if err := s.Client(tb).Sys().PutPolicyWithContext(tb.Context(), name, rules); err != nil {
		tb.Fatalf("write policy %s: %v", name, err)
	}
}

func (s *Server) mount(tb testing.TB, path string, input *api.MountInput) {
	tb.Helper()
	if err := s.Client(tb).Sys().MountWithContext(tb.Context(), path, input); err != nil {
		tb.Fatalf("mount %s at %s: %v", input.Type, path, err)
	}
}

func (s *Server) write(tb testing.TB, path string, data map[string]any) *api.Secret {
	tb.Helper()
	answer, err := s.Client(tb).Logical().WriteWithContext(tb.Context(), path, data)
	if err != nil {
		tb.Fatalf("write %s: %v", path, err)
	}
	return answer
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0fs", d.Seconds()) }
