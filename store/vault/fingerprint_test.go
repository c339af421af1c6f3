package vault_test

import (
	"encoding/json"
	"testing"

	"github.com/keymount/keymount/store/vault"
)

// The state of a Vault is bound to these texts, and the store's session behind them: with
// other ones, or in another order, the state of every node would not open after an update.
func TestFingerprintOfAVault(t *testing.T) {
	settings := vault.Settings{
		Addresses: []string{"https://vault:8200", "https://other:8200"}, Namespace: "a", Auth: vault.Auth{Method: "jwt", Mount: "b"},
	}
	got, err := json.Marshal(settings.Fingerprint())
	if want := `[["https://vault:8200","https://other:8200"],"a","jwt","b"]`; err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	settings.Auth.Namespace = "c" // and only then
	got, err = json.Marshal(settings.Fingerprint())
	if want := `[["https://vault:8200","https://other:8200"],"a","jwt","b","c"]`; err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}
