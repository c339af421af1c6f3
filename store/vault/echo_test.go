package vault_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

const (
	secretArgument = "canary argument/with <odd> \"characters\""
	shortArgument  = "canary7"
	leaseID        = "database/creds/shop/canaryLease4711"
)

// tells are what no error, warning or name of a request may hold.
var tells = []string{goodToken, podToken, vaultToken, "obviously-fake", "canary", "argument/with"}

// carried is what a request brings: its token, its body and its path.
func carried(r *http.Request) (token, body string) {
	content, _ := io.ReadAll(r.Body)
	return r.Header.Get("X-Vault-Token"), string(content)
}

// echoes are the ways to send back what was sent.
var echoes = map[string]func(text string) string{
	"as it is": func(text string) string { return text },
	"in JSON":  func(text string) string { quoted, _ := json.Marshal(text); return string(quoted) },
	"escaped":  url.QueryEscape,
	"base64":   func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) },
	"in lines": func(text string) string { return text[:len(text)/2] + "\n" + text[len(text)/2:] },
	"cut":      func(text string) string { return text[:len(text)*2/3] },
	"capitals": strings.ToUpper,
}

// secretWays ask for what only they may know.
func secretWays(t *testing.T) map[string]func(*vault.Conn) (store.Value, error) {
	t.Helper()
	mounts := map[string]vault.Engine{"secret": vault.KV2, "old": vault.KV1, "database": vault.Other}
	lease := store.Lease{ID: secret.New([]byte(leaseID)), Duration: time.Hour}
	args, err := json.Marshal(map[string]any{"a": secretArgument, "list": []any{map[string]string{"b": shortArgument}}})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]func(*vault.Conn) (store.Value, error){}
	for name, ask := range ways(t) {
		all[name] = func(c *vault.Conn) (store.Value, error) { return store.Value{}, ask(c) }
	}
	read := func(path string, change func(*store.Ref)) func(*vault.Conn) (store.Value, error) {
		return func(c *vault.Conn) (store.Value, error) {
			at := ref(t, path)
			change(&at)
			return vault.New(c, "", mounts).Read(t.Context(), caller(), at)
		}
	}
	all["read"] = read("secret/shop/db", func(*store.Ref) {})
	all["write"] = read("database/sign/shop", func(r *store.Ref) { r.Args = string(args) })
	all["query"] = read("database/roles/shop", func(r *store.Ref) { r.Query = url.Values{"q": {secretArgument}}.Encode() })
	all["renewal of a lease"] = func(c *vault.Conn) (store.Value, error) {
		_, err := vault.New(c, "", mounts).Renew(t.Context(), caller(), lease)
		return store.Value{}, err
	}
	all["end of a lease"] = func(c *vault.Conn) (store.Value, error) {
		return store.Value{}, vault.New(c, "", mounts).Revoke(t.Context(), caller(), lease)
	}
	return all
}

// Whatever a server sends back, and wherever it puts it: nothing that was sent to it gets
// into an error, a warning, or the name of a request.
func TestEchoesAreNotPassedOn(t *testing.T) {
	for _, status := range []int{200, 307, 400, 401, 403, 404, 405, 412, 429, 472, 473, 500, 502, 503} {
		for echoed, echo := range echoes {
			for way, ask := range secretWays(t) {
				conn := stands(t, func(w http.ResponseWriter, r *http.Request) {
					token, body := carried(r)
					said := "refused: " + echo(token) + " " + echo(body) + " " + echo(r.URL.RawQuery) + " of role shop"
					header := strings.Map(func(c rune) rune { return max(c, ' ') }, said)
					w.Header().Set("Server", header)
					w.Header().Set("Location", "http://"+url.PathEscape(token)+".example/login/"+url.PathEscape(token))
					w.WriteHeader(status)
					reply(w, map[string]any{
						"errors": []string{said, token}, "warnings": []string{said}, "request_id": token, "lease_id": "", "lease_duration": 60,
						"data": map[string]any{"path": token, "type": "kv", "a": "b", "data": map[string]any{}, "metadata": map[string]any{"version": token, "deletion_time": said}},
						"auth": map[string]any{"client_token": "x"},
					})
				})
				value, err := ask(conn)
				told := fmt.Sprint(err, value.Warnings, value.RequestID, value.Version)
				for _, secret := range tells {
					if strings.Contains(strings.ToLower(told), strings.ToLower(secret)) {
						t.Fatalf("%d, %s, echoed %s, tells %q: %s", status, way, echoed, secret, told)
					}
				}
			}
		}
	}
}

