package e2e_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The search of what keymount wrote finds what it is there to find.
func TestLeaksAreFound(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	k, p := serveBefore(t, server, issuer, operator{})
	k.mounted(t, shopClass(oneObject))

	guarded := slices.Concat(k.secrets, p.secrets)
	for what, secret := range map[string]string{
		"a value that passed":    "canary-password-4",
		"Vault's token":          p.tokens()[0],
		"the pod's own token":    k.secrets[0],
		"a token nobody knew":    "hvs." + "CAESIJ0Xb4pNoSuchToken",
		"a token of an old kind": "s." + "0123456789abcdefghijklmn",
	} {
		if len(leaksIn("denied: "+secret+" is not allowed", guarded)) == 0 {
			t.Errorf("%s is not found", what)
		}
	}
	if diff := cmp.Diff([]string(nil), leaksIn("store prod: vault:8200 answers 400; secret/shop/db", guarded)); diff != "" {
		t.Errorf("found in an ordinary text: %s", diff)
	}
	answer := `{"lease_id":"database/creds/shop/abcdef","auth":null,"data":{"password":"canary-db","ttl":5}}`
	if diff := cmp.Diff([]string{"database/creds/shop/abcdef", "canary-db"}, secretsIn("database/creds/shop", []byte(answer))); diff != "" {
		t.Errorf("secrets of an answer (-want +got):\n%s", diff)
	}
}
