package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/provider/certificate"
	"github.com/keymount/keymount/provider/form"
	"github.com/keymount/keymount/store"
)

const (
	defaultStore = "default"
	// defaultMode lets a container that is not root read: the driver's files
	// belong to root and fsGroup does not reach them.
	defaultMode = 0o444
	maxObjects  = 1000
	// maxTemplateNodes bounds what the templates of a class take in memory.
	maxTemplateNodes = 20_000
)

// classDefaults are what an object inherits from its class.
type classDefaults struct {
	store, role string
	known       map[string]Features
}

// parseObjects reads the class's objects, a YAML list.
func parseObjects(text string, class classDefaults, m *mistakes) []Object {
	if class.store == "" {
		class.store = defaultStore
	}
	var objects []Object
	templates := 0
	for i, node := range entries(text, objectExample, m) {
		p := objectParser{index: i, m: m}
		o := p.parse(node, class)
		objects = append(objects, o)
		if o.Template != nil {
			templates += o.Template.Nodes()
		}
		if templates > maxTemplateNodes {
			p.mistake("template: all templates of the class have more than %d nodes; make two classes of it", maxTemplateNodes)
			break
		}
	}
	checkClashes(objects, "file", m)
	return objects
}

// objectExample is what an object looks like.
const objectExample = "{path: ..., key: ..., file: ...}"

// entries are the objects of a class, a YAML list of things like example.
func entries(text, example string, m *mistakes) []*yaml.Node {
	document, err := decodeList(text)
	if err != nil {
		m.add("objects: %w", err)
		return nil
	}
	form := "list the secrets, each as " + example
	switch {
	case len(document.Content) == 0:
		m.add("objects: missing or empty; %s", form)
		return nil
	case document.Content[0].Kind != yaml.SequenceNode:
		m.add("objects: not a list; %s", form)
		return nil
	case len(document.Content[0].Content) == 0:
		m.add("objects: the list is empty; %s", form)
		return nil
	case len(document.Content[0].Content) > maxObjects:
		m.add("objects: %d are more than one class may have (%d)", len(document.Content[0].Content), maxObjects)
		return nil
	}
	return document.Content[0].Content
}

