package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keymount/keymount/internal/secret"
)

// Tokens holds the service account tokens of one request, by audience.
type Tokens struct {
	byAudience map[string]secret.Bytes
}

// ParseTokens reads the csi.storage.k8s.io/serviceAccount.tokens attribute:
//
//	{"<audience>": {"token": "<jwt>", "expirationTimestamp": "<RFC 3339>"}}
//
// An empty text holds no tokens. The tokens are not trusted until verified.
func ParseTokens(text string) (Tokens, error) {
	if text == "" {
		return Tokens{}, nil
	}
	var raw map[string]struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		// The error of encoding/json may quote the input: leave it out.
		return Tokens{}, errors.New(`not a JSON object of the form {"<audience>": {"token": "<jwt>"}}`)
	}
	t := Tokens{byAudience: make(map[string]secret.Bytes, len(raw))}
	for audience, entry := range raw {
		t.byAudience[audience] = secret.New([]byte(entry.Token))
	}
	return t, nil
}

// For returns the token made for an audience.
func (t Tokens) For(audience string) (secret.Bytes, error) {
	token, ok := t.byAudience[audience]
	if ok && token.Len() > 0 {
		return token, nil
	}
	return secret.Bytes{}, fmt.Errorf("%w: the driver sent no token for audience %q (%s): "+
		"list the audience under tokenRequests of the CSIDriver object secrets-store.csi.k8s.io; "+
		"with the driver's Helm chart: --set 'tokenRequests[0].audience=%s'",
		ErrToken, audience, t.audiences(), audience)
}

func (t Tokens) audiences() string {
	if len(t.byAudience) == 0 {
		return "it sent none at all"
	}
	quoted := make([]string, 0, len(t.byAudience))
	for _, audience := range slices.Sorted(maps.Keys(t.byAudience)) {
		quoted = append(quoted, fmt.Sprintf("%q", audience))
	}
	return "it sent " + strings.Join(quoted, ", ")
}
