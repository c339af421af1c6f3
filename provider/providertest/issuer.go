// Package providertest plays the two sides that meet keymount at its socket: the
// driver, with the driver's own code for writing files ([Driver]), and the API
// server's token issuer ([Issuer]). Tests use it, and so do keymount demo and health.
package providertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/keymount/keymount/auth"
)

// Issuer signs service account tokens like the API server's TokenRequest does.
type Issuer struct {
	Name  string
	KeyID string
	key   *ecdsa.PrivateKey
}

// NewIssuer makes an issuer with a key of its own. Two issuers may share a name,
// or the id of a key, and still not sign for each other.
func NewIssuer(name, keyID string) (*Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the issuer's key: %w", err)
	}
	return &Issuer{Name: name, KeyID: keyID, key: key}, nil
}

// KeySet is the issuer's public keys as a JSON Web Key Set.
func (i *Issuer) KeySet() ([]byte, error) {
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: i.key.Public(), KeyID: i.KeyID, Algorithm: string(jose.ES256), Use: "sig"},
	}})
	if err != nil {
		return nil, fmt.Errorf("encode the key set: %w", err)
	}
	return data, nil
}

// Keys implements [auth.KeySource]: verifiers then need no file.
func (i *Issuer) Keys(context.Context) (issuer string, keys jose.JSONWebKeySet, err error) {
	data, err := i.KeySet()
	if err != nil {
		return "", keys, err
	}
	keys, err = auth.ParseKeys(data)
	return i.Name, keys, err
}

// PublicKey is the issuer's public key in PEM.
func (i *Issuer) PublicKey() (string, error) {
	der, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		return "", fmt.Errorf("encode the public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// The headers of an issuer's PEM block.
const (
	pemName, pemKeyID = "Issuer", "Key-Id"
	pemType           = "PRIVATE KEY"
)

// PrivateKey is the issuer in PEM, for [ParseIssuer]: its key, name and key id.
func (i *Issuer) PrivateKey() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return nil, fmt.Errorf("encode the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Headers: map[string]string{pemName: i.Name, pemKeyID: i.KeyID}, Bytes: der}), nil
}

// ParseIssuer reads what [Issuer.PrivateKey] writes.
func ParseIssuer(data []byte) (*Issuer, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemType || block.Headers[pemName] == "" {
		return nil, errors.New("is not the key of an issuer, as 'keymount demo --keep' leaves it in issuer.pem")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, isEC := parsed.(*ecdsa.PrivateKey)
	if err != nil || !isEC || key.Curve != elliptic.P256() {
		return nil, errors.New("holds another key than 'keymount demo --keep' makes")
	}
	return &Issuer{Name: block.Headers[pemName], KeyID: block.Headers[pemKeyID], key: key}, nil
}

// Claims are what a service account token says. The zero value of a field leaves
// the claim out.
type Claims struct {
	Issuer         string
	Subject        string
	Audience       []string
	Expires        time.Time
	NotBefore      time.Time
	Namespace      string
	ServiceAccount Reference
	Pod            Reference
	Node           Reference
	// Extra are claims in place of what the fields above make.
	Extra map[string]any
}

// Reference names an object of the cluster.
type Reference struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// ClaimsFor are the claims of a token that the kubelet would request for pod now,
// for one hour. The uid of a service account is derived from its name.
func (i *Issuer) ClaimsFor(pod auth.Pod, audience string) Claims {
	now := time.Now()
	return Claims{
		Issuer:         i.Name,
		Subject:        "system:serviceaccount:" + pod.Namespace + ":" + pod.ServiceAccount,
		Audience:       []string{audience},
		Expires:        now.Add(time.Hour),
		NotBefore:      now,
		Namespace:      pod.Namespace,
		ServiceAccount: Reference{pod.ServiceAccount, "uid-of-" + pod.Namespace + "-" + pod.ServiceAccount},
		Pod:            Reference{pod.Name, pod.UID},
	}
}

// Sign makes a token of claims.
func (i *Issuer) Sign(c Claims) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: i.key},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", i.KeyID))
	if err != nil {
		return "", fmt.Errorf("make a signer: %w", err)
	}
	token, err := jwt.Signed(signer).Claims(c.payload()).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign the token: %w", err)
	}
	return token, nil
}

func (c Claims) payload() map[string]any {
	kubernetes := map[string]any{}
	for name, reference := range map[string]Reference{"serviceaccount": c.ServiceAccount, "pod": c.Pod, "node": c.Node} {
		if reference != (Reference{}) {
			kubernetes[name] = reference
		}
	}
	if c.Namespace != "" {
		kubernetes["namespace"] = c.Namespace
	}
	payload := map[string]any{"iss": c.Issuer, "sub": c.Subject, "kubernetes.io": kubernetes}
	if c.Audience != nil {
		payload["aud"] = c.Audience
	}
	if !c.Expires.IsZero() {
		payload["exp"] = c.Expires.Unix()
	}
	if !c.NotBefore.IsZero() {
		payload["nbf"] = c.NotBefore.Unix()
	}
	maps.Copy(payload, c.Extra)
	return payload
}
