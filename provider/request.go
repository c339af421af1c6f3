package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"strings"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider/certificate"
	"github.com/keymount/keymount/provider/form"
	"github.com/keymount/keymount/store"
)

// ErrRequest wraps mistakes of a class or of the driver's call.
var ErrRequest = errors.New("bad request")

const (
	// maxAttributes bounds what one call may ask the parsers to read. The driver's
	// own limit is etcd's: a class cannot be larger than 1.5 MiB.
	maxAttributes = 1 << 20
	// maxMistakes is how many mistakes one error spells out.
	maxMistakes = 20
)

// Names of attributes that the kubelet and the driver add to the class's own.
const (
	kubeletPrefix      = "csi.storage.k8s.io/"
	attrPodName        = kubeletPrefix + "pod.name"
	attrPodNamespace   = kubeletPrefix + "pod.namespace"
	attrPodUID         = kubeletPrefix + "pod.uid"
	attrServiceAccount = kubeletPrefix + "serviceAccount.name"
	attrTokens         = kubeletPrefix + "serviceAccount.tokens"
	attrClass          = "secretProviderClass"
	attrProvider       = "providerName"
)

// Request is one mount: who asks for what.
type Request struct {
	Pod     auth.Pod
	Class   string // name of the SecretProviderClass
	Tokens  auth.Tokens
	Objects []Object
	// Warnings are what the class says and what has no effect, or another one than
	// its author may think.
	Warnings []string
}

// Object is one entry of a class's objects, with the class's defaults filled in.
// At most one of Format, Certificate and Template is set; with none of them the
// value is written as it is.
type Object struct {
	Index  int // in objects
	Secret Secret
	// Key is the part of the secret that is wanted; empty for all of it.
	Key  string
	File string // clean and relative; "." is the root of the mount
	// Folder says that File is a folder, which takes several files.
	Folder   bool
	Mode     int32
	Optional bool // absent in the store: no file, no error

	Encoding    form.Encoding // of the value in the store; decoded before writing
	Format      form.Format
	Certificate CertificateFormat
	KeyFormat   certificate.KeyFormat // of the private key, for Certificate: pem
	PasswordKey string                // where in the secret the password is, for Certificate
	Template    *form.Template
	// Envelope takes the value out of the store's whole answer, as vault-csi-provider
	// does: the one under Key, or without a Key the answer itself.
	Envelope bool
}

// Secret is one secret of one store, as one role sees it.
type Secret struct {
	Store   string
	Role    string
	Path    store.Path
	Version string // pinned; empty for the latest
	Query   string // what else the path is asked with, see [store.Ref]
	Args    string // a JSON object, for a write that answers; empty for a plain read
	Shared  bool   // what is made for it is for all pods that share its login
}

// String names the secret in messages.
func (s Secret) String() string {
	text := fmt.Sprintf("secret %q of store %q", s.Path, s.Store)
	if s.Role != "" {
		text += fmt.Sprintf(" as role %q", s.Role)
	}
	return text
}

// Secrets are all that the object reads: its own, then what its template names.
func (o *Object) Secrets() iter.Seq[Secret] {
	return func(yield func(Secret) bool) {
		if !yield(o.Secret) || o.Template == nil {
			return
		}
		for _, path := range o.Template.Paths() {
			if s := o.beside(path); s != o.Secret && !yield(s) {
				return
			}
		}
	}
}

