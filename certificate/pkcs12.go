package certificate

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"unicode/utf8"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/keymount/keymount/internal/secret"
)

// maxRounds bounds the rounds of making keys of the password, for one PKCS#12 file
// together. OpenSSL and Windows ask for some thousands, Firefox for 600 000 at each of
// three places. A file may ask for 2⁶³, and go-pkcs12 would comply.
const maxRounds = 2_000_000

// exportAgain is the cure for a file that is damaged, or of a rare form.
const exportAgain = "export it again with 'openssl pkcs12 -export'"

// readPKCS12 opens the file in three steps. The first looks at everything visible
// without the password, and adds up the work. The second has go-pkcs12 check the
// password. The third has it decode a file rebuilt from this one, in which hidden work
// does not happen.
//
// Hidden work is a private key with a password of its own inside of the encrypted
// part. go-pkcs12 stops at the second private key that it meets, before it opens
// it. The rebuilt file begins with a private key, so every hidden one is a second.
func (f *findings) readPKCS12(der []byte, password secret.Bytes) error {
	text, err := passwordText(password)
	if err != nil {
		return err
	}
	var a archive
	if err := a.read(der); err != nil {
		return err
	}
	// It reads trust stores, which have no private key: other errors are expected.
	if _, err := pkcs12.DecodeTrustStore(der, text); errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return errors.New("the password does not open the PKCS#12 file; give the one it was exported with")
	}
	key, certificates, err := a.open(text)
	if err != nil {
		return err
	}
	for _, c := range certificates {
		if err := f.add(c); err != nil {
			return err
		}
	}
	if a.decoy {
		return nil
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return errors.New("the private key in the PKCS#12 file is of a kind that no certificate can have; use RSA, ECDSA or Ed25519")
	}
	return f.addKey(privateKey{label: labelPKCS8, der: secret.New(encoded)})
}

// passwordText is the password for PKCS#12, which knows 16 bits of a character.
func passwordText(password secret.Bytes) (string, error) {
	text := string(password.Reveal())
	for _, r := range text {
		if r > 0xffff || r == utf8.RuneError {
			return "", errors.New("the password has a character that PKCS#12 cannot hold; use letters, digits and punctuation")
		}
	}
	return text, nil
}

// archive is a PKCS#12 file taken apart as far as it can be without the password.
type archive struct {
	key    []byte   // the bag with the private key
	decoy  bool     // the key is ours: the file has no visible one
	bags   [][]byte // the others that are not encrypted as a whole
	sealed [][]byte // the parts encrypted as a whole
	rounds int
}

// The structures of RFC 7292 are declared as go-pkcs12 declares them, so that both
// see the same in any file.
type (
	archiveFile struct {
		Version int
		Safe    contentInfo
		MAC     macData `asn1:"optional"`
	}
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	macData struct {
		Digest digestInfo
		Salt   []byte
		Rounds int `asn1:"optional,default:1"`
	}
	digestInfo struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}
	encryptedData struct {
		Version int
		Info    struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Content   []byte `asn1:"tag:0,optional"`
		}
	}
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	safeBag struct {
		Type       asn1.ObjectIdentifier
		Value      asn1.RawValue   `asn1:"tag:0,explicit"`
		Attributes []asn1.RawValue `asn1:"set,optional"`
	}
	// schemeParameters are those of PBES2 and of PBMAC1.
	schemeParameters struct {
		Derivation pkix.AlgorithmIdentifier
		Scheme     pkix.AlgorithmIdentifier
	}
	derivationParameters struct {
		Salt      asn1.RawValue
		Rounds    int
		KeyLength int                      `asn1:"optional"`
		Function  pkix.AlgorithmIdentifier `asn1:"optional"`
	}
	legacyParameters struct {
		Salt   []byte
		Rounds int
	}
)

func oidData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
}

func oidEncryptedData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
}

func oidPBES2() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
}