// decodeList reads one YAML document of plain values. Anchors, aliases and tags
// are refused: what they mean differs between readers.
func decodeList(text string) (yaml.Node, error) {
	var document, more yaml.Node
	decoder := yaml.NewDecoder(strings.NewReader(text))
	err := decoder.Decode(&document)
	switch {
	case errors.Is(err, io.EOF):
		return document, nil
	case err != nil:
		return document, fmt.Errorf("not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return document, errors.New("more than one YAML document; keep one list")
	}
	return document, checkPlain(&document)
}

func checkPlain(node *yaml.Node) error {
	switch {
	case node.Anchor != "" || node.Kind == yaml.AliasNode:
		return fmt.Errorf("line %d: anchors and aliases are not read; write the value out", node.Line)
	case node.Style&yaml.TaggedStyle != 0 || node.Tag == "!":
		return fmt.Errorf("line %d: the tag %s is not read; remove it", node.Line, node.Tag)
	}
	for _, child := range node.Content {
		if err := checkPlain(child); err != nil {
			return err
		}
	}
	return nil
}

// objectParser reads one entry and notes mistakes under its index.
type objectParser struct {
	index  int
	fields map[string]*yaml.Node
	m      *mistakes
}

func (p *objectParser) mistake(format string, args ...any) {
	p.m.add("objects[%d]: %w", p.index, fmt.Errorf(format, args...))
}

func (p *objectParser) parse(node *yaml.Node, class classDefaults) Object {
	o := Object{Index: p.index}
	if node.Kind != yaml.MappingNode {
		p.mistake("not a map; write %s", objectExample)
		return o
	}
	p.readFields(node, fieldNames(), p.mistake)
	o.Secret = p.secret(class)
	o.Key = p.key()
	p.form(&o)
	o.File, o.Folder = p.file()
	o.Mode = p.mode()
	o.Optional = p.flag("optional")
	p.checkForm(o)
	return o
}

// fieldNames are the fields of an object.
func fieldNames() []string {
	return []string{
		"path", "key", "file", "mode", "optional", "store", "role", "version",
		"encoding", "format", "template", "keyFormat", "passwordKey", "args", "lease",
	}
}

// readFields has unknown say what it thinks of a field that is not known.
func (p *objectParser) readFields(node *yaml.Node, known []string, unknown func(format string, args ...any)) {
	p.fields = make(map[string]*yaml.Node, len(known))
	if fields := len(node.Content) / 2; fields > 10*len(known) {
		p.mistake("%d fields are more than an object has", fields)
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name := node.Content[i].Value
		switch {
		case !slices.Contains(known, name):
			unknown("unknown field %q%s", name, spelling.Hint(name, known))
		case p.fields[name] != nil:
			p.mistake("field %q is there twice", name)
		default:
			p.fields[name] = node.Content[i+1]
		}
	}
}

// secret reads which secret is meant: the object's own words, else the class's.
func (p *objectParser) secret(class classDefaults) Secret {
	s := Secret{Store: p.text("store"), Role: p.text("role"), Version: p.text("version"), Path: p.path(), Args: p.args(), Shared: p.shared()}
	if s.Store == "" {
		s.Store = class.store
	}
	features, known := class.known[s.Store]
	// A class's role is for its stores that have roles; an object's is a mistake elsewhere.
	if s.Role == "" && (features.Roles || s.Store == class.store) {
		s.Role = class.role
	}
	switch {
	case !known:
		p.mistake("store %q is not in keymount.yaml%s", s.Store, spelling.Hint(s.Store, slices.Sorted(maps.Keys(class.known))))
	case s.Role != "" && !features.Roles:
		p.mistake("store %q has no roles; remove role %q", s.Store, s.Role)
	case s.Role == "" && features.Roles:
		p.mistake("store %q needs a role to log in with; add role", s.Store)
	case s.Version != "" && !features.Versions:
		p.mistake("store %q keeps no versions; remove version %q", s.Store, s.Version)
	case s.Args != "" && !features.Writes:
		p.mistake("store %q answers no writes; remove args", s.Store)
	case s.Args != "" && s.Version != "":
		p.mistake("version: args ask for something new; remove one of the two")
	}
	return s
}

// shared reads whose a credential is: the pod's, or that of all pods that share its
// login.
func (p *objectParser) shared() bool {
	switch text := p.text("lease"); text {
	case "", "pod":
		return false
	case "shared":
		return true
	default:
		p.mistake("lease: %q is neither pod nor shared", text)
		return false
	}
}

// text is a field's text as it was written, quoted or not: empty when absent.
func (p *objectParser) text(name string) string {
	node := p.fields[name]
	switch {
	case node == nil:
		return ""
	case node.Kind != yaml.ScalarNode:
		p.mistake("%s: not a text", name)
		return ""
	case node.Value == "" || node.Tag == "!!null":
		p.mistake("%s: is empty; give it a value or remove it", name)
		return ""
	}
	return node.Value
}

// key bounds the names that a value is looked for under: each dot may be a step
// or a part of a name, so that the work grows faster than the length.
func (p *objectParser) key() string {
	const longest = 1024
	key := p.text("key")
	if len(key) > longest {
		p.mistake("key: %d bytes are more than a key may have (%d)", len(key), longest)
		return ""
	}
	return key
}

// args are sent as one JSON object; its spelling is part of what a read is, so
// that two objects with the same args share an answer and others do not.
func (p *objectParser) args() string {
	node := p.fields["args"]
	if node == nil {
		return ""
	}
	text, err := canonicalArgs(node)
	if err == nil && text == noArgs {
		err = errNotArgs
	}
	if err != nil {
		p.mistake("args: %w", err)
	}
	return text
}

// noArgs is a write that says nothing.
const noArgs = "{}"

var errNotArgs = errors.New("not a map of names to values")

func canonicalArgs(node *yaml.Node) (string, error) {
	args := map[string]any{}
	if err := node.Decode(&args); err != nil {
		return "", errNotArgs
	}
	text, err := json.Marshal(args) // with sorted keys
	if err != nil {
		return "", errors.New("cannot be written as JSON")
	}
	return string(text), nil
}

func (p *objectParser) path() store.Path {
	if p.fields["path"] == nil {
		p.mistake("path: missing; name the secret in the store")
		return store.Path{}
	}
	text := p.text("path")
	if text == "" {
		return store.Path{}
	}
	path, err := store.ParsePath(text)
	if err != nil {
		p.mistake("path: %w", err)
	}
	return path
}

// file reads where the object goes; a slash at the end says that it is a folder.
func (p *objectParser) file() (name string, folder bool) {
	if p.fields["file"] == nil {
		p.mistake(`file: missing; name the file to write, or a folder ("tls/") for one file per key`)
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
		p.mistake("file: %w", err)
		return "", folder
	}
	return name, folder
}

// form reads how the value is written.
func (p *objectParser) form(o *Object) {
	var err error
	if text := p.text("encoding"); text != "" {
		if o.Encoding, err = form.ParseEncoding(text); err != nil {
			p.mistake("encoding: %w", err)
		}
	}
	if text := p.text("format"); text != "" {
		p.format(o, text)
	}
	if text := p.text("template"); text != "" {
		if o.Template, err = form.ParseTemplate(text); err != nil {
			p.mistake("template: %w", err)
		}
	}
	if o.KeyFormat, err = certificate.ParseKeyFormat(p.text("keyFormat")); err != nil {
		p.mistake("keyFormat: %w", err)
	}
	o.PasswordKey = p.text("passwordKey")
}

func (p *objectParser) format(o *Object, text string) {
	switch f := CertificateFormat(text); f {
	case PEM, PFX, JKS:
		o.Certificate = f
		return
	}
	format, err := form.ParseFormat(text)
	if err != nil {
		known := []string{"json", "yaml", "dotenv", "properties", "pem", "pfx", "jks"}
		p.mistake("format: %q is none of %s%s", text, strings.Join(known, ", "), spelling.Hint(text, known))
	}
	o.Format = format
}

// checkForm finds fields that do not go together.
func (p *objectParser) checkForm(o Object) {
	has := func(field string) bool { return p.fields[field] != nil }
	switch {
	case has("template"):
		for _, other := range []string{"key", "format", "encoding"} {
			if has(other) {
				p.mistake("%s: a template makes the whole text; remove %s or the template", other, other)
			}
		}
		p.wantsFile(o, "a template makes one text")
	case has("format") && o.Certificate != PEM:
		p.wantsFile(o, "format: "+p.text("format")+" makes one file")
	case has("format"):
	case o.Folder && has("key"):
		p.mistake("file: \"%s/\" is a folder, which takes all keys, and key asks for %q alone; remove the slash or the key", o.File, o.Key)
	case !o.Folder && !has("key") && o.File != "":
		p.mistake("key: missing; name the value for %q, or end file in a slash to get one file per key, or add a format or a template", o.File)
	}
	if has("format") && has("encoding") {
		p.mistake("encoding: is of a value that is written as it is; remove it or the format")
	}
	p.checkCertificate(o)
}

func (p *objectParser) wantsFile(o Object, why string) {
	if o.Folder {
		p.mistake("file: \"%s/\" is a folder and %s; remove the slash", o.File, why)
	}
}

func (p *objectParser) checkCertificate(o Object) {
	if p.fields["keyFormat"] != nil && o.Certificate != PEM {
		p.mistake("keyFormat: is for format: pem; remove it")
	}
	if p.fields["passwordKey"] != nil && o.Certificate == "" {
		p.mistake("passwordKey: is for format: pem, pfx and jks; remove it")
	}
	if o.Certificate == JKS && o.PasswordKey == "" {
		p.mistake("passwordKey: missing; name the key of the secret that holds the keystore's password")
	}
}

func (p *objectParser) mode() int32 {
	text := p.text("mode")
	if text == "" {
		return defaultMode
	}
	mode, err := parseMode(text)
	if err != nil {
		p.mistake("mode: %w", err)
	}
	return mode
}

// parseMode reads a mode the way chmod does: always octal.
func parseMode(text string) (int32, error) {
	digits := strings.TrimPrefix(text, "0o")
	mode, err := strconv.ParseUint(digits, 8, 32)
	if err != nil || len(digits) < 3 || len(digits) > 4 || mode > 0o777 {
		return 0, fmt.Errorf(`%q is not an octal mode from "0000" to "0777", such as "0400"`, text)
	}
	return int32(mode), nil
}

func (p *objectParser) flag(name string) bool {
	node := p.fields[name]
	if node == nil {
		return false
	}
	if node.Tag != "!!bool" {
		p.mistake("%s: is not true or false", name)
		return false
	}
	return strings.EqualFold(node.Value, "true")
}
