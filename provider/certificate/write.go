package certificate

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/keymount/keymount/internal/secret"
)

// Files are the parts of a [Set] as PEM. What the set does not have is empty.
type Files struct {
	Certificate secret.Bytes // the leaf, then the intermediates
	Key         secret.Bytes
	CA          secret.Bytes
}

// PEM writes certificate, key and CA each as a text of their own.
//
// Certificate is what a server sends: the leaf and the intermediates, without
// self-signed roots. CA is what clients trust: the self-signed certificates, or
// where there is none the last one above the leaf.
//
// The error says that the private key does not fit the format.
func (s Set) PEM(format KeyFormat) (Files, error) {
	files := Files{Certificate: textOf(s.chain), CA: textOf(s.authorities)}
	if s.key.isZero() {
		return files, nil
	}
	key, err := s.key.pem(format)
	if err != nil {
		return Files{}, err
	}
	files.Key = secret.New(key)
	return files, nil
}

// Combined writes the leaf, the intermediates and the private key as one text, as
// HAProxy and many others read it. The error says that there is no private key, or
// that it does not fit the format.
func (s Set) Combined(format KeyFormat) (secret.Bytes, error) {
	if s.key.isZero() {
		return secret.Bytes{}, noKey("certificate and key in one file need both")
	}
	files, err := s.PEM(format)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(append(bytes.Clone(files.Certificate.Reveal()), files.Key.Reveal()...)), nil
}

func noKey(why string) error {
	return fmt.Errorf("it holds no private key, and %s; store the key with the certificate", why)
}

func textOf(certificates []*x509.Certificate) secret.Bytes {
	var text []byte
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: labelCertificate, Bytes: c.Raw})...)
	}
	return secret.New(text)
}

// PFX writes a PKCS#12 file with the private key, its certificate and all others
// of the set, encrypted with AES-256 and SHA-256 as OpenSSL 3, Java 12 and Windows
// Server 2019 and later read it. The password may be empty.
//
// The error says that there is no private key, or that PKCS#12 cannot hold the
// password.
func (s Set) PFX(password secret.Bytes) (secret.Bytes, error) {
	if s.key.isZero() {
		return secret.Bytes{}, noKey("a PKCS#12 file needs one")
	}
	text, err := passwordText(password)
	if err != nil {
		return secret.Bytes{}, err
	}
	key, err := s.key.signer()
	if err != nil {
		return secret.Bytes{}, err
	}
	salts, err := s.salts("pfx", password)
	if err != nil {
		return secret.Bytes{}, err
	}
	// Modern2023 by name: what pkcs12.Modern is may change with go-pkcs12.
	all := s.all()
	file, err := pkcs12.Modern2023.WithRand(salts).Encode(key, all[0], all[1:], text)
	if err != nil {
		return secret.Bytes{}, errors.New("the PKCS#12 file cannot be written")
	}
	return secret.New(file), nil
}

// all are the certificates of the set, each once, the leaf first.
func (s Set) all() []*x509.Certificate {
	all := append([]*x509.Certificate(nil), s.chain...)
	for _, c := range s.authorities {
		if !contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

func contains(certificates []*x509.Certificate, wanted *x509.Certificate) bool {
	for _, c := range certificates {
		if c.Equal(wanted) {
			return true
		}
	}
	return false
}

const (
	// Alias is the name of the private key in a Java key store. Without a private
	// key the certificates are Alias with a number: certificate-1 is the leaf.
	Alias = "certificate"
	// MinJKSPassword is the length in characters of the shortest password of a Java
	// key store; keytool has the same limit.
	MinJKSPassword = 6
)

// JKS writes a Java key store. With a private key it has one entry, the key with
// the leaf and the intermediates; without one each certificate of the set is a
// trusted entry. The entries date from the day on which the leaf became valid.
// Store and key have the same password, of ASCII characters.
//
// JKS is as safe as SHA-1 is. Java reads PFX as well.
func (s Set) JKS(password secret.Bytes) (secret.Bytes, error) {
	if err := checkJKSPassword(password.Reveal()); err != nil {
		return secret.Bytes{}, err
	}
	if len(s.chain) == 0 {
		return secret.Bytes{}, errors.New("it holds no certificate")
	}
	salts, err := s.salts("jks", password)
	if err != nil {
		return secret.Bytes{}, err
	}
	ks := keystore.New(keystore.WithOrderedAliases(), keystore.WithCustomRandomNumberGenerator(salts))
	if err := s.fill(ks, password.Reveal()); err != nil {
		return secret.Bytes{}, err
	}
	var file bytes.Buffer
	if err := ks.Store(&file, password.Reveal()); err != nil {
		return secret.Bytes{}, errors.New("the Java key store cannot be written")
	}
	return secret.New(file.Bytes()), nil
}

// checkJKSPassword: of other characters Java and keystore-go disagree.
func checkJKSPassword(password []byte) error {
	const firstPrintable, lastPrintable = ' ', '~'
	if len(password) < MinJKSPassword {
		return fmt.Errorf("the password has fewer than %d characters, which Java refuses; use a longer one", MinJKSPassword)
	}
	for _, b := range password {
		if b < firstPrintable || b > lastPrintable {
			return errors.New("the password has a character that is not ASCII; use letters, digits and punctuation for a Java key store")
		}
	}
	return nil
}

func (s Set) fill(ks keystore.KeyStore, password []byte) error {
	created := s.chain[0].NotBefore
	if s.key.isZero() {
		for i, c := range s.all() {
			entry := keystore.TrustedCertificateEntry{CreationTime: created, Certificate: javaCertificate(c)}
			if err := ks.SetTrustedCertificateEntry(fmt.Sprintf("%s-%d", Alias, i+1), entry); err != nil {
				return errors.New("the Java key store cannot hold the certificates")
			}
		}
		return nil
	}
	key, err := s.key.as(PKCS8)
	if err != nil {
		return err
	}
	entry := keystore.PrivateKeyEntry{CreationTime: created, PrivateKey: key.der.Reveal()}
	for _, c := range s.chain {
		entry.CertificateChain = append(entry.CertificateChain, javaCertificate(c))
	}
	if err := ks.SetPrivateKeyEntry(Alias, entry, password); err != nil {
		return errors.New("the Java key store cannot hold the private key")
	}
	return nil
}

func javaCertificate(c *x509.Certificate) keystore.Certificate {
	return keystore.Certificate{Type: "X509", Content: c.Raw}
}

// salts is the source of salts and initialization vectors for one file. They are
// derived from all that goes into the file, so that the same set gives the same
// file.
//
// That is safe because a salt is not a secret. It has to differ where password or
// content differ, which HKDF sees to: each of them goes in, and so does the kind of
// file. That two files are the same shows that the content is the same, which is
// what is wanted. The private key is the key of HKDF, so a salt is no help in
// guessing the password to somebody who does not have what it protects. Without a
// private key nothing is encrypted and nothing is read from here.
func (s Set) salts(kind string, password secret.Bytes) (io.Reader, error) {
	// go-pkcs12 takes 80 bytes and keystore-go takes 20.
	const enough = 256
	certificates := sha256.New()
	for _, c := range s.all() {
		certificates.Write(c.Raw) // DER says where it ends
	}
	info := "keymount " + kind + " " + string(certificates.Sum(nil))
	derived, err := hkdf.Key(sha256.New, s.key.der.Reveal(), password.Reveal(), info, enough)
	if err != nil {
		return nil, errors.New("the salts for the file cannot be derived")
	}
	return bytes.NewReader(derived), nil
}
