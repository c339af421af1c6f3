package vault_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/vault"
)

// answerRaw has everything below a mount answer with a body of a type.
func answerRaw(s *server, engine string, status int, contentType, body string) {
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if path, isLookup := strings.CutPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/"); isLookup {
			mount, _, _ := strings.Cut(path, "/")
			reply(w, map[string]any{"data": map[string]any{"path": mount + "/", "type": engine}})
			return true
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
		return true
	}
}

const (
	pemText = "-----BEGIN CERTIFICATE-----\n" + canary + "\n-----END CERTIFICATE-----\n"
	crlText = "-----BEGIN X509 CRL-----\n" + canary + "\n-----END X509 CRL-----\n"
)

// An answer that is one text is the secret: the types are those of Vault's pki and ssh
// engines.
func TestAnswersThatAreOneText(t *testing.T) {
	const chain, certificate, list = "application/pem-certificate-chain", "application/pkix-cert", "application/x-pem-file"
	for path, test := range map[string][2]string{
		"pki/ca/pem": {chain, pemText}, "pki/ca_chain": {certificate, pemText}, "pki/cert/ca_chain/raw": {certificate, pemText}, "pki/cert/ca/raw/pem": {chain, pemText},
		"pki/cert/17:67/raw/pem": {chain, pemText}, "pki/issuer/default/pem": {chain, pemText}, "pki/issuer/default/der": {certificate, "0\x82\x01\x00\xff"},
		"pki/crl/pem": {list, crlText}, "pki/crl/delta/pem": {list, crlText}, "pki/unified-crl/pem": {list, crlText}, "pki/crl": {"application/pkix-crl", "0\x82\xff"},
		"pki/ca": {certificate, "0\x82\x01\x00\xff"}, "ssh/public_key": {"text/plain", "ssh-rsa AAAA " + canary + "\n"}, "deep/pki/ca/pem": {chain + "; charset=utf-8", pemText},
	} {
		s := startServer(t)
		answerRaw(s, "pki", http.StatusOK, test[0], test[1])
		value, err := open(t, s.URL).Read(t.Context(), caller(), ref(t, path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if diff := cmp.Diff(any(test[1]), value.Data.Reveal()); diff != "" || value.Lease != nil || value.Envelope.Reveal() != nil {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// Not every text is one of Vault's, and an engine that has none says so with an empty body.
func TestTextsOfStrangers(t *testing.T) {
	tests := map[string]struct {
		engine, path      string
		status            int
		contentType, body string
		kind              error
	}{
		"a proxy's page":         {"pki", "pki/ca/pem", 200, "text/html", "<html>" + canary, nil},
		"a proxy's text":         {"pki", "pki/ca/pem", 200, "text/plain", canary, nil},
		"a page of that type":    {"pki", "pki/ca/pem", 200, "application/pem-certificate-chain", "<html>" + canary, nil},
		"a text of that type":    {"ssh", "ssh/public_key", 200, "text/plain", "default backend " + canary, nil},
		"an error in PEM":        {"pki", "pki/ca/pem", 404, "application/pem-certificate-chain", pemText, nil},
		"key/value never is one": {"kv", "old/ca/pem", 200, "application/pem-certificate-chain", pemText, nil},
		"nothing yet":            {"pki", "pki/crl/pem", 204, "application/x-pem-file", "", store.NotFound},
		"no chain":               {"pki", "pki/ca_chain", 204, "application/pkix-cert", "", store.NotFound},
		"a 204 elsewhere":        {"database", "db/creds/shop", 204, "", "", store.Unavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			answerRaw(s, test.engine, test.status, test.contentType, test.body)
			value, err := open(t, s.URL).Read(t.Context(), caller(), ref(t, test.path))
			if err == nil || test.kind != nil && !errors.Is(err, test.kind) || strings.Contains(err.Error(), canary) {
				t.Errorf("got %v, %v", value.Data.Reveal(), err)
			}
		})
	}
	s := startServer(t)
	answerRaw(s, "pki", 200, "application/x-pem-file", crlText+strings.Repeat("x", 5<<20))
	if _, err := open(t, s.URL).Read(t.Context(), caller(), ref(t, "pki/crl/pem")); !errors.Is(err, store.Invalid) {
		t.Errorf("a text without an end: %v", err)
	}
	answerRaw(s, "pki", 200, "application/x-pem-file", crlText)
	written := ref(t, "pki/crl/pem")
	written.Args = `{"a":1}`
	if _, err := open(t, s.URL).Read(t.Context(), caller(), written); err == nil {
		t.Error("a write was answered with a text")
	}
}

// A class may ask for such a path without a key.
func TestPathsOfTexts(t *testing.T) {
	settings := vault.Settings{Mounts: map[string]string{"secret": "kv2", "team/pki": "other", "team": "kv1"}}
	for path, want := range map[string]bool{
		"pki/ca_chain": true, "pki/ca/pem": true, "pki/crl/pem": true, "pki/cert/ca/raw/pem": true, "ssh/public_key": true, "team/pki/ca/pem": true, "team/ca/pem": false,
		"pki/issue/shop": false, "secret/shop/pem": false, "secret/shop/db": false, "pem": false, "pki/cert/ca": true,
	} {
		if got := settings.IsText(ref(t, path).Path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// The namespace of the login goes with requests about the login, and the other with reads.
func TestNamespaceOfTheLogin(t *testing.T) {
	for configured, want := range map[string]string{"team": "team", "root": "", "/org/{namespace}/": "org/shop", "": "org/shop/apps"} {
		s := startServer(t)
		namespaces := map[string]string{}
		s.answer = func(w http.ResponseWriter, r *http.Request) bool {
			namespaces[strings.TrimPrefix(r.URL.Path, "/v1/")] = r.Header.Get("X-Vault-Namespace")
			switch {
			case strings.HasPrefix(r.URL.Path, "/v1/auth/token/lookup-self"):
				reply(w, map[string]any{"data": map[string]any{}})
			case strings.HasPrefix(r.URL.Path, "/v1/auth/"):
				reply(w, map[string]any{"auth": map[string]any{"client_token": goodToken, "lease_duration": 60, "renewable": true}})
			case strings.HasPrefix(r.URL.Path, "/v1/sys/leases/"):
				reply(w, map[string]any{"lease_id": "l", "lease_duration": 60})
			default:
				refuse(w, http.StatusForbidden, "permission denied")
			}
			return true
		}
		settings := vault.Settings{Addresses: []string{s.URL}, Namespace: "org/{namespace}/apps", Auth: vault.Auth{Namespace: configured, Method: "kubernetes", Mount: "kubernetes"}}
		layers, err := settings.Open(kind.Env{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		login, err := layers.Login.Login(t.Context(), caller().Identity, caller().Login, "shop")
		if err != nil {
			t.Fatal(err)
		}
		renewer, _ := layers.Login.(vault.Method)
		_, _ = renewer.Renew(t.Context(), caller().Identity, login)
		_ = renewer.Revoke(t.Context(), caller().Identity, login)
		_, _ = layers.Read(t.Context(), caller(), ref(t, "secret/shop/db"))
		_, _ = layers.Renew(t.Context(), caller(), store.Lease{Duration: time.Minute})
		const reads = "org/shop/apps"
		expected := map[string]string{
			"auth/kubernetes/login": want, "auth/token/renew-self": want, "auth/token/revoke-self": want, "auth/token/lookup-self": want,
			"sys/internal/ui/mounts/secret/shop/db": reads, "sys/leases/renew": reads,
		}
		if diff := cmp.Diff(expected, namespaces); diff != "" {
			t.Errorf("auth.namespace %q (-want +got):\n%s", configured, diff)
		}
	}
}
