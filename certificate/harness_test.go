package certificate_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/keymount/keymount/certificate"
	"github.com/keymount/keymount/internal/secret"
)

// Keys cost time to make, so all tests share them.
var (
	rsaKey     = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey      = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ed25519Key = sync.OnceValue(func() crypto.Signer { _, key, err := ed25519.GenerateKey(rand.Reader); return must(key, err) })
)

func keys() map[string]crypto.Signer {
	return map[string]crypto.Signer{"RSA": rsaKey(), "ECDSA": ecKey(), "Ed25519": ed25519Key()}
}

func newKey() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// authority is a certificate with its key. The zero authority signs itself.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// issue makes a certificate. Serial numbers do not matter here.
func (a authority) issue(name string, key crypto.Signer, changes ...func(*x509.Certificate)) authority {
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		NotAfter:              time.Date(2036, 1, 2, 3, 4, 5, 0, time.UTC),
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	for _, change := range changes {
		change(template)
	}
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer))
	return authority{must(x509.ParseCertificate(der)), key}
}

// family is root, intermediate and leaf.
type family struct{ root, intermediate, leaf authority }

func newFamily(leafKey crypto.Signer) family {
	var f family
	f.root = authority{}.issue("root", newKey())
	f.intermediate = f.root.issue("intermediate", newKey(), later(1))
	f.leaf = f.intermediate.issue("leaf", leafKey, later(2))
	return f
}

// later has a certificate begin so many days later. Messages name the newest first.
func later(days int) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore = c.NotBefore.AddDate(0, 0, days) }
}

func (a authority) pem() string { return block("CERTIFICATE", a.certificate.Raw) }

func (a authority) pkcs8() string {
	return block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(a.key)))
}

// native is the key in the form of its kind.
func (a authority) native() string {
	switch key := a.key.(type) {
	case *rsa.PrivateKey:
		return block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	case *ecdsa.PrivateKey:
		return block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)))
	default:
		return a.pkcs8()
	}
}

func (f family) chain() string { return f.leaf.pem() + f.intermediate.pem() }

func block(label string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

func hidden(text string) secret.Bytes { return secret.New([]byte(text)) }

func tree(v any) secret.Tree { return must(secret.NewTree(v)) }

func parse(t *testing.T, v any, password string) certificate.Set {
	t.Helper()
	set, err := certificate.Parse(tree(v), hidden(password))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func refuse(t *testing.T, v any, password, want string) {
	t.Helper()
	set, err := certificate.Parse(tree(v), hidden(password))
	if err == nil { // certificates that are no chain may be a trust store
		_, err = set.PEM(certificate.AsGiven)
	}
	if err == nil || err.Error() != want {
		t.Errorf("error\n\t%v\nwant\n\t%s", err, want)
	}
}

func text(b secret.Bytes) string { return string(b.Reveal()) }