// beside is the secret at another path, as a template of the object names it.
func (o *Object) beside(path store.Path) Secret {
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

// Features are what a class may ask of a store.
type Features struct {
	Roles    bool // there are roles to log in with, and one is needed
	Versions bool // old versions can be read
	Writes   bool // paths answer to args
	// Vault is where the store is, for classes that choose it so; nil for a store
	// that is no Vault.
	Vault *VaultLocation
}

// attrs are what the log line of a mount says of the request.
func (r Request) attrs() []slog.Attr {
	return []slog.Attr{
		slog.String("namespace", short(r.Pod.Namespace)), slog.String("pod", short(r.Pod.Name)),
		slog.String("service_account", short(r.Pod.ServiceAccount)), slog.String("class", short(r.Class)),
	}
}

// short cuts what cannot be the name of a Kubernetes object; the class's name is
// whatever the pod's author wrote.
func short(name string) string {
	const longest = 253
	if len(name) <= longest {
		return name
	}
	return strings.ToValidUTF8(name[:longest], "") + "..."
}

// ParseRequest reads the attributes of a MountRequest, a JSON object of texts.
// stores are the known stores. It is pure, and strict: the error wraps [ErrRequest] and lists every mistake with its
// place. The Request is filled as far as it could be read, error or not.
func ParseRequest(attributes string, stores map[string]Features) (Request, error) {
	return parseRequest(attributes, classText{dialect: DialectKeymount}, parserFor(stores))
}

// parseRequest reads who asks, and has parse read for what. text is what of the
// class is not among the attributes.
func parseRequest(attributes string, text classText, parse func(classText, *mistakes) parsedClass) (Request, error) {
	texts, err := readAttributes(attributes)
	if err != nil {
		return Request{}, err
	}
	var m mistakes
	r := parseCaller(texts, &m)
	maps.DeleteFunc(texts, func(name, _ string) bool { return isCallers(name) })
	text.namespace, text.parameters = r.Pod.Namespace, texts
	class := parse(text, &m)
	r.Objects, r.Warnings = class.objects, class.warnings
	return r, m.err(r)
}

// readAttributes bounds what the parsers get to read.
func readAttributes(attributes string) (map[string]string, error) {
	if len(attributes) > maxAttributes {
		return nil, fmt.Errorf("%w: the attributes have %d bytes, more than the %d that a class may have; split the class", ErrRequest, len(attributes), maxAttributes)
	}
	texts := make(map[string]string, 16) // about as many as the kubelet and a class have
	if err := json.Unmarshal([]byte(attributes), &texts); err != nil {
		// The error of encoding/json may quote a token: leave it out.
		return nil, fmt.Errorf("%w: the attributes are not a JSON object of texts; is the caller the Secrets Store CSI driver?", ErrRequest)
	}
	return texts, nil
}

// parseCaller reads who asks: what the kubelet and the driver add to a class.
func parseCaller(texts map[string]string, m *mistakes) Request {
	r := Request{Class: texts[attrClass], Pod: parsePod(texts, m)}
	tokens, err := auth.ParseTokens(texts[attrTokens])
	if err != nil {
		m.add("%s: %w", attrTokens, err)
	}
	r.Tokens = tokens
	return r
}

func parsePod(texts map[string]string, m *mistakes) auth.Pod {
	for _, name := range []string{attrPodNamespace, attrPodName, attrPodUID, attrServiceAccount} {
		if texts[name] == "" {
			m.add("the driver sent no %s; its CSIDriver object needs podInfoOnMount: true", name)
		}
	}
	return auth.Pod{
		Namespace: texts[attrPodNamespace], Name: texts[attrPodName],
		UID: texts[attrPodUID], ServiceAccount: texts[attrServiceAccount],
	}
}

// isCallers tells the attributes that are not the class's.
func isCallers(name string) bool {
	return strings.HasPrefix(name, kubeletPrefix) || name == attrClass || name == attrProvider
}

// mistakes collects what is wrong with a request. It keeps the ones that are told and counts the rest: a class of a megabyte
// can have half a million of them.
type mistakes struct {
	all  []error
	more int
}

func (m *mistakes) add(format string, args ...any) {
	if len(m.all) == maxMistakes {
		m.more++
		return
	}
	m.all = append(m.all, fmt.Errorf(format, args...))
}

func (m *mistakes) count() int { return len(m.all) + m.more }

// err is nil without mistakes, and else names the class and all of them.
func (m *mistakes) err(r Request) error {
	if len(m.all) == 0 {
		return nil
	}
	class := fmt.Sprintf("SecretProviderClass %s/%s", short(r.Pod.Namespace), short(r.Class))
	if len(m.all) == 1 {
		return fmt.Errorf("%w: %s: %w", ErrRequest, class, m.all[0])
	}
	text := strings.ReplaceAll(errors.Join(m.all...).Error(), "\n", "\n  ")
	if m.more > 0 {
		text += fmt.Sprintf("\n  and %d more", m.more)
	}
	return fmt.Errorf("%w: %s has %d mistakes:\n  %s", ErrRequest, class, m.count(), text)
}
