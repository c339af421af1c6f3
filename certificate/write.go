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

// Files are the parts of a [Set] as PEM. Parts missing in the set are empty.
type Files struct {
	Certificate secret.Bytes // the leaf, then the intermediates
	Key         secret.Bytes
	CA          secret.Bytes
}

// PEM writes certificate, key and CA each as a text of their own.
//
// Certificate is for servers to send: the leaf and the intermediates, without
// self-signed roots. CA is for clients to trust: the self-signed certificates, or
// where there is none the last one above the leaf.
//
// The error says that the private key does not fit the format, or that the certificates
// are no chain.
func (s Set) PEM(format KeyFormat) (Files, error) {
	if s.disorder != nil {
		return Files{}, s.disorder
	}
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
	if s.key.isZero() && s.disorder == nil {
		return secret.Bytes{}, errors.New("it holds no private key, and certificate and key in one file need both; store the key with the certificate")
	}
	files, err := s.PEM(format)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(append(bytes.Clone(files.Certificate.Reveal()), files.Key.Reveal()...)), nil
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
// Server 2019 and later read it. Without a private key it is a trust store: each
// certificate is an entry that Java trusts. The password may be empty.
//
// The error says that there is no certificate, or that PKCS#12 cannot hold the password.
func (s Set) PFX(password secret.Bytes) (secret.Bytes, error) {
	all := s.all()
	if len(all) == 0 {
		return secret.Bytes{}, errors.New("it holds no certificate")
	}
	text, err := passwordText(password)
	if err != nil {
		return secret.Bytes{}, err
	}
	salts, err := s.salts("pfx", password)
	if err != nil {
		return secret.Bytes{}, err
	}
	// Modern2023 by name: pkcs12.Modern may change with go-pkcs12.
	file, err := s.pfx(pkcs12.Modern2023.WithRand(salts), all, text)
	if err != nil {
		return secret.Bytes{}, errors.New("the PKCS#12 file cannot be written")
	}
	return secret.New(file), nil
}

func (s Set) pfx(encoder *pkcs12.Encoder, all []*x509.Certificate, password string) ([]byte, error) {
	if s.key.isZero() {
		return encoder.EncodeTrustStoreEntries(trusted(all), password)
	}
	key, err := s.key.signer()
	if err != nil {
		return nil, err
	}
	return encoder.Encode(key, all[0], all[1:], password)
}

// trusted are entries of a trust store, named as those of a Java key store: Java takes
// two of one name for one, and PKCS#12 cannot hold every subject.
func trusted(certificates []*x509.Certificate) []pkcs12.TrustStoreEntry {
	entries := make([]pkcs12.TrustStoreEntry, len(certificates))
	for i, c := range certificates {
		entries[i] = pkcs12.TrustStoreEntry{Cert: c, FriendlyName: trustedName(i)}
	}
	return entries
}

func trustedName(i int) string { return fmt.Sprintf("%s-%d", Alias, i+1) }

// all are the certificates of the set, each once, the leaf first where there is one.
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
	// key the certificates are Alias with a number: certificate-1 is the leaf of a chain.
	Alias = "certificate"
	// MinJKSPassword is the length in characters of the shortest password of a Java
	// key store; keytool has the same limit.
	MinJKSPassword = 6
)

// JKS writes a Java key store. With a private key it has one entry, the key with
// the leaf and the intermediates; without one each certificate of the set is a
// trusted entry. The entries date from the day on which the first one became valid.
// Store and key have the same password, of ASCII characters.
//
// JKS is as safe as SHA-1 is. Java reads PFX as well.
func (s Set) JKS(password secret.Bytes) (secret.Bytes, error) {
	if err := checkJKSPassword(password.Reveal()); err != nil {
		return secret.Bytes{}, err
	}
	if len(s.all()) == 0 {
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

// checkJKSPassword wants ASCII: Java and keystore-go disagree about other characters.
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
	all := s.all()
	created := all[0].NotBefore
	if s.key.isZero() {
		for i, c := range all {
			entry := keystore.TrustedCertificateEntry{CreationTime: created, Certificate: javaCertificate(c)}
			if err := ks.SetTrustedCertificateEntry(trustedName(i), entry); err != nil {
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
// This is safe because a salt is not a secret. It has to differ where password or
// content differ, and so each of them goes into HKDF, with the kind of file. Equal
// files show equal content, as they should. The private key is the key of HKDF, so a
// salt does not help to guess the password without the key that it protects. Without a
// private key the salts are those of the certificates alone: a password in them could be
// guessed from them, faster than from the file.
func (s Set) salts(kind string, password secret.Bytes) (io.Reader, error) {
	if s.key.isZero() {
		password = secret.Bytes{}
	}
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
