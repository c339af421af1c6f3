package convert

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// operatorGroup is the API group of the Vault Secrets Operator.
const operatorGroup = "secrets.hashicorp.com"

// operatorObject converts what is of the Vault Secrets Operator; false for what is not.
func (c *conversion) operatorObject(o manifest.Object) bool {
	s := source{c, o}
	switch o.Kind {
	case "VaultStaticSecret":
		c.operatorSecret(s, s.staticEntry, staticFields())
	case "VaultDynamicSecret":
		c.operatorSecret(s, s.dynamicEntry, dynamicFields())
	case kindPKI:
		c.operatorSecret(s, s.pkiEntry, pkiFields())
	case "VaultAuth", "VaultAuthGlobal", "VaultConnection", "SecretTransformation":
		return false // read with the secrets that name them
	default:
		s.lost(nil, "", "the kind "+o.Kind+" has no counterpart", "keep the operator for it")
	}
	return true
}

// operatorSecret converts a secret of any kind; read makes the object that reads it.
func (c *conversion) operatorSecret(s source, read func(*origin) entry, table fields) {
	name := cmp.Or(s.text("spec", "destination", "name"), s.object.Name)
	cl := &draft{source: s, namespace: c.namespace(s.object), name: c.freeName(s.object), native: name, uses: func(p podUse) bool { return p.reads(name) }}
	login, ok := s.login()
	if !ok {
		return
	}
	s.noteFields(table)
	cl.origin, cl.role, cl.old = login.origin, login.role, login.account
	d := destination{draft: cl, read: read(cl.origin)}
	d.read.at = cmp.Or(d.read.at, s.object.Node)
	keys, known := d.files()
	d.part()
	if s.field("spec", "rolloutRestartTargets") != nil {
		s.lost(s.field("spec", "rolloutRestartTargets"), "spec.rolloutRestartTargets", "keymount restarts no workload: the files change under it",
			"have the application read its files again")
	}
	if s.text("spec", "destination", "create") != "true" {
		s.lost(s.field("spec", "destination"), "spec.destination.create", fmt.Sprintf("the Secret %q is made by another, and the driver writes none but its own", name),
			"mount the files; or, where nothing else writes it, set create: true before converting")
		c.classes = append(c.classes, cl)
		return
	}
	cl.keep(nativeSecret{
		name: name, kind: s.text("spec", "destination", "type"), keys: keys, known: known,
		labels: s.field("spec", "destination", "labels"), annotations: s.field("spec", "destination", "annotations"),
	})
	c.classes = append(c.classes, cl)
}

// staticEntry reads a VaultStaticSecret.
func (s source) staticEntry(p *origin) entry {
	mount, path := trimmed(s.text("spec", "mount")), trimmed(s.text("spec", "path"))
	engine := kv2
	if s.text("spec", "type") == "kv-v1" {
		engine = kv1
	}
	p.learn(mount, engine)
	e := entry{at: s.field("spec", "path"), field: "spec.path", path: mount + "/" + path}
	if version := s.text("spec", "version"); version != "0" {
		e.version = version
	}
	return e
}

// dynamicEntry reads a VaultDynamicSecret.
func (s source) dynamicEntry(*origin) entry {
	e := entry{at: s.field("spec", "path"), field: "spec.path", path: trimmed(s.text("spec", "mount")) + "/" + trimmed(s.text("spec", "path"))}
	params, method := members(s.field("spec", "params")), strings.ToUpper(s.text("spec", "requestHTTPMethod"))
	if len(params) > 0 || method == "PUT" || method == "POST" {
		e.args = mapping()
		e.args.Style = yaml.FlowStyle
		for _, m := range params {
			put(e.args, m.name.Value, manifest.Text(m.value))
		}
	}
	return e
}

