package provider_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/provider/providertest"
)

// startPKI is startVault with a pki engine that answers with texts, as Vault's does.
func startPKI(t *testing.T, socket, text string) *world {
	t.Helper()
	w, _ := startVault(t, socket, func(s *setup, server *vaultServer) {
		rule := access.Rule{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"*"}, Paths: []string{"**"}}
		compiled, err := access.Compile("access", []access.Rule{rule}, access.Kind{Roles: access.Required, Writes: true})
		if err != nil {
			t.Fatal(err)
		}
		s.options.Backends[1].Rules = compiled
		inner := server.Config.Handler
		server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/pki/ca_chain":
				w.Header().Set("Content-Type", "application/pkix-cert")
				_, _ = fmt.Fprint(w, text)
			case "/v1/pki/crl/pem":
				w.Header().Set("Content-Type", "application/x-pem-file")
				w.WriteHeader(http.StatusNoContent)
			case "/v1/pki/cert/ca":
				_, _ = fmt.Fprint(w, `{"data": {"certificate": "`+strings.ReplaceAll(text, "\n", `\n`)+`"}}`)
			default:
				inner.ServeHTTP(w, r)
			}
		})
	})
	return w
}

// Vault's endpoints for PEM are secrets that are one text.
func TestSecretsThatAreOneText(t *testing.T) {
	chain := newChain(t)
	text := chain.replace("(intermediate)(root)").(string)
	w := startPKI(t, "keymount.sock", text)
	volume := func(objects string) providertest.Volume {
		v := w.volume(pod("shop", "api"), objects)
		v.Parameters["role"], v.Tokens["vault"] = "shop", w.sign(w.issuer, w.issuer.ClaimsFor(v.Pod, "vault"))
		return v
	}
	for objects, want := range map[string]map[string]string{
		`[{path: pki/ca_chain, file: ca.pem}]`:                                         {"ca.pem": "(intermediate)(root)"},
		`[{path: pki/ca_chain, file: ca/, format: pem}]`:                               {"ca/tls.crt": "(intermediate)", "ca/ca.crt": "(root)"},
		`[{path: pki/ca_chain, file: ca.pem, template: '{{ . | trim }}'}]`:             {"ca.pem": strings.TrimSpace(text)},
		`[{path: pki/crl/pem, file: crl.pem, optional: true}]`:                         {".keymount": ""},
		`[{path: pki/ca_chain, file: ca.pem, key: certificate, optional: true}]`:       {".keymount": ""},
		`[{path: pki/cert/ca, key: certificate, file: ca.pem}]`:                        {"ca.pem": "(intermediate)(root)"},
		`[{path: secret/shop/db, key: user, file: u}, {path: pki/ca_chain, file: ca}]`: {"u": "shop", "ca": "(intermediate)(root)"},
	} {
		files, _, err := w.mount(t, volume(objects))
		for name, content := range files {
			if content != want[name] {
				files[name] = chain.describe([]byte(content))
			}
		}
		if diff := cmp.Diff(want, files); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", objects, err, diff)
		}
	}
	const of = `objects[0]: secret "pki/%s" of store "default" as role "shop": `
	w.refused(t, volume(`[{path: pki/crl/pem, file: crl.pem}]`), codes.NotFound,
		fmt.Sprintf(of, "crl/pem")+"not found: the answer is empty: the engine has no such certificate, chain or list yet")
	w.refused(t, volume(`[{path: pki/cert/ca, file: ca.pem}]`), codes.FailedPrecondition,
		fmt.Sprintf(of, "cert/ca")+"invalid: it is no text but has keys; name a key, or end file in a slash to get one file per key")
	w.refused(t, volume(`[{path: pki/issue/shop, file: ca.pem}]`), codes.InvalidArgument,
		`bad request: SecretProviderClass shop/app: objects[0]: key: missing; name the value for "ca.pem", or end file in a slash to get one file per key, or add a format or a template`)
}

// A class of vault-csi-provider gets such a text in place of the whole answer, which is none.
func TestTextForAClassOfAnotherProvider(t *testing.T) {
	w := startPKI(t, "vault.sock", "-----BEGIN CERTIFICATE-----\n")
	files, _, err := w.mount(t, w.vaultVolume("[{objectName: ca.pem, secretPath: pki/ca_chain}]", nil))
	if diff := cmp.Diff(map[string]string{"ca.pem": "-----BEGIN CERTIFICATE-----\n"}, files); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
