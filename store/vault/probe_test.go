package vault_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

// An answer of Vault's own form is one, whatever it says; a stranger's is none.
func TestProbe(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   error  // nil for an answer
		told   string // a part of the error
	}{
		"active":             {200, `{"initialized":true,"sealed":false,"standby":false}`, nil, ""},
		"standby":            {429, `{"initialized":true,"sealed":false,"standby":true}`, nil, ""},
		"sealed":             {503, `{"initialized":true,"sealed":true,"standby":true}`, nil, ""},
		"not initialized":    {501, `{"initialized":false,"sealed":true}`, nil, ""},
		"an error of its":    {400, `{"errors":["missing namespace"]}`, nil, ""},
		"throttled":          {429, `{"errors":[]}`, nil, ""},
		"a page":             {200, `<html>welcome</html>`, store.Unavailable, " answers 200 with HTML in place of Vault's own answer"},
		"an ingress":         {404, `404 page not found`, store.Unavailable, " in place of Vault's own answer"},
		"a mesh":             {403, `RBAC: access denied`, store.Unavailable, " in place of Vault's own answer"},
		"another's JSON":     {200, `{"status":"ok"}`, store.Unavailable, " in place of Vault's own answer"},
		"a list":             {200, `[]`, store.Unavailable, " in place of Vault's own answer"},
		"nothing":            {200, ``, store.Unavailable, " in place of Vault's own answer"},
		"an error of others": {500, `{"error":"boom"}`, store.Unavailable, " in place of Vault's own answer"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			s.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v1/sys/health" || r.Header.Get("X-Vault-Token") != "" {
					t.Errorf("asked for %s with token %q", r.URL, r.Header.Get("X-Vault-Token"))
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
				return true
			}
			wantProbe(t, newConn(t, vault.Options{Addresses: []string{s.URL}}), test.want, test.told)
		})
	}
}

func newConn(t *testing.T, o vault.Options) *vault.Conn {
	t.Helper()
	conn, err := vault.NewConn(o, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func wantProbe(t *testing.T, conn *vault.Conn, want error, told string) {
	t.Helper()
	err := conn.Probe(t.Context())
	if want == nil && err != nil || want != nil && (!errors.Is(err, want) || !strings.Contains(err.Error(), told)) {
		t.Errorf("got %v, want %v: %s", err, want, told)
	}
}

func healthy(w http.ResponseWriter, _ *http.Request) bool {
	_, _ = io.WriteString(w, `{"initialized":true,"sealed":false}`)
	return true
}

// What no waiting mends is told from an absence: a certificate, a name, on either side.
func TestProbeOfCertificates(t *testing.T) {
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	folder := t.TempDir()
	put(t, filepath.Join(folder, "first.pem"), first.pem(), 0)
	put(t, filepath.Join(folder, "second.pem"), second.pem(), 0)
	s := startTLS(t, &tls.Config{Certificates: []tls.Certificate{first.issue(t)}, MinVersion: tls.VersionTLS12})
	s.answer = healthy
	strict := startTLS(t, &tls.Config{
		Certificates: []tls.Certificate{first.issue(t)}, MinVersion: tls.VersionTLS12, ClientCAs: first.pool(), ClientAuth: tls.RequireAndVerifyClientCert,
	})
	strict.answer = healthy
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, test := range map[string]struct {
		addresses      []string
		ca, serverName string
		want           error
		told           string
	}{
		"trusted":             {[]string{s.URL}, "first.pem", "", nil, ""},
		"another authority":   {[]string{s.URL}, "second.pem", "", store.Invalid, "its certificate is not trusted: x509: certificate signed by unknown authority"},
		"by another name":     {[]string{s.URL}, "first.pem", "vault.example", store.Invalid, "its certificate is not trusted: x509: certificate is valid for vault.invalid, not vault.example"},
		"by its name":         {[]string{s.URL}, "first.pem", "vault.invalid", nil, ""},
		"without our own":     {[]string{strict.URL}, "first.pem", "", store.Invalid, "remote error: tls: certificate required"},
		"gone":                {[]string{gone.URL}, "first.pem", "", store.Unavailable, "connection refused"},
		"one of two trusted":  {[]string{strict.URL, s.URL}, "first.pem", "", nil, ""},
		"one gone, one wrong": {[]string{gone.URL, s.URL}, "second.pem", "", store.Invalid, "correct addresses, caFile, certFile or serverName of the store in keymount.yaml, or the certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := newConn(t, vault.Options{Addresses: test.addresses, CAFile: filepath.Join(folder, test.ca), ServerName: test.serverName})
			wantProbe(t, conn, test.want, test.told)
		})
	}
}

// A request ends at once where no other try can bring more, also while the address is out of
// reach for it; one address that may come back is reason to try again.
func TestMistrustIsLasting(t *testing.T) {
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	folder := t.TempDir()
	put(t, filepath.Join(folder, "first.pem"), first.pem(), 0)
	put(t, filepath.Join(folder, "second.pem"), second.pem(), 0)
	s := startTLS(t, &tls.Config{Certificates: []tls.Certificate{first.issue(t)}, MinVersion: tls.VersionTLS12})
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, test := range map[string]struct {
		addresses      []string
		ca, serverName string
		lasting        bool
	}{
		"another authority":   {[]string{s.URL}, "second.pem", "", true},
		"by another name":     {[]string{s.URL}, "first.pem", "vault.example", true},
		"gone":                {[]string{gone.URL}, "first.pem", "", false},
		"one gone, one wrong": {[]string{gone.URL, s.URL}, "second.pem", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			conn := newConn(t, vault.Options{Addresses: test.addresses, CAFile: filepath.Join(folder, test.ca), ServerName: test.serverName})
			for try := range 5 { // the last of them stopped by the breaker
				_, err := conn.Do(t.Context(), vault.Request{Method: http.MethodGet, Path: "secret/data/shop"})
				e, ok := errors.AsType[*store.Error](err)
				if !ok || e.Reason != store.Unavailable || e.Lasting != test.lasting {
					t.Errorf("try %d: %v, lasting %v, want %v", try, err, ok && e.Lasting, test.lasting)
				}
			}
		})
	}
}

