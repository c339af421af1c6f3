package e2e_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/e2e/vaulttest"
)

// Every form of a class whose files can be written down, with the requests for
// secrets that it takes.
func TestForms(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	k, p := serveBefore(t, server, issuer, operator{})
	k.mounted(t, shopClass(`[{path: secret/shop/db, file: ./}]`)) // logs in, so that any one form finds a session
	for _, test := range []struct {
		name    string
		objects string
		files   map[string]string
		reads   map[string]int // requests by the beginning of their path
	}{
		{
			"KV v1", `[{path: plain/shop/db, key: password, file: password}]`,
			map[string]string{"password": "canary-plain-password"},
			map[string]int{"plain/": 1},
		},
		{
			"KV v2", `[{path: secret/shop/db, key: password, file: password}]`,
			map[string]string{"password": "canary-password-4"},
			map[string]int{"secret/": 1},
		},
		{
			"KV v2 by the API's path", `[{path: secret/data/shop/db, key: password, file: password}]`,
			map[string]string{"password": "canary-password-4"},
			map[string]int{"secret/": 1},
		},
		{
			"KV v2, both spellings", lines(`{path: secret/shop/db, key: username, file: username}`, `{path: secret/data/shop/db, key: password, file: password}`),
			map[string]string{"username": "canary-user-4", "password": "canary-password-4"},
			map[string]int{"secret/": 1},
		},
		{
			"a secret called data", `[{path: secret/shop/data, key: value, file: value}]`,
			map[string]string{"value": "canary-in-data"},
			map[string]int{"secret/data/shop/data": 1},
		},
		{
			"two keys of one secret", lines(`{path: secret/shop/db, key: username, file: username}`, `{path: secret/shop/db, key: password, file: db/password}`),
			map[string]string{"username": "canary-user-4", "db/password": "canary-password-4"},
			map[string]int{"secret/": 1},
		},
		{
			"a key further in", `[{path: secret/shop/app, key: tls.on, file: tls}]`,
			map[string]string{"tls": "true"},
			map[string]int{"secret/": 1},
		},
		{
			"a pinned version", `[{path: secret/shop/db, key: password, version: 1, file: password}]`,
			map[string]string{"password": "canary-password-1"},
			map[string]int{"secret/": 1},
		},
		{
			"a pinned version and the latest", lines(`{path: secret/shop/db, key: password, version: 1, file: old}`, `{path: secret/shop/db, key: password, file: new}`),
			map[string]string{"old": "canary-password-1", "new": "canary-password-4"},
			map[string]int{"secret/": 1}, // what is pinned was read before
		},
		{
			"all keys", `[{path: secret/shop/db, file: db/}]`,
			map[string]string{"db/username": "canary-user-4", "db/password": "canary-password-4"},
			map[string]int{"secret/": 1},
		},
		{
			"format", lines(`{path: secret/shop/app, format: json, file: app.json}`, `{path: secret/shop/db, format: dotenv, file: db.env}`),
			map[string]string{
				"app.json": `{"name":"canary-name","port":5432,"tls":{"on":true}}` + "\n",
				"db.env":   "password='canary-password-4'\nusername='canary-user-4'\n",
			},
			map[string]int{"secret/": 2},
		},
		{
			"a template over two secrets", `[{path: secret/shop/db, file: dsn, template: '{{ .username }}:{{ .password }}@db/{{ (secret "secret/shop/app").name }}'}]`,
			map[string]string{"dsn": "canary-user-4:canary-password-4@db/canary-name"},
			map[string]int{"secret/": 2},
		},
		{
			"another role for one object", lines(`{path: secret/shop/db, key: username, file: username}`, `{path: secret/shop/db, key: password, file: password, role: shop-other}`),
			map[string]string{"username": "canary-user-4", "password": "canary-password-4"},
			map[string]int{"secret/": 2, "auth/jwt/login": 1},
		},
		{
			"optional", lines(`{path: secret/shop/db, key: username, file: username}`, `{path: secret/shop/none, key: a, file: a, optional: true}`, `{path: secret/shop/db, version: 3, key: username, file: b, optional: true}`),
			map[string]string{"username": "canary-user-4"},
			map[string]int{"secret/": 3},
		},
		{
			"nothing but optional", `[{path: secret/shop/none, key: a, file: a, optional: true}]`,
			map[string]string{".keymount": ""},
			map[string]int{"secret/": 1},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			p.forget()
			if diff := cmp.Diff(test.files, k.mounted(t, shopClass(test.objects))); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			for prefix, want := range test.reads {
				if got := p.count(prefix); got != want {
					t.Errorf("%d requests for %s, want %d", got, prefix, want)
				}
			}
		})
	}
}

