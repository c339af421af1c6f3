package auth_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keymount/keymount/auth"
)

// oidc is an issuer's server; its answers are what a test makes them.
type oidc struct {
	*httptest.Server
	document, keys string
}

func startOIDC(t *testing.T) *oidc {
	t.Helper()
	o := &oidc{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, o.document) })
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, o.keys) })
	mux.HandleFunc("/odd", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = fmt.Fprint(conn, "HTTP/1.1 404 no \x1b[31m\u202e\r\nContent-Length: 0\r\n\r\n")
			_ = conn.Close()
		}
	})
	o.Server = httptest.NewTLSServer(mux)
	t.Cleanup(o.Close)
	data, err := newIssuer(t, "key-1").KeySet()
	if err != nil {
		t.Fatal(err)
	}
	o.keys = string(data)
	o.document = fmt.Sprintf(`{"issuer": %q, "jwks_uri": %q}`, o.URL, o.URL+"/keys")
	return o
}

func (o *oidc) caFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDiscovery(t *testing.T) {
	o := startOIDC(t)
	source, err := auth.NewDiscoveryKeys(o.URL, o.caFile(t))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Client.CloseIdleConnections()
	name, keys, err := source.Keys(t.Context())
	if err != nil || name != o.URL || len(keys.Keys) != 1 || keys.Keys[0].KeyID != "key-1" {
		t.Errorf("got %q, %d keys, %v", name, len(keys.Keys), err)
	}
}

func TestDiscoveryMistakes(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*oidc)
		want   string // URL stands for the server's
	}{
		"another issuer": {
			func(o *oidc) { o.document = strings.Replace(o.document, `"https`, `"https://evil.invalid?`, 1) },
			`issuer at URL: its discovery document is of issuer "https://evil.invalid?://HOST", keymount.yaml says "URL"`,
		},
		"no issuer":                           {func(o *oidc) { o.document = "{}" }, "issuer at URL: discovery document: no issuer in it"},
		"HTML":                                {func(o *oidc) { o.document = "<html>" }, "issuer at URL: discovery document: invalid character '<' looking for beginning of value"},
		"keys over http":                      {func(o *oidc) { o.document = fmt.Sprintf(`{"issuer":%q,"jwks_uri":"http://x.invalid"}`, o.URL) }, `issuer at URL: its keys are at "http://x.invalid", which is not https`},
		"keys not found":                      {func(o *oidc) { o.document = strings.Replace(o.document, "/keys", "/none", 1) }, "issuer at URL: GET URL/none: 404 Not Found"},
		"keys at a place that cannot be seen": {func(o *oidc) { o.document = strings.Replace(o.document, "/keys", "/k\u202e", 1) }, `issuer at URL: the place of its keys, "URL/k\u202e" holds '\u202e'; no name has control, invisible or bidirectional characters`},
		"odd words":                           {func(o *oidc) { o.document = strings.Replace(o.document, "/keys", "/odd", 1) }, `issuer at URL: GET URL/odd: 404 no \x1b[31m\u202e`},
		"keys not JSON":                       {func(o *oidc) { o.keys = "x" }, "issuer at URL: URL/keys: not a JSON Web Key Set: invalid character 'x' looking for beginning of value"},
		"endless answers":                     {func(o *oidc) { o.keys = strings.Repeat(" ", 1<<20+1) }, "issuer at URL: GET URL/keys: more than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			o := startOIDC(t)
			test.change(o)
			source, err := auth.NewDiscoveryKeys(o.URL, o.caFile(t))
			if err != nil {
				t.Fatal(err)
			}
			defer source.Client.CloseIdleConnections()
			_, _, err = source.Keys(t.Context())
			want := strings.NewReplacer("URL", o.URL, "HOST", strings.TrimPrefix(o.URL, "https://")).Replace(test.want)
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func TestDiscoveryNeedsATrustedServer(t *testing.T) {
	o := startOIDC(t)
	source, err := auth.NewDiscoveryKeys(o.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := source.Keys(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("a server nobody vouches for is believed: %v", err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewDiscoveryKeys(o.URL, file); err == nil || err.Error() != "caFile: "+file+" holds no PEM certificate" {
		t.Errorf("got %v", err)
	}
}
