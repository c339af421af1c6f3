package convert

import (
	"cmp"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// operatorLogin is the way the operator logs in for a secret.
type operatorLogin struct {
	place         *place
	role, account string
}

// login follows the references of a secret to its VaultAuth and VaultConnection; false, with
// a note, where there is none.
func (s source) login() (operatorLogin, bool) {
	ref := s.text("spec", "vaultAuthRef")
	found, ok := s.referred("VaultAuth", ref)
	if !ok {
		s.lost(s.field("spec", "vaultAuthRef"), "spec.vaultAuthRef", fmt.Sprintf("VaultAuth %q is not among the files", cmp.Or(ref, "default")), "give convert its file, too")
		return operatorLogin{}, false
	}
	auth := vaultAuth{source: source{s.c, found}}
	auth.global = auth.globalSpec()
	k, login := auth.key()
	auth.connection(&k)
	if namespace := s.text("spec", "namespace"); namespace != "" {
		if k.authNamespace == "" {
			k.authNamespace = cmp.Or(k.namespace, "root")
		}
		k.namespace = namespace
	}
	login.place = s.c.place(s, s.object.Node, k)
	return login, true
}

// referred is the object that a reference names: NAME of this namespace, NAMESPACE/NAME, or
// the one called default of any namespace.
func (s source) referred(kind, ref string) (manifest.Object, bool) {
	namespace, name, ok := strings.Cut(ref, "/")
	switch {
	case ref == "":
		return s.c.named(kind, "", "default")
	case ok:
		return s.c.named(kind, namespace, name)
	}
	return s.c.named(kind, s.c.namespace(s.object), ref)
}

// vaultAuth is a VaultAuth with the VaultAuthGlobal behind it.
type vaultAuth struct {
	source

	global *yaml.Node // its spec; nil without
}

func (a vaultAuth) globalSpec() *yaml.Node {
	ref := a.field("spec", "vaultAuthGlobalRef")
	if ref == nil {
		return nil
	}
	name := cmp.Or(manifest.Text(manifest.Field(ref, "name")), "default")
	namespace := cmp.Or(manifest.Text(manifest.Field(ref, "namespace")), a.c.namespace(a.object))
	found, ok := a.c.named("VaultAuthGlobal", namespace, name)
	if !ok {
		a.lost(ref, "spec.vaultAuthGlobalRef", fmt.Sprintf("VaultAuthGlobal %q is not among the files", name), "give convert its file, too")
		return nil
	}
	return manifest.Field(found.Node, "spec")
}

// text is a field of the VaultAuth, or the one of the VaultAuthGlobal that it falls back on.
func (a vaultAuth) text(own []string, globals ...[]string) string {
	text := a.source.text(append([]string{"spec"}, own...)...)
	for _, names := range globals {
		text = cmp.Or(text, manifest.Text(manifest.Field(a.global, names...)))
	}
	return text
}

func (a vaultAuth) key() (key, operatorLogin) {
	method := cmp.Or(a.text([]string{"method"}, []string{"defaultAuthMethod"}), "kubernetes")
	k := key{
		method: method, mount: a.text([]string{"mount"}, []string{method, "mount"}, []string{"defaultMount"}),
		namespace: a.text([]string{"namespace"}, []string{method, "namespace"}, []string{"defaultVaultNamespace"}),
	}
	var login operatorLogin
	switch method {
	case "kubernetes", "jwt":
		login.role = a.text([]string{method, "role"}, []string{method, "role"})
		login.account = a.text([]string{method, "serviceAccount"}, []string{method, "serviceAccount"})
		k.audience = cmp.Or(firstText(a.object.Node, "spec", method, "audiences"), firstText(a.global, method, "audiences"))
	default:
		a.lost(a.field("spec", "method"), "spec.method", fmt.Sprintf("keymount logs in as each pod with the pod's own token, and not with %s", method),
			"enable Vault's kubernetes auth method, with a role for the service accounts of the pods")
		k.method, k.mount = "kubernetes", ""
	}
	if login.role == "" {
		login.role = a.object.Name
		a.look(nil, "spec", "there is no role for pods to log in with; "+login.role+" stands in its place", "make such a role in Vault for the service accounts of the pods")
	}
	for _, field := range []string{"headers", "params"} {
		if a.field("spec", field) != nil {
			a.lost(a.field("spec", field), "spec."+field, "keymount sends none of its own", "")
		}
	}
	return k, login
}

// connection adds the address and the ways of TLS.
func (a vaultAuth) connection(k *key) {
	ref := a.text([]string{"vaultConnectionRef"}, []string{"vaultConnectionRef"})
	found, ok := a.referred("VaultConnection", ref)
	if !ok {
		if ref != "" {
			a.lost(a.field("spec", "vaultConnectionRef"), "spec.vaultConnectionRef", fmt.Sprintf("VaultConnection %q is not among the files", ref), "give convert its file, too, or write the address into keymount.yaml")
		}
		return
	}
	s := source{a.c, found}
	k.address, k.serverName = s.text("spec", "address"), s.text("spec", "tlsServerName")
	k.hasCA = s.text("spec", "caCertSecretRef") != "" || s.text("spec", "caCertPath") != ""
	k.isUnverified = s.text("spec", "skipTLSVerify") == "true"
	if s.field("spec", "headers") != nil {
		s.lost(s.field("spec", "headers"), "spec.headers", "keymount sends no headers of one's own", "")
	}
}
