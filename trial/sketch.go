package trial

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/certificate"
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
	s := sketch{secrets: map[string]map[string]*asked{}, templates: templatesOf(p.Class.Parameters["objects"])}
	for i := range request.Objects {
		s.object(&request.Objects[i], c)
	}
	stores, err := s.fill()
	if err != nil {
		return nil, err
	}
	return write(stores)
}

// sketch gathers what a class asks of secrets, by store and path.
type sketch struct {
	secrets   map[string]map[string]*asked
	templates map[int]string
}

// asked is what a class asks of one secret.
type asked struct {
	want     form.Want
	isText   bool          // the answer is one text
	encoding form.Encoding // of every value
	pems     []string      // keys that hold a certificate and its private key
	pair     bool          // the answer is a certificate and its private key
	rsa      bool          // the private key has to be RSA's
}

func write(stores map[string]map[string]any) ([]byte, error) {
	var content any = map[string]any{storesKey: stores}
	if len(stores) == 1 {
		for _, secrets := range stores {
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

// object adds what an object of the class asks.
func (s *sketch) object(o *class.Object, c *config.Config) {
	of := s.secret(o.Secret)
	if o.Template == nil && o.Certificate == "" && o.Key == "" && isText(o.Secret, c) {
		of.isText = true
		return
	}
	switch {
	case o.Certificate != "":
		of.certificate(o)
	case o.Key != "":
		part(of.want.Key(o.Key), o)
	case o.Encoding != "": // of a folder
		of.encoding = o.Encoding
	}
	if o.PasswordKey != "" {
		with := o.Secret
		if o.HasPasswordElsewhere() {
			with = o.PasswordOf
		}
		s.secret(with).want.Key(o.PasswordKey)
	}
	form.AskOf(&of.want, s.templates[o.Index], func(text string) *form.Want {
		path, err := settingsOf(o.Secret.Store, c).Settings.Path(text)
		if err != nil {
			return &form.Want{} // which the class would have refused
		}
		return &s.secret(o.Beside(path)).want
	})
}

// certificate adds what an object with certificates asks.
func (a *asked) certificate(o *class.Object) {
	a.rsa = a.rsa || o.KeyFormat == certificate.PKCS1
	if o.Key == "" {
		a.pair = true
	} else {
		a.pems = append(a.pems, o.Key)
		a.want.Key(o.Key)
	}
}

// part adds what an object with a key asks of the value there.
func part(want *form.Want, o *class.Object) {
	switch {
	case o.Encoding == form.Base64:
		want.Within(form.WantBase64)
	case o.Encoding == form.Hex:
		want.Within(form.WantHex)
	case o.Format == form.Dotenv || o.Format == form.Properties:
		want.Become(form.WantMap)
	}
}

// secret is what is asked of a secret so far.
func (s *sketch) secret(of class.Secret) *asked {
	if s.secrets[of.Store] == nil {
		s.secrets[of.Store] = map[string]*asked{}
	}
	secrets, path := s.secrets[of.Store], of.Path.String()
	if secrets[path] == nil {
		secrets[path] = &asked{want: form.Want{Kind: form.WantMap}}
	}
	return secrets[path]
}

// fill makes up what is asked, by store and path.
func (s *sketch) fill() (map[string]map[string]any, error) {
	stores := map[string]map[string]any{}
	for name, secrets := range s.secrets {
		stores[name] = map[string]any{}
		for path, a := range secrets {
			made, err := a.made(path)
			if err != nil {
				return nil, err
			}
			stores[name][path] = made
		}
	}
	return stores, nil
}

// made is a secret as it is asked for.
func (a *asked) made(path string) (any, error) {
	if a.isText && len(a.want.Keys) == 0 {
		return textOf(path), nil
	}
	if a.pair || len(a.pems) > 0 {
		return a.withCertificate()
	}
	return a.values(), nil
}

// values are the values under the keys of a secret.
func (a *asked) values() map[string]any {
	values := (&making{mostMadeUp}).mapOf(&a.want)
	for key, value := range values {
		if text, is := value.(string); is && strings.HasPrefix(text, madeUpText) {
			values[key] = encoded(a.encoding, text)
		}
	}
	return values
}

// withCertificate has a certificate and its private key: under keys that hold both, and as a
// pki engine answers, or as a Secret of Kubernetes has them where the class names such keys.
func (a *asked) withCertificate() (any, error) {
	chain, private, err := selfSigned(a.rsa)
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if len(a.want.Keys) > 0 {
		values = a.values()
	}
	for _, key := range a.pems {
		values[key] = chain + private
	}
	if !a.pair {
		return values, nil
	}
	for name, pem := range map[string]string{"certificate": chain, "tls.crt": chain, "issuing_ca": chain, "ca_chain": chain, "ca.crt": chain, "private_key": private, "tls.key": private} {
		switch of := a.want.Keys[name]; {
		case of == nil:
		case of.Kind == form.WantList:
			values[name] = []any{pem}
		default:
			values[name] = pem
		}
	}
	if values["tls.crt"] == nil && values["tls.key"] == nil {
		values["certificate"], values["private_key"] = chain, private
	} else {
		values["tls.crt"], values["tls.key"] = chain, private
	}
	return values, nil
}

// selfSigned makes a certificate of its own, in PEM, since made-up text is none.
func selfSigned(isRSA bool) (chain, private string, err error) {
	const life = 365 * 24 * time.Hour
	key, err := newKey(isRSA)
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

func newKey(isRSA bool) (crypto.Signer, error) {
	const bits = 2048
	if isRSA {
		return rsa.GenerateKey(rand.Reader, bits)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// someKey is the key in a map that is asked for none. Environment variables can be called so.
const someKey = "some_key"

// making makes values up, within a bound: texts in texts and lists in lists can grow with each
// word of a template.
type making struct{ left int } // bytes, nearly

// mostMadeUp bounds the values of one secret, in bytes.
const mostMadeUp = 64 << 10

// take tells whether that many bytes are left.
func (m *making) take(bytes int) bool {
	m.left -= bytes
	return m.left >= 0
}

// mapOf is a map with the keys that are asked for, or with some key.
func (m *making) mapOf(want *form.Want) map[string]any {
	values := make(map[string]any, len(want.Keys))
	for key, of := range want.Keys {
		values[key] = m.valueOf(key, of)
	}
	if len(values) == 0 {
		values[someKey] = m.valueOf(someKey, cmp.Or(want.Each, &form.Want{}))
	}
	return values
}

// valueOf is a value as it is asked for, with the name of its key in it.
func (m *making) valueOf(name string, want *form.Want) any {
	switch want.Kind {
	case form.WantNumber:
		return 1
	case form.WantBool:
		return true
	case form.WantMap:
		return m.mapOf(want)
	case form.WantList:
		return m.listOf(name, want)
	case form.WantBase64:
		return encoded(form.Base64, m.textIn(name, want))
	case form.WantHex:
		return encoded(form.Hex, m.textIn(name, want))
	case form.WantJSON:
		return m.jsonOf(m.valueOf(name, want.Inside))
	case form.WantParts:
		return m.joined(m.listOf(name, want.Inside), want.Separator)
	case form.WantText:
	}
	text := madeUpText + name
	m.left -= want.Least
	return text + strings.Repeat("-", max(0, want.Least-len(text)))
}

func (m *making) listOf(name string, want *form.Want) []any {
	const perElement = 16
	list := make([]any, max(1, want.Least))
	for i := range list {
		if !m.take(perElement) {
			return list[:i]
		}
		list[i] = m.valueOf(name, cmp.Or(want.Each, &form.Want{}))
	}
	return list
}

// textIn is the text within an encoded one.
func (m *making) textIn(name string, want *form.Want) string {
	value := m.valueOf(name, want.Inside)
	text, is := value.(string)
	switch {
	case !is:
		return m.jsonOf(value)
	case !m.take(len(text)):
		return ""
	}
	return text
}

// joined are values as one text, to be split again.
func (m *making) joined(values []any, separator string) string {
	texts := make([]string, len(values))
	for i, value := range values {
		text, is := value.(string)
		if !is {
			text = m.jsonOf(value)
		}
		if !m.take(len(text) + len(separator)) {
			return strings.Join(texts[:i], separator)
		}
		texts[i] = text
	}
	return strings.Join(texts, separator)
}

func (m *making) jsonOf(value any) string {
	text, _ := json.Marshal(value) // maps, lists, texts, numbers and booleans alone
	if !m.take(len(text)) {
		return ""
	}
	return string(text)
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