// Whatever a server says can be seen, and does nothing to a terminal or the line of a log.
func TestWordsOfAServerAreVisible(t *testing.T) {
	const odd, visible = "bad \u202ething \x1b[31mred\u200b\u2028\ufe0f\u00ad", `bad \u202ething \x1b[31mred\u200b \ufe0f\u00ad`
	for _, status := range []int{200, 307, 400, 403, 404, 405, 429, 500, 503} {
		for way, ask := range secretWays(t) {
			conn := stands(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "http://"+url.PathEscape(odd)+".example/"+url.PathEscape(odd))
				w.WriteHeader(status)
				reply(w, map[string]any{
					"errors": []string{odd}, "warnings": []string{odd}, "request_id": odd,
					"data": map[string]any{"path": odd, "type": "kv", "data": map[string]any{}, "metadata": map[string]any{"version": odd, "deletion_time": odd}},
					"auth": map[string]any{"client_token": "x"},
				})
			})
			value, err := ask(conn)
			told := fmt.Sprint(err, value.Warnings, value.RequestID, value.Version)
			if strings.ContainsFunc(told, func(r rune) bool { return !spelling.IsPlain(r) }) {
				t.Errorf("%d, %s tells %+q", status, way, told)
			}
			if status == http.StatusBadRequest && !strings.Contains(told, visible) {
				t.Errorf("%s: got %s, want %s", way, told, visible)
			}
		}
	}
}

// Paths and roles are what helps.
func TestPathsAndRolesStay(t *testing.T) {
	conn := stands(t, func(w http.ResponseWriter, r *http.Request) {
		_, body := carried(r)
		refuse(w, http.StatusBadRequest, "cannot do "+body+" at "+strings.TrimPrefix(r.URL.Path, "/v1/")+", lease "+leaseID)
	})
	for way, want := range map[string]string{
		"login":              `"role":"shop"} at auth/kubernetes/login`,
		"write":              "at database/sign/shop",
		"renewal of a lease": "lease database/creds/shop[hidden]",
	} {
		if _, err := secretWays(t)[way](conn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it to say %s", way, err, want)
		}
	}
}

// What is no HTTP is quoted by Go's library.
func TestEchoOfAnotherProtocol(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			request, _ := http.ReadRequest(bufio.NewReader(conn))
			token, body := carried(request)
			_, _ = fmt.Fprintf(conn, "%s %s\r\n%s\r\n\r\n", token, body, token)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-ended })
	conn, err := vault.NewConn(vault.Options{Addresses: []string{"http://" + listener.Addr().String()}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for way, ask := range secretWays(t) {
		_, err := ask(conn)
		for _, secret := range tells {
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", way, err)
			}
		}
	}
}

// A role whose tokens end after some uses is refused by name, and at once: reads that
// share a login would spend them.
func TestTokensThatAreSpent(t *testing.T) {
	var requests []string
	_, _, err := logIn(t, func(w http.ResponseWriter, r *http.Request) {
		requests = append(requests, r.URL.Path+" "+r.Header.Get("X-Vault-Token"))
		if strings.HasSuffix(r.URL.Path, "/login") {
			_, _ = fmt.Fprintf(w, `{"auth":{"client_token":%q,"lease_duration":3600,"num_uses":2}}`, vaultToken)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	const want = `invalid: login as role "shop-api" at auth/kubernetes: its tokens end after 2 uses, and all pods of a service account ` +
		`read with one, again and again; set token_num_uses of the role to 0`
	if err == nil || err.Error() != want || !store.Answered(err) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if len(requests) != 2 || requests[1] != "/v1/auth/token/revoke-self "+vaultToken {
		t.Errorf("requests %q, want the token to be given back", requests)
	}
}

// The name of a request goes into records: what has another form than such names is none.
func TestNamesOfRequestsAreNoTokens(t *testing.T) {
	for given, want := range map[string]string{
		"4f6a8c60-0c9e-4c7c-8a57-b1b1c0a4a1f0": "4f6a8c60-0c9e-4c7c-8a57-b1b1c0a4a1f0",
		"hvs.another-one":                      "",
		"eyJhbGciOiJSUzI1NiJ9.e30.c2ln":        "",
		"a\nb":                                 "",
		strings.Repeat("a", 65):                "",
	} {
		conn := stands(t, func(w http.ResponseWriter, _ *http.Request) {
			reply(w, map[string]any{"request_id": given, "data": map[string]any{"data": map[string]any{"a": "b"}, "metadata": map[string]any{"version": 1}}})
		})
		value, err := secretWays(t)["read"](conn)
		if err != nil || value.RequestID != want {
			t.Errorf("%q becomes %q, want %q: %v", given, value.RequestID, want, err)
		}
	}
}