func oidPBMAC1() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
}

func oidSHA256() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
}

func oidKeyBag() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 1}
}

func oidEncryptedKeyBag() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
}

var errNotPKCS12 = errors.New("it is no PKCS#12 file, or a damaged one; " + exportAgain)

func (a *archive) read(der []byte) error {
	var file archiveFile
	var safe []byte
	var items []asn1.RawValue
	if !decode(der, &file) || !decode(file.Safe.Content.Bytes, &safe) || !decode(safe, &items) {
		return errNotPKCS12
	}
	if err := a.countMAC(file.MAC); err != nil {
		return err
	}
	for _, item := range items {
		if err := a.addItem(item); err != nil {
			return err
		}
	}
	if len(a.sealed) > 1 {
		return errors.New("the PKCS#12 file has more than one encrypted part; " + exportAgain)
	}
	if a.key == nil {
		return a.addDecoy()
	}
	return nil
}

func decode(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}

func (a *archive) addItem(item asn1.RawValue) error {
	var info contentInfo
	if !decode(item.FullBytes, &info) {
		return errNotPKCS12
	}
	switch {
	case info.Type.Equal(oidData()):
		var content []byte
		var bags []asn1.RawValue
		if !decode(info.Content.Bytes, &content) || !decode(content, &bags) {
			return errNotPKCS12
		}
		for _, bag := range bags {
			if err := a.addBag(bag.FullBytes); err != nil {
				return err
			}
		}
		return nil
	case info.Type.Equal(oidEncryptedData()):
		var data encryptedData
		if !decode(info.Content.Bytes, &data) {
			return errNotPKCS12
		}
		a.sealed = append(a.sealed, item.FullBytes)
		return a.countCipher(data.Info.Algorithm)
	default:
		return errors.New("the PKCS#12 file is encrypted for a certificate; export it with a password: 'openssl pkcs12 -export'")
	}
}

func (a *archive) addBag(der []byte) error {
	var bag safeBag
	if !decode(der, &bag) {
		return errNotPKCS12
	}
	isEncrypted := bag.Type.Equal(oidEncryptedKeyBag())
	if !isEncrypted && !bag.Type.Equal(oidKeyBag()) {
		a.bags = append(a.bags, der)
		return nil
	}
	switch {
	case a.key != nil:
		return errors.New("the PKCS#12 file has more than one private key; export one alone with 'openssl pkcs12 -export'")
	case len(bag.Value.Bytes) > maxKey:
		return fmt.Errorf("the private key has %d bytes; use RSA with at most %d bits, ECDSA or Ed25519", len(bag.Value.Bytes), maxRSA)
	}
	a.key = der
	if !isEncrypted {
		return nil
	}
	var key encryptedKey
	if !decode(bag.Value.Bytes, &key) {
		return errNotPKCS12
	}
	return a.countCipher(key.Algorithm)
}

func (a *archive) countMAC(m macData) error {
	if m.Digest.Algorithm.Algorithm.Equal(oidPBMAC1()) {
		return a.countScheme(m.Digest.Algorithm)
	}
	return a.count(m.Rounds)
}

func (a *archive) countCipher(algorithm pkix.AlgorithmIdentifier) error {
	if algorithm.Algorithm.Equal(oidPBES2()) {
		return a.countScheme(algorithm)
	}
	var p legacyParameters
	if !decode(algorithm.Parameters.FullBytes, &p) {
		return errNotPKCS12
	}
	return a.count(p.Rounds)
}

func (a *archive) countScheme(algorithm pkix.AlgorithmIdentifier) error {
	var scheme schemeParameters
	var p derivationParameters
	if !decode(algorithm.Parameters.FullBytes, &scheme) || !decode(scheme.Derivation.Parameters.FullBytes, &p) {
		return errNotPKCS12
	}
	return a.count(p.Rounds)
}

