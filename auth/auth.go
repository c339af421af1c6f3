// Package auth verifies the identity behind a mount.
//
// The driver hands over its claims about a pod ([Pod]) and the service account tokens that
// the kubelet made for it ([Tokens]). A [Verifier] checks one token against the keys of an
// [Issuer] and against the pod, and returns an [Identity], the only thing that the rest of
// keymount trusts. This package talks to no store: the exchange of a token for a login
// belongs to package login.
package auth

import (
	"errors"
	"time"
)

// ErrToken wraps every refusal of a token as proof of the pod's identity: it is final, and
// another try with the same token changes nothing.
var ErrToken = errors.New("service account token refused")

// ErrKeys wraps failures to get an issuer's public keys: the token may be good.
var ErrKeys = errors.New("cannot check the service account token")

// Pod is the driver's description of the pod to mount for. The kubelet writes these fields
// over any of the pod's author, but they prove nothing until a token agrees.
type Pod struct {
	Namespace      string
	Name           string
	UID            string
	ServiceAccount string
}

// Volume is a class in a pod, mounted again and again by the driver.
type Volume struct{ Namespace, PodUID, Class string }

// Identity is the owner of a verified token. Only [Verifier.Verify] makes one.
type Identity struct {
	Issuer            string
	Audience          string
	Namespace         string
	ServiceAccount    string
	ServiceAccountUID string
	// PodName and PodUID are empty when the token is not bound to a pod.
	PodName string
	PodUID  string
	// TokenID is the token's name at the API server, its jti claim; empty without one. Each
	// token has another one, so nothing is remembered under it.
	TokenID string
	// Expires is the end of the token's life; the identity must not be used after it.
	Expires time.Time
}
