package class

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/form"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// Names of parameters. The ones called suffix follow a prefix: vaultAddress,
// baoAddress, openbaoAddress.
const (
	nameRole     = "roleName"
	nameAudience = "audience"
	nameObjects  = "objects"
	nameStrict   = "strict"

	suffixRole      = "RoleName"
	suffixAddress   = "Address"
	suffixNamespace = "Namespace"
	suffixAuthMount = "AuthMountPath"
	suffixOldMount  = "KubernetesMountPath"
	suffixSkipTLS   = "SkipTLSVerify"
)

// vaultPrefixes are in the order in which the provider of the dialect takes them: the
// first that is there decides. vault-csi-provider knows the first alone.
func vaultPrefixes(d Dialect) []string {
	if d == DialectOpenBao {
		return []string{"bao", "openbao", "vault"}
	}
	return []string{"vault", "bao", "openbao"}
}

// tlsSuffixes are of parameters that keymount.yaml sets instead of the class.
func tlsSuffixes() []string {
	return []string{"CACertPath", "CAPem", "CADirectory", "TLSClientCertPath", "TLSClientKeyPath", "TLSServerName", suffixSkipTLS}
}

// vaultFieldNames are the fields of an object.
func vaultFieldNames() []string {
	return []string{"objectName", "secretPath", "secretKey", "method", "secretArgs", "filePermission", "encoding"}
}

// vaultExample shows an object in messages.
const vaultExample = "{objectName: ..., secretPath: ..., secretKey: ...}"

// parseVault reads a class of vault-csi-provider or of openbao-csi-provider;
// docs/migration.md is its manual. A slip ignored by those providers is a warning,
// and in a strict class a mistake.
func (s source) parseVault(stores map[string]Store, m *mistakes) meaning {
	p := vaultParser{dialect: s.dialect, texts: s.parameters, m: m}
	p.strict = p.flag(nameStrict)
	p.checkNames()
	inherited := Object{
		Secret:   Secret{Store: p.store(s.namespace, stores), Role: p.role()},
		Mode:     p.permission(s.permission),
		Envelope: true,
	}
	var objects []Object
	nodes := entries(s.parameters[nameObjects], vaultExample, m)
	for i, node := range nodes {
		o := vaultObject{entry{index: i, node: node, m: m}, &p}
		objects = append(objects, o.parse(inherited))
		m.path(i, node, "secretPath")
	}
	checkClashes(objects, nodes, "objectName", m)
	return meaning{objects: objects}
}

// vaultParser reads the parameters of one class.
type vaultParser struct {
	dialect Dialect
	texts   map[string]string
	strict  bool
	m       *mistakes
}

// warn notes a warning for the class's author; in a strict class a mistake.
func (p *vaultParser) warn(at Place, why Reason, format string, args ...any) *Mistake {
	if p.strict {
		return p.m.add(at, why, format, args...)
	}
	return p.m.warn(at, why, format, args...)
}

// parameter is what a class says under one of several names for the same thing.
type parameter struct{ name, text string }

// parameter is the first of its spellings that is there; others that differ have no
// effect, as in the providers that the class was written for.
func (p *vaultParser) parameter(suffix string) parameter {
	found := parameter{name: p.name(suffix)}
	for _, name := range p.spellings(suffix) {
		switch text := p.texts[name]; {
		case text == "":
		case found.text == "":
			found = parameter{name, text}
		case text != found.text:
			p.warn(ofParameter(name), NoEffect, "%s: has no effect beside %s; remove it", name, found.name)
		}
	}
	if err := spelling.Plain(found.text); err != nil {
		p.m.add(ofParameter(found.name), BadValue, "%s: %w", found.name, err)
		found.text = ""
	}
	return found
}

// spellings are the names of a parameter, the one that decides first.
func (p *vaultParser) spellings(suffix string) []string {
	var names []string
	switch suffix {
	case nameAudience:
		return []string{nameAudience}
	case suffixRole:
		names = append(names, nameRole)
	}
	for _, prefix := range vaultPrefixes(p.dialect) {
		names = append(names, prefix+suffix)
	}
	return names
}

// name is what the class calls a parameter, or would call it, going by its others.
func (p *vaultParser) name(suffix string) string {
	names := p.spellings(suffix)
	for _, name := range names {
		if _, ok := p.texts[name]; ok {
			return name
		}
	}
	if suffix == suffixRole || suffix == nameAudience {
		return names[0]
	}
	for _, prefix := range vaultPrefixes(p.dialect) {
		for _, other := range slices.Concat(storeSuffixes(), tlsSuffixes()) {
			if _, ok := p.texts[prefix+other]; ok {
				return prefix + suffix
			}
		}
	}
	return string(p.dialect) + suffix
}

