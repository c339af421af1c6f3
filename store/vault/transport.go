package vault

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keymount/keymount/internal/regular"
	"github.com/keymount/keymount/internal/watchfile"
)

const (
	// maxPEM bounds a file of certificates or keys, in bytes.
	maxPEM = 1 << 20

	dialLimit      = 3 * time.Second
	handshakeLimit = 5 * time.Second
	idleLimit      = 90 * time.Second
	pingAfter      = 5 * time.Second
	pingLimit      = 2 * time.Second
)

// transport is one pool of connections. When the files of its certificates change, it
// reads them again and begins a new pool.
type transport struct {
	options Options
	now     func() time.Time

	mu    sync.Mutex
	pool  *http.Transport
	read  certificates // the pool's
	fault error        // of files that changed since and are not used; nil while the pool is theirs
}

// onceKey marks the context of a request that must not be repeated.
type onceKey struct{}

// certificates are the files of a pool: caFile, certFile and keyFile.
type certificates [3]pemFile

// pemFile is one of them as read; the zero pemFile has no path and is not read.
type pemFile struct {
	path  string
	stamp watchfile.Stamp // of before the read
	data  []byte          // may be a private key; not kept
	sum   [sha256.Size]byte
	err   error
}

func newTransport(o Options, now func() time.Time) (*transport, error) {
	t := &transport{options: o, now: now}
	_, err := t.current()
	return t, err
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.options.standIn != nil {
		return t.options.standIn.RoundTrip(r) //nolint:wrapcheck // it always answers
	}
	pool, err := t.current()
	if err != nil {
		return nil, err
	}
	if _, once := r.Context().Value(onceKey{}).(bool); once && (r.Body == nil || r.Body == http.NoBody) {
		// The pool repeats a request on a broken connection, unless its body cannot be
		// read again. An empty body is not sent.
		r = r.Clone(r.Context())
		r.Body, r.GetBody = io.NopCloser(strings.NewReader("")), nil
	}
	response, err := pool.RoundTrip(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller sorts the network's errors
	}
	return response, nil
}

// current is the pool for the files as they are now. Unusable new files leave the old
// pool in service: they may be half written.
func (t *transport) current() (*http.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pool != nil && t.fault == nil && t.read.unchanged() {
		return t.pool, nil
	}
	return t.renewLocked()
}

// renewLocked reads the files. It is apart because what it needs of the stack would make
// that of every request grow.
func (t *transport) renewLocked() (*http.Transport, error) {
	read := t.options.readCertificates(t.now)
	if t.pool != nil && read.same(t.read) {
		t.read, t.fault = read.forget(), nil
		return t.pool, nil
	}
	config, err := t.options.tls(read)
	if err != nil {
		if t.pool != nil {
			t.fault = err
			return t.pool, nil
		}
		return nil, err
	}
	t.fault = nil
	if t.pool != nil {
		t.pool.CloseIdleConnections()
	}
	t.read = read.forget()
	t.pool = &http.Transport{
		// No proxy from the environment: keymount.yaml alone decides the way to the store.
		DialContext: (&net.Dialer{Timeout: dialLimit}).DialContext,
		// Vault compresses no answers, and a secret is hardly shorter for it.
		DisableCompression: true,
		TLSClientConfig:    config, TLSHandshakeTimeout: handshakeLimit,
		// Pings find a connection with a silently lost peer, and it is left.
		HTTP2:             &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
		ForceAttemptHTTP2: true, MaxConnsPerHost: maxRequests + maxLogins, MaxIdleConnsPerHost: maxRequests, IdleConnTimeout: idleLimit,
	}
	return t.pool, nil
}

// misfit is why the files as they are now are not used; nil when they are.
func (t *transport) misfit() error {
	if _, err := t.current(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.fault
}

func (o Options) readCertificates(now func() time.Time) certificates {
	return certificates{readPEM(o.CAFile, now), readPEM(o.CertFile, now), readPEM(o.KeyFile, now)}
}

func readPEM(path string, now func() time.Time) pemFile {
	f := pemFile{path: path}
	if path == "" {
		return f
	}
	f.stamp, _ = watchfile.Look(path, now()) // reading fails alike
	f.data, f.err = regular.Read(path, maxPEM)
	f.sum = sha256.Sum256(f.data)
	return f
}

// unchanged tells whether the files are surely the ones read.
func (c *certificates) unchanged() bool {
	return !slices.ContainsFunc(c[:], func(f pemFile) bool { return f.path != "" && !f.stamp.Unchanged() })
}

// same tells whether another read of the files brought the same bytes.
func (c certificates) same(other certificates) bool {
	for i := range c {
		if c[i].err != nil || other[i].err != nil || c[i].sum != other[i].sum {
			return false
		}
	}
	return true
}

// forget drops the bytes; their sums stay.
func (c certificates) forget() certificates {
	for i := range c {
		c[i].data = nil
	}
	return c
}

func (o Options) tls(read certificates) (*tls.Config, error) {
	config := &tls.Config{ServerName: o.ServerName, MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pool, err := o.authorities(read[0])
		if err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
		config.RootCAs = pool
	}
	if o.CertFile != "" {
		pair, err := clientPair(read)
		if err != nil {
			return nil, fmt.Errorf("certFile and keyFile: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// authorities are the certificates of caFile; nil are the system's.
func (o Options) authorities(ca pemFile) (*x509.CertPool, error) {
	if o.CAFile == "" {
		return nil, nil //nolint:nilnil // which crypto/tls takes for the system's
	}
	if ca.err != nil {
		return nil, ca.err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.data) {
		return nil, fmt.Errorf("%s holds no PEM certificate", o.CAFile)
	}
	return pool, nil
}

// clientPair is the client's certificate.
func clientPair(read certificates) (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(read[1].data, read[2].data)
	if err != nil {
		// The library's message may quote what it could not read.
		return pair, errors.New("not a PEM certificate and its private key")
	}
	return pair, nil
}
