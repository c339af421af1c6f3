package class_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/vault"
)

// The stanza that a class without a store prints can be pasted: keymount takes it, and then
// the class finds it.
func TestStanzasAreAccepted(t *testing.T) {
	type parameters = map[string]string
	for _, p := range []parameters{
		{"vaultAddress": "https://other.invalid"},
		{"vaultAddress": "https://[0:0:0::1]:8200"},
		{"vaultAddress": "https://[fe80::1%25eth0]:8200"},
		{"baoAddress": "http://10.0.0.1"},
		{"vaultAddress": "https://null"},
		{"vaultAddress": "https://true"},
		{"vaultAddress": "https://1e3:1"},
		{"vaultAddress": "https://default"},
		{"vaultAddress": "https://" + strings.Repeat("a.", 100)},
		{"vaultAddress": "https://bücher.example"},
		{"openbaoNamespace": `a", b: c &d`},
		{"vaultNamespace": "root/x"},
		{"vaultAuthMountPath": "k8s/eu"},
		{"vaultAuthMountPath": "it's"},
		{"vaultAddress": "https://other.invalid", "vaultNamespace": "teams", "vaultAuthMountPath": "k8s", "audience": `a"b: {c #`},
		{"vaultAddress": "https://other.invalid", "vaultAuthMountPath": "auth/kubernetes"},
		{"vaultAuthMountPath": "/v1/auth/clusters/eu/login"},
	} {
		for _, dialect := range []class.Dialect{class.DialectVault, class.DialectOpenBao} {
			_, err := parse(t, dialect, vaultKey, p)
			_, stanza, ok := strings.Cut(fmt.Sprint(err), "the operator adds this:\n")
			if !ok {
				t.Errorf("%v: got %v", p, err)
				continue
			}
			if strings.HasPrefix(stanza, "  ") { // one of several mistakes
				stanza = strings.ReplaceAll(stanza[2:], "\n  ", "\n")
			}
			c, err := config.Parse([]byte(stanza+"\nversionKeyFile: /version.key\nsockets: [/run/vault.sock]\n"), all.All())
			if err != nil {
				t.Errorf("%v: %v of\n%s", p, err, stanza)
				continue
			}
			s := c.Stores[0]
			if mount := s.Settings.(*vault.Settings).Auth.Mount; strings.HasPrefix(mount, "auth/") || strings.HasPrefix(mount, "v1/") {
				t.Errorf("%v: mount %q", p, mount)
			}
			stores := vaultStores()
			stores[s.Name] = class.Store{Traits: s.Kind.Traits(), Settings: s.Settings}
			v := maps.Clone(p)
			if v["vaultAuthMountPath"] != "" {
				v["vaultAuthMountPath"] = s.Settings.(*vault.Settings).Auth.Mount
			}
			attributes := vaultAttributes(t, vaultKey, v)
			r, err := class.Parse(class.Call{Attributes: attributes, Dialect: dialect}, stores)
			if err != nil || r.Objects[0].Secret.Store != s.Name {
				t.Errorf("%v: store %v, %v, want %q", p, r.Objects, err, s.Name)
			}
		}
	}
}

// An IPv6 address chooses a store by its value.
func TestAddressesOfStores(t *testing.T) {
	stores := vaultStores()
	stores["six"] = class.Store{Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{
		Addresses: []string{"https://[2001:DB8:0:0::00A]:8200"}, Auth: vault.Auth{Mount: "kubernetes", Audience: "vault"},
	}}
	for _, address := range []string{"https://[2001:db8::a]:8200", "https://[2001:0db8:0000:0000:0000:0000:0000:000a]:8200/", "HTTPS://[2001:DB8::A]:08200"} {
		r, err := class.Parse(class.Call{Attributes: vaultAttributes(t, vaultKey, map[string]string{"vaultAddress": address}), Dialect: class.DialectVault}, stores)
		if err != nil || r.Objects[0].Secret.Store != "six" {
			t.Errorf("%s: got %v, %v", address, r.Objects, err)
		}
	}
}
