package class

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/certificate"
	"github.com/keymount/keymount/form"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
)

// Object is one entry of a class's objects, with the class's defaults filled in.
// At most one of Format, Certificate and Template is set; with none of them the
// value is written as it is.
type Object struct {
	Index  int // in objects
	Secret Secret
	// Reads are the places, in the Request's Secrets, of all secrets that the object reads,
	// each once: its own first, then that of its password, or those of its template.
	Reads []int
	named map[store.Path]int // the places of those that the template names
	// Key names the part of the secret to write; empty for all of it.
	Key  string
	File string // clean and relative; "." is the root of the mount
	// Folder tells that File is a folder, for several files.
	Folder   bool
	Mode     int32
	Optional bool // absent in the store: no file, no error

	Encoding    form.Encoding // of the value in the store; decoded before writing
	Format      form.Format
	Certificate CertificateFormat
	KeyFormat   certificate.KeyFormat // of the private key, for Certificate: pem
	PasswordKey string                // the key of the password, for Certificate: in the secret, or in PasswordOf
	PasswordOf  Secret                // the secret of the password; the zero Secret for the object's own
	Template    *form.Template
	// Envelope takes the value out of the store's whole answer, as vault-csi-provider
	// does: the one under Key, or without a Key the answer itself.
	Envelope bool
}

// HasPasswordElsewhere tells whether another secret has the password.
func (o *Object) HasPasswordElsewhere() bool {
	return o.PasswordOf != (Secret{}) && o.PasswordOf != o.Secret
}

// Beside is the secret at another path, as the object's password or template names it.
func (o *Object) Beside(path store.Path) Secret {
	return Secret{Store: o.Secret.Store, Role: o.Secret.Role, Path: path, Shared: o.Secret.Shared}
}

// CertificateFormat is a way to write certificates and their private key.
type CertificateFormat string

// The formats of certificates.
const (
	PEM CertificateFormat = "pem"
	PFX CertificateFormat = "pfx"
	JKS CertificateFormat = "jks"
)

// CertificateFiles are the files that format: pem may write into a folder: the certificate,
// its key and the certificate of its issuer.
func CertificateFiles() [3]string { return [3]string{"tls.crt", "tls.key", "ca.crt"} }

// objectParser reads one entry and notes mistakes under its index.
type objectParser struct{ entry }

func (p *objectParser) parse(class classDefaults) Object {
	o := Object{Index: p.index}
	if p.node.Kind != yaml.MappingNode {
		p.whole(BadForm, "not a map; write %s", objectExample)
		return o
	}
	p.readFields(fieldNames(), p.m.add)
	o.Secret = p.secret(class)
	o.Key = p.key()
	of, _ := storeNamed(class.known, o.Secret.Store)
	p.form(&o, of)
	o.File, o.Folder = p.file()
	o.Mode = p.mode()
	o.Optional = p.flag("optional")
	p.checkForm(o, of)
	return o
}

// fieldNames are the fields of an object.
func fieldNames() []string {
	return []string{
		"path", "key", "file", "mode", "optional", "store", "role", "version",
		"encoding", "format", "template", "keyFormat", "passwordKey", "passwordFrom", "args", "lease",
	}
}

// passwordNames are the fields of an object's passwordFrom.
func passwordNames() []string { return []string{"path", "key"} }

// secret reads the object's secret; the class has the defaults.
func (p *objectParser) secret(class classDefaults) Secret {
	s := Secret{Store: cmp.Or(p.text("store"), class.store), Role: p.text("role"), Version: p.text("version")}
	of, known := storeNamed(class.known, s.Store)
	s.Path, s.Args, s.Shared = p.path(of), p.args(), p.shared()
	traits := of.Traits
	// A class's role is for its stores that have roles; an object's is a mistake elsewhere.
	if s.Role == "" && (traits.Roles != access.None || s.Store == class.store) {
		s.Role = class.role
	}
	switch {
	case !known:
		known := slices.Sorted(maps.Keys(class.known))
		p.m.add(p.atDefault(nameStore), WrongStore, "store %q is not in keymount.yaml%s", s.Store, spelling.Hint(s.Store, known)).Instead = p.m.meant(s.Store, known)
	case s.Role != "" && traits.Roles == access.None:
		p.m.add(p.atDefault("role"), WrongStore, "store %q has no roles; remove role %q", s.Store, s.Role)
	case s.Role == "" && traits.Roles == access.Required:
		p.m.add(p.at("role"), WrongStore, "store %q needs a role to log in with; add role", s.Store)
	case s.Version != "" && !traits.Versions:
		p.m.add(p.at("version"), WrongStore, "store %q keeps no versions; remove version %q", s.Store, s.Version)
	case s.Args != "" && !traits.Writes:
		p.m.add(p.at("args"), WrongStore, "store %q answers no writes; remove args", s.Store)
	case s.Args != "" && s.Version != "":
		p.wrong("version", Conflict, "args ask for something new; remove one of the two")
	}
	return s
}