// storeSuffixes are parameters that say which store is meant, and as whom to log in.
func storeSuffixes() []string {
	return []string{suffixAddress, suffixNamespace, suffixAuthMount, suffixOldMount, suffixRole}
}

// mount is the mount of the auth method, a parameter with two names.
func (p *vaultParser) mount() string {
	mount, old := p.authMount(suffixAuthMount), p.authMount(suffixOldMount)
	if mount.text != "" && old.text != "" && mount.text != old.text {
		p.m.add(ofParameter(old.name), Conflict, "%s and %s differ; keep one", mount.name, old.name)
	}
	return cmp.Or(mount.text, old.text)
}

// authMount is a mount's name, whatever of its path is written with it.
func (p *vaultParser) authMount(suffix string) parameter {
	mount := p.parameter(suffix)
	text := strings.Trim(mount.text, "/")
	name := kind.AuthMount(text)
	if name != text {
		p.m.add(ofParameter(mount.name), BadValue, "%s: %q is more than the name of the mount; write %q", mount.name, Shorten(text), Shorten(name))
	}
	return parameter{mount.name, name}
}

func (p *vaultParser) role() string {
	role := p.parameter(suffixRole)
	if p.texts[role.name] == "" {
		p.m.add(ofParameter(role.name), Missing, "%s: missing; name the role to log in with", role.name)
	}
	return role.text
}

func (p *vaultParser) flag(name string) bool {
	text := p.texts[name]
	if text == "" {
		return false
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		p.m.add(ofParameter(name), BadValue, "%s: is not true or false", name)
	}
	return on
}

// checkNames warns of parameters that have no effect.
func (p *vaultParser) checkNames() {
	known := []string{nameRole, nameAudience, nameObjects, nameStrict}
	var tls []string
	for _, prefix := range vaultPrefixes(p.dialect) {
		for _, suffix := range storeSuffixes() {
			known = append(known, prefix+suffix)
		}
		for _, suffix := range tlsSuffixes() {
			tls = append(tls, prefix+suffix)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.texts)) {
		switch {
		case slices.Contains(known, name) || p.texts[name] == "" && slices.Contains(tls, name):
		case slices.Contains(tls, name) && strings.HasSuffix(name, suffixSkipTLS):
			if p.flag(name) {
				p.warn(ofParameter(name), NoEffect, "%s: has no effect; the server's certificate is always verified", name)
			}
		case slices.Contains(tls, name):
			p.warn(ofParameter(name), NoEffect, "%s: has no effect; the TLS settings of the store in keymount.yaml decide", name)
		default:
			known := slices.Concat(known, tls)
			p.warn(ofParameter(name), UnknownParameter, "unknown parameter %q%s", Shorten(name), spelling.Hint(name, known)).Instead = p.m.meant(name, known)
		}
	}
}

// permission is the driver's: a JSON number.
func (p *vaultParser) permission(text string) int32 {
	const usual = 0o644
	if text == "" {
		return usual
	}
	var mode int32
	if err := json.Unmarshal([]byte(text), &mode); err != nil || mode < 0 || mode > 0o777 {
		p.m.add(ofClass(), BadValue, "the driver's permission is not the mode of a file; is the caller the Secrets Store CSI driver?")
		return usual
	}
	return mode
}

// vaultObject reads one entry of a class's objects.
type vaultObject struct {
	entry
	class *vaultParser
}

// warnOf notes a warning of a field, with which its text begins.
func (p *vaultObject) warnOf(field string, why Reason, format string, args ...any) *Mistake {
	return p.class.warn(p.at(field), why, field+": "+format, args...)
}

func (p *vaultObject) parse(o Object) Object {
	o.Index = p.index
	if p.node.Kind != yaml.MappingNode {
		p.whole(BadForm, "not a map; write %s", vaultExample)
		return o
	}
	p.readFields(vaultFieldNames(), p.class.warn)
	o.File = p.objectName()
	o.Key = p.value("secretKey")
	o.Encoding = p.encoding(o.Key)
	if text := p.value("filePermission"); text != "" {
		o.Mode = p.filePermission(text, o.Mode)
	}
	write := p.writes()
	o.Secret.Args = p.secretArgs(write)
	p.secretPath(&o.Secret, write)
	return o
}

