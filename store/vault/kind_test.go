package vault_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/vault"
)

// An opened Vault has all that mounts need of it, and lives by the clock it is given.
func TestLayersOfAVault(t *testing.T) {
	s := startServer(t)
	s.answer = (&logins{}).answer
	settings := &vault.Settings{Addresses: []string{s.URL}, Auth: vault.Auth{Method: "kubernetes", Mount: "kubernetes", Audience: "vault"}}
	layers, err := settings.Open(kind.Env{Log: slog.New(slog.DiscardHandler), Now: midnight})
	if err != nil {
		t.Fatal(err)
	}
	if layers.Store == nil || layers.Resolver == nil || layers.Leaser == nil || layers.Login == nil {
		t.Fatalf("an ability is missing: %+v", layers)
	}
	got, err := layers.Login.Login(t.Context(), who(), secret.New([]byte(podToken)), "shop-api")
	if err != nil {
		t.Fatal(err)
	}
	if life := got.Expires.Sub(midnight()); life <= 0 || life > 24*time.Hour {
		t.Errorf("the login ends %s after midnight, the only time there is", life)
	}
}

// A class finds its store by each part of the place, and another part leads nowhere.
func TestFits(t *testing.T) {
	settings := func(namespace string) *vault.Settings {
		return &vault.Settings{
			Addresses: []string{"https://vault.invalid:8200", "https://spare.invalid:8200"}, Namespace: namespace,
			Auth: vault.Auth{Mount: "clusters/eu", Audience: "vault"},
		}
	}
	for _, test := range []struct {
		namespace, part, text string
		fits                  bool
	}{
		{"", "kind", "vault", true},
		{"", "kind", "bundle", false},
		{"", "address", "https://vault.invalid:8200", true},
		{"", "address", "https://spare.invalid:8200/", true},
		{"", "address", "https://vault.invalid:8201", false},
		{"", "address", "http://vault.invalid:8200", false},
		{"", "address", "", false},
		{"", "namespace", "", true},
		{"", "namespace", "root", true},
		{"", "namespace", "/root/", true},
		{"", "namespace", "teams", false},
		{"root", "namespace", "", true},
		{"root", "namespace", "root", true},
		{"root/", "namespace", "teams", false},
		{"teams/{namespace}", "namespace", "teams/shop/", true},
		{"teams/{namespace}", "namespace", "teams/blog", false},
		{"teams/{namespace}", "namespace", "teams/{namespace}", false},
		{"teams/{namespace}", "namespace", "root", false},
		{"teams/{namespace}", "namespace", "", false},
		{"", "mount", "clusters/eu", true},
		{"", "mount", "/clusters/eu/", true},
		{"", "mount", "clusters", false},
		{"", "mount", "", false},
		{"", "audience", "vault", true},
		{"", "audience", "Vault", false},
		{"", "audience", "", false},
	} {
		place := kind.Place{"kind": "vault", "pod": "shop"}
		place[test.part] = test.text
		if fits := settings(test.namespace).Fits(place); fits != test.fits {
			t.Errorf("in namespace %q: %s %q fits: %t, want %t", test.namespace, test.part, test.text, fits, test.fits)
		}
	}
}

// Each file of the settings is named once, for keymount.yaml makes it absolute.
func TestFilesOfAVault(t *testing.T) {
	settings := vault.Settings{}
	for _, file := range settings.Files() {
		*file += "/etc/x"
	}
	if settings.CAFile != "/etc/x" || settings.CertFile != "/etc/x" || settings.KeyFile != "/etc/x" {
		t.Errorf("caFile %q, certFile %q, keyFile %q", settings.CAFile, settings.CertFile, settings.KeyFile)
	}
}
