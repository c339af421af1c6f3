package convert

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	keymount "github.com/keymount/keymount/class"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/vault"
)

// anywhere is a store that each class of a dialect means.
type anywhere struct {
	vault.Settings
}

// Fits implements [kind.Spelling].
func (*anywhere) Fits(kind.Place) bool { return true }

// Audience is that of any class.
func (a *anywhere) Audience() string { return a.Auth.Audience }

// dialect converts a SecretProviderClass.
func (c *conversion) dialect(from manifest.Class) {
	s := source{c, from.Object}
	switch d := keymount.Dialect(from.Provider); d {
	case keymount.DialectVault, keymount.DialectOpenBao:
		c.vaultClass(s, from, d)
	case keymount.DialectKeymount:
		s.look(nil, "spec.provider", "the class is keymount's own already", "keep it as it is")
	case "aws", "gcp", "azure":
		s.lost(s.field("spec", "provider"), "spec.provider", fmt.Sprintf("the dialect of provider %q comes with that kind of store, in a later version", from.Provider),
			"keep the class with its provider for now: both providers can run on a node")
	default:
		s.lost(s.field("spec", "provider"), "spec.provider", fmt.Sprintf("there is no counterpart of provider %q", from.Provider), "")
	}
}

// vaultClass converts a class of vault-csi-provider or openbao-csi-provider. It is parsed by
// the very code that mounts it, so that it means here what it means there.
func (c *conversion) vaultClass(s source, from manifest.Class, d keymount.Dialect) {
	cl := &class{source: s, namespace: c.namespace(s.object), name: s.object.Name, uses: func(p podUse) bool { return p.mounts(s.object.Name) }}
	parsed, err := parsedAs(d, from.Parameters, cl)
	if err != nil {
		for _, mistake := range mistakesOf(err) {
			s.lost(s.field("spec", "parameters"), "spec.parameters", mistake, "correct the class first")
		}
		return
	}
	for _, warning := range parsed.Warnings {
		s.look(s.field("spec", "parameters"), "spec.parameters", warning, "")
	}
	cl.place = c.place(s, s.field("spec", "parameters"), dialectKey(d, from.Parameters))
	lines := objectLines(from.Nodes["objects"])
	for i, o := range parsed.Objects {
		e := entry{field: fmt.Sprintf("objects[%d]", i), at: s.field("spec", "parameters", "objects")}
		if i < len(lines) {
			e.at = lines[i]
		}
		cl.role = o.Secret.Role
		if cl.vaultObject(&e, o) {
			cl.entries = append(cl.entries, e)
		}
	}
	if synced := s.field("spec", "secretObjects"); synced != nil {
		cl.synced = copied(synced)
	}
	c.classes = append(c.classes, cl)
}

// vaultObject converts one object; false where it has no counterpart.
func (cl *class) vaultObject(e *entry, o keymount.Object) bool {
	path := cl.place.path(cl.source, e.at, e.field, o.Secret.Path.String())
	e.path, e.version, e.file, e.encoding = path, o.Secret.Version, o.File, string(o.Encoding)
	if o.Mode != usualMode {
		e.mode = fmt.Sprintf("%04o", o.Mode)
	}
	if o.Secret.Args != "" {
		e.args = jsonNode(o.Secret.Args)
	}
	if o.Secret.Query != "" {
		cl.lost(e.at, e.field+".secretPath", fmt.Sprintf("a read with parameters (?%s) has no counterpart beside ?version=", o.Secret.Query), "leave the object in a class of the dialect")
		return false
	}
	e.key = o.Key
	if e.key != "" {
		return true
	}
	if settings := (&vault.Settings{}); settings.IsText(o.Secret.Path) {
		return true // one text, and no keys
	}
	cl.wholeAnswer(e, o)
	return true
}

// usualMode is the one of the old provider. keymount's own default says as little: the
// volume is read-only.
const usualMode = 0o644

