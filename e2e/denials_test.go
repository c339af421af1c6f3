package e2e_test

import (
	"strings"
	"testing"

	"github.com/keymount/keymount/auth"
)

// Who may not read gets nothing, and the text says who decided.
func TestDenials(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	const own = `[{namespaces: [shop], serviceAccounts: [api], roles: ["shop-*"], paths: ["secret/{namespace}/*"]}]`
	worker := auth.Pod{Namespace: "shop", Name: "worker-0", UID: "uid-of-worker-0", ServiceAccount: "worker"}
	for _, test := range []struct {
		name, access string
		pod          auth.Pod
		class        class
		file         string   // the one file's content, when it is allowed
		told         []string // parts of the text, when it is not
		untouched    string   // no request begins like this
		unasked      bool     // there is no request at all
	}{
		{
			name: "a path outside the rules", access: own, pod: shopAPI, class: shopClass(`[{path: secret/blog/db, key: password, file: a}]`),
			told:      []string{"PermissionDenied: ", "objects[0]", `store "prod"`, `role "shop-api"`, `"secret/blog/db"`, "no rule under access"},
			untouched: "secret/",
		},
		{
			name: "the same by the API's path", access: own, pod: shopAPI, class: shopClass(`[{path: secret/data/blog/db, key: password, file: a}]`),
			told:      []string{"PermissionDenied: ", `"secret/data/blog/db"`, "no rule under access"},
			untouched: "secret/",
		},
		{
			name: "a role outside the rules", access: own, pod: shopAPI, class: class{"blog", oneObject},
			told:    []string{"PermissionDenied: ", `role "blog"`, `store "prod"`, "no rule under access"},
			unasked: true,
		},
		{
			name: "a service account outside the rules", access: own, pod: worker, class: shopClass(oneObject),
			told:    []string{"PermissionDenied: ", "shop/worker", `store "prod"`, "no rule under access"},
			unasked: true,
		},
		{
			name: "a path outside Vault's policy", pod: shopAPI, class: shopClass(`[{path: secret/blog/db, key: password, file: a}]`),
			told: []string{"PermissionDenied: ", `store "prod"`, `role "shop-api"`, `"secret/blog/db"`, "policy"},
		},
		{
			name: "a path outside Vault's policy, by access: store", access: "store", pod: shopAPI, class: shopClass(`[{path: secret/blog/db, key: password, file: a}]`),
			told: []string{"PermissionDenied: ", `store "prod"`, `role "shop-api"`, `"secret/blog/db"`, "policy"},
		},
		{
			name: "a path in Vault's policy, by access: store", access: "store", pod: shopAPI, class: shopClass(oneObject),
			file: "canary-password-4",
		},
		{
			name: "metadata by a wildcard", pod: shopAPI, class: shopClass(`[{path: secret/metadata/shop/db, format: json, file: a}]`),
			told:      []string{"PermissionDenied: ", `"secret/metadata/shop/db"`, "no rule under access"},
			untouched: "secret/",
		},
		{
			name: "metadata by a segment's wildcard", access: `[{namespaces: ["*"], serviceAccounts: ["*"], roles: ["*"], paths: ["secret/*/shop/*"]}]`,
			pod: shopAPI, class: shopClass(`[{path: secret/metadata/shop/db, format: json, file: a}]`),
			told:      []string{"PermissionDenied: ", "no rule under access"},
			untouched: "secret/",
		},
		{
			name: "metadata by its name", access: `[{namespaces: ["*"], serviceAccounts: ["*"], roles: ["*"], paths: ["secret/metadata/{namespace}/*"]}]`,
			pod: shopAPI, class: shopClass(`[{path: secret/metadata/shop/db, key: current_version, file: a}]`),
			file: "4",
		},
		{
			name: "data/ in a class is not data/ in a rule", access: `[{namespaces: ["*"], serviceAccounts: ["*"], roles: ["*"], paths: ["**/data/*"]}]`,
			pod: shopAPI, class: shopClass(`[{path: secret/data/shop, key: value, file: a}]`),
			told:      []string{"PermissionDenied: ", "no rule under access"},
			untouched: "secret/",
		},
		{
			name: "a write that the rules do not list", access: `[{namespaces: ["*"], serviceAccounts: ["*"], roles: ["*"], paths: ["**"]}]`,
			pod: shopAPI, class: shopClass(`[{path: secret/shop/db, args: {data: {password: x}}, key: password, file: a}]`),
			told:      []string{"PermissionDenied: ", "write to", `"secret/shop/db"`},
			untouched: "secret/",
		},
		{
			name: "a write in other words", access: `[{namespaces: ["*"], serviceAccounts: ["*"], roles: ["*"], paths: ["**"], writes: ["**/data/**"]}]`,
			pod: shopAPI, class: shopClass(`[{path: secret/data/shop/db, args: {data: {password: x}}, key: password, file: a}]`),
			told:      []string{"PermissionDenied: ", "write to"},
			untouched: "secret/",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			k, p := serveBefore(t, server, issuer, operator{Access: test.access})
			files, err := k.mount(t, test.pod, test.class)
			if test.told == nil {
				if err != nil {
					t.Fatal(err)
				}
				if got := files["a"] + files["password"]; got != test.file {
					t.Errorf("file = %q, want %q", got, test.file)
				}
				return
			}
			if err == nil {
				t.Fatalf("mounted %d files, want a denial", len(files))
			}
			for _, part := range test.told {
				if !strings.Contains(told(err), part) {
					t.Errorf("the error is %q, without %q", told(err), part)
				}
			}
			if test.unasked && p.count("") > 0 {
				t.Errorf("%d requests reached Vault, want none", p.count(""))
			}
			if test.untouched != "" && p.count(test.untouched) > 0 {
				t.Errorf("%d requests for %s reached Vault, want none", p.count(test.untouched), test.untouched)
			}
		})
	}
}
