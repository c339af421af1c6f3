package e2e_test

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/keymount/keymount/e2e/vaulttest"
)

// The demo on a real Vault tells the same story and leaves nothing there.
func TestDemo(t *testing.T) {
	server := vaulttest.Start(t)
	before := everything(t, server)
	//nolint:gosec // G204: the program that TestMain built
	command := exec.CommandContext(t.Context(), keymountBinary, "demo", "--vault-addr", server.Address, "--vault-token", server.RootToken)
	command.Env = []string{"TMPDIR=" + t.TempDir()}
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	if err := command.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), errOut.String())
	}
	for _, want := range []string{
		"(in Vault)", "db/password        0400", "db/password        changed", "tls/tls.key        same",
		`PermissionDenied: objects[0]: not allowed: service account blog/web may not use store "vault" with role "shop"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the story lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String()+errOut.String(), server.RootToken) {
		t.Error("the story tells the token")
	}
	if after := everything(t, server); after != before {
		t.Errorf("Vault had\n%s\nand has now\n%s", before, after)
	}
}

// everything is what is mounted in a Vault, and its policies.
func everything(t *testing.T, server *vaulttest.Server) string {
	t.Helper()
	var all []string
	sys := server.Client(t).Sys()
	mounts, err := sys.ListMountsWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for path := range mounts {
		all = append(all, "engine "+path)
	}
	auths, err := sys.ListAuthWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for path := range auths {
		all = append(all, "auth method "+path)
	}
	policies, err := sys.ListPoliciesWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range policies {
		all = append(all, "policy "+name)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}
