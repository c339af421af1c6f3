package provider

import (
	"path/filepath"
	"strings"
)

// Dialect is the syntax that classes are written in.
type Dialect string

// The dialects. Vault's and OpenBao's differ in the names that they prefer, and
// each reads the other's.
const (
	DialectKeymount Dialect = "keymount"
	DialectVault    Dialect = "vault"   // of vault-csi-provider
	DialectOpenBao  Dialect = "openbao" // of openbao-csi-provider
)

// DialectOf is what classes that come through a socket are written in. A socket
// is named after the provider that they ask for.
func DialectOf(socket string) Dialect {
	switch name := strings.TrimSuffix(filepath.Base(socket), ".sock"); name {
	case string(DialectVault), string(DialectOpenBao):
		return Dialect(name)
	}
	return DialectKeymount
}

// speaking is the same Provider for classes of a dialect.
func (p *Provider) speaking(d Dialect) *Provider {
	speaker := *p
	speaker.dialect = d
	return &speaker
}
