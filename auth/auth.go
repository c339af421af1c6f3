// Package auth answers one question: who is asking?
//
// The driver hands over what it believes ([Pod]) and the service account tokens
// the kubelet made for that pod ([Tokens]). A [Verifier] checks one token against
// the keys of an [Issuer] and against the pod, and answers with an [Identity],
// the only thing the rest of keymount trusts. Nothing here talks to a store.
package auth

import (
	"errors"
	"time"
)

// ErrToken wraps every answer of the kind "this token does not prove who the pod
// is": final, asking again with the same token changes nothing.
var ErrToken = errors.New("service account token refused")

// ErrKeys wraps failures to get an issuer's public keys: the token may be good.
var ErrKeys = errors.New("cannot check the service account token")

// Pod is what the driver says of the pod it mounts for. The kubelet writes these
// after the pod's author had his say, but they prove nothing until a token agrees.
type Pod struct {
	Namespace      string
	Name           string
	UID            string
	ServiceAccount string
}

// Identity is who a verified token belongs to. Only [Verifier.Verify] makes one.
type Identity struct {
	Issuer            string
	Audience          string
	Namespace         string
	ServiceAccount    string
	ServiceAccountUID string
	// PodName and PodUID are empty when the token is not bound to a pod.
	PodName string
	PodUID  string
	// Expires is the end of the token's life; the identity is not to be used after.
	Expires time.Time
}