// value is a field's text, quoted or not; an empty one counts as absent.
func (p *vaultObject) value(name string) string {
	node := p.fields[name]
	switch {
	case node == nil || node.Tag == "!!null":
		return ""
	case node.Kind != yaml.ScalarNode:
		p.wrong(name, BadValue, "not a text")
		return ""
	}
	return p.plain(name, node.Value)
}

func (p *vaultObject) objectName() string {
	name := p.value("objectName")
	if name == "" {
		p.lacks("objectName", "missing; name the file to write")
		return ""
	}
	if err := checkFile(name); err != nil {
		p.wrong("objectName", BadValue, "%w", err).Instead = relative(name)
		return ""
	}
	return name
}

func (p *vaultObject) encoding(key string) form.Encoding {
	const plain = "utf-8"
	text := p.value("encoding")
	if text == "" || strings.EqualFold(text, plain) {
		return ""
	}
	known := []string{plain, string(form.Base64), string(form.Hex)}
	switch {
	case !slices.Contains(known, strings.ToLower(text)):
		p.wrong("encoding", BadValue, "%q is none of %s%s", Shorten(text), strings.Join(known, ", "), spelling.Hint(text, known))
		return ""
	case key == "":
		p.wrong("encoding", BadValue, "is of one value, and without secretKey the file is the whole answer; add secretKey or remove it")
		return ""
	}
	return form.Encoding(strings.ToLower(text))
}

func (p *vaultObject) filePermission(text string, usual int32) int32 {
	mode, warning, err := parsePermission(text, isQuoted(p.fields["filePermission"]), usual)
	if err != nil {
		p.wrong("filePermission", BadMode, "%w", err)
	}
	if warning != "" {
		p.warnOf("filePermission", BadMode, "%s", warning).Instead = fmt.Sprintf("%04o", mode)
	}
	return mode
}

// writes reads the method: true for a write.
func (p *vaultObject) writes() bool {
	switch method := p.value("method"); strings.ToUpper(method) {
	case "", "GET":
	case "PUT", "POST":
		return true
	case "DELETE", "PATCH":
		p.wrong("method", BadValue, "%s changes what the store holds, and a mount never does; remove the object", strings.ToUpper(method))
	default:
		p.wrong("method", BadValue, "%q is none of GET, PUT, POST", Shorten(method))
	}
	return false
}

// secretArgs are the body of a write.
func (p *vaultObject) secretArgs(write bool) string {
	text := noArgs
	if node := p.fields["secretArgs"]; node != nil && node.Tag != "!!null" {
		var err error
		if text, err = canonicalArgs(node); err != nil {
			p.wrong("secretArgs", BadValue, "%w", err)
		}
	}
	switch {
	case write:
		return text
	case text != noArgs:
		p.warnOf("secretArgs", NoEffect, "have no effect on a GET; add method: PUT or remove them")
	}
	return ""
}

// secretPath reads a path of the API: mount, name and query.
func (p *vaultObject) secretPath(s *Secret, write bool) {
	text, query, _ := strings.Cut(p.value("secretPath"), "?")
	text = strings.TrimPrefix(strings.TrimPrefix(text, "/"), "v1/")
	if text == "" {
		p.lacks("secretPath", "missing; name the secret in the store")
		return
	}
	path, err := store.ParsePath(text)
	if err != nil {
		p.wrong("secretPath", BadValue, "%w", err)
	}
	s.Path = path
	switch {
	case query == "":
	case write:
		p.warnOf("secretPath", NoEffect, "the text after \"?\" has no effect on a write; use secretArgs or remove it")
	default:
		p.query(s, query)
	}
}

// query is part of the secret: two reads with different queries share no answer. Of
// its parameters the version alone has a field of its own.
func (p *vaultObject) query(s *Secret, text string) {
	const versionName = "version"
	values, err := url.ParseQuery(text)
	if err != nil {
		p.wrong("secretPath", BadValue, "the text after \"?\" is not of the form name=value&name=value")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := spelling.Plain(name + strings.Join(values[name], "")); err != nil {
			p.wrong("secretPath", BadValue, "the text after \"?\": %w", err)
		}
	}
	for _, other := range []string{"list", "scan"} {
		if values.Has(other) {
			p.wrong("secretPath", BadValue, "?%s= asks for names and not for a secret; remove it", other)
		}
	}
	if values.Has(versionName) {
		n, err := strconv.ParseUint(values.Get(versionName), 10, 32)
		if err != nil || len(values[versionName]) > 1 {
			p.wrong("secretPath", BadValue, "?version= wants one number")
		}
		if n > 0 { // 0 is the latest
			s.Version = strconv.FormatUint(n, 10)
		}
		values.Del(versionName)
	}
	s.Query = values.Encode()
}
