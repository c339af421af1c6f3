package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"time"

	"github.com/keymount/keymount/store/kind"
)

// Warn implements [kind.Inspected].
func (s *Settings) Warn(m kind.Mistakes) {
	for i, address := range s.Addresses {
		if u, err := url.Parse(address); err == nil && u.Scheme == "http" {
			m.At(fmt.Sprintf("addresses[%d]", i)).Add("%q is not encrypted: tokens and secrets can be read on the way; write https://", address)
		}
	}
}

// Inspect implements [kind.Inspected]: the PEM files are there and fit.
func (s *Settings) Inspect(_ context.Context, m kind.Mistakes) {
	o := s.options(nil, nil)
	read := o.readCertificates(time.Now)
	readable := true
	for i, field := range []string{"caFile", "certFile", "keyFile"} {
		if err := read[i].err; err != nil {
			m.At(field).Add("%s", unreadable(read[i].path, err))
			readable = readable && i == 0
		}
	}
	if read[0].err == nil {
		if _, err := o.authorities(read[0]); err != nil {
			m.At("caFile").Add("%w", err)
		}
	}
	if !readable || s.CertFile == "" || s.KeyFile == "" {
		return
	}
	pair, err := clientPair(read)
	if err != nil {
		m.At("certFile").Add("%w", err)
		return
	}
	if leaf := leafOf(pair); leaf != nil && time.Now().After(leaf.NotAfter) {
		m.At("certFile").Add("%s: the certificate ended at %s; renew it", s.CertFile, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

func leafOf(pair tls.Certificate) *x509.Certificate {
	if pair.Leaf != nil || len(pair.Certificate) == 0 {
		return pair.Leaf
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil
	}
	return leaf
}

func unreadable(file string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return file + " does not exist; put it there, or correct the name"
	case errors.Is(err, fs.ErrPermission):
		return file + ": permission denied; let keymount's user read it"
	}
	return err.Error()
}