// pkiEntry reads a VaultPKISecret, whose arguments are those that the operator sends.
func (s source) pkiEntry(*origin) entry {
	path := trimmed(s.text("spec", "mount"))
	if issuer := s.text("spec", "issuerRef"); issuer != "" {
		path += "/issuer/" + issuer
	}
	e := entry{at: s.field("spec", "role"), field: "spec.role", path: path + "/issue/" + s.text("spec", "role"), args: mapping()}
	for _, f := range []struct{ field, argument string }{
		{"commonName", "common_name"},
		{"altNames", "alt_names"},
		{"ipSans", "ip_sans"},
		{"uriSans", "uri_sans"},
		{"otherSans", "other_sans"},
		{"userIDs", "user_ids"},
		{"ttl", "ttl"},
		{"notAfter", "not_after"},
		{"format", "format"},
		{"privateKeyFormat", "private_key_format"},
		{"excludeCNFromSans", "exclude_cn_from_sans"},
	} {
		text := s.text("spec", f.field)
		for _, item := range items(s.object.Node, "spec", f.field) {
			text = strings.TrimPrefix(text+","+manifest.Text(item), ",")
		}
		if text != "" {
			put(e.args, f.argument, text)
		}
	}
	put(e.args, "remove_roots_from_chain", "true")
	return e
}

// destination is the Secret that the operator writes, on its way to files.
type destination struct {
	*draft

	read entry // without a file
}

// files makes the objects of the class, and answers with the keys of the Secret; false where
// they are not known.
func (d *destination) files() (keys []string, known bool) {
	transformation := d.field("spec", "destination", "transformation")
	names, all := d.filtered(transformation)
	if all && d.object.Kind == kindPKI {
		names = []string{"ca_chain", "certificate", "expiration", "issuing_ca", "private_key", "private_key_type", "serial_number"}
	}
	isTLS := d.object.Kind == kindPKI && d.text("spec", "destination", "type") == "kubernetes.io/tls"
	switch {
	case isTLS:
		keys = d.pair()
		d.look(d.field("spec", "destination"), "spec.destination", "of the answer tls.crt and tls.key alone have files", "add an object for each further key that is read")
	case all && len(names) == 0:
		d.folder()
	default:
		for _, name := range names {
			keys = append(keys, d.add(name, name))
		}
	}
	if all && !isTLS && d.text("spec", "destination", "transformation", "excludeRaw") != "true" {
		d.look(d.field("spec", "destination"), "spec.destination", "the key _raw, Vault's whole answer, has no file", "read the keys, or add an object with format: json")
	}
	templates := d.templates(transformation)
	return append(keys, templates...), !all || d.object.Kind == kindPKI
}

// folder makes a file of each key.
func (d *destination) folder() {
	e := d.read
	e.file = here
	d.entries = append(d.entries, e)
}

// pair makes the certificate and key of a Secret of type kubernetes.io/tls. The operator puts
// the chain behind the certificate.
func (d *destination) pair() []string {
	const certificate = "tls.crt"
	e := d.read
	e.file = certificate
	e.template = `{{ .certificate }}{{ with .ca_chain }}{{ "\n" }}{{ join "\n" . }}{{ else }}{{ with .issuing_ca }}{{ "\n" }}{{ . }}{{ end }}{{ end }}`
	d.entries = append(d.entries, e)
	return []string{certificate, d.add("private_key", "tls.key")}
}

// add makes the file of one key.
func (d *destination) add(key, file string) string {
	e := d.read
	e.key, e.file = key, file
	if d.object.Kind == kindPKI && key == "ca_chain" { // a list, which the operator joins
		e.key, e.template = "", "{{ with .ca_chain }}{{ join \"\\n\" . }}{{ end }}"
	}
	d.entries = append(d.entries, e)
	return file
}

// kindPKI is the kind whose answer has the same keys always.
const kindPKI = "VaultPKISecret"