// Files that cannot be used any more leave the connections as they are: the probe says
// so, until they are mended.
func TestProbeOfFilesThatChange(t *testing.T) {
	first := newAuthority(t, "first")
	s := startTLS(t, &tls.Config{Certificates: []tls.Certificate{first.issue(t)}, MinVersion: tls.VersionTLS12})
	s.answer = healthy
	file := filepath.Join(t.TempDir(), "ca.pem")
	put(t, file, first.pem(), 0)
	conn := newConn(t, vault.Options{Addresses: []string{s.URL}, CAFile: file})
	wantProbe(t, conn, nil, "")
	put(t, file, []byte("no certificate"), 1)
	wantProbe(t, conn, store.Invalid, "the files of the connection are not used as they are now: caFile: "+file+" holds no PEM certificate")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantProbe(t, conn, store.Invalid, "caFile: open ")
	put(t, file, first.pem(), 2)
	wantProbe(t, conn, nil, "")
}

// What can never be read is refused, and nothing else.
func TestNever(t *testing.T) {
	s := &vault.Settings{Mounts: map[string]string{"kv": "kv2", "team/kv": "kv2", "plain": "kv1", "database": "other"}}
	for pattern, cure := range map[string]string{ //nolint:gosec // no credentials
		"secret/data/{namespace}/**":    `write "secret/{namespace}/**", or mounts: {secret: kv1} in the store if it is no KV v2 engine`,
		"kv/data/shop":                  `write "kv/shop"`,
		"team/kv/data/shop/*":           `write "team/kv/shop/*"`,
		"*/data/shop":                   `write "*/shop"`,
		"{namespace}/data/**":           `write "{namespace}/**"`,
		"v1/secret/data/shop":           `write "secret/shop"`,
		"v1/kv/shop":                    `write "kv/shop"`,
		"secret/+/db":                   `write "*" here`,
		"team/kv":                       `write "team/kv/**" for all in it`,
		"plain":                         `write "plain/**" for all in it`,
		"database":                      `write "database/**" for all in it`,
		"pki":                           `write "pki/**" for all in it`,
		"v1":                            `write "**"`,
		"*":                             "",
		"{namespace}":                   "",
		"plain/**":                      "",
		"secret/shop/db":                "",
		"secret/**":                     "",
		"**":                            "",
		"**/data/x":                     "",
		"secret/data":                   "", // a secret of that name
		"plain/data/x":                  "",
		"database/data/x":               "",
		"secret/shop/data/x":            "",
		"secret/metadata/{namespace}/*": "",
		"data/x/y":                      "",
	} {
		for _, list := range []string{"paths", "writes"} {
			switch err := s.Never(list, pattern); {
			case cure == "" && err != nil, cure != "" && (err == nil || !strings.HasSuffix(err.Error(), cure)):
				t.Errorf("%s: %v, want %q", pattern, err, cure)
			}
		}
		if err := s.Never("namespaces", pattern); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
	}
}

// Vault takes letters, digits, dashes, dots and underscores for the name of a role.
func TestRolesThatNeverFit(t *testing.T) {
	for pattern, cure := range map[string]string{
		"shop,blog":                    "write each role as an entry of its own",
		"arn:aws:iam::1:role/shop/api": "", // as other stores have them, and another method of Vault may
		"{namespace}/*":                "",
		`"shop"`:                       `no '"'`,
		"'shop'":                       `no '\''`,
		"shop%2fapi":                   "no '%'",
		"shop|blog":                    "stands for any characters",
		"shop":                         "",
		"shop-":                        "",
		"shop_api.v1":                  "",
		"*":                            "",
		"**":                           "",
		"shop/**":                      "", // "**" may be no segment
		"**/shop":                      "",
		"{namespace}_*":                "",
		"{namespace}_{serviceAccount}": "",
	} {
		err := new(vault.Settings).Never("roles", pattern)
		if cure == "" && err != nil || cure != "" && (err == nil || !strings.HasSuffix(err.Error(), cure)) {
			t.Errorf("%s: %v, want %q", pattern, err, cure)
		}
	}
}