func (a *archive) count(rounds int) error {
	if a.rounds += min(max(rounds, 0), maxRounds+1); a.rounds > maxRounds {
		return fmt.Errorf("the PKCS#12 file asks for more than %d rounds to make keys of its password; export it again with fewer: 'openssl pkcs12 -export -iter 100000'", maxRounds)
	}
	return nil
}

// addDecoy puts a private key of no secrecy where none is visible.
func (a *archive) addDecoy() error {
	key, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return fmt.Errorf("open the PKCS#12 file: %w", err)
	}
	a.decoy = true
	if a.key, err = asn1.Marshal(safeBag{Type: oidKeyBag(), Value: explicit(key)}); err != nil {
		return fmt.Errorf("open the PKCS#12 file: %w", err)
	}
	return nil
}

// open decodes the rebuilt file. Some programs take an empty password for no bytes
// at all and some for two zeros. Go-pkcs12 goes by the checksum to tell them apart,
// so there is a rebuilt file for either.
func (a *archive) open(password string) (any, []*x509.Certificate, error) {
	encodings := [][]byte{encodePassword(password)}
	if password == "" {
		encodings = append(encodings, nil)
	}
	for _, encoded := range encodings {
		rebuilt, err := a.rebuild(encoded)
		if err != nil {
			return nil, nil, fmt.Errorf("open the PKCS#12 file: %w", err)
		}
		key, first, others, err := pkcs12.DecodeChain(rebuilt, password)
		if err == nil {
			return key, append(others, first), nil
		}
	}
	return nil, nil, errors.New("the PKCS#12 file cannot be read; it has no certificate, hides its private key, is damaged, or the password is wrong; " + exportAgain)
}

// encodePassword is a password as RFC 7292 wants it: two bytes for a character and
// two zeros at the end.
func encodePassword(password string) []byte {
	var encoded []byte
	for _, r := range password {
		encoded = append(encoded, byte(r>>8), byte(r)) //nolint:gosec // passwordText knows that it has 16 bits
	}
	return append(encoded, 0, 0)
}

// rebuild writes the file anew: the unencrypted bags first, and of them the private key
// first.
func (a *archive) rebuild(password []byte) ([]byte, error) {
	bags, err := sequence(append([][]byte{a.key}, a.bags...))
	if err != nil {
		return nil, err
	}
	plain, err := dataItem(bags)
	if err != nil {
		return nil, err
	}
	item, err := asn1.Marshal(plain)
	if err != nil {
		return nil, err
	}
	items, err := sequence(append([][]byte{item}, a.sealed...))
	if err != nil {
		return nil, err
	}
	safe, err := dataItem(items)
	if err != nil {
		return nil, err
	}
	const version = 3
	return asn1.Marshal(archiveFile{Version: version, Safe: safe, MAC: checksum(items, password)})
}

func sequence(parts [][]byte) ([]byte, error) {
	return asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(parts, nil)})
}

func dataItem(content []byte) (contentInfo, error) {
	octets, err := asn1.Marshal(content)
	return contentInfo{Type: oidData(), Content: explicit(octets)}, err
}

func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: der}
}

// checksum is the code that go-pkcs12 checks before anything else: RFC 7292,
// appendix B, with SHA-256, no salt and a single round, which leaves one hash. It
// guards nothing: the password was checked before.
func checksum(content, password []byte) macData {
	const block, purpose = 64, 3
	padded := bytes.Repeat([]byte{purpose}, block)
	if n := len(password); n > 0 {
		repeated := bytes.Repeat(password, block)
		padded = append(padded, repeated[:(n+block-1)/block*block]...)
	}
	key := sha256.Sum256(padded)
	code := hmac.New(sha256.New, key[:])
	code.Write(content)
	return macData{
		Digest: digestInfo{Algorithm: pkix.AlgorithmIdentifier{Algorithm: oidSHA256()}, Digest: code.Sum(nil)},
		Rounds: 1,
	}
}
