package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // unlike the standard one it tells Iss from iss and refuses doubles
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/keymount/keymount/internal/secret"
)

// clockSkew is how far the API server's clock may run ahead of this node's. The end of a
// token's life gets no such grace: the kubelet renews long before.
const clockSkew = time.Minute

// maxTokenBytes bounds a token before parsing; the kubelet's tokens are about 1 KiB.
const maxTokenBytes = 64 << 10

// Expected are the claims that a token must prove.
type Expected struct {
	Audience string
	Pod      Pod
	// WithoutPod accepts a token not bound to a pod, such as the
	// secrets-store-sync-controller's. Namespace and service account still count.
	WithoutPod bool
}

// Verifier checks service account tokens. It is safe for concurrent use.
type Verifier struct {
	issuers []*Issuer
	node    string
	now     func() time.Time
	proofs  *proofs
}

// NewVerifier accepts tokens of these issuers. node is the name of this node in the API
// server; a token bound to a node is refused when the names differ or node is empty. now is
// the clock.
func NewVerifier(issuers []*Issuer, node string, now func() time.Time) *Verifier {
	return &Verifier{issuers: issuers, node: node, now: now, proofs: newProofs()}
}

// claims are the parts of a Kubernetes service account token in use here.
type claims struct {
	jwt.Claims
	Kubernetes struct {
		Namespace      string    `json:"namespace"`
		ServiceAccount reference `json:"serviceaccount"`
		Pod            reference `json:"pod"`
		Node           reference `json:"node"`
	} `json:"kubernetes.io"`
}

type reference struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Verify checks signature, issuer, audience, times and that the claims name the pod of this
// request. The error wraps [ErrToken] when the token is at fault, [ErrKeys] when the issuer's
// keys could not be had; it never holds the token.
func (v *Verifier) Verify(ctx context.Context, token secret.Bytes, want Expected) (Identity, error) {
	proven, err := v.prove(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	c := proven.claims
	for _, check := range []error{v.checkTimes(c), checkAudience(c, want), checkAccount(c, want), v.checkPod(c, want)} {
		if check != nil {
			return Identity{}, fmt.Errorf("%w: %w", ErrToken, check)
		}
	}
	if token.Len() <= maxProvenToken {
		v.proofs.keep(proven, v.now())
	}
	return Identity{
		Issuer: c.Issuer, Audience: want.Audience,
		Namespace:      c.Kubernetes.Namespace,
		ServiceAccount: c.Kubernetes.ServiceAccount.Name, ServiceAccountUID: c.Kubernetes.ServiceAccount.UID,
		PodName: c.Kubernetes.Pod.Name, PodUID: c.Kubernetes.Pod.UID,
		TokenID: c.ID, Expires: c.Expiry.Time(),
	}, nil
}

// prove returns the claims signed by an accepted issuer. A token with a remembered proof
// still needs its key among the issuer's present keys.
func (v *Verifier) prove(ctx context.Context, token secret.Bytes) (proof, error) {
	if token.Len() > maxTokenBytes {
		return proof{}, fmt.Errorf("%w: %d bytes are more than a token has (%d at most)", ErrToken, token.Len(), maxTokenBytes)
	}
	sum := sumOf(token)
	if known, ok := v.proofs.find(sum); ok {
		key, err := v.key(ctx, known.claims.Issuer, known.key.KeyID)
		if err != nil {
			return proof{}, err
		}
		if known.isBy(key) {
			return known, nil
		}
	}
	signed, err := parse(token)
	if err != nil {
		return proof{}, err
	}
	c, key, err := v.check(ctx, signed)
	return proof{token: sum, key: key, claims: c}, err
}

// check returns the claims of a token signed by an accepted issuer, and the key.
func (v *Verifier) check(ctx context.Context, signed *jose.JSONWebSignature) (c claims, key jose.JSONWebKey, err error) {
	var unproven jwt.Claims
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &unproven); err != nil {
		return c, key, fmt.Errorf("%w: its claims are not those of a JWT", ErrToken)
	}
	header := signed.Signatures[0].Header
	key, err = v.key(ctx, unproven.Issuer, header.KeyID)
	if err != nil {
		return c, key, err
	}
	payload, err := signed.Verify(key)
	if err != nil || (key.Algorithm != "" && key.Algorithm != header.Algorithm) {
		return c, key, fmt.Errorf("%w: the signature is not that of issuer %q", ErrToken, unproven.Issuer)
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return c, key, fmt.Errorf("%w: its claims are not those of a service account token", ErrToken)
	}
	return c, key, nil
}