// filtered are the names that the filters leave; all where there are no filters.
func (d *destination) filtered(transformation *yaml.Node) (names []string, all bool) {
	const field = "spec.destination.transformation."
	excludes, includes := items(transformation, "excludes"), items(transformation, "includes")
	for _, pattern := range excludes {
		if slices.Contains([]string{".*", "^.*$", ".+", "^.+$"}, manifest.Text(pattern)) {
			return nil, false
		}
		if len(includes) == 0 {
			d.lost(pattern, field+"excludes", fmt.Sprintf("a folder has all keys, and none can be left out: %q is in it, too", manifest.Text(pattern)), "name the keys in includes, as ^name$, before converting")
		}
	}
	if len(includes) == 0 {
		return nil, true
	}
	for _, pattern := range includes {
		name, ok := literal(manifest.Text(pattern))
		if !ok {
			d.lost(pattern, field+"includes", fmt.Sprintf("the pattern %q may fit several keys, and an object is of one", manifest.Text(pattern)), "name each key, as ^name$, before converting")
			continue
		}
		excluded := slices.ContainsFunc(excludes, func(n *yaml.Node) bool {
			re, err := regexp.Compile(manifest.Text(n))
			return err == nil && re.MatchString(name)
		})
		if !excluded && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, false
}

// literal is the one name that a pattern fits; false for any other pattern.
func literal(pattern string) (string, bool) {
	name, begins := strings.CutPrefix(pattern, "^")
	name, ends := strings.CutSuffix(name, "$")
	name = strings.ReplaceAll(name, `\.`, ".")
	return name, begins && ends && regexp.QuoteMeta(strings.ReplaceAll(name, ".", "")) == strings.ReplaceAll(name, ".", "")
}

// templates makes the files of the templates, also of those that other objects hold.
func (d *destination) templates(transformation *yaml.Node) (keys []string) {
	const field = "spec.destination.transformation."
	for _, m := range members(transformation, "templates") {
		if d.template(d.source, field+"templates."+m.name.Value, m.name.Value, m) {
			keys = append(keys, m.name.Value)
		}
	}
	for i, ref := range items(transformation, "transformationRefs") {
		place := fmt.Sprintf("%stransformationRefs[%d]", field, i)
		namespace := cmp.Or(manifest.Text(manifest.Field(ref, "namespace")), d.namespace)
		found, ok := d.c.named("SecretTransformation", namespace, manifest.Text(manifest.Field(ref, "name")))
		if !ok {
			d.lost(ref, place, "that SecretTransformation is not among the files", "give convert its file, too")
			continue
		}
		source{d.c, found}.noteFields(transformationFields())
		if len(items(found.Node, "spec", "includes"))+len(items(found.Node, "spec", "excludes")) > 0 {
			d.lost(ref, place, "its filters have no counterpart from there", "write includes and excludes into the secret before converting")
		}
		keys = append(keys, d.referred(found, ref)...)
	}
	return keys
}

// referred makes the files of the templates of a SecretTransformation.
func (d *destination) referred(found manifest.Object, ref *yaml.Node) (keys []string) {
	wanted := items(ref, "templateRefs")
	for _, m := range members(found.Node, "spec", "templates") {
		key, isWanted := m.name.Value, len(wanted) == 0
		for _, w := range wanted {
			if manifest.Text(manifest.Field(w, "name")) == m.name.Value {
				isWanted, key = true, cmp.Or(manifest.Text(manifest.Field(w, "keyOverride")), key)
			}
		}
		if isWanted && d.template(source{d.c, found}, "spec.templates."+m.name.Value, key, m) {
			keys = append(keys, key)
		}
	}
	return keys
}

// template makes the file of one template; false where it has no counterpart.
func (d *destination) template(of source, field, key string, m member) bool {
	text := manifest.Field(m.value, "text")
	t := translation{words: sprigWords(), main: secretCall{path: d.read.path}, origin: d.origin}
	written, failures := t.translate(manifest.Text(text), value{shape: theInput})
	if text == nil {
		text = m.value
	}
	of.report(text, field, failures, t.remarks)
	if len(failures) > 0 {
		return false
	}
	e := d.read
	e.at, e.field, e.file, e.template, e.beside = m.name, field, key, written, t.beside
	d.entries = append(d.entries, e)
	return true
}
