package convert

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
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
		c.vaultClasses(s, from, d)
	case keymount.DialectKeymount:
		s.look(nil, "spec.provider", "the class is keymount's own already", "keep it as it is")
	case "aws", "gcp", "azure":
		s.lost(s.field("spec", "provider"), "spec.provider", fmt.Sprintf("the dialect of provider %q comes with that kind of store, in a later version", from.Provider),
			"keep the class with its provider for now: both providers can run on a node")
	default:
		s.lost(s.field("spec", "provider"), "spec.provider", fmt.Sprintf("there is no counterpart of provider %q", from.Provider), "")
	}
}

// vaultClasses converts a class of vault-csi-provider or openbao-csi-provider, as its pods use
// it: the volumeAttributes of each overwrite its parameters, which in a class of keymount they
// cannot. So each set of them makes a class.
func (c *conversion) vaultClasses(s source, from manifest.Class, d keymount.Dialect) {
	name := s.object.Name
	for i, set := range c.overrides(c.namespace(s.object), name) {
		of, as := from, name
		of.Parameters, of.Nodes = maps.Clone(from.Parameters), maps.Clone(from.Nodes)
		for parameter, text := range set {
			of.Parameters[parameter] = text
			delete(of.Nodes, parameter)
		}
		if i > 0 {
			as = c.freeName(s.object)
		}
		cl := &draft{source: s, namespace: c.namespace(s.object), name: as, uses: func(p podUse) bool { return p.overwrites(name, set) }}
		if !c.vaultClass(cl, of, d) {
			return
		}
		if synced := s.field("spec", "secretObjects"); synced != nil && i == 0 {
			cl.synced = copied(synced)
		} else if synced != nil {
			s.lost(synced, "spec.secretObjects", fmt.Sprintf("of the classes that it becomes, %s alone keeps the native Secrets", name), "write secretObjects into the class whose files they should have")
		}
		c.noteOverrides(cl, name, set)
		c.classes = append(c.classes, cl)
	}
}

// overrides are the sets of parameters with which pods use a class, beginning with the empty
// one if a pod has none, or there is no pod.
func (c *conversion) overrides(namespace, class string) (sets []map[string]string) {
	for _, pod := range c.pods[namespace] {
		for _, set := range pod.attributes(class) {
			if !slices.ContainsFunc(sets, func(has map[string]string) bool { return maps.Equal(has, set) }) {
				sets = append(sets, set)
			}
		}
	}
	slices.SortStableFunc(sets, func(a, b map[string]string) int { return min(len(a), 1) - min(len(b), 1) })
	if len(sets) == 0 {
		return []map[string]string{nil}
	}
	return sets
}

// noteOverrides tells of each pod that it cannot stay as it is.
func (c *conversion) noteOverrides(cl *draft, name string, set map[string]string) {
	for _, pod := range c.pods[cl.namespace] {
		if len(set) > 0 && pod.overwrites(name, set) {
			source{c, pod.Object}.lost(nil, "volumeAttributes", fmt.Sprintf("%s of the volume of class %q overwrite parameters, which a pod cannot do with a class of keymount", strings.Join(slices.Sorted(maps.Keys(set)), ", "), name),
				fmt.Sprintf("the class %q has them: name it in secretProviderClass, and remove them", cl.name))
		}
	}
}

// vaultClass reads a class. It is parsed by the very code that mounts it, so that it means
// here what it means there. False if nothing can be read.
func (c *conversion) vaultClass(cl *draft, from manifest.Class, d keymount.Dialect) bool {
	s := cl.source
	s.noteFields(fieldsOf(read("spec.provider", "spec.parameters", "spec.secretObjects")))
	checked := keymount.Check(d, cl.namespace, from.Parameters, anyStore(d, from.Parameters))
	wrong := map[int]bool{} // objects with mistakes; -1 is the class
	for _, m := range checked.Mistakes {
		wrong[m.Object] = true
		s.lost(s.inside(from, m.Place), fieldOf(m.Place), m.Text, "correct the class first")
	}
	for _, m := range checked.Warnings {
		s.look(s.inside(from, m.Place), fieldOf(m.Place), m.Text, "")
	}
	if wrong[-1] {
		return false
	}
	cl.origin = c.origin(s, s.field("spec", "parameters"), dialectKey(d, from.Parameters))
	for _, o := range checked.Objects {
		e := entry{field: fmt.Sprintf("objects[%d]", o.Index), at: s.field("spec", "parameters", nameObjects)}
		for _, place := range checked.Paths {
			if place.Object == o.Index {
				e.at = s.inside(from, place)
			}
		}
		cl.role = o.Secret.Role
		if !wrong[o.Index] && cl.vaultObject(&e, o) {
			cl.entries = append(cl.entries, e)
		}
	}
	return true
}

const nameObjects = "objects"

// inside is a place in a class as one in the file.
func (s source) inside(from manifest.Class, place keymount.Place) *yaml.Node {
	node := from.Nodes[place.Parameter]
	if node == nil {
		return s.field("spec", "parameters")
	}
	if place.Line == 0 {
		return node
	}
	at := s.object.File.Inside(node, place.Line, place.Column)
	return &yaml.Node{Line: at.Line, Column: at.Column}
}

// fieldOf names the object at a place; the text of a mistake has the field.
func fieldOf(place keymount.Place) string {
	if place.Object < 0 {
		return ""
	}
	return fmt.Sprintf("objects[%d]", place.Object)
}

// vaultObject converts one object; false where it has no counterpart.
func (cl *draft) vaultObject(e *entry, o keymount.Object) bool {
	path := cl.origin.path(cl.source, e.at, e.field, o.Secret.Path.String())
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
func (cl *draft) wholeAnswer(e *entry, o keymount.Object) {
	e.template = `{"data":{{ toJson . }}}`
	if o.Secret.Path.String() != e.path { // of KV v2
		e.template = `{"data":{"data":{{ toJson . }}}}`
	}
	e.comments = append(e.comments, "The old file was the whole answer of Vault. This one has its data, in the same place.")
	cl.lost(e.at, e.field+".secretKey", "without secretKey the file is the whole answer, with ids, lease and metadata beside the data",
		"the converted file has the data alone, in the same place; better name a key, or write format: json and read the keys at the top")
}

// anyStore are stores of which a class means the one, whatever it says.
func anyStore(d keymount.Dialect, parameters map[string]string) map[string]keymount.Store {
	everywhere := &anywhere{}
	everywhere.Auth.Audience = cmp.Or(parameters["audience"], string(d))
	return map[string]keymount.Store{defaultStore: {Traits: vault.Kind{}.Traits(), Settings: everywhere}}
}

// dialectKey is the origin that a class names, as class/vault_store.go reads it.
func dialectKey(d keymount.Dialect, parameters map[string]string) originKey {
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
	return originKey{
		address: first("Address"), namespace: first("Namespace"), mount: first("AuthMountPath", "KubernetesMountPath"),
		audience: cmp.Or(parameters["audience"], string(d)), serverName: first("TLSServerName"),
		hasCA: first("CACertPath", "CAPem", "CADirectory") != "", hasClientCert: first("TLSClientCertPath") != "",
		isUnverified: first("SkipTLSVerify") == "true",
	}
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
