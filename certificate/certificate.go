// Package certificate turns the certificates of a store into files for servers: PEM,
// PKCS#12 (PFX) and Java key stores (JKS).
//
// It is pure. There is no clock and no random source in it: the same secret and
// the same password give the same bytes at every call, since a reader that polls takes
// other bytes for a rotation.
//
// Its errors hold nothing of a secret but the subjects of certificates. They read
// as the rest of a sentence about the secret, or about the file to be made of it.
package certificate

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keymount/keymount/internal/secret"
)

const (
	// MaxSize bounds the bytes of text that [Parse] reads of one secret.
	MaxSize = 4 << 20
	// MaxCertificates bounds the certificates of one secret.
	MaxCertificates = 100
	// maxRSA is the length in bits of the longest RSA key. crypto/tls has the same
	// limit: longer keys cost a reader seconds.
	maxRSA = 8192
)

// Set is the certificates of one secret in order, with their private key if there
// is one. The zero Set is empty. A Set may be copied and used from several
// goroutines.
type Set struct {
	key         privateKey
	chain       []*x509.Certificate // the leaf, then the intermediates
	authorities []*x509.Certificate
	// disorder is why certificates without a key are no chain, such as those that clients
	// trust: then all of them are authorities, and chain is empty.
	disorder error
}

// Parse finds the certificates and the private key of a secret, which is one of
//
//   - a map as Vault's PKI answers, with certificate, private_key, issuing_ca and
//     ca_chain, or as a Kubernetes TLS secret, with tls.crt, tls.key and ca.crt;
//     other names are ignored;
//   - a text of PEM blocks in any order;
//   - the text of a PKCS#12 file, as it is or in base64. Password opens it, and
//     may be empty; nothing else needs it.
//
// The private key may be missing. The leaf is its certificate, or without a key the
// certificate that issued no other. All others must be above the leaf, in any order and
// any number of times. Without a key they may be no chain, for a trust store.
func Parse(t secret.Tree, password secret.Bytes) (Set, error) {
	var f findings
	if err := f.read(t, password); err != nil {
		return Set{}, err
	}
	return f.set()
}

// findings are the content of a secret, in its order.
type findings struct {
	key          privateKey
	keys         int // parsed to find it
	certificates []*x509.Certificate
}

func (f *findings) read(t secret.Tree, password secret.Bytes) error {
	switch v := t.Reveal().(type) {
	case string:
		return f.readText(v, password)
	case map[string]any:
		return f.readMap(v)
	default:
		return errors.New("it is neither a text nor a map; store PEM blocks, or a PKCS#12 file in base64")
	}
}

// readMap reads the names of Vault and of Kubernetes alike: the secret has those of its
// origin.
func (f *findings) readMap(m map[string]any) error {
	names := []string{"certificate", "private_key", "issuing_ca", "ca_chain", "tls.crt", "tls.key", "ca.crt"}
	var failures []error
	known, size := false, 0
	for _, name := range names {
		texts, err := textsOf(m[name])
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", name, err))
		}
		for _, text := range texts {
			known = true
			if size += len(text); size > MaxSize {
				return errTooLarge()
			}
			if err := f.readPEM(text); err != nil {
				failures = append(failures, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	if !known && len(failures) == 0 {
		return fmt.Errorf("it is a map with none of %s; store the certificate under these names, or name the key that holds it",
			strings.Join(names, ", "))
	}
	return errors.Join(failures...)
}

// textsOf is a text, or a list of texts. Empty ones count as absent.
func textsOf(v any) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var texts []string
	for _, e := range list {
		switch e := e.(type) {
		case nil:
		case string:
			if strings.TrimSpace(e) != "" {
				texts = append(texts, e)
			}
		default:
			return nil, errors.New("it is not a text; store PEM blocks")
		}
	}
	return texts, nil
}

func (f *findings) readText(text string, password secret.Bytes) error {
	const der = "\x30" // the beginning of a PKCS#12 file in ASN.1
	switch {
	case len(text) > MaxSize:
		return errTooLarge()
	case strings.TrimSpace(text) == "":
		return errors.New("it is empty; store PEM blocks, or a PKCS#12 file in base64")
	case strings.Contains(text, pemBegin):
		return f.readPEM(text)
	case strings.HasPrefix(text, der):
		return f.readPKCS12([]byte(text), password)
	}
	decoded, ok := fromBase64(text)
	switch {
	case ok && strings.HasPrefix(string(decoded), der):
		return f.readPKCS12(decoded, password)
	case ok && bytes.Contains(decoded, []byte(pemBegin)):
		return errors.New("it is PEM in base64; store the PEM blocks as they are")
	}
	return errors.New("it is neither PEM nor a PKCS#12 file; store PEM blocks, or a PKCS#12 file in base64")
}

// fromBase64 reads all four alphabets: standard or URL, padded or not.
func fromBase64(text string) ([]byte, bool) {
	text = strings.Join(strings.Fields(text), "")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	decoded, err := base64.RawStdEncoding.DecodeString(text)
	return decoded, err == nil
}

func errTooLarge() error {
	return fmt.Errorf("it is longer than %d MiB; a secret holds one chain of certificates and its key", MaxSize>>20)
}

func (f *findings) addCertificate(der []byte) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return errors.New("the certificate cannot be read; it is damaged or no X.509, store it again")
	}
	return f.add(c)
}

