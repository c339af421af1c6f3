package provider

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/provider/form"
	"github.com/keymount/keymount/store"
)

// Names of parameters. The ones called suffix follow a prefix: vaultAddress,
// baoAddress, openbaoAddress.
const (
	nameRole     = "roleName"
	nameAudience = "audience"
	nameObjects  = "objects"
	nameStrict   = "strict"

	suffixAddress   = "Address"
	suffixNamespace = "Namespace"
	suffixAuthMount = "AuthMountPath"
	suffixOldMount  = "KubernetesMountPath"
	suffixSkipTLS   = "SkipTLSVerify"
)

// vaultPrefixes begins with the one that the dialect itself uses.
func vaultPrefixes(d Dialect) []string {
	if d == DialectOpenBao {
		return []string{"openbao", "bao", "vault"}
	}
	return []string{"vault", "bao", "openbao"}
}

// tlsSuffixes are parameters that keymount.yaml has in place of the class.
func tlsSuffixes() []string {
	return []string{"CACertPath", "CADirectory", "TLSClientCertPath", "TLSClientKeyPath", "TLSServerName", suffixSkipTLS}
}

// vaultFieldNames are the fields of an object.
func vaultFieldNames() []string {
	return []string{"objectName", "secretPath", "secretKey", "method", "secretArgs", "filePermission", "encoding"}
}

// vaultExample is what an object looks like.
const vaultExample = "{objectName: ..., secretPath: ..., secretKey: ...}"

// ParseVault is [ParseRequest] for classes of vault-csi-provider and of
// openbao-csi-provider; docs/migration.md is its manual. permission is the
// driver's, the mode of files for which the class says none. What those providers
// pass over in silence is a warning, and a mistake when the class says strict.
func ParseVault(attributes, permission string, d Dialect, stores map[string]Features) (Request, error) {
	return parseRequest(attributes, classText{dialect: d, permission: permission}, parserFor(stores))
}

func (t classText) parseVault(stores map[string]Features, m *mistakes) parsedClass {
	p := vaultParser{dialect: t.dialect, texts: t.parameters, m: m}
	p.strict = p.flag(nameStrict)
	p.checkNames()
	inherited := Object{
		Secret:   Secret{Store: p.store(t.namespace, stores), Role: p.role()},
		Mode:     p.permission(t.permission),
		Envelope: true,
	}
	var objects []Object
	for i, node := range entries(t.parameters[nameObjects], vaultExample, m) {
		o := vaultObject{objectParser{index: i, m: m}, &p}
		objects = append(objects, o.parse(node, inherited))
	}
	checkClashes(objects, "objectName", m)
	return parsedClass{objects, p.warnings}
}

// vaultParser reads the parameters of one class.
type vaultParser struct {
	dialect  Dialect
	texts    map[string]string
	strict   bool
	m        *mistakes
	warnings []string
}

