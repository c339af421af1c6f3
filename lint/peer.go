package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/manifest"
)

// peer is another provider's syntax, known by its names.
type peer struct {
	name               string
	parameters, fields []string
	dialect            class.Dialect // that reads it; empty without one
}

// peers are in the order in which they are asked.
func peers() []peer {
	return []peer{
		{"openbao-csi-provider", []string{"baoAddress", "openbaoAddress", "baoRoleName", "openbaoRoleName"}, nil, class.DialectOpenBao},
		{"vault-csi-provider", []string{"vaultAddress", "roleName", "vaultRoleName"}, []string{"secretPath", "secretKey"}, class.DialectVault},
		{"the AWS provider", []string{"region", "failoverRegion", "usePodIdentity", "pathTranslation"}, []string{"objectType", "jmesPath", "objectAlias"}, ""},
		{"the Google provider", []string{"secrets"}, []string{"resourceName", "fileName"}, ""},
		{"the Azure provider", []string{"keyvaultName", "tenantId", "clientID", "useVMManagedIdentity", "userAssignedIdentityID"}, []string{"objectVersion"}, ""},
		{"keymount", nil, []string{"path", "key", "file"}, class.DialectKeymount},
	}
}

// checkPeer tells a class in another provider's syntax in one finding, in place of one for
// each field.
func (c *checker) checkPeer(of *checkedClass) bool {
	parameters, fields := unknownNames(of.checked)
	for _, p := range peers() {
		if p.dialect == of.dialect || !p.has(parameters, fields, of.Parameters["objects"]) {
			continue
		}
		c.node(of.Object, manifest.Field(of.Node, "spec", "provider"), "peer-syntax", Error, "this is the syntax of %s under provider: %s; %s", p.name, of.Provider, p.cure())
		return true
	}
	return false
}

// unknownNames are those that the dialect of a class does not know.
func unknownNames(checked class.Checked) (parameters, fields []string) {
	for _, m := range slices.Concat(checked.Mistakes, checked.Warnings) {
		if m.Reason == class.UnknownParameter {
			parameters = append(parameters, m.Parameter)
		}
		if m.Reason == class.UnknownField {
			fields = append(fields, m.Field)
		}
	}
	return parameters, fields
}

func (p peer) has(parameters, fields []string, objects string) bool {
	known := func(names []string) func(string) bool {
		return func(name string) bool { return slices.Contains(names, name) }
	}
	isArray := strings.HasPrefix(strings.TrimSpace(objects), "array:") && slices.Contains(p.parameters, "keyvaultName")
	return isArray || slices.ContainsFunc(parameters, known(p.parameters)) || slices.ContainsFunc(fields, known(p.fields))
}

func (p peer) cure() string {
	if p.dialect == "" {
		return "keymount reads no such class: write each object as {path: ..., key: ..., file: ...}"
	}
	if p.dialect == class.DialectKeymount {
		return fmt.Sprintf("set provider: %s", p.dialect)
	}
	return fmt.Sprintf("set provider: %s, or convert it with 'keymount convert'", p.dialect)
}
