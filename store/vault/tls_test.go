package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/store/vault"
)

// authority signs certificates for servers and clients.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// issue makes a certificate for localhost addresses and the name vault.invalid.
func (a authority) issue(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "issued by " + a.certificate.Subject.CommonName},
		DNSNames: []string{"vault.invalid"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

func startTLS(t *testing.T, config *tls.Config) *server {
	t.Helper()
	s := &server{secrets: map[string]map[string]any{"shop/db": {"a": "b"}}}
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = config
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are wanted here
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// put writes a file with a time of its own, as a rotation minutes apart would.
func put(t *testing.T, file string, content []byte, minutes int) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(time.Duration(minutes) * time.Minute)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

// The authority's file is read again when it changes; a half-written one is not
// used, and what was read before stays.
func TestAuthorityIsRotated(t *testing.T) {
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	current := first.issue(t)
	s := startTLS(t, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{current}, MinVersion: tls.VersionTLS12}, nil
	}})
	file := filepath.Join(t.TempDir(), "ca.pem")
	put(t, file, first.pem(), 0)
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}, CAFile: file}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	v := vault.New(conn, "", nil)
	read := func() error {
		s.CloseClientConnections() // or none would be made anew
		_, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db"))
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	put(t, file, first.pem()[:50], 1)
	if err := read(); err != nil {
		t.Errorf("while the file is half written: %v", err)
	}
	current = second.issue(t)
	if err := read(); err == nil || !strings.Contains(err.Error(), "its certificate is not trusted") {
		t.Errorf("a server of an authority that is not in the file: %v", err)
	}
	put(t, file, second.pem(), 2)
	if err := read(); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

// Nothing but the file behind the link differs: not its size, and not its time.
func TestAuthorityBehindALinkIsRotated(t *testing.T) {
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	current, handshakes := first.issue(t), 0
	s := startTLS(t, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		handshakes++
		return &tls.Config{Certificates: []tls.Certificate{current}, MinVersion: tls.VersionTLS12}, nil
	}})
	folder := t.TempDir()
	file := filepath.Join(folder, "ca.pem")
	at := time.Now().Add(-time.Hour)
	for name, authority := range map[string]authority{"first.pem": first, "second.pem": second} {
		padded := append(authority.pem(), bytes.Repeat([]byte("\n"), 2048-len(authority.pem()))...)
		if err := errors.Join(os.WriteFile(filepath.Join(folder, name), padded, 0o600), os.Chtimes(filepath.Join(folder, name), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	lead := func(to string) {
		t.Helper()
		if err := errors.Join(os.Symlink(to, file+".new"), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	lead("first.pem")
	settled := func() time.Time { return time.Now().Add(time.Minute) }
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}, CAFile: file}, settled)
	if err != nil {
		t.Fatal(err)
	}
	v := vault.New(conn, "", nil)
	read := func() error {
		_, err := v.Read(t.Context(), caller(), ref(t, "secret/shop/db"))
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	current = second.issue(t)
	lead("second.pem")
	s.CloseClientConnections() // or none would be made anew
	if err := read(); err != nil {
		t.Errorf("after the link was swapped: %v", err)
	}
	was := handshakes
	put(t, filepath.Join(folder, "second.pem"), second.pem(), 1)
	put(t, filepath.Join(folder, "second.pem"), append(second.pem(), bytes.Repeat([]byte("\n"), 2048-len(second.pem()))...), 2)
	if err := read(); err != nil || handshakes != was {
		t.Errorf("the same bytes with another time: %d handshakes more, %v", handshakes-was, err)
	}
}

func TestClientCertificateAndServerName(t *testing.T) {
	servers, clients := newAuthority(t, "servers"), newAuthority(t, "clients")
	var seen, asked string
	s := startTLS(t, &tls.Config{
		Certificates: []tls.Certificate{servers.issue(t)}, ClientCAs: clients.pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})
	s.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		seen, asked = r.TLS.PeerCertificates[0].Subject.CommonName, r.TLS.ServerName
		return false
	}
	folder := t.TempDir()
	ca, certFile, keyFile := filepath.Join(folder, "ca.pem"), filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	put(t, ca, servers.pem(), 0)
	client := clients.issue(t)
	der, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	put(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: client.Certificate[0]}), 0)
	put(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0)
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}, CAFile: ca, CertFile: certFile, KeyFile: keyFile, ServerName: "vault.invalid"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.New(conn, "", nil).Read(t.Context(), caller(), ref(t, "secret/shop/db")); err != nil || seen != "issued by clients" || asked != "vault.invalid" {
		t.Errorf("the server saw %q and was asked for %q, %v", seen, asked, err)
	}
}
