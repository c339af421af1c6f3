package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/spelling"
)

// KeyFormat is the form of a private key in PEM.
type KeyFormat int

const (
	// AsGiven keeps the store's kind of block, and its content. A key from a PKCS#12
	// file is written as [PKCS8].
	AsGiven KeyFormat = iota
	// PKCS1 is RSA PRIVATE KEY, for RSA keys alone.
	PKCS1
	// PKCS8 is PRIVATE KEY, for every kind of key.
	PKCS8
	// SEC1 is EC PRIVATE KEY, for elliptic curve keys other than Ed25519.
	SEC1
)

// KeyFormats are the names of the formats of a private key.
func KeyFormats() []string { return []string{"pkcs1", "pkcs8", "sec1"} }

// ParseKeyFormat reads "pkcs1", "pkcs8" or "sec1"; the empty text is [AsGiven].
func ParseKeyFormat(text string) (KeyFormat, error) {
	known := KeyFormats()
	switch text {
	case "":
		return AsGiven, nil
	case known[0]:
		return PKCS1, nil
	case known[1]:
		return PKCS8, nil
	case known[2]:
		return SEC1, nil
	}
	hint := spelling.Hint(text, known)
	if hint == "" {
		hint = "; write pkcs1, pkcs8 or sec1, or nothing to keep the key as the store has it"
	}
	return AsGiven, fmt.Errorf("unknown key format %.64q%s", text, hint)
}

// The labels of PEM blocks that hold a private key.
const (
	labelPKCS1 = "RSA PRIVATE KEY"
	labelPKCS8 = "PRIVATE KEY"
	labelSEC1  = "EC PRIVATE KEY"
)

// maxKey is the length in bytes of the longest private key that is parsed, well
// above that of RSA with maxRSA bits.
const maxKey = 8 << 10

// privateKey is a private key in its encoding: a parsed one could be printed.
type privateKey struct {
	label string
	der   secret.Bytes
}

func (k privateKey) isZero() bool { return k.label == "" }

func (k privateKey) equal(other privateKey) bool {
	return k.label == other.label && bytes.Equal(k.der.Reveal(), other.der.Reveal())
}

// signer parses the key.
func (k privateKey) signer() (crypto.Signer, error) {
	if k.der.Len() > maxKey {
		return nil, fmt.Errorf("the private key has %d bytes; use RSA with at most %d bits, ECDSA or Ed25519", k.der.Len(), maxRSA)
	}
	parsed, err := k.parse()
	if err != nil {
		return nil, fmt.Errorf("the private key cannot be read; it is damaged or no %s, store it again", k.label)
	}
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits > maxRSA {
			return nil, fmt.Errorf("the private key is RSA with %d bits; use at most %d", bits, maxRSA)
		}
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	default:
		return nil, errors.New("the private key is of a kind that no certificate can have; use RSA, ECDSA or Ed25519")
	}
}

func (k privateKey) parse() (any, error) {
	switch k.label {
	case labelPKCS1:
		return x509.ParsePKCS1PrivateKey(k.der.Reveal())
	case labelSEC1:
		return x509.ParseECPrivateKey(k.der.Reveal())
	default:
		return x509.ParsePKCS8PrivateKey(k.der.Reveal())
	}
}

// pem writes the key as a PEM block.
func (k privateKey) pem(format KeyFormat) ([]byte, error) {
	converted, err := k.as(format)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: converted.label, Bytes: converted.der.Reveal()}), nil
}

func (k privateKey) as(format KeyFormat) (privateKey, error) {
	label := format.label()
	if format == AsGiven || k.label == label {
		return k, nil
	}
	signer, err := k.signer()
	if err != nil {
		return privateKey{}, err
	}
	der, err := encodeKey(signer, format)
	if err != nil {
		return privateKey{}, err
	}
	return privateKey{label: label, der: secret.New(der)}, nil
}

func (f KeyFormat) label() string {
	switch f {
	case PKCS1:
		return labelPKCS1
	case SEC1:
		return labelSEC1
	case PKCS8, AsGiven:
	}
	return labelPKCS8
}

func encodeKey(signer crypto.Signer, format KeyFormat) ([]byte, error) {
	isRSA, isEC := false, false
	switch key := signer.(type) {
	case *rsa.PrivateKey:
		if isRSA = true; format == PKCS1 {
			return x509.MarshalPKCS1PrivateKey(key), nil
		}
	case *ecdsa.PrivateKey:
		if isEC = true; format == SEC1 {
			return x509.MarshalECPrivateKey(key)
		}
	}
	switch {
	case format == PKCS1 && isEC:
		return nil, errors.New("the private key is ECDSA and pkcs1 is for RSA alone; use pkcs8 or sec1")
	case format == PKCS1:
		return nil, errors.New("the private key is Ed25519 and pkcs1 is for RSA alone; use pkcs8")
	case format == SEC1 && isRSA:
		return nil, errors.New("the private key is RSA and sec1 is for ECDSA alone; use pkcs8 or pkcs1")
	case format == SEC1:
		return nil, errors.New("the private key is Ed25519 and sec1 is for ECDSA alone; use pkcs8")
	}
	return x509.MarshalPKCS8PrivateKey(signer)
}

// isPublicKey tells whether public is the public half of signer.
func isPublicKey(signer crypto.Signer, public crypto.PublicKey) bool {
	own, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && own.Equal(public)
}
