package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/internal/secret"
)

// envelope is the answer as the API has it, without the id of the request, which no
// two answers share. inner says that data is what lies in the answer's data under the
// same name. Few classes want it, and as maps it takes more memory than many a secret:
// what is around data stays text until somebody looks.
func envelope(answer *api.Secret, data secret.Tree, inner bool) (secret.Tree, error) {
	around := map[string]any{
		"lease_id": answer.LeaseID, "lease_duration": answer.LeaseDuration, "renewable": answer.Renewable, "warnings": nil,
	}
	if len(answer.Warnings) > 0 {
		around["warnings"] = answer.Warnings
	}
	if inner {
		beside := maps.Clone(answer.Data)
		delete(beside, "data")
		around["data"] = beside
	}
	text, err := json.Marshal(around)
	if err != nil { // which may quote what could not be written
		return secret.Tree{}, errors.New("what is around the data cannot be written as JSON")
	}
	kept := secret.New(text)
	return secret.NewMadeTree(kept.Held(), func() any {
		whole := decoded(kept.Reveal())
		place := whole
		if inner {
			place, _ = whole["data"].(map[string]any)
		}
		place["data"] = data.Reveal()
		return whole
	}), nil
}

// decoded reads what was written just now; numbers leave as they came.
func decoded(text []byte) (object map[string]any) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	_ = decoder.Decode(&object)
	return object
}
