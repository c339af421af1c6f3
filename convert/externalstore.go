package convert

import (
	"cmp"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// externalStore is a SecretStore whose provider is a Vault.
type externalStore struct {
	origin    *origin
	role      string
	account   string // with which the operator logs in
	elsewhere string // the account's namespace, where the store names one
	mount     string // empty where the paths begin with it
	isKV1     bool
}

// accountIn is the account of the operator if a pod of the namespace can have it.
func (s externalStore) accountIn(namespace string) string {
	if s.elsewhere != "" && s.elsewhere != namespace {
		return ""
	}
	return s.account
}

// store finds the store that a secret names; nil, with a note, where it has no counterpart.
func (x *external) store(ref *yaml.Node, field string) *externalStore {
	kind, name := cmp.Or(manifest.Text(manifest.Field(ref, "kind")), "SecretStore"), manifest.Text(manifest.Field(ref, "name"))
	namespace := x.namespace
	if kind == "ClusterSecretStore" {
		namespace = ""
	}
	found, ok := x.c.named(kind, namespace, name)
	if !ok {
		x.lost(ref, field, fmt.Sprintf("%s %q is not among the files", kind, name), "give convert its file, too")
		return nil
	}
	s := source{x.c, found}
	settings := s.field("spec", "provider", "vault")
	if settings == nil {
		x.lost(ref, field, fmt.Sprintf("the provider of %s %q is no Vault, and no kind of keymount's stores yet", kind, name), "keep the operator for it")
		return nil
	}
	return s.vaultStore(settings)
}

// vaultStore reads spec.provider.vault.
func (s source) vaultStore(settings *yaml.Node) *externalStore {
	s.noteFields(externalStoreFields())
	text := func(names ...string) string { return manifest.Text(manifest.Field(settings, names...)) }
	k := originKey{
		address: text("server"), namespace: text("namespace"), authNamespace: text("auth", "namespace"),
		hasCA:         manifest.Field(settings, "caBundle") != nil || manifest.Field(settings, "caProvider") != nil,
		hasClientCert: manifest.Field(settings, "tls", "certSecretRef") != nil,
	}
	store := &externalStore{mount: strings.TrimSuffix(strings.Trim(text("path"), "/"), "/data"), isKV1: text("version") == "v1"}
	auth := manifest.Field(settings, "auth")
	kubernetes, jwt := manifest.Field(auth, "kubernetes"), manifest.Field(auth, "jwt")
	account := manifest.Field(kubernetes, "serviceAccountRef")
	switch {
	case kubernetes != nil:
		k.method, k.mount, store.role = "kubernetes", cmp.Or(text("auth", "kubernetes", "mountPath"), "kubernetes"), text("auth", "kubernetes", "role")
	case jwt != nil:
		k.method, k.mount, store.role = "jwt", cmp.Or(text("auth", "jwt", "path"), "jwt"), text("auth", "jwt", "role")
		account = manifest.Field(jwt, "kubernetesServiceAccountToken", "serviceAccountRef")
		k.audience = s.audience(manifest.Field(jwt, "kubernetesServiceAccountToken", "audiences"), "spec.provider.vault.auth.jwt.kubernetesServiceAccountToken.audiences")
	}
	s.lostAuth(auth, k.method)
	k.audience = cmp.Or(s.audience(manifest.Field(account, "audiences"), "spec.provider.vault.auth."+k.method+".serviceAccountRef.audiences"), k.audience)
	store.account, store.elsewhere = manifest.Text(manifest.Field(account, "name")), manifest.Text(manifest.Field(account, "namespace"))
	if store.role == "" {
		store.role = s.object.Name
		s.look(auth, "spec.provider.vault.auth", "there is no role for pods to log in with; "+store.role+" stands in its place", "make such a role in Vault for the service accounts of the pods")
	}
	if manifest.Field(settings, "headers") != nil {
		s.lost(manifest.Field(settings, "headers"), "spec.provider.vault.headers", "keymount sends no headers of one's own", "")
	}
	store.origin = s.c.origin(s, settings, k)
	if store.mount != "" {
		store.origin.learn(store.mount, kv2)
		if store.isKV1 {
			store.origin.learn(store.mount, kv1)
		}
	}
	return store
}

// lostAuth notes the ways to log in that pods do not have, or that are beside the used one.
func (s source) lostAuth(auth *yaml.Node, used string) {
	for _, m := range members(auth) {
		if m.name.Value != "namespace" && m.name.Value != used {
			s.lost(m.name, "spec.provider.vault.auth."+m.name.Value, "keymount logs in as each pod with the pod's own token, and has no credentials of its own",
				"enable Vault's kubernetes auth method, with a role for the service accounts of the pods")
		}
	}
}

// path is a key of a remoteRef in the spelling of rules, as the operator builds paths.
func (s externalStore) path(key string) string {
	key = strings.Trim(key, "/")
	switch {
	case s.mount == "" && s.isKV1:
		return key
	case s.mount == "":
		path := s.origin.canonical(key)
		if mount, _, ok := strings.Cut(path, "/"); ok && path == key {
			s.origin.learn(mount, kv2)
		}
		return path
	}
	if below, ok := strings.CutPrefix(key, s.mount+"/"); ok {
		key = below
		if !s.isKV1 {
			key = strings.TrimPrefix(key, "data/")
		}
	}
	return s.mount + "/" + key
}
