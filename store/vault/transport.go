package vault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	dialLimit      = 3 * time.Second
	handshakeLimit = 5 * time.Second
	idleLimit      = 90 * time.Second
	pingAfter      = 5 * time.Second
	pingLimit      = 2 * time.Second
)

// transport is one pool of connections whose certificates are read again when
// their files change; the pool is then begun anew.
type transport struct {
	options Options

	mu    sync.Mutex
	pool  *http.Transport
	stamp [3]fileStamp
}

// onceKey marks the context of a request that must not be repeated.
type onceKey struct{}

// fileStamp is what tells a changed file from the one that was read.
type fileStamp struct {
	modified time.Time
	size     int64
}

func newTransport(o Options) (*transport, error) {
	t := &transport{options: o}
	_, err := t.current()
	return t, err
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	pool, err := t.current()
	if err != nil {
		return nil, err
	}
	if _, once := r.Context().Value(onceKey{}).(bool); once && (r.Body == nil || r.Body == http.NoBody) {
		// The pool repeats a request on a connection that broke, unless it has a body
		// that cannot be read again. An empty one is not sent.
		r = r.Clone(r.Context())
		r.Body, r.GetBody = io.NopCloser(strings.NewReader("")), nil
	}
	response, err := pool.RoundTrip(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller sorts the network's errors
	}
	response.Body = &limited{response.Body, maxBody}
	return response, nil
}

// current is the pool for the files as they are now. New files that cannot be
// used leave the old pool in service: they may be half written.
func (t *transport) current() (*http.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	stamp := [3]fileStamp{stampOf(t.options.CAFile), stampOf(t.options.CertFile), stampOf(t.options.KeyFile)}
	if t.pool != nil && stamp == t.stamp {
		return t.pool, nil
	}
	config, err := t.options.tls()
	if err != nil {
		if t.pool != nil {
			return t.pool, nil
		}
		return nil, err
	}
	if t.pool != nil {
		t.pool.CloseIdleConnections()
	}
	t.stamp = stamp
	t.pool = &http.Transport{
		// No proxy from the environment: the way to the store is the operator's file's.
		DialContext:     (&net.Dialer{Timeout: dialLimit}).DialContext,
		TLSClientConfig: config, TLSHandshakeTimeout: handshakeLimit,
		// A connection whose other end is gone without a word is found out and left.
		HTTP2:             &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
		ForceAttemptHTTP2: true, MaxConnsPerHost: maxRequests + maxLogins, MaxIdleConnsPerHost: maxRequests, IdleConnTimeout: idleLimit,
	}
	return t.pool, nil
}

func stampOf(file string) fileStamp {
	if file == "" {
		return fileStamp{}
	}
	info, err := os.Stat(file)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{info.ModTime(), info.Size()}
}

func (o Options) tls() (*tls.Config, error) {
	config := &tls.Config{ServerName: o.ServerName, MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("caFile: %s holds no PEM certificate", o.CAFile)
		}
	}
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			// The library's message may quote what it could not read.
			return nil, errors.New("certFile and keyFile: not a PEM certificate and its private key")
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