// key is the present key with this id of the issuer with this name.
func (v *Verifier) key(ctx context.Context, issuer, id string) (jose.JSONWebKey, error) {
	found, err := v.issuer(ctx, issuer)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	return found.key(ctx, id)
}

// parse reads the token as a signed JWT in compact form, and proves nothing.
func parse(token secret.Bytes) (*jose.JSONWebSignature, error) {
	signed, err := jose.ParseSignedCompact(string(token.Reveal()), []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512,
	})
	var algorithm *jose.ErrUnexpectedSignatureAlgorithm
	switch {
	case errors.As(err, &algorithm):
		return nil, fmt.Errorf("%w: signature algorithm %q is not accepted, only RS256 to RS512 and ES256 to ES512", ErrToken, algorithm.Got)
	case err != nil || len(signed.Signatures) != 1:
		// The library's message may quote the input: leave it out.
		return nil, fmt.Errorf("%w: it is not a signed JWT in compact form", ErrToken)
	}
	return signed, nil
}

// issuer finds the issuer with this name: first among issuers with a known name, so that no
// token waits for a source it does not need.
func (v *Verifier) issuer(ctx context.Context, name string) (*Issuer, error) {
	for _, issuer := range v.issuers {
		if issuer.known() == name && name != "" {
			return issuer, nil
		}
	}
	var accepted []string
	var failed error
	for _, issuer := range v.issuers {
		known, err := issuer.ask(ctx)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if known == name {
			return issuer, nil
		}
		accepted = append(accepted, fmt.Sprintf("%q", known))
	}
	if failed != nil {
		return nil, failed
	}
	return nil, fmt.Errorf("%w: issuer %q is not accepted, only %s (issuers in keymount.yaml)",
		ErrToken, name, strings.Join(accepted, ", "))
}

func (v *Verifier) checkTimes(c claims) error {
	now := v.now()
	switch {
	case c.Expiry == nil:
		return errors.New("it has no expiry")
	case !now.Before(c.Expiry.Time()):
		return fmt.Errorf("it expired at %s and this node's clock says %s; the kubelet sends a fresh one with its next call",
			stamp(c.Expiry.Time()), stamp(now))
	case c.NotBefore != nil && now.Add(clockSkew).Before(c.NotBefore.Time()):
		return fmt.Errorf("it is not valid before %s and this node's clock says %s; check the node's clock",
			stamp(c.NotBefore.Time()), stamp(now))
	}
	return nil
}

func checkAudience(c claims, want Expected) error {
	if want.Audience == "" || !c.Audience.Contains(want.Audience) {
		return fmt.Errorf("it is for audience %q, the store wants %q", []string(c.Audience), want.Audience)
	}
	return nil
}

func checkAccount(c claims, want Expected) error {
	k := c.Kubernetes
	if k.ServiceAccount.UID == "" {
		return errors.New("it does not carry the uid of a service account; it is not from a TokenRequest")
	}
	if subject := "system:serviceaccount:" + k.Namespace + ":" + k.ServiceAccount.Name; c.Subject != subject {
		return fmt.Errorf("its subject %q and its claims (%q) differ", c.Subject, subject)
	}
	if k.Namespace != want.Pod.Namespace || k.ServiceAccount.Name != want.Pod.ServiceAccount {
		return fmt.Errorf("it belongs to service account %s/%s, the pod runs as %s/%s",
			k.Namespace, k.ServiceAccount.Name, want.Pod.Namespace, want.Pod.ServiceAccount)
	}
	return nil
}

func (v *Verifier) checkPod(c claims, want Expected) error {
	k := c.Kubernetes
	if k.Node.Name != "" && k.Node.Name != v.node {
		if v.node == "" {
			return fmt.Errorf("it is bound to node %q and keymount does not know its own node: start it with --node-name or NODE_NAME", k.Node.Name)
		}
		return fmt.Errorf("it is bound to node %q, this is node %q", k.Node.Name, v.node)
	}
	if k.Pod == (reference{}) {
		if want.WithoutPod {
			return nil
		}
		return errors.New("it is not bound to a pod; where such tokens are wanted (secrets-store-sync-controller) set tokensWithoutPod: true on the store")
	}
	if k.Pod.UID == "" || k.Pod.Name != want.Pod.Name || k.Pod.UID != want.Pod.UID {
		return fmt.Errorf("it belongs to pod %s (uid %s), the request is for pod %s (uid %s)",
			k.Pod.Name, k.Pod.UID, want.Pod.Name, want.Pod.UID)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
