package vault_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store/vault"
)

// The fields of engines about a secret, as their API documentation has them: the value
// holds them all, and names them.
func TestWhatEnginesSayAboutASecret(t *testing.T) {
	database := `{"username":"u","password":"p","ttl":5,"last_vault_rotation":"x","rotation_period":60,"rotation_schedule":"s","rotation_window":9}`
	ldap := `{"dn":"d","username":"u","password":"p","last_password":"o","ttl":5,"last_vault_rotation":"x","rotation_period":60}`
	gcp := `{"token":"t","token_ttl":3599,"expires_at_seconds":1537402548}`
	aws := `{"access_key":"a","secret_key":"s","expiration":"x","ttl":5}`
	tests := []struct {
		engine, path, data string
		about              []string
	}{
		{"database", "db/static-creds/shop", database, []string{"ttl", "last_vault_rotation", "rotation_period", "rotation_schedule", "rotation_window"}},
		{"database", "db/creds/shop", `{"username":"u","password":"p","ttl":1}`, nil},
		{"ldap", "ldap/static-cred/shop", ldap, []string{"ttl", "last_vault_rotation", "rotation_period"}},
		{"openldap", "ldap/static-cred/org/dev/shop", ldap, []string{"ttl", "last_vault_rotation", "rotation_period"}},
		{"ldap", "ldap/library/shop/check-out", `{"password":"p","service_account_name":"s"}`, nil},
		{"ad", "ad/creds/shop", `{"username":"u","current_password":"p","last_password":"o"}`, nil},
		{"aws", "aws/static-creds/shop", aws, []string{"expiration"}},
		{"aws", "aws/creds/shop", aws, []string{"ttl"}},
		{"azure", "azure/static-creds/shop", `{"client_id":"c","client_secret":"s","expiration":"x"}`, []string{"expiration"}},
		{"gcp", "gcp/roleset/shop/token", gcp, []string{"token_ttl", "expires_at_seconds"}},
		{"gcp", "gcp/static-account/shop/token", gcp, []string{"token_ttl", "expires_at_seconds"}},
		{"gcp", "gcp/impersonated-account/shop/token", gcp, []string{"token_ttl", "expires_at_seconds"}},
		{"gcp", "gcp/roleset/shop/key", gcp, nil},
		{"pki", "pki/issue/shop", `{"certificate":"c","expiration":1,"ttl":5}`, nil},
		{"my-database-plugin", "db/static-creds/shop", database, []string{"ttl", "last_vault_rotation", "rotation_period", "rotation_schedule", "rotation_window"}},
		{"kv", "old/static-creds/shop", database, nil}, // its author's own fields
		{"", "db/static-creds/shop", database, []string{"ttl", "last_vault_rotation", "rotation_period", "rotation_schedule", "rotation_window"}},
		{"", "db/static-creds/shop", `{"username":"u"}`, nil},
	}
	for _, test := range tests {
		t.Run(test.engine+" "+test.path, func(t *testing.T) {
			s := startServer(t)
			mount, _, _ := strings.Cut(test.path, "/")
			s.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
					reply(w, map[string]any{"data": map[string]any{"path": mount + "/", "type": test.engine}})
					return true
				}
				_, _ = w.Write([]byte(`{"data":` + test.data + `}`))
				return true
			}
			v := open(t, s.URL)
			if test.engine == "" { // keymount.yaml has the engine
				conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, time.Now)
				if err != nil {
					t.Fatal(err)
				}
				v = vault.New(conn, "", map[string]vault.Engine{mount: vault.Other})
			}
			value, err := v.Read(t.Context(), caller(), ref(t, test.path))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.about, value.About); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, name := range value.About {
				if _, ok := value.Data.Child(name); !ok || !slices.Contains(value.Data.Keys(), name) {
					t.Errorf("%s is not in the data any more", name)
				}
			}
		})
	}
}
