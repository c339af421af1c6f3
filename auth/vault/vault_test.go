package vault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
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

func methodAt(t *testing.T, handler http.HandlerFunc) (method vaultauth.Method, host string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	conn, err := vault.NewConn(vault.Options{Addresses: []string{server.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return vaultauth.Method{Conn: conn, Mount: "kubernetes", Namespace: "teams/{namespace}", Now: midnight}, strings.TrimPrefix(server.URL, "http://")
}

func midnight() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func who() auth.Identity {
	return auth.Identity{Namespace: "shop", ServiceAccount: "api", Audience: "vault"}
}

func login(t *testing.T, handler http.HandlerFunc) (auth.Login, string, error) {
	t.Helper()
	method, host := methodAt(t, handler)
	got, err := method.Login(t.Context(), who(), secret.New([]byte(podToken)), "shop-api")
	return got, host, err
}

func TestLogin(t *testing.T) {
	var path, namespace string
	var body map[string]string
	got, _, err := login(t, func(w http.ResponseWriter, r *http.Request) {
		path, namespace = r.Method+" "+r.URL.Path, r.Header.Get("X-Vault-Namespace")
		_ = json.NewDecoder(r.Body).Decode(&body)
		_, _ = fmt.Fprintf(w, `{"auth":{"client_token":%q,"lease_duration":3600,"renewable":true}}`, vaultToken)
	})
	if err != nil || string(got.Token.Reveal()) != vaultToken || !got.Expires.Equal(midnight().Add(time.Hour)) || !got.Renewable {
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
			final := slices.Contains([]string{"refused", "no role", "no method"}, name)
			if errors.Is(err, auth.ErrRefused) != final {
				t.Errorf("it is remembered: %t, want %t", !final, final)
			}
		})
	}
}

// The answer of a login is that of all who share it: a mount that has no room left
// for its secrets does not fail it.
func TestLoginIsNotInTheBudget(t *testing.T) {
	method, _ := methodAt(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"auth":{"client_token":%q}}`, vaultToken)
	})
	got, err := method.Login(store.WithBudget(t.Context(), 1), who(), secret.New([]byte(podToken)), "shop-api")
	if err != nil || !got.Expires.IsZero() {
		t.Errorf("ends at %s, %v", got.Expires, err)
	}
}

func held() auth.Login {
	return auth.Login{Token: secret.New([]byte(vaultToken)), Expires: midnight().Add(time.Minute), Renewable: true}
}

// asked writes down what Vault is asked for.
func asked(request *string, status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*request += fmt.Sprintf("%s %s in %s with %s", r.Method, r.URL.Path, r.Header.Get("X-Vault-Namespace"), r.Header.Get("X-Vault-Token"))
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}
}

func TestRenew(t *testing.T) {
	for name, test := range map[string]struct {
		status    int
		body      string
		expires   time.Duration // after midnight; 0 for never
		renewable bool
		kind      error
		mark      error
		want      string
	}{
		"an hour more": {200, `{"auth":{"client_token":"hvs.not-looked-at","lease_duration":3600,"renewable":true}}`, time.Hour, true, nil, nil, ""},
		"the last":     {200, `{"auth":{"lease_duration":60,"renewable":false},"warnings":["TTL value is capped"]}`, time.Minute, false, nil, nil, ""},
		"for ever":     {200, `{"auth":{"lease_duration":0,"renewable":true}}`, 0, true, nil, nil, ""},
		"not again":    {400, `{"errors":["lease is not renewable"]}`, 0, false, vault.ErrRefused, auth.ErrLast, "renew a login of auth/kubernetes: invalid: refused: HOST answers 400: lease is not renewable"},
		"not allowed":  {403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, 0, false, store.ErrDenied, auth.ErrLast, "renew a login of auth/kubernetes: denied by the store: permission denied"},
		"ended": {
			403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, 0, false, store.ErrSession, auth.ErrRefused,
			"the session has ended: renew a login of auth/kubernetes: permission denied; invalid token",
		},
		"sealed":     {503, `{"errors":["Vault is sealed"]}`, 0, false, store.ErrUnavailable, nil, "renew a login of auth/kubernetes: store unavailable: HOST is sealed; unseal it"},
		"no content": {204, "", 0, false, store.ErrInvalid, nil, "invalid: renew a login of auth/kubernetes: the answer says nothing of its life"},
		"no auth":    {200, `{"data":{}}`, 0, false, store.ErrInvalid, nil, "invalid: renew a login of auth/kubernetes: the answer says nothing of its life"},
	} {
		t.Run(name, func(t *testing.T) {
			var request string
			method, host := methodAt(t, asked(&request, test.status, test.body))
			got, err := method.Renew(t.Context(), who(), held())
			if request != "POST /v1/auth/token/renew-self in teams/shop with "+vaultToken {
				t.Errorf("it asks %s", request)
			}
			if err != nil || test.kind != nil {
				want := strings.ReplaceAll(test.want, "HOST", host)
				if !errors.Is(err, test.kind) || err.Error() != want || errors.Is(err, auth.ErrRefused) != errors.Is(test.mark, auth.ErrRefused) || errors.Is(err, auth.ErrLast) != errors.Is(test.mark, auth.ErrLast) {
					t.Errorf("got  %v\nwant %s", err, want)
				}
				return
			}
			var expires time.Time
			if test.expires > 0 {
				expires = midnight().Add(test.expires)
			}
			if string(got.Token.Reveal()) != vaultToken || !got.Expires.Equal(expires) || got.Renewable != test.renewable {
				t.Errorf("expires %s, renewable %t", got.Expires, got.Renewable)
			}
		})
	}
}

func TestRevoke(t *testing.T) {
	for name, test := range map[string]struct {
		status  int
		body    string
		kind    error
		refused bool
		want    string
	}{
		"done":    {204, "", nil, false, ""},
		"ended":   {403, `{"errors":["permission denied"]}`, store.ErrDenied, true, "revoke a login of auth/kubernetes: denied by the store: permission denied"},
		"batch":   {400, `{"errors":["batch tokens cannot be revoked"]}`, vault.ErrRefused, true, "revoke a login of auth/kubernetes: invalid: refused: HOST answers 400: batch tokens cannot be revoked"},
		"standby": {429, `{"errors":[]}`, store.ErrUnavailable, false, "revoke a login of auth/kubernetes: store unavailable: HOST answers 429"},
	} {
		t.Run(name, func(t *testing.T) {
			var request string
			method, host := methodAt(t, asked(&request, test.status, test.body))
			err := method.Revoke(t.Context(), who(), held())
			if request != "POST /v1/auth/token/revoke-self in teams/shop with "+vaultToken {
				t.Errorf("it asks %s", request)
			}
			var got string
			if err != nil {
				got = err.Error()
			}
			if want := strings.ReplaceAll(test.want, "HOST", host); !errors.Is(err, test.kind) || got != want || errors.Is(err, auth.ErrRefused) != test.refused {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

// Vault keeps no record of batch tokens.
func TestBatchTokensAreNotRevoked(t *testing.T) {
	for _, token := range []string{"hvb.obviously-fake", "b.obviously-fake"} {
		var request string
		method, _ := methodAt(t, asked(&request, 400, ""))
		if err := method.Revoke(t.Context(), who(), auth.Login{Token: secret.New([]byte(token))}); err != nil || request != "" {
			t.Errorf("%s: asked %q, %v", token, request, err)
		}
	}
}