// atDefault is the place of a field, or else of the class's parameter of that name.
func (p *objectParser) atDefault(field string) Place {
	at := p.at(field)
	if p.fields[field] == nil {
		at.Parameter, at.Field, at.Line, at.Column = field, "", 0, 0
	}
	return at
}

// storeNamed is a store of keymount.yaml, or [AnyStore] in place of one.
func storeNamed(stores map[string]Store, name string) (Store, bool) {
	s, known := stores[name]
	if !known {
		s, known = stores[AnyStore]
	}
	return s, known
}

// shared reads the owner of a credential: the pod, or all pods with its login.
func (p *objectParser) shared() bool {
	switch text := p.text("lease"); text {
	case "", leasePod:
		return false
	case leaseShared:
		return true
	default:
		p.wrong("lease", BadValue, "%q is neither pod nor shared", text)
		return false
	}
}

// text is a field's text as written, quoted or not: empty when absent.
func (p *objectParser) text(name string) string {
	node := p.fields[name]
	switch {
	case node == nil:
		return ""
	case node.Kind != yaml.ScalarNode:
		p.wrong(name, BadValue, "not a text")
		return ""
	case node.Value == "" || node.Tag == "!!null":
		p.wrong(name, BadValue, "is empty; give it a value or remove it")
		return ""
	case name == "template": // which has lines
		return node.Value
	case name == "key" || name == "passwordKey": // of which a store may have any
		return p.plain(name, node.Value)
	}
	if err := spelling.Unspaced(node.Value); err != nil {
		p.wrong(name, BadValue, "%w", err)
		return ""
	}
	if name == "path" || name == "file" { // judged where they are parsed
		return node.Value
	}
	return p.plain(name, node.Value)
}

// key bounds the length of a key: each dot may be a step or part of a name, so that
// the work of a look-up grows faster than the length.
func (p *objectParser) key() string {
	const longest = 1024
	key := p.text("key")
	if len(key) > longest {
		p.wrong("key", BadValue, "%d bytes are more than a key may have (%d)", len(key), longest)
		return ""
	}
	return key
}

// args are sent as one JSON object in one spelling: objects with the same args share
// an answer, and others do not.
func (p *objectParser) args() string {
	node := p.fields["args"]
	if node == nil {
		return ""
	}
	if node.Tag == "!!null" {
		p.wrong("args", BadValue, "is empty; give it a value, or write args: {} for a write without arguments")
		return ""
	}
	text, err := canonicalArgs(node)
	if err != nil {
		p.wrong("args", BadValue, "%w", err)
	}
	return text
}

// path is in the store's spelling.
func (p *objectParser) path(of Store) store.Path {
	if p.fields["path"] == nil {
		p.lacks("path", "missing; name the secret in the store")
		return store.Path{}
	}
	text := p.text("path")
	if text == "" {
		return store.Path{}
	}
	path, err := of.path(text)
	if err != nil {
		p.wrong("path", BadValue, "%w", err)
	}
	return path
}

// file reads the object's path in the mount; a slash at the end makes it a folder.
func (p *objectParser) file() (name string, folder bool) {
	if p.fields["file"] == nil {
		p.lacks("file", `missing; name the file to write, or a folder ("tls/") for one file per key`)
		return "", false
	}
	text := p.text("file")
	if text == "" {
		return "", false
	}
	name, folder = strings.CutSuffix(text, "/")
	if folder && name == "." {
		return name, folder
	}
	if err := checkFile(name); err != nil {
		p.wrong("file", BadValue, "%w", err).Instead = relative(text)
		return "", folder
	}
	return name, folder
}

// relative is an absolute path of a file as it was meant; empty for another text.
func relative(text string) string {
	if meant := strings.TrimLeft(text, "/"); meant != text && checkFile(strings.TrimSuffix(meant, "/")) == nil {
		return meant
	}
	return ""
}

