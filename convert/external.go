package convert

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// externalGroup is the API group of the External Secrets Operator.
const externalGroup = "external-secrets.io"

// external is an ExternalSecret on its way.
type external struct {
	*draft

	names map[string]remote // of spec.data, by the key of the native Secret
	order []string
	all   []remote // of spec.dataFrom.extract
}

// remote is a value of a store: a secret, or a part of it.
type remote struct {
	at                      *yaml.Node
	field                   string
	origin                  *origin
	role                    string
	path, property, version string
	encoded                 bool // in base64
}

// externalObject converts what is of the External Secrets Operator; false for what is not.
func (c *conversion) externalObject(o manifest.Object) bool {
	s := source{c, o}
	switch o.Kind {
	case "ExternalSecret":
		c.externalSecret(s)
	case "ClusterExternalSecret":
		s.lost(nil, "", "a ClusterExternalSecret makes a Secret in every namespace that fits, and a class is of one namespace",
			"make an ExternalSecret of its externalSecretSpec for each namespace and convert that")
	case "PushSecret", "ClusterPushSecret":
		s.lost(nil, "", "keymount writes nothing into a store", "keep the operator for it")
	case "SecretStore", "ClusterSecretStore":
		return false // read with the secrets that name it
	default: // generators
		s.lost(nil, "", "a generator has no counterpart", "let the store make the value: Vault's database, pki or transit engines, or a value written once")
	}
	return true
}

func (c *conversion) externalSecret(s source) {
	name := cmp.Or(s.text("spec", "target", "name"), s.object.Name)
	cl := &draft{source: s, namespace: c.namespace(s.object), name: c.freeName(s.object), native: name, uses: func(p podUse) bool { return p.reads(name) }}
	x := &external{draft: cl, names: map[string]remote{}}
	at := x.usualStore()
	if at == nil {
		return
	}
	s.noteFields(externalSecretFields())
	cl.origin, cl.role = at.origin, at.role
	cl.old = at.accountIn(cl.namespace)
	x.data(*at)
	x.dataFrom(*at)
	x.policies()
	keys, known := x.files()
	x.part()
	x.sync(name, keys, known)
	c.classes = append(c.classes, cl)
}

// usualStore is the one of the whole ExternalSecret, or, where it names none, of the first
// value with a store of its own.
func (x *external) usualStore() *externalStore {
	if ref := x.field("spec", "secretStoreRef"); len(members(ref)) > 0 {
		return x.store(ref, "spec.secretStoreRef")
	}
	for _, list := range []string{"data", "dataFrom"} {
		for i, item := range items(x.object.Node, "spec", list) {
			if ref := manifest.Field(item, "sourceRef", "storeRef"); ref != nil {
				return x.store(ref, fmt.Sprintf("spec.%s[%d].sourceRef.storeRef", list, i))
			}
		}
	}
	x.lost(x.field("spec"), "spec.secretStoreRef", "it names no store", "name the SecretStore first")
	return nil
}

// hasStore tells whether the whole ExternalSecret names a store; else each value has to.
func (x *external) hasStore() bool { return len(members(x.object.Node, "spec", "secretStoreRef")) > 0 }

// ownStore is the store that an entry names, or the usual one; nil, and told, for one that
// cannot be converted.
func (x *external) ownStore(item *yaml.Node, field string, usual externalStore) (store *externalStore, named bool) {
	ref := manifest.Field(item, "sourceRef", "storeRef")
	if ref == nil {
		return &usual, false
	}
	return x.store(ref, field+".sourceRef.storeRef"), true
}

// data reads spec.data.
func (x *external) data(usual externalStore) {
	for i, item := range items(x.object.Node, "spec", "data") {
		field := fmt.Sprintf("spec.data[%d]", i)
		key := manifest.Text(manifest.Field(item, "secretKey"))
		store, named := x.ownStore(item, field, usual)
		switch {
		case store == nil:
			continue
		case named:
		case manifest.Field(item, "sourceRef") != nil:
			x.lost(item, field+".sourceRef", "it names no store, and a generator has no counterpart", "let the store make the value")
			continue
		case !x.hasStore():
			x.lost(item, field, "neither it nor the ExternalSecret names a store", "name the SecretStore first")
			continue
		}
		if key == "" {
			x.lost(item, field+".secretKey", "there is no name for the file", "name the key first")
			continue
		}
		r, ok := x.remote(item, manifest.Field(item, "remoteRef"), field+".remoteRef", *store)
		if !ok {
			continue
		}
		if _, twice := x.names[key]; !twice {
			x.order = append(x.order, key)
		}
		x.names[key] = r
	}
}