// wholeAnswer makes the part of an answer that keymount has: its data.
func (cl *class) wholeAnswer(e *entry, o keymount.Object) {
	e.template = `{"data":{{ toJson . }}}`
	if o.Secret.Path.String() != e.path { // of KV v2
		e.template = `{"data":{"data":{{ toJson . }}}}`
	}
	e.comments = append(e.comments, "The old file was the whole answer of Vault. This one has its data, in the same place.")
	cl.lost(e.at, e.field+".secretKey", "without secretKey the file is the whole answer, with ids, lease and metadata beside the data",
		"the converted file has the data alone, in the same place; better name a key, or write format: json and read the keys at the top")
}

// parsedAs reads the class as a mount does.
func parsedAs(d keymount.Dialect, parameters map[string]string, cl *class) (keymount.Request, error) {
	everywhere := &anywhere{}
	everywhere.Auth.Audience = cmp.Or(parameters["audience"], string(d))
	return parsed(d, parameters, cl, map[string]keymount.Store{defaultStore: {Traits: vault.Kind{}.Traits(), Settings: everywhere}})
}

// parsed reads a class in any dialect.
func parsed(d keymount.Dialect, parameters map[string]string, cl *class, stores map[string]keymount.Store) (keymount.Request, error) {
	attributes := map[string]string{
		"csi.storage.k8s.io/pod.name": "pod", "csi.storage.k8s.io/pod.namespace": cl.namespace,
		"csi.storage.k8s.io/pod.uid": "uid", "csi.storage.k8s.io/serviceAccount.name": "account",
		"csi.storage.k8s.io/serviceAccount.tokens": "{}", "secretProviderClass": cl.name,
	}
	for name, text := range parameters {
		if _, taken := attributes[name]; !taken && !strings.HasPrefix(name, "csi.storage.k8s.io/") {
			attributes[name] = text
		}
	}
	text, err := json.Marshal(attributes)
	if err != nil {
		return keymount.Request{}, fmt.Errorf("read the class: %w", err)
	}
	return keymount.Parse(keymount.Call{Attributes: string(text), Dialect: d}, stores) //nolint:wrapcheck // its text is for the author
}

// mistakesOf are the single mistakes of a class.
func mistakesOf(err error) []string {
	if several, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		var all []string
		for _, one := range several.Unwrap() {
			if !errors.Is(one, keymount.ErrRequest) {
				all = append(all, mistakesOf(one)...)
			}
		}
		if len(all) > 0 {
			return all
		}
	}
	return []string{err.Error()}
}

// dialectKey is the place that a class names, as class/vault_store.go reads it.
func dialectKey(d keymount.Dialect, parameters map[string]string) key {
	prefixes := []string{"vault", "bao", "openbao"}
	if d == keymount.DialectOpenBao {
		prefixes = []string{"bao", "openbao", "vault"}
	}
	first := func(suffixes ...string) string {
		for _, suffix := range suffixes {
			for _, prefix := range prefixes {
				if text := parameters[prefix+suffix]; text != "" {
					return text
				}
			}
		}
		return ""
	}
	return key{
		address: first("Address"), namespace: first("Namespace"), mount: first("AuthMountPath", "KubernetesMountPath"),
		audience: cmp.Or(parameters["audience"], string(d)), serverName: first("TLSServerName"),
		hasCA: first("CACertPath", "CAPem", "CADirectory") != "", hasClientCert: first("TLSClientCertPath") != "",
		isUnverified: first("SkipTLSVerify") == "true",
	}
}

// objectLines are the places of a class's objects in the file.
func objectLines(text *yaml.Node) []*yaml.Node {
	var inner yaml.Node
	if text == nil || yaml.Unmarshal([]byte(text.Value), &inner) != nil || len(inner.Content) != 1 {
		return nil
	}
	var places []*yaml.Node
	for _, object := range inner.Content[0].Content {
		at := &yaml.Node{Line: text.Line, Column: text.Column}
		if text.Style == yaml.LiteralStyle {
			at.Line, at.Column = text.Line+object.Line, 0
		}
		places = append(places, at)
	}
	return places
}

// jsonNode is an object of JSON as YAML, in one line.
func jsonNode(text string) *yaml.Node {
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil || len(n.Content) != 1 {
		return mapping()
	}
	unquote(n.Content[0])
	return n.Content[0]
}

// unquote takes the quotes of JSON away where YAML needs none.
func unquote(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, below := range n.Content {
		unquote(below)
	}
}