// warn notes what the class's author should mend.
func (p *vaultParser) warn(format string, args ...any) {
	if p.strict {
		p.m.add(format, args...)
		return
	}
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// name is what the dialect calls a parameter.
func (p *vaultParser) name(suffix string) string { return vaultPrefixes(p.dialect)[0] + suffix }

// parameter is the value that some prefix has; with two values it is a mistake.
func (p *vaultParser) parameter(suffix string) string {
	found, name := "", ""
	for _, prefix := range vaultPrefixes(p.dialect) {
		text := p.texts[prefix+suffix]
		if text != "" && found != "" && text != found {
			p.m.add("%s and %s differ; keep one", name, prefix+suffix)
		}
		if text != "" && found == "" {
			found, name = text, prefix+suffix
		}
	}
	return found
}

// mount has an old name, which was for the same thing.
func (p *vaultParser) mount() string {
	mount, old := strings.Trim(p.parameter(suffixAuthMount), "/"), strings.Trim(p.parameter(suffixOldMount), "/")
	if mount != "" && old != "" && mount != old {
		p.m.add("%s and %s differ; keep one", p.name(suffixAuthMount), p.name(suffixOldMount))
	}
	if mount == "" {
		return old
	}
	return mount
}

func (p *vaultParser) role() string {
	role := p.texts[nameRole]
	if role == "" {
		p.m.add("%s: missing; name the role to log in with", nameRole)
	}
	return role
}

func (p *vaultParser) flag(name string) bool {
	text := p.texts[name]
	if text == "" {
		return false
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		p.m.add("%s: is not true or false", name)
	}
	return on
}

// checkNames warns of parameters that have no effect.
func (p *vaultParser) checkNames() {
	known := []string{nameRole, nameAudience, nameObjects, nameStrict}
	var tls []string
	for _, prefix := range vaultPrefixes(p.dialect) {
		for _, suffix := range []string{suffixAddress, suffixNamespace, suffixAuthMount, suffixOldMount} {
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
			if p.texts[name] != "false" {
				p.warn("%s: has no effect; the server's certificate is always verified", name)
			}
		case slices.Contains(tls, name):
			p.warn("%s: has no effect; the TLS settings of the store in keymount.yaml decide", name)
		default:
			p.warn("unknown parameter %q%s", short(name), spelling.Hint(name, slices.Concat(known, tls)))
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
		p.m.add("the driver's permission is not the mode of a file; is the caller the Secrets Store CSI driver?")
		return usual
	}
	return mode
}

// vaultObject reads one entry of a class's objects.
type vaultObject struct {
	objectParser
	class *vaultParser
}

func (p *vaultObject) warn(format string, args ...any) {
	p.class.warn("objects[%d]: %s", p.index, fmt.Sprintf(format, args...))
}

func (p *vaultObject) parse(node *yaml.Node, o Object) Object {
	o.Index = p.index
	if node.Kind != yaml.MappingNode {
		p.mistake("not a map; write %s", vaultExample)
		return o
	}
	p.readFields(node, vaultFieldNames(), p.warn)
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

// value is a field's text, quoted or not; an empty one is an absent one.
func (p *vaultObject) value(name string) string {
	node := p.fields[name]
	switch {
	case node == nil || node.Tag == "!!null":
		return ""
	case node.Kind != yaml.ScalarNode:
		p.mistake("%s: not a text", name)
		return ""
	}
	return node.Value
}

func (p *vaultObject) objectName() string {
	name := p.value("objectName")
	if name == "" {
		p.mistake("objectName: missing; name the file to write")
		return ""
	}
	if err := checkFile(name); err != nil {
		p.mistake("objectName: %w", err)
		return ""
	}
	return name
}

func (p *vaultObject) encoding(key string) form.Encoding {
	const plain = "utf-8"
	text := p.value("encoding")
	if text == "" || text == plain {
		return ""
	}
	known := []string{plain, string(form.Base64), string(form.Hex)}
	switch {
	case !slices.Contains(known, text):
		p.mistake("encoding: %q is none of %s%s", short(text), strings.Join(known, ", "), spelling.Hint(text, known))
		return ""
	case key == "":
		p.mistake("encoding: is of one value, and without secretKey the file is the whole answer; add secretKey or remove it")
		return ""
	}
	return form.Encoding(text)
}

func (p *vaultObject) filePermission(text string, usual int32) int32 {
	isQuoted := p.fields["filePermission"].Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
	mode, odd, err := parsePermission(text, isQuoted, usual)
	if err != nil {
		p.mistake("filePermission: %w", err)
	}
	if odd != "" {
		p.warn("filePermission: %s", odd)
	}
	return mode
}

// parsePermission reads octal, as chmod does. To YAML a number without a zero in
// front is decimal, and what its author meant shows in the mode: one that gives
// others more than the owner was not meant. odd is what to tell the author.
func parsePermission(text string, isQuoted bool, usual int32) (mode int32, odd string, err error) {
	if strings.Trim(text, "0") == "" {
		return usual, fmt.Sprintf("%q is no permission at all; the usual %04o is taken", text, usual), nil
	}
	mode, err = parseMode(text)
	if err == nil && (isQuoted || text[0] == '0') {
		return mode, "", nil
	}
	if err == nil && isSane(mode) {
		return mode, fmt.Sprintf("%s is decimal to YAML and is taken as octal; write \"%04o\"", text, mode), nil
	}
	decimal, bad := strconv.ParseInt(text, 10, 32)
	if bad != nil || isQuoted || text[0] == '0' || decimal > 0o777 || !isSane(int32(decimal)) {
		return usual, "", fmt.Errorf(`%q is not an octal mode from "0001" to "0777", such as "0400"`, short(text))
	}
	return int32(decimal), fmt.Sprintf("%s is decimal to YAML and no octal mode that makes sense, so it is taken as decimal; write \"%04o\"", text, decimal), nil
}

// isSane tells whether the owner may read, and nobody may do more than the owner.
func isSane(mode int32) bool {
	owner, group, others := mode>>6, mode>>3&7, mode&7
	return mode > 0 && owner&4 != 0 && group&^owner == 0 && others&^group == 0
}

// writes reads the method.
func (p *vaultObject) writes() bool {
	switch method := p.value("method"); strings.ToUpper(method) {
	case "", "GET":
	case "PUT", "POST":
		return true
	case "DELETE", "PATCH":
		p.mistake("method: %s changes what the store holds, and a mount never does; remove the object", strings.ToUpper(method))
	default:
		p.mistake("method: %q is none of GET, PUT, POST", short(method))
	}
	return false
}

// secretArgs are what a write sends.
func (p *vaultObject) secretArgs(write bool) string {
	text := noArgs
	if node := p.fields["secretArgs"]; node != nil && node.Tag != "!!null" {
		var err error
		if text, err = canonicalArgs(node); err != nil {
			p.mistake("secretArgs: %w", err)
		}
	}
	switch {
	case write:
		return text
	case text != noArgs:
		p.warn("secretArgs: have no effect on a GET; add method: PUT or remove them")
	}
	return ""
}

// secretPath reads a path of the API: mount, name and what is asked besides.
func (p *vaultObject) secretPath(s *Secret, write bool) {
	text, query, _ := strings.Cut(p.value("secretPath"), "?")
	text = strings.TrimPrefix(strings.TrimPrefix(text, "/"), "v1/")
	if text == "" {
		p.mistake("secretPath: missing; name the secret in the store")
		return
	}
	path, err := store.ParsePath(text)
	if err != nil {
		p.mistake("secretPath: %w", err)
	}
	s.Path = path
	switch {
	case query == "":
	case write:
		p.warn("secretPath: the text after \"?\" has no effect on a write; use secretArgs or remove it")
	default:
		p.query(s, query)
	}
}

// query is part of what a read is: two that differ in it are two reads. The version
// is the one question that stores know by a name of their own.
func (p *vaultObject) query(s *Secret, text string) {
	const versionName = "version"
	values, err := url.ParseQuery(text)
	if err != nil {
		p.mistake("secretPath: the text after \"?\" is not of the form name=value&name=value")
		return
	}
	for _, other := range []string{"list", "scan"} {
		if values.Has(other) {
			p.mistake("secretPath: ?%s= asks for names and not for a secret; remove it", other)
		}
	}
	if values.Has(versionName) {
		n, err := strconv.ParseUint(values.Get(versionName), 10, 32)
		if err != nil || len(values[versionName]) > 1 {
			p.mistake("secretPath: ?version= wants one number")
		}
		if n > 0 { // 0 is the latest
			s.Version = strconv.FormatUint(n, 10)
		}
		values.Del(versionName)
	}
	s.Query = values.Encode()
}