func (f *findings) add(c *x509.Certificate) error {
	if len(f.certificates) == MaxCertificates {
		return fmt.Errorf("there are more than %d certificates; keep one chain in a secret", MaxCertificates)
	}
	if public, ok := c.PublicKey.(*rsa.PublicKey); ok && public.N.BitLen() > maxRSA {
		return fmt.Errorf("certificate %s has an RSA key of %d bits; use one of at most %d", name(c), public.N.BitLen(), maxRSA)
	}
	f.certificates = append(f.certificates, c)
	return nil
}

// addKey takes a private key, the same one more than once if need be: Vault gives
// it in certificate and in private_key when asked for a pem_bundle.
func (f *findings) addKey(k privateKey) error {
	if f.key.equal(k) {
		return nil
	}
	// Every key is parsed, which costs time, and one may be encoded in many ways.
	const most = 4
	if f.keys++; f.keys > most {
		return fmt.Errorf("there are more than %d private keys; keep the one of the certificate", most)
	}
	added, err := k.signer()
	if err != nil {
		return err
	}
	if f.key.isZero() {
		f.key = k
		return nil
	}
	first, err := f.key.signer()
	if err != nil {
		return err
	}
	if !isPublicKey(first, added.Public()) {
		return errors.New("there are two different private keys; keep the one of the certificate")
	}
	return nil
}

func (f *findings) set() (Set, error) {
	certificates := canonical(f.certificates)
	if len(certificates) == 0 {
		return Set{}, errors.New("it holds no certificate; store the certificate together with its chain")
	}
	s, err := chained(f.key, certificates)
	if err != nil && f.key.isZero() {
		return Set{authorities: certificates, disorder: err}, nil
	}
	return s, err
}

// chained puts the leaf first.
func chained(key privateKey, certificates []*x509.Certificate) (Set, error) {
	l, err := newLineage(certificates)
	if err != nil {
		return Set{}, err
	}
	leaf, err := l.leaf(key)
	if err != nil {
		return Set{}, err
	}
	ordered, err := l.climb(leaf)
	if err != nil {
		return Set{}, err
	}
	return l.split(key, ordered), nil
}

// canonical drops duplicates and forgets the order of the secret, so that an
// answer in another order gives the same files.
func canonical(certificates []*x509.Certificate) []*x509.Certificate {
	sorted := slices.SortedFunc(slices.Values(certificates), func(a, b *x509.Certificate) int {
		return cmp.Or(b.NotBefore.Compare(a.NotBefore), bytes.Compare(a.Raw, b.Raw))
	})
	return slices.CompactFunc(sorted, (*x509.Certificate).Equal)
}
