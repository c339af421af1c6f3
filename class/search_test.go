package class_test

import (
	"strings"
	"testing"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/store/vault"
)

// at is a Vault at the one address of TestWhichStoreAClassMeans: namespace, mount, audience.
func at(namespace, mount, audience string) class.Store {
	return class.Store{Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{
		Addresses: []string{"https://vault.invalid"}, Namespace: namespace, Auth: vault.Auth{Mount: mount, Audience: audience},
	}}
}

// Each part that a class names narrows the stores, and for each part that it leaves out the
// usual one does, in a fixed order.
func TestWhichStoreAClassMeans(t *testing.T) {
	type stores = map[string]class.Store
	type parameters = map[string]string
	const there = "https://vault.invalid"
	for name, test := range map[string]struct {
		stores     stores
		parameters parameters
		dialect    class.Dialect
		want       string // the store, or part of the mistake
	}{
		"a namespace": {stores{"a": at("", "kubernetes", "vault"), "b": at("teams", "kubernetes", "vault")}, parameters{"vaultAddress": there, "vaultNamespace": "teams"}, "", "b"},
		"root":        {stores{"a": at("", "kubernetes", "vault"), "b": at("teams", "kubernetes", "vault")}, parameters{"vaultAddress": there, "vaultNamespace": "root"}, "", "a"},
		"a mount":     {stores{"a": at("", "kubernetes", "vault"), "b": at("", "jwt", "vault")}, parameters{"vaultAddress": there, "vaultAuthMountPath": "jwt"}, "", "b"},
		"an audience": {stores{"a": at("", "kubernetes", "vault"), "b": at("", "kubernetes", "x")}, parameters{"vaultAddress": there, "audience": "x"}, "", "b"},

		"no namespace": {stores{"a": at("teams", "kubernetes", "vault"), "b": at("", "kubernetes", "vault")}, parameters{"vaultAddress": there}, "", "b"},
		"no mount":     {stores{"a": at("", "jwt", "vault"), "b": at("", "kubernetes", "vault")}, parameters{"vaultAddress": there}, "", "b"},
		"no audience":  {stores{"a": at("", "kubernetes", "openbao"), "b": at("", "kubernetes", "vault")}, parameters{"vaultAddress": there}, class.DialectVault, "b"},
		"of OpenBao":   {stores{"a": at("", "kubernetes", "openbao"), "b": at("", "kubernetes", "vault")}, parameters{"vaultAddress": there}, class.DialectOpenBao, "a"},
		"nothing":      {stores{"a": at("", "kubernetes", "vault"), "default": at("", "kubernetes", "vault")}, parameters{"vaultAddress": there}, "", "default"},
		"no namespace, and none in the root": {
			stores{"a": at("teams", "jwt", "vault"), "b": at("teams", "kubernetes", "vault")}, parameters{"vaultAddress": there}, "", "b",
		},

		"an audience before no namespace": {stores{"a": at("", "kubernetes", "vault"), "b": at("teams", "kubernetes", "x")}, parameters{"vaultAddress": there, "audience": "x"}, "", "b"},
		"an audience before no mount":     {stores{"a": at("", "kubernetes", "vault"), "b": at("", "jwt", "x")}, parameters{"vaultAddress": there, "audience": "x"}, "", "b"},
		"no namespace before no mount":    {stores{"a": at("", "jwt", "vault"), "b": at("teams", "kubernetes", "vault")}, parameters{"vaultAddress": there}, "", "a"},
		"no mount before no audience":     {stores{"a": at("", "jwt", "vault"), "b": at("", "kubernetes", "x")}, parameters{"vaultAddress": there}, "", "b"},
		"no audience before the default":  {stores{"a": at("", "kubernetes", "vault"), "default": at("", "kubernetes", "x")}, parameters{"vaultAddress": there}, "", "a"},

		"an audience alone":                       {stores{"a": at("teams", "jwt", "x"), "default": at("", "kubernetes", "vault")}, parameters{"audience": "x"}, "", "a"},
		"the default's audience alone":            {stores{"a": at("", "kubernetes", "x"), "default": at("teams", "jwt", "x")}, parameters{"audience": "x"}, "", "default"},
		"nothing at all":                          {stores{"a": at("", "kubernetes", "vault"), "default": at("teams", "jwt", "x")}, nil, "", "default"},
		"an audience of none":                     {stores{"a": at("", "kubernetes", "vault"), "default": at("", "kubernetes", "vault")}, parameters{"audience": "x"}, "", `audience: "x" is not that of store "default"`},
		"an audience of none, with an address":    {stores{"a": at("", "kubernetes", "vault")}, parameters{"vaultAddress": there, "audience": "x"}, "", `audience: "x" is not that of store "a"`},
		"two that are alike":                      {stores{"a": at("", "kubernetes", "vault"), "b": at("", "kubernetes", "vault")}, parameters{"vaultAddress": there}, "", `store "a" and store "b" fit address`},
		"another address":                         {stores{"default": at("", "kubernetes", "vault")}, parameters{"vaultAddress": "https://other.invalid"}, "", "no store of keymount.yaml has address"},
		"another mount":                           {stores{"default": at("", "kubernetes", "vault")}, parameters{"vaultAuthMountPath": "jwt"}, "", "no store of keymount.yaml has auth mount"},
		"root, and none in it":                    {stores{"default": at("teams", "kubernetes", "vault")}, parameters{"vaultNamespace": "root"}, "", `no store of keymount.yaml has namespace "root"`},
		"root with slashes":                       {stores{"default": at("teams", "kubernetes", "vault"), "a": at("root", "kubernetes", "vault")}, parameters{"vaultNamespace": "/root/"}, "", "a"},
		"another namespace":                       {stores{"default": at("", "kubernetes", "vault")}, parameters{"vaultNamespace": "teams"}, "", "no store of keymount.yaml has namespace"},
		"a store of the pod's namespace":          {stores{"default": at("teams/{namespace}", "kubernetes", "vault")}, parameters{"vaultNamespace": "teams/shop"}, "", "default"},
		"a store of another pod's namespace":      {stores{"default": at("teams/{namespace}", "kubernetes", "vault")}, parameters{"vaultNamespace": "teams/blog"}, "", "no store of keymount.yaml has namespace"},
		"nothing, and a default that is no Vault": {stores{"default": {}, "a": at("", "kubernetes", "vault")}, nil, "", `store "default" of keymount.yaml is no Vault`},
	} {
		t.Run(name, func(t *testing.T) {
			dialect := test.dialect
			if dialect == "" {
				dialect = class.DialectVault
			}
			r, err := class.Parse(class.Call{Attributes: vaultAttributes(t, vaultKey, test.parameters), Dialect: dialect}, test.stores)
			if _, isStore := test.stores[test.want]; !isStore {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want %s", err, test.want)
				}
				return
			}
			if err != nil || r.Objects[0].Secret.Store != test.want {
				t.Errorf("got %v, %v, want store %q", r.Objects, err, test.want)
			}
		})
	}
}
