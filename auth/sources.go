package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// maxKeysBytes bounds a key set or a discovery document.
const maxKeysBytes = 1 << 20

// FileKeys reads a JSON Web Key Set from a file, anew each time, so that a
// replaced file counts within the hour or at the first token of a new key.
type FileKeys struct {
	Issuer string // the exact iss of the tokens
	File   string
}

// Keys implements [KeySource].
func (f FileKeys) Keys(context.Context) (string, jose.JSONWebKeySet, error) {
	data, err := os.ReadFile(f.File)
	if err != nil {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("read the keys of issuer %q: %w", f.Issuer, err)
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("keys of issuer %q: %s: %w", f.Issuer, f.File, err)
	}
	return f.Issuer, keys, nil
}

// DiscoveryKeys asks an issuer's OpenID discovery document where its keys are.
type DiscoveryKeys struct {
	Issuer string // the exact iss of the tokens and the base of the document's URL
	Client *http.Client
}

// Keys implements [KeySource].
func (d DiscoveryKeys) Keys(ctx context.Context) (string, jose.JSONWebKeySet, error) {
	document, err := d.get(ctx, strings.TrimSuffix(d.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	discovery, err := ParseDiscovery(document)
	if err != nil {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("issuer %q: %w", d.Issuer, err)
	}
	if discovery.Issuer != d.Issuer {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("issuer %q calls itself %q in its discovery document", d.Issuer, discovery.Issuer)
	}
	if !strings.HasPrefix(discovery.KeysURL, "https://") && strings.HasPrefix(d.Issuer, "https://") {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("issuer %q keeps its keys at %q, which is not https", d.Issuer, discovery.KeysURL)
	}
	data, err := d.get(ctx, discovery.KeysURL)
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return "", jose.JSONWebKeySet{}, fmt.Errorf("issuer %q: %s: %w", d.Issuer, discovery.KeysURL, err)
	}
	return d.Issuer, keys, nil
}

func (d DiscoveryKeys) get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("issuer %q: %w", d.Issuer, err)
	}
	response, err := d.Client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("issuer %q: %w", d.Issuer, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("issuer %q: GET %s: %s", d.Issuer, url, response.Status)
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxKeysBytes+1))
	if err != nil {
		return nil, fmt.Errorf("issuer %q: GET %s: %w", d.Issuer, url, err)
	}
	if len(data) > maxKeysBytes {
		return nil, fmt.Errorf("issuer %q: GET %s: more than %d bytes", d.Issuer, url, maxKeysBytes)
	}
	return data, nil
}

// Discovery is the part of an OpenID discovery document that counts here.
type Discovery struct {
	Issuer  string `json:"issuer"`
	KeysURL string `json:"jwks_uri"`
}

// ParseDiscovery reads an OpenID discovery document.
func ParseDiscovery(data []byte) (Discovery, error) {
	var d Discovery
	if err := json.Unmarshal(data, &d); err != nil {
		return Discovery{}, fmt.Errorf("discovery document: %w", err)
	}
	if d.Issuer == "" {
		return Discovery{}, errors.New("discovery document: no issuer in it")
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
