package vaulttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/provider/providertest"
)

// EnableJWT enables jwt auth at auth/<mount> for tokens of issuer, whose public
// key it stores. Roles come from [Server.WriteRole].
func (s *Server) EnableJWT(tb testing.TB, mount string, issuer *providertest.Issuer) {
	tb.Helper()
	s.enable(tb, mount, "jwt")
	der, err := x509.MarshalPKIXPublicKey(publicKey(tb, issuer))
	if err != nil {
		tb.Fatalf("encode the issuer's key: %v", err)
	}
	s.write(tb, "auth/"+mount+"/config", map[string]any{
		"bound_issuer":           issuer.Name,
		"jwt_validation_pubkeys": []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
	})
}

// EnableKubernetes enables kubernetes auth at auth/<mount>, which has its tokens
// checked by review. Roles come from [Server.WriteRole].
func (s *Server) EnableKubernetes(tb testing.TB, mount string, review *TokenReview) {
	tb.Helper()
	s.enable(tb, mount, "kubernetes")
	s.write(tb, "auth/"+mount+"/config", map[string]any{
		"kubernetes_host":      review.URL,
		"kubernetes_ca_cert":   string(review.CA),
		"token_reviewer_jwt":   review.bearer,
		"disable_local_ca_jwt": true,
	})
}

// WriteRole makes or replaces a role of the auth method at auth/<mount>.
func (s *Server) WriteRole(tb testing.TB, mount, role string, data map[string]any) {
	tb.Helper()
	s.write(tb, "auth/"+mount+"/role/"+role, data)
}

func (s *Server) enable(tb testing.TB, mount, method string) {
	tb.Helper()
	if err := s.Client(tb).Sys().EnableAuthWithOptionsWithContext(tb.Context(), mount, &api.EnableAuthOptions{Type: method}); err != nil {
		tb.Fatalf("enable %s at auth/%s: %v", method, mount, err)
	}
}

// TokenReview is the API server as far as Vault's kubernetes auth knows it: an
// endpoint that says whose token it was given. Like the API server it wants to
// know who asks, and takes a review that names no audience to mean its own.
type TokenReview struct {
	URL string
	CA  []byte // PEM

	bearer string // what Vault presents as its own token
	keys   map[string]*ecdsa.PublicKey
}

// NewTokenReview serves reviews of the tokens of these issuers until the test
// ends. An issuer's name is the audience of its API server.
func NewTokenReview(tb testing.TB, issuers ...*providertest.Issuer) *TokenReview {
	tb.Helper()
	review := &TokenReview{bearer: rand.Text(), keys: map[string]*ecdsa.PublicKey{}}
	for _, issuer := range issuers {
		review.keys[issuer.Name] = publicKey(tb, issuer)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", review.serve)
	server := httptest.NewTLSServer(mux)
	tb.Cleanup(server.Close)
	review.URL = server.URL
	review.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return review
}

// reviewed is the part of authentication.k8s.io/v1 TokenReview that is used.
type reviewed struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Spec       reviewSpec   `json:"spec"`
	Status     reviewStatus `json:"status"`
}

type reviewSpec struct {
	Token     string   `json:"token,omitempty"`
	Audiences []string `json:"audiences,omitempty"`
}

type reviewStatus struct {
	Authenticated bool       `json:"authenticated,omitempty"`
	User          reviewUser `json:"user"`
	Audiences     []string   `json:"audiences,omitempty"`
	Error         string     `json:"error,omitempty"`
}

type reviewUser struct {
	Username string   `json:"username,omitempty"`
	UID      string   `json:"uid,omitempty"`
	Groups   []string `json:"groups,omitempty"`
}

func (r *TokenReview) serve(w http.ResponseWriter, request *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if request.Header.Get("Authorization") != "Bearer "+r.bearer {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintln(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`)
		return
	}
	var asked reviewed
	if err := json.NewDecoder(http.MaxBytesReader(w, request.Body, 1<<20)).Decode(&asked); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	answer := reviewed{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}
	status, err := r.review(asked.Spec, time.Now())
	if err != nil {
		status = reviewStatus{Error: err.Error()}
	}
	answer.Status = status
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(answer) // a caller that has gone needs no answer
}

// serviceAccountClaims are what a review looks at in a token.
type serviceAccountClaims struct {
	Issuer     string   `json:"iss"`
	Subject    string   `json:"sub"`
	Audience   []string `json:"aud"`
	Expires    int64    `json:"exp"`
	NotBefore  int64    `json:"nbf"`
	Kubernetes struct {
		Namespace      string                 `json:"namespace"`
		ServiceAccount providertest.Reference `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// review judges a token, in the API server's words where Vault's errors show them.
func (r *TokenReview) review(spec reviewSpec, now time.Time) (reviewStatus, error) {
	claims, err := r.verify(spec.Token)
	if err != nil {
		return reviewStatus{}, err
	}
	if now.Unix() >= claims.Expires || now.Unix() < claims.NotBefore {
		return reviewStatus{}, errors.New("[invalid bearer token, service account token has expired]")
	}
	wanted := spec.Audiences
	if len(wanted) == 0 {
		wanted = []string{claims.Issuer}
	}
	shared := slices.DeleteFunc(slices.Clone(wanted), func(audience string) bool { return !slices.Contains(claims.Audience, audience) })
	if len(shared) == 0 {
		return reviewStatus{}, fmt.Errorf("[invalid bearer token, token audiences %q is invalid for the target audiences %q]", claims.Audience, wanted)
	}
	return reviewStatus{
		Authenticated: true,
		Audiences:     shared,
		User: reviewUser{
			Username: claims.Subject,
			UID:      claims.Kubernetes.ServiceAccount.UID,
			Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + claims.Kubernetes.Namespace, "system:authenticated"},
		},
	}, nil
}

// verify checks the signature of an ES256 token with the standard library alone,
// so that this counterpart shares no judgement with keymount's own.
func (r *TokenReview) verify(token string) (*serviceAccountClaims, error) {
	invalid := errors.New("invalid bearer token")
	signed, encoded, _ := cutLast(token, ".")
	_, payload, _ := strings.Cut(signed, ".")
	signature, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(signature) != 64 {
		return nil, invalid
	}
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, invalid
	}
	claims := new(serviceAccountClaims)
	if err := json.Unmarshal(data, claims); err != nil {
		return nil, invalid
	}
	key, known := r.keys[claims.Issuer]
	if !known {
		return nil, invalid
	}
	digest := sha256.Sum256([]byte(signed))
	if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return nil, invalid
	}
	return claims, nil
}

func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

// publicKey is the issuer's key on P-256, out of its key set.
func publicKey(tb testing.TB, issuer *providertest.Issuer) *ecdsa.PublicKey {
	tb.Helper()
	encoded, err := issuer.KeySet()
	if err != nil {
		tb.Fatalf("read the issuer's key set: %v", err)
	}
	var set struct {
		Keys []struct{ X, Y string } `json:"keys"`
	}
	if err := json.Unmarshal(encoded, &set); err != nil || len(set.Keys) != 1 {
		tb.Fatalf("read the issuer's key set: want one key, got %d (%v)", len(set.Keys), err)
	}
	point := []byte{4} // an uncompressed point follows: x and y
	for _, coordinate := range []string{set.Keys[0].X, set.Keys[0].Y} {
		part, err := base64.RawURLEncoding.DecodeString(coordinate)
		if err != nil {
			tb.Fatalf("read the issuer's key set: %v", err)
		}
		point = append(point, part...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		tb.Fatalf("read the issuer's key set: %v", err)
	}
	return key
}
