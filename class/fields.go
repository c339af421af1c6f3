package class

import (
	"github.com/keymount/keymount/certificate"
	"github.com/keymount/keymount/form"
)

// Field is a name in keymount's own syntax that takes a value.
type Field struct {
	Name    string
	Meaning string
	// Values are all that it takes; none for any other text.
	Values []string
}

// Parameters are the parameters of a class.
func Parameters() []Field { return fields(parameterNames()) }

// Fields are the fields of an object.
func Fields() []Field { return fields(fieldNames()) }

// PasswordFields are the fields of an object's passwordFrom.
func PasswordFields() []Field { return fields(passwordNames()) }

// fields are those with these names, of whatever they are fields.
func fields(names []string) []Field {
	all := make([]Field, len(names))
	for i, name := range names {
		all[i] = Field{name, manual(name), values(name)}
	}
	return all
}

func values(name string) []string {
	switch name {
	case "encoding":
		return form.Encodings()
	case "format":
		return formats()
	case "keyFormat":
		return certificate.KeyFormats()
	case "lease":
		return leases()
	}
	return nil
}

// manual explains a field, in one line.
func manual(name string) string {
	return map[string]string{ //nolint:gosec // texts about passwords hold none
		nameStore:      "The store of keymount.yaml to read from. An object's own store comes before the one of its class. Default: the one called default.",
		"role":         "The store's role to log in with, where the kind of store has roles. An object's own role comes before the one of its class.",
		nameObjects:    "The secrets to read and the files to make of them: a list in YAML, as a text.",
		"path":         "The secret in the store. In Vault it is the mount and the name, as its command shows them: secret/shop/db. Required.",
		"key":          "One value of the secret; dots go deeper, as in users.0.name. Without it a file that ends in a slash is a folder with a file per key.",
		"file":         "The file to write, relative to the mount, such as db/password. With a slash at the end it is a folder with one file per key. Required.",
		"mode":         "The file's mode, in octal and in quotes, such as \"0400\". A container that is not root needs others to be able to read. Default: \"0444\".",
		"optional":     "Whether the secret may be absent in the store: then there is no file, and no error. Default: false.",
		"version":      "A version of the secret, pinned. Default: the latest one.",
		"encoding":     "The encoding of the value in the store, which is undone before the file is written. Default: none.",
		"format":       "The form of the file: the whole secret, or the part under key, as a document, or certificates with their key. Default: the value as it is.",
		"template":     "A text with values of the secret, in Go's template syntax: {{ .username }}; other secrets by {{ (secret \"path\").name }}. In place of key, format and encoding.",
		"keyFormat":    "The form of the private key, for format: pem. Default: as the store has it.",
		"passwordKey":  "The key of the secret with the password of a keystore, for format: pem, pfx and jks.",
		"passwordFrom": "Another secret with the password of a keystore, for format: pem, pfx and jks. In place of passwordKey.",
		"args":         "Arguments of a write that answers, such as {common_name: api.shop.svc}; {} is a write without any. The operator's rules have to allow it by writes.",
		"lease":        "The owner of a credential: pod has one made for each pod, shared one for all pods with the same login. Default: pod.",
	}[name]
}

func formats() []string {
	return append(form.Formats(), string(PEM), string(PFX), string(JKS))
}

// The owners of a credential.
const (
	leasePod    = "pod"
	leaseShared = "shared"
)

func leases() []string { return []string{leasePod, leaseShared} }
