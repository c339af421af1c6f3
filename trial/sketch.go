package trial

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/form"
	"github.com/keymount/keymount/provider/providertest"
)

// madeUpText begins every value of a sketch.
const madeUpText = "made-up-"

// Sketch writes secrets for a class, as [ParseSecrets] reads them: every path and key that
// the class names, with made-up values.
func Sketch(p Picked, c *config.Config) ([]byte, error) {
	v := providertest.Volume{Pod: p.Pod, Class: p.Class.Name, Parameters: p.Class.Parameters, Tokens: map[string]string{}}
	request, err := parse(v, p.Class.Dialect, Stores(c))
	if err != nil {
		return nil, err
	}
	s := sketch{stores: map[string]map[string]any{}, templates: templatesOf(p.Class.Parameters["objects"])}
	for i := range request.Objects {
		s.object(&request.Objects[i], c)
	}
	if s.err != nil {
		return nil, s.err
	}
	s.fill()
	return s.write()
}

// sketch gathers made-up secrets, by store and path.
type sketch struct {
	stores    map[string]map[string]any
	templates map[int]string
	err       error
}

func (s *sketch) write() ([]byte, error) {
	var content any = map[string]any{storesKey: s.stores}
	if len(s.stores) == 1 {
		for _, secrets := range s.stores {
			content = secrets
		}
	}
	var text bytes.Buffer
	text.WriteString("# Made-up secrets for 'keymount render --values': paths of the class, each with its keys.\n")
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(content); err != nil {
		return nil, fmt.Errorf("write the secrets: %w", err)
	}
	return text.Bytes(), nil
}

// object adds what an object of the class reads.
func (s *sketch) object(o *class.Object, c *config.Config) {
	if o.Template == nil && o.Certificate == "" && o.Key == "" && isText(o.Secret, c) {
		s.text(o.Secret)
		return
	}
	data := s.secret(o.Secret)
	switch {
	case o.Certificate != "":
		s.certificate(data, o.Key)
	case o.Key != "":
		put(data, o.Key, encoded(o.Encoding, madeUpText+o.Key))
	}
	if o.PasswordKey != "" {
		of := o.Secret
		if o.HasPasswordElsewhere() {
			of = o.PasswordOf
		}
		put(s.secret(of), o.PasswordKey, madeUpText+o.PasswordKey)
	}
	for _, want := range form.Wants(s.templates[o.Index]) {
		of := data
		if want.Path != "" {
			path, err := settingsOf(o.Secret.Store, c).Settings.Path(want.Path)
			if err != nil {
				continue // which the class would have refused
			}
			of = s.secret(o.Beside(path))
		}
		dig(of, want)
	}
}

// text adds an answer that is one text.
func (s *sketch) text(of class.Secret) {
	s.secret(of)
	s.stores[of.Store][of.Path.String()] = textOf(of.Path.String())
}

// secret are the keys of a secret, made at its first use.
func (s *sketch) secret(of class.Secret) map[string]any {
	if s.stores[of.Store] == nil {
		s.stores[of.Store] = map[string]any{}
	}
	secrets, path := s.stores[of.Store], of.Path.String()
	data, ok := secrets[path].(map[string]any)
	if !ok {
		data = map[string]any{}
		secrets[path] = data
	}
	return data
}

// fill gives a secret without named keys one.
func (s *sketch) fill() {
	for _, secrets := range s.stores {
		for _, data := range secrets {
			if keys, isMap := data.(map[string]any); isMap && len(keys) == 0 {
				keys["some-key"] = madeUpText + "some-key"
			}
		}
	}
}

// certificate adds a certificate and its key: under a key, or as pki engines answer.
func (s *sketch) certificate(data map[string]any, key string) {
	chain, private, err := selfSigned()
	if err != nil {
		s.err = err
		return
	}
	if key != "" {
		put(data, key, chain+private)
		return
	}
	data["certificate"], data["private_key"] = chain, private
}

// selfSigned makes a certificate of its own, in PEM, since made-up text is none.
func selfSigned() (chain, private string, err error) {
	const life = 365 * 24 * time.Hour
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "made-up.invalid"}, DNSNames: []string{"made-up.invalid"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		return "", "", fmt.Errorf("make a certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("write a key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), nil
}

// put sets a key unless it is there. Dots in it are part of the name.
func put(data map[string]any, key string, value any) {
	if _, there := data[key]; !there {
		data[key] = value
	}
}

// dig sets a value further in.
func dig(data map[string]any, want form.Want) {
	for i, key := range want.Keys {
		if i == len(want.Keys)-1 {
			value := any(madeUpText + key)
			if want.List {
				value = []any{value}
			}
			put(data, key, value)
			return
		}
		inner, isMap := data[key].(map[string]any)
		if !isMap {
			inner = map[string]any{}
			data[key] = inner
		}
		data = inner
	}
}

func encoded(encoding form.Encoding, text string) string {
	switch encoding {
	case form.Base64:
		return base64.StdEncoding.EncodeToString([]byte(text))
	case form.Hex:
		return hex.EncodeToString([]byte(text))
	}
	return text
}

// textOf is a made-up answer that is one text.
func textOf(path string) string {
	if strings.HasSuffix(path, "public_key") {
		return "ssh-ed25519 " + base64.StdEncoding.EncodeToString([]byte(madeUpText)) + " made-up\n"
	}
	return "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString([]byte(madeUpText)) + "\n-----END CERTIFICATE-----\n"
}

func settingsOf(name string, c *config.Config) config.Store {
	i := slices.IndexFunc(c.Stores, func(s config.Store) bool { return s.Name == name })
	return c.Stores[i]
}

func isText(of class.Secret, c *config.Config) bool {
	return settingsOf(of.Store, c).Settings.IsText(of.Path)
}

// templatesOf are the templates of a class's objects, by their places. The class was parsed
// before and has no mistake.
func templatesOf(objects string) map[int]string {
	var all []map[string]yaml.Node
	if err := yaml.Unmarshal([]byte(objects), &all); err != nil {
		return nil
	}
	templates := map[int]string{}
	for i, fields := range all {
		if t, ok := fields["template"]; ok {
			templates[i] = t.Value
		}
	}
	return templates
}
