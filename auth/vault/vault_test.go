package vault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	vaultauth "github.com/keymount/keymount/auth/vault"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

const (
	podToken   = "eyJ.obviously.fake" //nolint:gosec // as it says
	vaultToken = "hvs.obviously-fake"
)

func login(t *testing.T, handler http.HandlerFunc) (auth.Login, string, error) {
	t.Helper()
	server := httptest.NewServer(handler)
	defer server.Close()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{server.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	method := vaultauth.Method{Conn: conn, Mount: "kubernetes", Namespace: "teams/{namespace}", Now: func() time.Time { return now }}
	identity := auth.Identity{Namespace: "shop", ServiceAccount: "api", Audience: "vault"}
	got, err := method.Login(t.Context(), identity, secret.New([]byte(podToken)), "shop-api")
	return got, strings.TrimPrefix(server.URL, "http://"), err
}

func TestLogin(t *testing.T) {
	var path, namespace string
	var body map[string]string
	got, _, err := login(t, func(w http.ResponseWriter, r *http.Request) {
		path, namespace = r.Method+" "+r.URL.Path, r.Header.Get("X-Vault-Namespace")
		_ = json.NewDecoder(r.Body).Decode(&body)
		_, _ = fmt.Fprintf(w, `{"auth":{"client_token":%q,"lease_duration":3600}}`, vaultToken)
	})
	if err != nil || string(got.Token.Reveal()) != vaultToken || !got.Expires.Equal(time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)) {
		t.Errorf("expires %s, %v", got.Expires, err)
	}
	if path != "POST /v1/auth/kubernetes/login" || namespace != "teams/shop" || body["jwt"] != podToken || body["role"] != "shop-api" {
		t.Errorf("%s in %q", path, namespace)
	}
}

func TestLoginThatFails(t *testing.T) {
	const where = `login as role "shop-api" at auth/kubernetes`
	const cure = "; the role has to exist there, be bound to service account shop/api and accept audience \"vault\" (auth.mount in keymount.yaml names the method)"
	for name, test := range map[string]struct {
		status int
		body   string
		kind   error
		want   string
	}{
		"refused":    {403, `{"errors":["service account name not authorized"]}`, store.ErrDenied, "denied by the store: " + where + ": service account name not authorized" + cure},
		"no role":    {400, `{"errors":["invalid role name \"shop-api\""]}`, store.ErrDenied, "denied by the store: " + where + `: HOST answers 400: invalid role name "shop-api"` + cure},
		"no method":  {404, `{"errors":["no handler for route"]}`, store.ErrInvalid, "invalid: " + where + ": nothing is mounted there; correct auth.mount of the store in keymount.yaml"},
		"sealed":     {503, `{"errors":["Vault is sealed"]}`, store.ErrUnavailable, where + ": store unavailable: HOST is sealed; unseal it"},
		"HTML":       {400, "<html>", store.ErrInvalid, where + ": invalid: HOST answers 400 but HTML; is there a proxy in between, or another server at this address?"},
		"no content": {204, "", store.ErrInvalid, "invalid: " + where + ": the answer holds no token"},
		"no auth":    {200, `{"data":{}}`, store.ErrInvalid, "invalid: " + where + ": the answer holds no token"},
		"no token":   {200, `{"auth":{"lease_duration":3600}}`, store.ErrInvalid, "invalid: " + where + ": the answer holds no token"},
	} {
		t.Run(name, func(t *testing.T) {
			_, host, err := login(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = fmt.Fprint(w, test.body)
			})
			want := strings.ReplaceAll(test.want, "HOST", host)
			if !errors.Is(err, test.kind) || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}