// form reads the fields that shape the value.
func (p *objectParser) form(o *Object, of Store) {
	var err error
	if text := p.text("encoding"); text != "" {
		if o.Encoding, err = form.ParseEncoding(text); err != nil {
			p.wrong("encoding", BadValue, "%w", err)
		}
	}
	if text := p.text("format"); text != "" {
		p.format(o, text)
	}
	if text := p.text("template"); text != "" {
		if o.Template, err = form.ParseTemplate(text, of.path); err != nil {
			p.wrong("template", BadValue, "%w", err)
		}
	}
	if o.KeyFormat, err = certificate.ParseKeyFormat(p.text("keyFormat")); err != nil {
		p.wrong("keyFormat", BadValue, "%w", err)
	}
	o.PasswordKey = p.text("passwordKey")
	p.passwordFrom(o, of)
}

// passwordFrom reads which other secret has the password. It is of the object's own
// store, read with its role.
func (p *objectParser) passwordFrom(o *Object, of Store) {
	node := p.fields["passwordFrom"]
	if node == nil {
		return
	}
	if node.Kind != yaml.MappingNode {
		p.wrong("passwordFrom", BadValue, "not a map; write {path: ..., key: ...}")
		return
	}
	from := objectParser{entry{index: p.index, node: node, m: p.m, within: "passwordFrom: "}}
	from.readFields(passwordNames(), from.m.add)
	if from.fields["key"] == nil {
		from.lacks("key", "missing; name the value that is the password")
	}
	o.PasswordKey, o.PasswordOf = from.key(), o.Beside(from.path(of))
}

func (p *objectParser) format(o *Object, text string) {
	switch f := CertificateFormat(text); f {
	case PEM, PFX, JKS:
		o.Certificate = f
		return
	}
	format, err := form.ParseFormat(text)
	if err != nil {
		known := formats()
		p.wrong("format", BadValue, "%q is none of %s%s", text, strings.Join(known, ", "), spelling.Hint(text, known))
	}
	o.Format = format
}

// checkForm finds fields that do not go together.
func (p *objectParser) checkForm(o Object, of Store) {
	has := func(field string) bool { return p.fields[field] != nil }
	switch {
	case has("template"):
		for _, other := range []string{"key", "format", "encoding"} {
			if has(other) {
				p.wrong(other, Conflict, "a template makes the whole text; remove %s or the template", other)
			}
		}
		p.wantsFile(o, "a template makes one text")
	case has("format") && o.Certificate != PEM:
		p.wantsFile(o, "format: "+Shorten(p.fields["format"].Value)+" makes one file")
	case has("format"):
	case o.Folder && has("key"):
		p.wrong("file", Conflict, "\"%s/\" is a folder, which takes all keys, and key asks for %q alone; remove the slash or the key", o.File, o.Key)
	case !o.Folder && !has("key") && o.File != "" && !of.isText(o.Secret.Path):
		p.lacks("key", "missing; name the value for %q, or end file in a slash to get one file per key, or add a format or a template", o.File)
	}
	if has("format") && has("encoding") {
		p.wrong("encoding", Conflict, "is of a value that is written as it is; remove it or the format")
	}
	p.checkCertificate(o)
}

func (p *objectParser) wantsFile(o Object, why string) {
	if o.Folder {
		p.wrong("file", Conflict, "\"%s/\" is a folder and %s; remove the slash", o.File, why)
	}
}

func (p *objectParser) checkCertificate(o Object) {
	if p.fields["keyFormat"] != nil && o.Certificate != PEM {
		p.wrong("keyFormat", Conflict, "is for format: pem; remove it")
	}
	for _, field := range []string{"passwordKey", "passwordFrom"} {
		if p.fields[field] != nil && o.Certificate == "" {
			p.wrong(field, Conflict, "is for format: pem, pfx and jks; remove it")
		}
	}
	switch hasKey, hasFrom := p.fields["passwordKey"] != nil, p.fields["passwordFrom"] != nil; {
	case hasKey && hasFrom:
		p.wrong("passwordFrom", Conflict, "the password is in one place; remove this or passwordKey")
	case o.Certificate == JKS && !hasKey && !hasFrom:
		p.lacks("passwordKey", "missing; name the key of the secret that holds the keystore's password, or another secret in passwordFrom: {path: ..., key: ...}")
	}
}

func (p *objectParser) mode() int32 {
	text := p.text("mode")
	if text == "" {
		return DefaultMode
	}
	mode, instead, err := parseStrictMode(text)
	if err != nil {
		p.wrong("mode", BadMode, "%w", err).Instead = instead
	}
	return mode
}

func (p *objectParser) flag(name string) bool {
	node := p.fields[name]
	if node == nil {
		return false
	}
	if node.Tag != "!!bool" {
		p.wrong(name, BadValue, "is not true or false")
		return false
	}
	return strings.EqualFold(node.Value, "true")
}