// dataFrom reads spec.dataFrom.
func (x *external) dataFrom(usual externalStore) {
	for i, item := range items(x.object.Node, "spec", "dataFrom") {
		field := fmt.Sprintf("spec.dataFrom[%d]", i)
		if store, _ := x.ownStore(item, field, usual); store != nil {
			x.from(item, field, *store)
		}
	}
}

// from reads an item of spec.dataFrom.
func (x *external) from(item *yaml.Node, field string, store externalStore) {
	extract, of := manifest.Field(item, "extract"), field+".extract"
	if extract == nil && manifest.Field(item, "key") != nil { // as in v1alpha1
		extract, of = item, field
	}
	switch {
	case manifest.Field(item, "sourceRef", "generatorRef") != nil:
		x.lost(item, field+".sourceRef.generatorRef", "a generator has no counterpart", "let the store make the value: Vault's database, pki or transit engines, or a value written once")
	case manifest.Field(item, "find") != nil:
		x.lost(item, field+".find", "keymount reads secrets by their paths and lists none", "name each secret in spec.data, or in the class")
	case manifest.Field(item, "rewrite") != nil:
		x.lost(item, field+".rewrite", "files have the names of the keys", "name each key in spec.data with the name that it should have")
	case extract == nil:
		x.lost(item, field, "there is nothing in it that convert knows", "write extract with the key of a secret")
	case !x.hasStore() && manifest.Field(item, "sourceRef", "storeRef") == nil:
		x.lost(item, field, "neither it nor the ExternalSecret names a store", "name the SecretStore first")
	default:
		r, ok := x.remote(item, extract, of, store)
		switch {
		case ok && r.property != "":
			x.lost(item, of+".property", "the keys within a value have no file each", "name each of them in spec.data: "+r.property+".KEY")
		case ok:
			x.all = append(x.all, r)
		}
	}
}

// remote reads a remoteRef.
func (x *external) remote(item, ref *yaml.Node, field string, store externalStore) (r remote, ok bool) {
	text := func(name string) string { return manifest.Text(manifest.Field(ref, name)) }
	r = remote{
		at: item, field: field, origin: store.origin, role: store.role, path: store.path(text("key")), version: text("version"), property: text("property"),
	}
	if manifest.Text(manifest.Field(ref, "metadataPolicy")) == "Fetch" {
		x.lost(item, field+".metadataPolicy", "the metadata of a secret has no counterpart", "keep what is needed of it in the secret")
		return r, false
	}
	switch strategy := text("decodingStrategy"); strategy {
	case "", "None":
	case "Base64", "Base64URL":
		r.encoded = true
	default:
		x.lost(item, field+".decodingStrategy", strategy+" decodes what looks encoded, and has no counterpart", "write encoding: base64 where the value is encoded")
	}
	if strategy := text("conversionStrategy"); strategy == "Unicode" {
		x.look(item, field+".conversionStrategy", "Unicode changes keys that a native Secret cannot have; a file has the key as it is", "")
	}
	if property, ok := plainProperty(r.property); ok {
		r.property = property
		return r, true
	}
	x.lost(item, field+".property", fmt.Sprintf("the expression %q has no counterpart: keys go deeper by dots, and numbers index lists", r.property), "name the value, or write a template with range and if")
	return r, false
}

// plainProperty is a path of gjson as a key of keymount; false for anything more.
func plainProperty(text string) (string, bool) {
	if unescaped := strings.ReplaceAll(text, `\.`, "."); !strings.ContainsAny(unescaped, `\#*?|@!{}[]()"`) {
		return unescaped, true
	}
	return "", false
}

