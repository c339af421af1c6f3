package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keymount/keymount/internal/regular"
	"github.com/keymount/keymount/internal/spelling"
)

// maxKeysBytes bounds a key set or a discovery document.
const maxKeysBytes = 1 << 20

// FileKeys reads a JSON Web Key Set from a file, anew each time, so that a replaced file
// counts within the hour or at the first token of a new key.
type FileKeys struct {
	Issuer string // the exact iss of the tokens
	File   string
}

// Keys implements [KeySource].
func (f FileKeys) Keys(context.Context) (string, jose.JSONWebKeySet, error) {
	data, err := regular.Read(f.File, maxKeysBytes)
	if err != nil {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("read the keys of issuer %q: %w", f.Issuer, err)
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("keys of issuer %q: %s: %w", f.Issuer, f.File, err)
	}
	return f.Issuer, keys, nil
}

// DiscoveryKeys gets an issuer's name and the URL of its keys from an OpenID discovery
// document.
type DiscoveryKeys struct {
	// Issuer is the exact iss of the tokens; empty takes the document's word, for a
	// server that is trusted to know.
	Issuer string
	// Base is the URL below which the document is; usually the issuer itself.
	Base string
	// KeysURL overrides where the document says the keys are.
	KeysURL string
	Client  *http.Client
}

// Keys implements [KeySource].
func (d DiscoveryKeys) Keys(ctx context.Context) (string, jose.JSONWebKeySet, error) {
	document, err := d.get(ctx, strings.TrimSuffix(d.Base, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	discovery, err := ParseDiscovery(document)
	if err != nil {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("issuer at %s: %w", d.Base, err)
	}
	if d.Issuer != "" && discovery.Issuer != d.Issuer {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("issuer at %s: its discovery document is of issuer %q, keymount.yaml says %q", d.Base, discovery.Issuer, d.Issuer)
	}
	url, err := d.keysURL(discovery)
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	data, err := d.get(ctx, url)
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("issuer at %s: %s: %w", d.Base, url, err)
	}
	return discovery.Issuer, keys, nil
}

func (d DiscoveryKeys) keysURL(discovery DiscoveryDocument) (string, error) {
	if d.KeysURL != "" {
		return d.KeysURL, nil
	}
	if !strings.HasPrefix(discovery.KeysURL, "https://") {
		return "", fmt.Errorf("issuer at %s: its keys are at %q, which is not https", d.Base, discovery.KeysURL)
	}
	if err := spelling.Plain(discovery.KeysURL); err != nil {
		return "", fmt.Errorf("issuer at %s: the place of its keys, %w", d.Base, err)
	}
	return discovery.KeysURL, nil
}

func (d DiscoveryKeys) get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("issuer at %s: %w", d.Base, err)
	}
	response, err := d.Client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("issuer at %s: %w", d.Base, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		const most = 60 // bytes of the server's own words
		return nil, fmt.Errorf("issuer at %s: GET %s: %s", d.Base, url, spelling.Visible(spelling.Cut(response.Status, most)))
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxKeysBytes+1))
	if err != nil {
		return nil, fmt.Errorf("issuer at %s: GET %s: %w", d.Base, url, err)
	}
	if len(data) > maxKeysBytes {
		return nil, fmt.Errorf("issuer at %s: GET %s: more than %d bytes", d.Base, url, maxKeysBytes)
	}
	return data, nil
}

// ClusterKeys gets the issuer of a cluster and its keys from the API server, over a
// connection that it does not know.
type ClusterKeys struct {
	// Get returns the document at a path of the API server.
	Get func(ctx context.Context, path string) ([]byte, error)
}

// Keys implements [KeySource].
func (c ClusterKeys) Keys(ctx context.Context) (string, jose.JSONWebKeySet, error) {
	document, err := c.Get(ctx, "/.well-known/openid-configuration")
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	discovery, err := ParseDiscovery(document)
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	data, err := c.Get(ctx, "/openid/v1/jwks")
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	keys, err := ParseKeys(data)
	return discovery.Issuer, keys, err
}

// DiscoveryDocument is the part of an OpenID discovery document in use here.
type DiscoveryDocument struct {
	Issuer  string `json:"issuer"`
	KeysURL string `json:"jwks_uri"`
}

// ParseDiscovery reads an OpenID discovery document.
func ParseDiscovery(data []byte) (DiscoveryDocument, error) {
	var d DiscoveryDocument
	if err := json.Unmarshal(data, &d); err != nil {
		return DiscoveryDocument{}, fmt.Errorf("discovery document: %w", err)
	}
	if d.Issuer == "" {
		return DiscoveryDocument{}, errors.New("discovery document: no issuer in it")
	}
	return d, nil
}

// ParseKeys reads a JSON Web Key Set and refuses one without keys.
func ParseKeys(data []byte) (jose.JSONWebKeySet, error) {
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(data, &keys); err != nil {
		return jose.JSONWebKeySet{}, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	if len(keys.Keys) == 0 {
		return jose.JSONWebKeySet{}, errors.New("a JSON Web Key Set without keys")
	}
	return keys, nil
}

// noCertificateError is the name of a file that should hold one.
type noCertificateError string

func (e noCertificateError) Error() string { return string(e) + " holds no PEM certificate" }

// NewDiscoveryKeys asks the issuer itself, over https. caFile holds the PEM certificates to
// trust its server by; empty takes the system's.
func NewDiscoveryKeys(issuer, caFile string) (DiscoveryKeys, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute}
	if caFile != "" {
		pem, err := regular.Read(caFile, maxKeysBytes)
		if err != nil {
			return DiscoveryKeys{}, fmt.Errorf("caFile: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return DiscoveryKeys{}, fmt.Errorf("caFile: %w", noCertificateError(caFile))
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return DiscoveryKeys{Issuer: issuer, Base: issuer, Client: &http.Client{Transport: transport, CheckRedirect: onlyHTTPS}}, nil
}

// onlyHTTPS refuses a redirect of the keys to an unprotected address.
func onlyHTTPS(request *http.Request, via []*http.Request) error {
	const most = 3
	if request.URL.Scheme != "https" || len(via) > most {
		return fmt.Errorf("redirected to %s, which is not followed", request.URL.Redacted())
	}
	return nil
}
