package certificate_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

const tooManyRounds = "the PKCS#12 file asks for more than 2000000 rounds to make keys of its password; " +
	"export it again with fewer: 'openssl pkcs12 -export -iter 100000'"

// TestManyRounds raises the rounds at each of the three places of a file to eight
// million, in place: the number has as many bytes as before.
func TestManyRounds(t *testing.T) {
	honest, raised := []byte{2, 3, 0x01, 0x11, 0x70}, []byte{2, 3, 0x7f, 0xff, 0xff}
	for name, encoder := range map[string]*pkcs12.Encoder{
		"2023": pkcs12.Modern2023, "2026": pkcs12.Modern2026, "DES": pkcs12.LegacyDES,
	} {
		file := []byte(newFamily(ecKey()).pfx(encoder.WithIterations(70_000), "sesame"))
		pieces := bytes.Split(file, honest)
		if len(pieces) != 4 {
			t.Fatalf("%s: found the rounds %d times, want 3", name, len(pieces)-1)
		}
		for i := 1; i < len(pieces); i++ {
			t.Run(fmt.Sprint(name, i), func(t *testing.T) {
				bomb := append(bytes.Join(pieces[:i], honest), append(raised, bytes.Join(pieces[i:], honest)...)...)
				refuse(t, string(bomb), "sesame", tooManyRounds)
			})
		}
	}
}

// TestHiddenRounds has a private key inside of the encrypted part, for which the
// file asks for 2⁶² rounds. Decoding it takes longer than the universe is old.
func TestHiddenRounds(t *testing.T) {
	start := time.Now()
	refuse(t, string(hiddenBomb(1<<62)), "",
		"the PKCS#12 file cannot be read; it has no certificate, hides its private key, is damaged, or the password is wrong; "+
			"export it again with 'openssl pkcs12 -export'")
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

type (
	typed struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue
	}
	derivation struct {
		Salt   []byte
		Rounds int
		PRF    pkix.AlgorithmIdentifier
	}
	scheme struct{ Derivation, Cipher pkix.AlgorithmIdentifier }
)

// hiddenBomb is a PKCS#12 file with one encrypted part that has a certificate and
// an encrypted private key in it. There is no checksum and the password is empty.
func hiddenBomb(rounds int) []byte {
	leaf := newFamily(ecKey()).leaf.certificate
	key := sequence(raw(pbes2(rounds)), raw(must(asn1.Marshal(make([]byte, 64)))))
	certificate := sequence(raw(must(asn1.Marshal(oid("1.2.840.113549.1.9.22.1")))), tagged(must(asn1.Marshal(leaf.Raw))))
	bags := sequence(
		raw(must(asn1.Marshal(typed{oid("1.2.840.113549.1.12.10.1.3"), tagged(certificate)}))),
		raw(must(asn1.Marshal(typed{oid("1.2.840.113549.1.12.10.1.2"), tagged(key)}))),
	)
	sealed := asn1.RawValue{Class: asn1.ClassContextSpecific, Bytes: encrypt(bags)}
	info := sequence(raw(must(asn1.Marshal(oid("1.2.840.113549.1.7.1")))), raw(pbes2(2048)), sealed)
	part := must(asn1.Marshal(typed{oid("1.2.840.113549.1.7.6"), tagged(sequence(raw(must(asn1.Marshal(0))), raw(info)))}))
	safe := must(asn1.Marshal(typed{oid("1.2.840.113549.1.7.1"), tagged(must(asn1.Marshal(sequence(raw(part)))))}))
	return sequence(raw(must(asn1.Marshal(3))), raw(safe))
}

func oid(dotted string) asn1.ObjectIdentifier {
	var id asn1.ObjectIdentifier
	for part := range bytes.SplitSeq([]byte(dotted), []byte(".")) {
		n := 0
		must(fmt.Sscan(string(part), &n))
		id = append(id, n)
	}
	return id
}

func raw(der []byte) asn1.RawValue { return asn1.RawValue{FullBytes: der} }

func tagged(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: der}
}

func sequence(parts ...asn1.RawValue) []byte { return must(asn1.Marshal(parts)) }

// pbes2 is PBKDF2 with SHA-256 and AES-256, salt and IV being zero.
func pbes2(rounds int) []byte {
	kdf := must(asn1.Marshal(derivation{make([]byte, 16), rounds, pkix.AlgorithmIdentifier{Algorithm: oid("1.2.840.113549.2.9")}}))
	parameters := must(asn1.Marshal(scheme{
		pkix.AlgorithmIdentifier{Algorithm: oid("1.2.840.113549.1.5.12"), Parameters: raw(kdf)},
		pkix.AlgorithmIdentifier{Algorithm: oid("2.16.840.1.101.3.4.1.42"), Parameters: raw(must(asn1.Marshal(make([]byte, 16))))},
	}))
	return must(asn1.Marshal(pkix.AlgorithmIdentifier{Algorithm: oid("1.2.840.113549.1.5.13"), Parameters: raw(parameters)}))
}

func encrypt(plain []byte) []byte {
	key := must(pbkdf2.Key(sha256.New, "", make([]byte, 16), 2048, 32))
	padding := aes.BlockSize - len(plain)%aes.BlockSize
	padded := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(must(aes.NewCipher(key)), make([]byte, aes.BlockSize)).CryptBlocks(padded, padded) //nolint:gosec // a test file hides nothing
	return padded
}