// What a write answers is a secret, too, and its arguments are part of what it is.
func TestWrites(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.MountPKI(t, "pki", "shop"))
	server.MountTransit(t, "transit", "shop")
	k, p := serveBefore(t, server, issuer, operator{})

	t.Run("a certificate", func(t *testing.T) {
		p.forget()
		files := k.mounted(t, shopClass(`[{path: pki/issue/shop, args: {common_name: api.shop.svc, ttl: 1h}, format: pem, file: cert/}]`))
		checkCertificate(t, roots, files, "cert", "api.shop.svc")
		if got := p.count("pki/"); got != 1 {
			t.Errorf("%d certificates were issued, want 1", got)
		}
	})

	t.Run("two certificates", func(t *testing.T) {
		p.forget()
		files := k.mounted(t, shopClass(lines(
			`{path: pki/issue/shop, args: {common_name: a.shop.svc}, format: pem, file: a/}`,
			`{path: pki/issue/shop, args: {common_name: b.shop.svc}, format: pem, file: b/}`,
			`{path: pki/issue/shop, args: {common_name: a.shop.svc}, format: pem, file: again/}`,
			`{path: pki/issue/shop, args: {common_name: a.shop.svc}, key: serial_number, file: serial}`,
		)))
		checkCertificate(t, roots, files, "a", "a.shop.svc")
		checkCertificate(t, roots, files, "b", "b.shop.svc")
		if files["a/tls.key"] == files["b/tls.key"] {
			t.Error("two names got the same key")
		}
		if files["a/tls.crt"] != files["again/tls.crt"] || files["a/tls.key"] != files["again/tls.key"] {
			t.Error("the same args got two certificates")
		}
		if got := p.count("pki/"); got != 2 {
			t.Errorf("%d certificates were issued, want 2", got)
		}
	})

	t.Run("the authority, read by its path", func(t *testing.T) {
		files := k.mounted(t, shopClass(`[{path: pki/cert/ca, key: certificate, file: ca.crt}]`))
		if block, _ := pem.Decode([]byte(files["ca.crt"])); block == nil {
			t.Errorf("ca.crt is no certificate: %q", files["ca.crt"])
		}
	})

	t.Run("the authority as one text", func(t *testing.T) {
		files := k.mounted(t, shopClass(lines(
			`{path: pki/ca_chain, file: chain.pem}`, `{path: pki/ca/pem, file: ca.pem}`, `{path: pki/crl/pem, file: crl.pem}`,
			`{path: pki/cert/ca/raw/pem, file: raw.pem}`, `{path: pki/ca_chain, format: pem, file: ca/}`,
		)))
		for name, kind := range map[string]string{
			"chain.pem": "CERTIFICATE", "ca.pem": "CERTIFICATE", "raw.pem": "CERTIFICATE", "crl.pem": "X509 CRL", "ca/ca.crt": "CERTIFICATE",
		} {
			if block, _ := pem.Decode([]byte(files[name])); block == nil || block.Type != kind {
				t.Errorf("%s is no %s: %q", name, kind, files[name])
			}
		}
	})

	t.Run("transit", func(t *testing.T) {
		plain := base64.StdEncoding.EncodeToString([]byte("canary card number"))
		k.guard(plain)
		files := k.mounted(t, shopClass(`[{path: transit/encrypt/shop, args: {plaintext: `+plain+`}, key: ciphertext, file: card}]`))
		answer, err := server.Client(t).Logical().WriteWithContext(t.Context(), "transit/decrypt/shop", map[string]any{"ciphertext": files["card"]})
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.Data["plaintext"]; got != plain {
			t.Errorf("decrypted = %v", got)
		}
	})
}

// checkCertificate looks at the files that a TLS server takes.
func checkCertificate(t *testing.T, roots *x509.CertPool, files map[string]string, folder, name string) {
	t.Helper()
	for _, file := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if files[folder+"/"+file] == "" {
			t.Errorf("there is no %s/%s", folder, file)
		}
	}
	block, _ := pem.Decode([]byte(files[folder+"/tls.crt"]))
	if block == nil {
		t.Fatalf("%s/tls.crt is no certificate", folder)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
		t.Error(err)
	}
}

// A credential that Vault makes logs in, whatever files it is spread over.
func TestDatabaseCredentials(t *testing.T) {
	issuer := newIssuer(t)
	server, postgres := newVault(t, issuer), vaulttest.StartPostgres(t)
	server.MountDatabase(t, "database", postgres, "shop", 10*time.Minute)
	postgres.CreateUser(t, "shop_static", "canary-before-the-first-rotation")
	server.AddStaticRole(t, "database", "shop-static", "shop_static", time.Hour)
	k, p := serveBefore(t, server, issuer, operator{})
	for name, c := range map[string]class{
		"two objects": shopClass(lines(`{path: database/creds/shop, key: username, file: username}`, `{path: database/creds/shop, key: password, file: password}`)),
		"one template and two objects": shopClass(lines(
			`{path: database/creds/shop, key: username, file: username}`, `{path: database/creds/shop, key: password, file: password}`,
			`{path: database/creds/shop, template: "{{ .username }}:{{ .password }}", file: pair}`)),
		"a template's second secret": shopClass(lines(
			`{path: secret/shop/app, template: '{{ (secret "database/creds/shop").username }}:{{ (secret "database/creds/shop").password }}', file: pair}`)),
		"a static role as a folder": shopClass(`[{path: database/static-creds/shop-static, file: ./}]`),
		"a static role":             shopClass(`[{path: database/static-creds/shop-static, template: "{{ .username }}:{{ .password }}", file: pair}]`),
	} {
		t.Run(name, func(t *testing.T) {
			p.forget()
			pod := shopAPI
			pod.UID = "uid of " + name // each pod has a credential of its own
			files, err := k.mount(t, pod, c)
			if err != nil {
				t.Fatal(err)
			}
			username, password := files["username"], files["password"]
			if files["ttl"] != "" || files["last_vault_rotation"] != "" || files["rotation_period"] != "" {
				t.Error("the folder has files of the time until the next rotation")
			}
			if pair, ok := files["pair"]; ok {
				if username != "" && pair != username+":"+password {
					t.Error("the template has another credential than the objects")
				}
				username, password, _ = strings.Cut(pair, ":")
			}
			database := postgres.Open(t, username, password)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := database.PingContext(ctx); err != nil {
				t.Errorf("log in to the database: %v", err)
			}
			if got := p.count("database/"); got != 1 {
				t.Errorf("%d credentials were asked for, want 1", got)
			}
		})
	}
}