// policies reads what is about the native Secret's life.
func (x *external) policies() {
	if policy := x.text("spec", "refreshPolicy"); policy == "CreatedOnce" || policy == "OnChange" {
		x.lost(x.field("spec", "refreshPolicy"), "spec.refreshPolicy", policy+" keeps the first value, while keymount follows the store", "pin version, where the store has versions")
	}
	if interval := x.text("spec", "refreshInterval"); interval != "" && strings.Trim(interval, "0hms") == "" {
		x.lost(x.field("spec", "refreshInterval"), "spec.refreshInterval", "0 keeps the first value, while keymount follows the store", "pin version, where the store has versions")
	}
	if x.text("spec", "target", "immutable") == "true" {
		x.look(x.field("spec", "target", "immutable"), "spec.target.immutable", "the driver makes no immutable Secrets", "mount the files")
	}
}

// files makes the objects of the class. It answers with the keys of the native Secret; false
// where they are not known.
func (x *external) files() (keys []string, known bool) {
	template := x.field("spec", "target", "template")
	templated := members(template, "data")
	known = true
	if len(templated) == 0 && len(items(template, "templateFrom")) == 0 || manifest.Text(manifest.Field(template, "mergePolicy")) == "Merge" {
		for _, r := range x.all { // in the operator's order: later ones overwrite
			x.entries = append(x.entries, x.folder(r))
			known = false
		}
		for _, key := range x.order {
			if !slices.ContainsFunc(templated, func(m member) bool { return m.name.Value == key }) {
				x.entries = append(x.entries, x.value(key))
				keys = append(keys, key)
			}
		}
	}
	if len(templated)+len(items(template, "templateFrom")) > 0 {
		keys = append(keys, x.templates(template, templated)...)
	}
	return keys, known
}

// entry is an object that reads a remote value.
func (x *external) entry(r remote) entry {
	e := entry{at: r.at, field: r.field, path: r.path, version: r.version}
	if r.origin != x.origin {
		e.origin = r.origin
	}
	if r.role != x.role {
		e.role = r.role
	}
	return e
}

// value is the file of one value.
func (x *external) value(key string) entry {
	r := x.names[key]
	e := x.entry(r)
	e.file, e.key = key, r.property
	switch {
	case r.property == "" && r.encoded:
		x.lost(r.at, r.field+".decodingStrategy", "a whole secret is JSON, and never encoded", "name the value in property")
		fallthrough
	case r.property == "":
		e.template = "{{ toJson . }}" // as format: json, without its line end
	case r.encoded:
		e.encoding = "base64"
	}
	return e
}

// folder is a file for each key of a secret.
func (x *external) folder(r remote) entry {
	e := x.entry(r)
	e.file = here
	if r.encoded {
		e.encoding = "base64"
	}
	return e
}

// templates makes the files of target.template. The main secret is that of the first value,
// so that most of them are short.
func (x *external) templates(template *yaml.Node, templated []member) (keys []string) {
	if version := manifest.Text(manifest.Field(template, "engineVersion")); version == "v1" {
		x.lost(template, "spec.target.template.engineVersion", "the functions of v1 have no counterpart", "move to v2 first")
		return nil
	}
	for i, from := range items(template, "templateFrom") {
		x.lost(from, fmt.Sprintf("spec.target.template.templateFrom[%d]", i), "a template in a ConfigMap, a Secret or for names as well has no counterpart", "write it into target.template.data")
	}
	for _, m := range templated {
		field := "spec.target.template.data." + m.name.Value
		main, ok := x.mainOf(m.value.Value)
		if !ok {
			x.lost(m.name, field, "the template reads no secret of the ExternalSecret", "keep such a text in a ConfigMap")
			continue
		}
		e := x.entry(main)
		e.at, e.field, e.file = m.name, field, m.name.Value
		t := translation{words: sprigWords(), main: secretCall{path: main.path}, origin: main.origin}
		t.lookup = func(name string) (value, error) { return x.lookup(&t, main, name) }
		t.whole = x.whole
		text, failures := t.translate(m.value.Value, value{shape: theNames})
		x.report(m.value, field, failures, t.remarks)
		if len(failures) == 0 {
			e.template, e.beside = text, t.beside
			x.entries, keys = append(x.entries, e), append(keys, e.file)
		}
	}
	return keys
}

