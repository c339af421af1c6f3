// Package class reads SecretProviderClasses: the files to make, and the secrets of
// stores to make them of. It is pure: it reads no store, and trusts no caller yet.
//
// [Parse] turns a [Call], the driver's text of a mount, into a [Request], and a
// [Cache] does so from memory where it can. request.go reads the pod, and a file for
// each [Dialect] the objects: native.go and object.go keymount's own syntax, strictly;
// vault.go that of vault-csi-provider and openbao-csi-provider, forgivingly and with
// warnings. All mistakes of a class are in one error.
package class

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// maxAttributes bounds the attributes of one call, in bytes. The driver's own limit is
// etcd's: a class cannot be larger than 1.5 MiB.
const maxAttributes = 1 << 20

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

// Request is one mount: a pod and the objects it asks for.
type Request struct {
	Pod     auth.Pod
	Class   string // name of the SecretProviderClass, as [Shorten] cuts it
	Tokens  auth.Tokens
	Objects []Object
	// Secrets are those of all objects, each once.
	Secrets []Secret
	// Warnings are about parameters and fields without effect, or with another one
	// than their author may think.
	Warnings []string
}

// Secret is one secret of one store, as one role sees it.
type Secret struct {
	Store   string
	Role    string
	Path    store.Path
	Version string // pinned; empty for the latest
	Query   string // further parameters of the read, see [store.Ref]
	Args    string // a JSON object, for a write that answers; empty for a plain read
	Shared  bool   // its credential is for all pods with its login
}

// String names the secret in messages.
func (s Secret) String() string {
	text := fmt.Sprintf("secret %q of store %q", s.Path, s.Store)
	if s.Role != "" {
		text += fmt.Sprintf(" as role %q", s.Role)
	}
	return text
}

// Store is a store of keymount.yaml, as far as a class depends on it.
type Store struct {
	Traits kind.Traits
	// Settings spell its paths and tell its place. nil leaves paths as written, and is
	// at no place.
	Settings interface {
		Audience() string
		kind.Spelling
	}
}

func (s Store) path(text string) (store.Path, error) {
	if s.Settings == nil {
		return store.ParsePath(text)
	}
	return s.Settings.Path(text)
}

func (s Store) isText(path store.Path) bool { return s.Settings != nil && s.Settings.IsText(path) }

func (s Store) fits(place kind.Place) bool { return s.Settings != nil && s.Settings.Fits(place) }

// Call is the text of one mount, as the driver sends it.
type Call struct {
	Attributes string // a JSON object of texts: the class, and what the kubelet and the driver add
	Permission string // a JSON number, the mode of files without one in a class of another provider
	Dialect    Dialect
}

// Parse reads a call. stores are the known stores. It is pure, and the error wraps
// [ErrRequest] and lists every mistake with its place. Even with an error the Request
// is filled as far as it could be read.
func Parse(call Call, stores map[string]Store) (Request, error) {
	return call.parse(func(_ Request, s source, m *mistakes) (meaning, error) { return s.parse(stores, m), nil })
}

// parse reads the pod, and calls read for the objects; an error of that is the answer.
func (c Call) parse(read func(Request, source, *mistakes) (meaning, error)) (Request, error) {
	texts, err := readAttributes(c.Attributes)
	if err != nil {
		return Request{}, err
	}
	var m mistakes
	r := parseAdded(texts, &m)
	maps.DeleteFunc(texts, func(name, _ string) bool { return isAdded(name) })
	class, err := read(r, source{dialect: c.Dialect, namespace: r.Pod.Namespace, permission: c.Permission, parameters: texts}, &m)
	if err != nil {
		return r, err
	}
	r.Objects, r.Secrets, r.Warnings = class.objects, class.secrets, class.warnings
	return r, m.err(r)
}

// readAttributes bounds the text before the parsers get it.
func readAttributes(attributes string) (map[string]string, error) {
	if len(attributes) > maxAttributes {
		return nil, fmt.Errorf("%w: %s", ErrRequest, tooLarge())
	}
	texts := make(map[string]string, 16) // about as many as the kubelet and a class have
	if err := json.Unmarshal([]byte(attributes), &texts); err != nil {
		// The error of encoding/json may quote a token: leave it out.
		return nil, fmt.Errorf("%w: the attributes are not a JSON object of texts; is the caller the Secrets Store CSI driver?", ErrRequest)
	}
	return texts, nil
}

func tooLarge() string {
	return fmt.Sprintf("the class has more than the %d bytes that one may have; split it", maxAttributes)
}

// parseAdded reads the attributes that the kubelet and the driver add to a class.
func parseAdded(texts map[string]string, m *mistakes) Request {
	r := Request{Class: Shorten(texts[attrClass]), Pod: parsePod(texts, m)}
	if err := spelling.Plain(texts[attrClass]); err != nil {
		m.add(ofParameter(attrClass), BadValue, "%s: %w", attrClass, err)
	}
	tokens, err := auth.ParseTokens(texts[attrTokens])
	if err != nil {
		m.add(ofParameter(attrTokens), BadValue, "%s: %w", attrTokens, err)
	}
	r.Tokens = tokens
	return r
}

func parsePod(texts map[string]string, m *mistakes) auth.Pod {
	for _, name := range []string{attrPodNamespace, attrPodName, attrPodUID, attrServiceAccount} {
		if texts[name] == "" {
			m.add(ofClass(), Missing, "the driver sent no %s; its CSIDriver object needs podInfoOnMount: true", name)
		}
		if err := spelling.Plain(texts[name]); err != nil {
			m.add(ofParameter(name), BadValue, "%s: %w", name, err)
		}
	}
	return auth.Pod{
		Namespace: texts[attrPodNamespace], Name: texts[attrPodName],
		UID: texts[attrPodUID], ServiceAccount: texts[attrServiceAccount],
	}
}

// isAdded tells the attributes that are not the class's own.
func isAdded(name string) bool {
	return strings.HasPrefix(name, kubeletPrefix) || name == attrClass || name == attrProvider
}
