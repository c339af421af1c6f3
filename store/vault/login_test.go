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
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

const (
	podToken   = "eyJ.obviously.fake" //nolint:gosec // as it says
	vaultToken = "hvs.obviously-fake"
)

func methodAt(t *testing.T, handler http.HandlerFunc) (method vault.Method, host string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	conn, err := vault.NewConn(vault.Options{Addresses: []string{server.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return vault.Method{Conn: conn, Mount: "kubernetes", Namespace: "teams/{namespace}", Now: midnight}, strings.TrimPrefix(server.URL, "http://")
}

func midnight() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func who() auth.Identity {
	return auth.Identity{Namespace: "shop", ServiceAccount: "api", Audience: "vault"}
}

func logIn(t *testing.T, handler http.HandlerFunc) (login.Login, string, error) {
	t.Helper()
	method, host := methodAt(t, handler)
	got, err := method.Login(t.Context(), who(), secret.New([]byte(podToken)), "shop-api")
	return got, host, err
}

func TestLogin(t *testing.T) {
	var path, namespace string
	var body map[string]string
	got, _, err := logIn(t, func(w http.ResponseWriter, r *http.Request) {
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
	const question = "; is there a proxy, an ingress, a service mesh or a login page in between, or another server at this address of keymount.yaml?"
	for name, test := range map[string]struct {
		status int
		body   string
		kind   error
		want   string
	}{
		"refused":    {403, `{"errors":["service account name not authorized"]}`, store.Denied, "denied by the store: " + where + ": service account name not authorized" + cure},
		"no role":    {400, `{"errors":["invalid role name \"shop-api\""]}`, store.Denied, "denied by the store: " + where + `: HOST answers 400: invalid role name "shop-api"` + cure},
		"no method":  {404, `{"errors":["no handler for route"]}`, store.Invalid, "invalid: " + where + ": nothing is mounted there; correct auth.mount of the store in keymount.yaml"},
		"sealed":     {503, `{"errors":["Vault is sealed"]}`, store.Unavailable, where + ": store unavailable: HOST is sealed; unseal it"},
		"HTML":       {400, "<html>", store.Unavailable, where + ": store unavailable: HOST answers 400 with HTML in place of Vault's own answer" + question},
		"no content": {204, "", store.Unavailable, where + ": store unavailable: HOST answers 204 with no content in place of Vault's own answer" + question},
		"no auth":    {200, `{"data":{}}`, store.Unavailable, where + ": store unavailable: HOST answers 200 with JSON of another form in place of Vault's own answer" + question},
		"no token":   {200, `{"auth":{"lease_duration":3600}}`, store.Invalid, "invalid: " + where + ": the answer holds no token"},
	} {
		t.Run(name, func(t *testing.T) {
			method, host := methodAt(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = fmt.Fprint(w, test.body)
			})
			_, err := method.Login(t.Context(), who(), secret.New([]byte(podToken)), "shop-api")
			want := strings.ReplaceAll(test.want, "HOST", host)
			if !errors.Is(err, test.kind) || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			sessions := login.NewSessions(method, false, time.Now)
			_, err = sessions.Open(t.Context(), who(), secret.New([]byte(podToken)), "shop-api")
			if refused := !errors.Is(test.kind, store.Unavailable); login.Refused(err) != refused {
				t.Errorf("it is remembered: %t, want %t (%v)", !refused, refused, err)
			}
		})
	}
}

// The answer of a login has a bound of its own, and waits for no place.
func TestLoginIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		bytes int
		want  string // "" is none
	}{
		"with a thousand policies": {40 << 10, ""},
		"without end":              {2 << 20, "login as role \"shop-api\" at auth/kubernetes: invalid: HOST answers with more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, host, err := logIn(t, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = fmt.Fprintf(w, `{"auth":{"client_token":%q,"policies":[%q]}}`, vaultToken, strings.Repeat("x", test.bytes))
			})
			if test.want == "" {
				if err != nil || string(got.Token.Reveal()) != vaultToken {
					t.Errorf("got %v", err)
				}
				return
			}
			if want := strings.ReplaceAll(test.want, "HOST", host); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func held() login.Login {
	return login.Login{Token: secret.New([]byte(vaultToken)), Expires: midnight().Add(time.Minute), Renewable: true}
}

// recording answers each request and adds it to a text.
func recording(request *string, status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*request += fmt.Sprintf("%s %s in %s with %s", r.Method, r.URL.Path, r.Header.Get("X-Vault-Namespace"), r.Header.Get("X-Vault-Token"))
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}
}

func TestRenewLogin(t *testing.T) {
	const question = "; is there a proxy, an ingress, a service mesh or a login page in between, or another server at this address of keymount.yaml?"
	for name, test := range map[string]struct {
		status    int
		body      string
		expires   time.Duration // after midnight; 0 for never
		renewable bool
		kind      error
		want      string
	}{
		"an hour more": {200, `{"auth":{"client_token":"hvs.not-looked-at","lease_duration":3600,"renewable":true}}`, time.Hour, true, nil, ""},
		"the last":     {200, `{"auth":{"lease_duration":60,"renewable":false},"warnings":["TTL value is capped"]}`, time.Minute, false, nil, ""},
		"for ever":     {200, `{"auth":{"lease_duration":0,"renewable":true}}`, 0, true, nil, ""},
		"not again":    {400, `{"errors":["lease is not renewable"]}`, 0, false, store.Denied, "renew a login of auth/kubernetes: denied by the store: HOST answers 400: lease is not renewable"},
		"not allowed":  {403, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, 0, false, store.Denied, "renew a login of auth/kubernetes: denied by the store: permission denied"},
		"ended": {
			403, `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`, 0, false, store.Ended,
			"renew a login of auth/kubernetes: the session has ended: permission denied; invalid token",
		},
		"sealed":     {503, `{"errors":["Vault is sealed"]}`, 0, false, store.Unavailable, "renew a login of auth/kubernetes: store unavailable: HOST is sealed; unseal it"},
		"no content": {204, "", 0, false, store.Unavailable, "renew a login of auth/kubernetes: store unavailable: HOST answers 204 with no content in place of Vault's own answer" + question},
		"no auth":    {200, `{"data":{}}`, 0, false, store.Unavailable, "renew a login of auth/kubernetes: store unavailable: HOST answers 200 with JSON of another form in place of Vault's own answer" + question},
	} {
		t.Run(name, func(t *testing.T) {
			var request string
			method, host := methodAt(t, recording(&request, test.status, test.body))
			got, err := method.Renew(t.Context(), who(), held())
			if request != "POST /v1/auth/token/renew-self in teams/shop with "+vaultToken {
				t.Errorf("it asks %s", request)
			}
			if err != nil || test.kind != nil {
				want := strings.ReplaceAll(test.want, "HOST", host)
				if !errors.Is(err, test.kind) || err.Error() != want {
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

func TestRevokeLogin(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		kind   store.Reason
		want   string
	}{
		"done":    {204, "", "", ""},
		"ended":   {403, `{"errors":["permission denied"]}`, store.Denied, "revoke a login of auth/kubernetes: denied by the store: permission denied"},
		"batch":   {400, `{"errors":["batch tokens cannot be revoked"]}`, store.Denied, "revoke a login of auth/kubernetes: denied by the store: HOST answers 400: batch tokens cannot be revoked"},
		"standby": {429, `{"errors":[]}`, store.Unavailable, "revoke a login of auth/kubernetes: store unavailable: HOST answers 429"},
	} {
		t.Run(name, func(t *testing.T) {
			var request string
			method, host := methodAt(t, recording(&request, test.status, test.body))
			err := method.Revoke(t.Context(), who(), held())
			if request != "POST /v1/auth/token/revoke-self in teams/shop with "+vaultToken {
				t.Errorf("it asks %s", request)
			}
			var got string
			var kind store.Reason
			if e, ok := errors.AsType[*store.Error](err); ok {
				got, kind = err.Error(), e.Reason
			}
			if want := strings.ReplaceAll(test.want, "HOST", host); kind != test.kind || got != want || (err != nil) != (want != "") {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

// Vault keeps no record of batch tokens.
func TestBatchTokensAreNotRevoked(t *testing.T) {
	for _, token := range []string{"hvb.obviously-fake", "b.obviously-fake"} {
		var request string
		method, _ := methodAt(t, recording(&request, 400, ""))
		if err := method.Revoke(t.Context(), who(), login.Login{Token: secret.New([]byte(token))}); err != nil || request != "" {
			t.Errorf("%s: asked %q, %v", token, request, err)
		}
	}
}