// mainOf is the secret that a template is about: that of the first name in it.
func (x *external) mainOf(template string) (r remote, ok bool) {
	if tree, err := parsedTemplate(template); err == nil {
		for _, name := range namesIn(tree.Root) {
			if r, ok := x.names[name]; ok {
				return r, true
			}
		}
	}
	switch {
	case len(x.all) > 0:
		return x.all[0], true
	case len(x.order) > 0:
		return x.names[x.order[0]], true
	}
	return r, false
}

// lookup is the value of a name in a template.
func (x *external) lookup(t *translation, main remote, name string) (value, error) {
	r, ok := x.names[name]
	property := r.property
	switch {
	case !ok && len(x.all) == 1:
		r, property = x.all[0], name
	case !ok && len(x.all) == 0:
		return value{}, failure{text: fmt.Sprintf("spec.data has no secretKey %q", name), instead: "correct the template first"}
	case !ok:
		return value{}, failure{text: fmt.Sprintf("%q may be of several secrets", name), instead: "name it in spec.data"}
	}
	of := value{main: true}
	if r.path != main.path || r.version != main.version || r.origin != main.origin || r.role != main.role {
		if r.origin != main.origin || r.role != main.role || r.version != "" {
			return value{}, failure{text: fmt.Sprintf("%q is of another store or a pinned version, which a template cannot name", name), instead: "make a file of its own of it"}
		}
		t.beside = append(t.beside, r.path)
		of = value{text: "secret " + strconv.Quote(r.path), loose: true}
	}
	v := ofProperty(of, property)
	if r.encoded {
		v = value{text: "b64dec " + v.operand(), loose: true}
	} else {
		v.typed = property != ""
	}
	return v, nil
}

// ofProperty is a part of a secret by a key, in which dots may be of a name or steps down:
// the store alone knows.
func ofProperty(of value, property string) value {
	if property == "" {
		return value{text: "toJson " + of.operand(), loose: true}
	}
	steps := strings.Split(property, ".")
	if len(steps) == 1 {
		return of.part(property)
	}
	deep := of
	for _, step := range steps {
		if n, err := strconv.Atoi(step); err == nil && n >= 0 {
			deep = deep.index(strconv.Itoa(n))
			continue
		}
		deep = deep.part(step)
	}
	return value{
		text:  "required " + strconv.Quote("there is no "+property) + " (or " + of.index(strconv.Quote(property)).operand() + " " + deep.operand() + ")",
		loose: true,
	}
}

// whole is all data of a template, if it is one secret.
func (x *external) whole() (value, error) {
	if len(x.all) == 1 && len(x.names) == 0 {
		return value{main: true}, nil
	}
	return value{}, failure{text: "all names together are of several secrets", instead: "write each name"}
}

// sync keeps the native Secret.
func (x *external) sync(name string, keys []string, known bool) {
	template := x.field("spec", "target", "template")
	switch policy := x.text("spec", "target", "creationPolicy"); policy {
	case "None":
		x.native, x.uses = "", nil // a Secret of that name is another's
		return
	case "Merge":
		x.lost(x.field("spec", "target", "creationPolicy"), "spec.target.creationPolicy", "the driver makes whole Secrets and adds to none", "mount the files")
		return
	}
	if x.field("spec", "target", "manifest") != nil {
		x.native = ""
		return // it wrote no Secret
	}
	labels, annotations := x.field("metadata", "labels"), x.field("metadata", "annotations")
	if template != nil { // without one the operator copies the ExternalSecret's own
		labels, annotations = x.literals(template, "labels"), x.literals(template, "annotations")
	}
	x.keep(nativeSecret{name: name, kind: manifest.Text(manifest.Field(template, "type")), keys: keys, known: known, labels: labels, annotations: annotations})
}

// literals are the labels or annotations of a template that are no templates themselves.
func (x *external) literals(template *yaml.Node, kind string) *yaml.Node {
	all := copied(manifest.Field(template, "metadata", kind))
	for _, m := range members(template, "metadata", kind) {
		if strings.Contains(manifest.Text(m.value), "{{") {
			x.lost(m.name, "spec.target.template.metadata."+kind+"."+m.name.Value, "a template has no counterpart here", "write the text out")
			remove(all, func(name string) bool { return name == m.name.Value })
		}
	}
	return all
}
