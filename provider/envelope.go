package provider

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider/form"
	"github.com/keymount/keymount/store"
)

// envelope writes an object as vault-csi-provider does, byte for byte but for what
// would change at every poll.
func (r *rendering) envelope(o *Object, answer secret.Tree) error {
	contents, err := fromEnvelope(answer, o.Key)
	switch {
	case errors.Is(err, secret.ErrNoKey):
		return fmt.Errorf("%w: %w; check secretKey", store.ErrNotFound, err)
	case err == nil && o.Encoding != "":
		contents, err = form.Decode(o.Encoding, contents)
	}
	return r.write(o, o.File, contents, err)
}

// fromEnvelope is the value under key, or without a key the whole answer. A key is
// a name and no way further in.
func fromEnvelope(answer secret.Tree, key string) (secret.Bytes, error) {
	if key == "" {
		return wholeAnswer(answer)
	}
	data, _ := answer.Child("data")
	inner, _ := data.Child("data")
	if _, isMap := inner.Reveal().(map[string]any); isMap {
		data = inner // a KV v2 engine's
	}
	value, ok := data.Child(key)
	if !ok {
		return secret.Bytes{}, fmt.Errorf("%w %q", secret.ErrNoKey, key)
	}
	if text, ok := value.Reveal().(string); ok {
		return secret.New([]byte(text)), nil
	}
	return asJSON(value.Reveal())
}

// wholeAnswer has the order of fields that the API's own client gives it.
func wholeAnswer(answer secret.Tree) (secret.Bytes, error) {
	fields, _ := answer.Reveal().(map[string]any)
	return asJSON(struct {
		RequestID     string `json:"request_id"` // another at every poll: left empty
		LeaseID       any    `json:"lease_id"`
		LeaseDuration any    `json:"lease_duration"`
		Renewable     any    `json:"renewable"`
		Data          any    `json:"data"`
		Warnings      any    `json:"warnings"`
	}{
		LeaseID: fields["lease_id"], LeaseDuration: fields["lease_duration"], Renewable: fields["renewable"],
		Data: fields["data"], Warnings: fields["warnings"],
	})
}

// asJSON escapes what encoding/json does by default; form.Write would not.
func asJSON(v any) (secret.Bytes, error) {
	text, err := json.Marshal(v)
	if err != nil {
		// The error may quote what could not be encoded: leave it out.
		return secret.Bytes{}, errors.New("the answer cannot be written as JSON")
	}
	return secret.New(text), nil
}
