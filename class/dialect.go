package class

import (
	"path/filepath"
	"strings"
)

// Dialect is a syntax of classes.
type Dialect string

// The dialects. Vault's and OpenBao's prefer different names of parameters, and each
// reads the other's.
const (
	DialectKeymount Dialect = "keymount"
	DialectVault    Dialect = "vault"   // of vault-csi-provider
	DialectOpenBao  Dialect = "openbao" // of openbao-csi-provider
)

// DialectOf is the dialect of classes that arrive at a socket: it is named after their
// provider.
func DialectOf(socket string) Dialect {
	switch name := strings.TrimSuffix(filepath.Base(socket), ".sock"); name {
	case string(DialectVault), string(DialectOpenBao):
		return Dialect(name)
	}
	return DialectKeymount
}

// source is all the meaning of a class depends on, besides keymount.yaml. It holds no
// token, and of the pod no more than its namespace: its other attributes are out of
// the parsers' reach, and so pods can share a parsed class.
type source struct {
	dialect    Dialect
	namespace  string            // the pod's; a Vault's own namespace may be made of it
	permission string            // the driver's
	parameters map[string]string // of the class, overwritten by the pod's volumeAttributes
}

// meaning is a parsed class. Mounts share it: it is never changed.
type meaning struct {
	objects  []Object
	secrets  []Secret // of all objects
	warnings []string
}

func (s source) parse(stores map[string]Store, m *mistakes) meaning {
	parse := s.parseNative
	if s.dialect == DialectVault || s.dialect == DialectOpenBao {
		parse = s.parseVault
	}
	parsed := parse(stores, m)
	parsed.secrets, parsed.warnings = secrets(parsed.objects), m.texts
	return parsed
}
