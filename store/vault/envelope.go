package vault

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/internal/secret"
)

// envelope is the answer as the API has it, without the id of the request, which
// differs each time. With inner, data is the field data of the answer's own data. Few
// classes want an envelope, and as maps it takes more memory than many a secret: the
// fields beside the inner data stay text until their first use.
func envelope(answer *api.Secret, data secret.Tree, inner bool) secret.Tree {
	var beside secret.Bytes
	if inner {
		fields := make(map[string]any, len(answer.Data))
		for name, value := range answer.Data {
			if name != "data" {
				fields[name] = value
			}
		}
		const usual = 256 // bytes
		beside = secret.New(bytes.Clone(secret.AppendJSON(make([]byte, 0, usual), fields)))
	}
	leaseID, duration, renewable, warnings := answer.LeaseID, answer.LeaseDuration, answer.Renewable, answer.Warnings
	const captured = 64 // bytes of the fields below
	held := captured + beside.Held() + len(leaseID)
	for _, warning := range warnings {
		held += len(warning)
	}
	return secret.NewMadeTree(held, func() any {
		whole := map[string]any{
			"lease_id": leaseID, "lease_duration": json.Number(strconv.Itoa(duration)), "renewable": renewable, "warnings": texts(warnings), "data": data.Reveal(),
		}
		if inner {
			fields, _ := secret.Decode(beside.Reveal(), names) // written above
			around, _ := fields.(map[string]any)
			around["data"], whole["data"] = whole["data"], around
		}
		return whole
	})
}

// texts are a list of a Tree; nil without any.
func texts(list []string) any {
	if len(list) == 0 {
		return nil
	}
	all := make([]any, len(list))
	for i, text := range list {
		all[i] = text
	}
	return all
}
