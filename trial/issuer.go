package trial

import (
	"context"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider/providertest"
)

// ownName is the issuer of made-up tokens. Its key is made for one process, so that no node
// can know it.
const ownName = "https://render.keymount.invalid"

// own signs for one pod.
type own struct {
	*providertest.Issuer

	pod auth.Pod
}

// NewIssuer makes an issuer of tokens for a pod, which prove nothing to a node.
func NewIssuer(pod auth.Pod) (Issuer, error) {
	issuer, err := providertest.NewIssuer(ownName, "render")
	return own{issuer, pod}, err
}

// Token implements [Issuer].
func (o own) Token(_ context.Context, audience string) (string, error) {
	return o.Sign(o.ClaimsFor(o.pod, audience))
}
