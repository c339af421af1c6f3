package convert

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// operatorLogin is the way the operator logs in for a secret.
type operatorLogin struct {
	origin        *origin
	role, account string
}

// login follows the references of a secret to its VaultAuth and VaultConnection; false, with
// a note, where there is none.
func (s source) login() (operatorLogin, bool) {
	found, ok := s.referred("VaultAuth", "spec.vaultAuthRef", s.text("spec", "vaultAuthRef"))
	if !ok {
		return operatorLogin{}, false
	}
	auth := vaultAuth{source: source{s.c, found}}
	auth.noteFields(vaultAuthFields())
	auth.global = auth.globalSpec()
	k, login := auth.key()
	auth.connection(&k)
	if namespace := s.text("spec", "namespace"); namespace != "" {
		if k.authNamespace == "" {
			k.authNamespace = cmp.Or(k.namespace, "root")
		}
		k.namespace = namespace
	}
	login.origin = s.c.origin(s, s.object.Node, k)
	return login, true
}

// referred is the object that a field names: NAME of this namespace, NAMESPACE/NAME, or
// without one that called default of the operator's namespace, which the input does not tell;
// false, with a note, where it cannot be found.
func (s source) referred(kind, field, ref string) (found manifest.Object, ok bool) {
	at := s.field(strings.Split(field, ".")...)
	if ref == "" {
		return s.usual(kind, field)
	}
	namespace, name, isFull := strings.Cut(ref, "/")
	if !isFull {
		namespace, name = s.c.namespace(s.object), ref
	}
	if found, ok = s.c.named(kind, namespace, name); !ok {
		s.lost(at, field, fmt.Sprintf("%s %q is not among the files", kind, ref), "give convert its file, too")
	}
	return found, ok
}

// usual finds the object called default. Of several it cannot be one that keeps this
// namespace out.
func (s source) usual(kind, field string) (found manifest.Object, ok bool) {
	var all []manifest.Object
	for _, o := range s.c.objects {
		if o.Kind == kind && o.Name == usualName {
			all = append(all, o)
		}
	}
	if kind == "VaultAuth" && len(all) > 1 {
		all = slices.DeleteFunc(all, func(o manifest.Object) bool { return !s.mayUse(o) })
	}
	switch len(all) {
	case 0:
		if kind == "VaultAuth" {
			s.lost(nil, field, fmt.Sprintf("no %s called default, which is meant without it, is among the files", kind), "give convert its file, too")
		}
		return found, false
	case 1:
		return all[0], true
	}
	var names []string
	for _, o := range all {
		names = append(names, s.c.namespace(o)+"/"+o.Name)
	}
	s.lost(nil, field, fmt.Sprintf("without it the %s called default of the operator's namespace is meant, which may be any of %s", kind, strings.Join(names, ", ")),
		"name one of them in "+field)
	return found, false
}

// usualName is what the operator takes where an object names none.
const usualName = "default"

// mayUse tells whether a VaultAuth is for this namespace, too.
func (s source) mayUse(auth manifest.Object) bool {
	namespace := s.c.namespace(s.object)
	return s.c.namespace(auth) == namespace || slices.ContainsFunc(items(auth.Node, "spec", "allowedNamespaces"), func(n *yaml.Node) bool {
		return manifest.Text(n) == "*" || manifest.Text(n) == namespace
	})
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
	source{a.c, found}.noteFields(vaultAuthFields())
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

func (a vaultAuth) key() (originKey, operatorLogin) {
	method := cmp.Or(a.text([]string{"method"}, []string{"defaultAuthMethod"}), "kubernetes")
	k := originKey{
		method: method, mount: a.text([]string{"mount"}, []string{method, "mount"}, []string{"defaultMount"}),
		namespace: a.text([]string{"namespace"}, []string{method, "namespace"}, []string{"defaultVaultNamespace"}),
	}
	var login operatorLogin
	switch method {
	case "kubernetes", "jwt":
		login.role = a.text([]string{method, "role"}, []string{method, "role"})
		login.account = a.text([]string{method, "serviceAccount"}, []string{method, "serviceAccount"})
		k.audience = cmp.Or(a.audience(a.field("spec", method, "audiences"), "spec."+method+".audiences"), a.audience(manifest.Field(a.global, method, "audiences"), "spec."+method+".audiences"))
	default:
		a.lost(a.field("spec", "method"), "spec.method", fmt.Sprintf("keymount logs in as each pod with the pod's own token, and not with %s", method),
			"enable Vault's kubernetes auth method, with a role for the service accounts of the pods")
		k.method, k.mount = "kubernetes", ""
	}
	if login.role == "" {
		login.role = a.object.Name
		a.look(nil, "spec", "there is no role for pods to log in with; "+login.role+" stands in its place", "make such a role in Vault for the service accounts of the pods")
	}
	return k, login
}

// connection adds the address and the ways of TLS.
func (a vaultAuth) connection(k *originKey) {
	ref := a.text([]string{"vaultConnectionRef"}, []string{"vaultConnectionRef"})
	found, ok := a.referred("VaultConnection", "spec.vaultConnectionRef", ref)
	if !ok {
		return
	}
	s := source{a.c, found}
	s.noteFields(vaultConnectionFields())
	k.address, k.serverName = s.text("spec", "address"), s.text("spec", "tlsServerName")
	k.hasCA = s.text("spec", "caCertSecretRef") != "" || s.text("spec", "caCertPath") != ""
	k.isUnverified = s.text("spec", "skipTLSVerify") == "true"
	if s.field("spec", "headers") != nil {
		s.lost(s.field("spec", "headers"), "spec.headers", "keymount sends no headers of one's own", "")
	}
}
