package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority of a test's own.
type Authority struct {
	PEM  []byte // its certificate
	File string // the same, in a file

	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority that is valid from now for lifetime. With a
// negative lifetime it began a day before its end and has already ended.
func NewAuthority(tb testing.TB, lifetime time.Duration) *Authority {
	tb.Helper()
	return newAuthority(tb, newKey(tb), "vaulttest authority "+rand.Text()[:6], lifetime)
}

// Expired is the same authority, name and key, with a certificate that ended an
// hour ago: what it issued before stays valid, but nobody who holds this trusts it.
func (a *Authority) Expired(tb testing.TB) *Authority {
	tb.Helper()
	return newAuthority(tb, a.key, a.certificate.Subject.CommonName, -time.Hour)
}

func newAuthority(tb testing.TB, key *ecdsa.PrivateKey, name string, lifetime time.Duration) *Authority {
	tb.Helper()
	authority := &Authority{key: key}
	authority.certificate = &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(min(lifetime, 0)).Add(-24 * time.Hour),
		NotAfter:              time.Now().Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, authority.certificate, authority.certificate, authority.key.Public(), authority.key)
	if err != nil {
		tb.Fatalf("make an authority: %v", err)
	}
	authority.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	authority.File = write(tb, filepath.Join(tb.TempDir(), "ca.crt"), authority.PEM)
	return authority
}

// Issue makes a server certificate for hosts, names or IP addresses, which is
// valid as long as the authority, and returns the files of it and of its key.
func (a *Authority) Issue(tb testing.TB, hosts ...string) (certFile, keyFile string) {
	tb.Helper()
	key := newKey(tb)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "vaulttest server"},
		NotBefore:    a.certificate.NotBefore,
		NotAfter:     a.certificate.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		tb.Fatalf("issue a certificate for %q: %v", hosts, err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatalf("encode a key: %v", err)
	}
	folder := tb.TempDir()
	certFile = write(tb, filepath.Join(folder, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyFile = write(tb, filepath.Join(folder, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
	return certFile, keyFile
}

func (a *Authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM)
	return pool
}

// whileValid is a clock by which the authority is valid: a test whose subject
// must refuse an expired one still has to set up the server behind it.
func (a *Authority) whileValid() time.Time {
	return a.certificate.NotBefore.Add(time.Second)
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("make a key: %v", err)
	}
	return key
}

func write(tb testing.TB, name string, data []byte) string {
	tb.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		tb.Fatalf("write a file: %v", err)
	}
	return name
}
