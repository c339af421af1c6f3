package provider_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/storetest"
	"github.com/keymount/keymount/store/vault"
)

// vaultServer is a Vault with a KV v2 engine at secret, a KV v1 engine at old and
// others at pki and aws. No two answers have the same request_id.
type vaultServer struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string // without the looking up of mounts
	logins   []string // mount, role and namespace
	answers  map[string]string
}

func (s *vaultServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	if mount, ok := strings.CutPrefix(path, "auth/"); ok {
		s.logins = append(s.logins, strings.TrimSpace(fmt.Sprintf("%s %s %s", strings.TrimSuffix(mount, "/login"), body["role"], r.Header.Get("X-Vault-Namespace"))))
		_, _ = fmt.Fprint(w, `{"auth": {"client_token": "hvs.obviously-fake", "lease_duration": 3600}}`)
		return
	}
	if below, ok := strings.CutPrefix(path, "sys/internal/ui/mounts/"); ok {
		mount, _, _ := strings.Cut(below, "/")
		engine := map[string]any{"path": mount + "/", "type": "other"}
		switch mount {
		case "secret":
			engine["type"], engine["options"] = "kv", map[string]string{"version": "2"}
		case "old":
			engine["type"], engine["options"] = "kv", map[string]string{"version": "1"}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": engine})
		return
	}
	s.requests = append(s.requests, r.Method+" "+strings.TrimPrefix(r.URL.RequestURI(), "/v1/"))
	n := len(s.requests)
	answer, ok := s.answers[strings.TrimPrefix(r.URL.RequestURI(), "/v1/")]
	switch {
	case r.Method == http.MethodPut:
		_, _ = fmt.Fprintf(w, `{"request_id": "%d", "data": {"certificate": "%s of %v"}}`, n, canary, body["common_name"])
	case ok:
		_, _ = fmt.Fprintf(w, `{"request_id": "%d", %s}`, n, answer)
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprint(w, `{"errors": []}`)
	}
}

// seen returns what was asked since the last call.
func (s *vaultServer) seen() (requests, logins []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests, logins = s.requests, s.logins
	s.requests, s.logins = nil, nil
	return requests, logins
}

func (s *vaultServer) backend(t *testing.T, name, namespace, mount, audience string) provider.Backend {
	t.Helper()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.URL}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := access.Compile("access", []access.Rule{{
		Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"*"},
		Paths:  []string{"secret/{namespace}/**", "old/{namespace}/**", "aws/sts/{namespace}"},
		Writes: []string{"pki/issue/{namespace}"},
	}}, access.Kind{Roles: access.Required, Writes: true})
	if err != nil {
		t.Fatal(err)
	}
	method := vault.Method{Conn: conn, Mount: mount, Namespace: namespace, Now: time.Now}
	return provider.Backend{
		Name: name, Audience: audience, Rules: compiled,
		Store: direct(storetest.LayersOf(vault.New(conn, namespace, nil), method)), Resolves: true,
		Class: class.Store{Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{
			Addresses: []string{s.URL, "https://Vault.Invalid:8200/"}, Namespace: namespace, Auth: vault.Auth{Mount: mount, Audience: audience},
		}},
	}
}

// startVault runs a provider whose socket, which the driver calls, has this name.
func startVault(t *testing.T, socket string, changes ...func(*setup, *vaultServer)) (*world, *vaultServer) {
	t.Helper()
	server := &vaultServer{answers: map[string]string{ //nolint:gosec // fake secrets
		"secret/data/shop/db": `"lease_id": "", "lease_duration": 0, "renewable": false, "data": {"data": {"user": "shop", "password": "` + canary +
			`", "ratio": 1.10, "html": {"a": "<&>"}, "encoded": "Y2FuYXJ5LTdmM2E=", "tls.crt": "dotted"}, "metadata": {"version": 3}}, "warnings": null`,
		"secret/data/shop/db?version=2": `"data": {"data": {"password": "` + canary + ` of old"}, "metadata": {"version": 2}}`,
		"secret/data/shop/empty":        `"data": {"data": {}, "metadata": {"version": 1}}`,
		"old/shop/db":                   `"lease_id": "", "lease_duration": 2764800, "data": {"data": "` + canary + `", "deep": {"b": 1, "a": [true, null]}}`,
		"aws/sts/shop":                  `"lease_id": "aws/sts/shop/x", "lease_duration": 3600, "renewable": true, "data": {"token": "` + canary + `"}, "warnings": ["mind the gap"]`,
		"aws/sts/shop?a=%26&ttl=15m":    `"data": {"token": "` + canary + ` for 15m"}`,
	}}
	server.Server = httptest.NewServer(server)
	t.Cleanup(server.Close)
	w := start(t, func(w *world, s *setup) {
		w.socket = filepath.Join(filepath.Dir(w.socket), socket)
		s.sockets = []string{w.socket}
		bundle := s.options.Backends[0]
		bundle.Name = "local"
		s.options.Backends = []provider.Backend{
			bundle, server.backend(t, "default", "", "kubernetes", "vault"),
			server.backend(t, "team", "teams/{namespace}", "kubernetes", "vault"), server.backend(t, "bao", "", "bao-kubernetes", "openbao"),
		}
		for _, change := range changes {
			change(s, server)
		}
	})
	return w, server
}

// vaultVolume is a volume of a class with these objects; parameters are added to
// it, or removed when empty.
func (w *world) vaultVolume(objects string, parameters map[string]string) providertest.Volume {
	v := w.volume(pod("shop", "api"), objects)
	for _, a := range []string{"vault", "openbao"} {
		v.Tokens[a] = w.sign(w.issuer, w.issuer.ClaimsFor(v.Pod, a))
	}
	v.Parameters["roleName"] = "shop"
	maps.Copy(v.Parameters, parameters)
	return v
}

const vaultKey = "[{objectName: a, secretPath: secret/data/shop/db, secretKey: password}]"

func TestVaultObjects(t *testing.T) {
	w, server := startVault(t, "vault.sock")
	whole := func(lease, data, warnings string) string {
		return `{"request_id":"",` + lease + `,"data":` + data + `,"warnings":` + warnings + `}`
	}
	tests := map[string]struct{ object, file, want, request string }{
		"a key":                {"objectName: a, secretPath: secret/data/shop/db, secretKey: password", "a", canary, ""},
		"in folders":           {"objectName: a/b/c, secretPath: secret/data/shop/db, secretKey: password", "a/b/c", canary, ""},
		"path with v1":         {"objectName: a, secretPath: v1/secret/data/shop/db, secretKey: password", "a", canary, ""},
		"path with /v1":        {"objectName: a, secretPath: /v1/secret/data/shop/db, secretKey: password", "a", canary, ""},
		"path with a slash":    {"objectName: a, secretPath: /secret/data/shop/db, secretKey: password", "a", canary, ""},
		"a number":             {"objectName: a, secretPath: secret/data/shop/db, secretKey: ratio", "a", "1.10", ""},
		"a part":               {"objectName: a, secretPath: secret/data/shop/db, secretKey: html", "a", `{"a":"\u003c\u0026\u003e"}`, ""},
		"a key with a dot":     {"objectName: a, secretPath: secret/data/shop/db, secretKey: tls.crt", "a", "dotted", ""},
		"base64":               {"objectName: a, secretPath: secret/data/shop/db, secretKey: encoded, encoding: base64", "a", canary, ""},
		"utf-8":                {"objectName: a, secretPath: secret/data/shop/db, secretKey: encoded, encoding: utf-8", "a", "Y2FuYXJ5LTdmM2E=", ""},
		"empty is absent":      {`objectName: a, secretPath: secret/data/shop/db, secretKey: password, method: "", encoding: "", filePermission: "", secretArgs: ~`, "a", canary, ""},
		"a version":            {`objectName: a, secretPath: "secret/data/shop/db?version=2", secretKey: password`, "a", canary + " of old", "GET secret/data/shop/db?version=2"},
		"the latest version":   {`objectName: a, secretPath: "secret/data/shop/db?version=0", secretKey: password`, "a", canary, "GET secret/data/shop/db"},
		"another query":        {`objectName: a, secretPath: "aws/sts/shop?ttl=15m&a=%26", secretKey: token`, "a", canary + " for 15m", "GET aws/sts/shop?a=%26&ttl=15m"},
		"a key of KV v1":       {"objectName: a, secretPath: old/shop/db, secretKey: data", "a", canary, "GET old/shop/db"},
		"a list of KV v1":      {"objectName: a, secretPath: old/shop/db, secretKey: deep", "a", `{"a":[true,null],"b":1}`, ""},
		"get in small letters": {"objectName: a, secretPath: old/shop/db, secretKey: data, method: get", "a", canary, "GET old/shop/db"},
		"PUT":                  {"objectName: a, secretPath: pki/issue/shop, secretKey: certificate, method: PUT, secretArgs: {common_name: x}", "a", canary + " of x", "PUT pki/issue/shop"},
		"POST":                 {"objectName: a, secretPath: pki/issue/shop, secretKey: certificate, method: POST, secretArgs: {common_name: y}", "a", canary + " of y", "PUT pki/issue/shop"},
		"PUT without args":     {"objectName: a, secretPath: pki/issue/shop, secretKey: certificate, method: PUT", "a", canary + " of <nil>", "PUT pki/issue/shop"},
		"everything of KV v1": {
			"objectName: a, secretPath: old/shop/db", "a",
			whole(`"lease_id":"","lease_duration":2764800,"renewable":false`, `{"data":"`+canary+`","deep":{"a":[true,null],"b":1}}`, "null"), "",
		},
		"everything of KV v2": {
			`objectName: a, secretPath: "secret/data/shop/db?version=2"`, "a",
			whole(`"lease_id":"","lease_duration":0,"renewable":false`, `{"data":{"password":"`+canary+` of old"},"metadata":{"version":2}}`, "null"), "",
		},
		"everything with a lease": {
			"objectName: a, secretPath: aws/sts/shop", "a",
			whole(`"lease_id":"aws/sts/shop/x","lease_duration":3600,"renewable":true`, `{"token":"`+canary+`"}`, `["mind the gap"]`), "GET aws/sts/shop",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server.seen()
			files, _, err := w.mount(t, w.vaultVolume("[{"+test.object+"}]", nil))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{test.file: test.want}, files); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if requests, _ := server.seen(); test.request != "" && !slices.Equal(requests, []string{test.request}) {
				t.Errorf("requests %q, want %q", requests, test.request)
			}
		})
	}
}

func TestVaultObjectsThatCannotBeHad(t *testing.T) {
	w, _ := startVault(t, "vault.sock")
	for object, want := range map[string]string{
		"secretPath: secret/data/shop/db, secretKey: none":                `NotFound: objects[0]: secret "secret/data/shop/db" of store "default" as role "shop": not found: no such key "none"; check secretKey`,
		"secretPath: secret/data/shop/db, secretKey: html.a":              `NotFound: objects[0]: secret "secret/data/shop/db" of store "default" as role "shop": not found: no such key "html.a"; check secretKey`,
		"secretPath: secret/data/shop/empty, secretKey: metadata":         `NotFound: objects[0]: secret "secret/data/shop/empty" of store "default" as role "shop": not found: no such key "metadata"; check secretKey`,
		`secretPath: "old/shop/db?version=2", secretKey: data`:            `FailedPrecondition: objects[0]: secret "old/shop/db" of store "default" as role "shop": invalid: only secrets of a KV v2 engine have versions; remove version: 2`,
		"secretPath: secret/data/blog/db, secretKey: password":            `PermissionDenied: objects[0]: secret "secret/data/blog/db" of store "default" as role "shop": not allowed: service account shop/api may not read "secret/blog/db" of store "default" with role "shop"; no rule under access of that store in keymount.yaml allows it`,
		"secretPath: pki/issue/blog, method: PUT":                         `PermissionDenied: objects[0]: secret "pki/issue/blog" of store "default" as role "shop": not allowed: service account shop/api may not write to "pki/issue/blog" of store "default" with role "shop"; no rule under access of that store in keymount.yaml allows it`,
		"secretPath: aws/sts/shop, method: POST":                          `PermissionDenied: objects[0]: secret "aws/sts/shop" of store "default" as role "shop": not allowed: service account shop/api may not write to "aws/sts/shop" of store "default" with role "shop"; no rule under access of that store in keymount.yaml allows it`,
		"secretPath: secret/data/shop/db, secretKey: user, encoding: hex": `FailedPrecondition: objects[0]: secret "secret/data/shop/db" of store "default" as role "shop": invalid: not hex: byte 0 is no hexadecimal digit`,
	} {
		_, _, err := w.mount(t, w.vaultVolume("[{objectName: a, "+object+"}]", nil))
		got := strings.TrimPrefix(fmt.Sprint(err), "rpc error: code = ")
		if got = strings.Replace(got, " desc =", ":", 1); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", object, got, want)
		}
	}
}

func TestVaultMistakes(t *testing.T) {
	w, server := startVault(t, "vault.sock")
	entry := func(fields string) string {
		return "[{objectName: a, secretPath: secret/data/shop/db, " + fields + "}]"
	}
	tests := map[string]struct{ objects, want string }{
		"no objects":        {"", "objects: missing or empty; list the secrets, each as {objectName: ..., secretPath: ..., secretKey: ...}"},
		"a text":            {"[a]", "objects[0]: not a map; write {objectName: ..., secretPath: ..., secretKey: ...}"},
		"no objectName":     {"[{secretPath: a/b}]", "objects[0]: objectName: missing; name the file to write"},
		"no secretPath":     {"[{objectName: a}]", "objects[0]: secretPath: missing; name the secret in the store"},
		"only v1":           {"[{objectName: a, secretPath: /v1/}]", "objects[0]: secretPath: missing; name the secret in the store"},
		"unclean path":      {"[{objectName: a, secretPath: v1/secret/../sys}]", `objects[0]: secretPath: "secret/../sys" has the segment ".."; write the path out`},
		"escaped path":      {"[{objectName: a, secretPath: secret/data/a%2fb}]", `objects[0]: secretPath: "secret/data/a%2fb" holds '%'; a path has no %, ?, #, backslash or invisible characters`},
		"file out of mount": {"[{objectName: ../a, secretPath: a/b}]", `objects[0]: objectName: "../a" starts with two dots, which the driver keeps to itself`},
		"absolute file":     {"[{objectName: /a, secretPath: a/b}]", `objects[0]: objectName: "/a" is absolute; it starts at the root of the mount, write it without the slash`},
		"a file twice":      {"[{objectName: a, secretPath: a/b}, {objectName: a, secretPath: a/c}]", `objects[1]: objectName: "a" is also written by objects[0]`},
		"a field twice":     {entry("objectName: b"), `objects[0]: field "objectName" is there twice`},
		"a map for a text":  {entry("secretKey: {a: b}"), "objects[0]: secretKey: not a text"},
		"DELETE":            {entry("method: DELETE"), "objects[0]: method: DELETE changes what the store holds, and a mount never does; remove the object"},
		"patch":             {entry("method: patch"), "objects[0]: method: PATCH changes what the store holds, and a mount never does; remove the object"},
		"LIST":              {entry("method: LIST"), `objects[0]: method: "LIST" is none of GET, PUT, POST`},
		"args are a list":   {entry("method: PUT, secretArgs: [a]"), "objects[0]: secretArgs: not a map of names to values"},
		"args in no JSON":   {entry("method: PUT, secretArgs: {a: {{b: c}: d}}"), "objects[0]: secretArgs: not a map of names to values"},
		"no encoding":       {entry("secretKey: a, encoding: base46"), `objects[0]: encoding: "base46" is none of utf-8, base64, hex; did you mean "base64"?`},
		"encoding of all":   {entry("encoding: base64"), "objects[0]: encoding: is of one value, and without secretKey the file is the whole answer; add secretKey or remove it"},
		"listing":           {`[{objectName: a, secretPath: "old/shop?list=true"}]`, "objects[0]: secretPath: ?list= asks for names and not for a secret; remove it"},
		"scanning":          {`[{objectName: a, secretPath: "old/shop?scan=1"}]`, "objects[0]: secretPath: ?scan= asks for names and not for a secret; remove it"},
		"no version":        {`[{objectName: a, secretPath: "old/shop?version=x"}]`, "objects[0]: secretPath: ?version= wants one number"},
		"two versions":      {`[{objectName: a, secretPath: "old/shop?version=1&version=2"}]`, "objects[0]: secretPath: ?version= wants one number"},
		"a broken query":    {`[{objectName: a, secretPath: "old/shop?a=%zz"}]`, `objects[0]: secretPath: the text after "?" is not of the form name=value&name=value`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w.refused(t, w.vaultVolume(test.objects, nil), codes.InvalidArgument, app+": "+test.want)
		})
	}
	if requests, logins := server.seen(); requests != nil || logins != nil {
		t.Errorf("the store was asked %q %q", requests, logins)
	}
}

// Which store a class means, told by the login that follows.
func TestVaultStores(t *testing.T) {
	type parameters = map[string]string
	tests := map[string]struct {
		parameters parameters
		login      string
	}{
		"nothing":               {nil, "kubernetes shop"},
		"role":                  {parameters{"roleName": "other"}, "kubernetes other"},
		"address":               {parameters{"vaultAddress": "https://vault.invalid:8200"}, "kubernetes shop"},
		"address with a slash":  {parameters{"vaultAddress": "HTTPS://VAULT.invalid.:8200/"}, "kubernetes shop"},
		"bao's address":         {parameters{"baoAddress": "https://vault.invalid:8200"}, "kubernetes shop"},
		"openbao's address":     {parameters{"openbaoAddress": "https://vault.invalid:8200"}, "kubernetes shop"},
		"the root namespace":    {parameters{"vaultNamespace": "root"}, "kubernetes shop"},
		"namespace":             {parameters{"vaultNamespace": "/teams/shop/"}, "kubernetes shop teams/shop"},
		"bao's namespace":       {parameters{"baoNamespace": "teams/shop"}, "kubernetes shop teams/shop"},
		"openbao's namespace":   {parameters{"openbaoNamespace": "teams/shop"}, "kubernetes shop teams/shop"},
		"auth mount":            {parameters{"vaultAuthMountPath": "bao-kubernetes"}, "bao-kubernetes shop"},
		"bao's auth mount":      {parameters{"baoAuthMountPath": "/bao-kubernetes/"}, "bao-kubernetes shop"},
		"openbao's auth mount":  {parameters{"openbaoAuthMountPath": "bao-kubernetes"}, "bao-kubernetes shop"},
		"the old name":          {parameters{"vaultKubernetesMountPath": "bao-kubernetes"}, "bao-kubernetes shop"},
		"bao's old name":        {parameters{"baoKubernetesMountPath": "bao-kubernetes"}, "bao-kubernetes shop"},
		"openbao's old name":    {parameters{"openbaoKubernetesMountPath": "bao-kubernetes"}, "bao-kubernetes shop"},
		"both names":            {parameters{"vaultAuthMountPath": "bao-kubernetes", "vaultKubernetesMountPath": "bao-kubernetes"}, "bao-kubernetes shop"},
		"two prefixes":          {parameters{"vaultNamespace": "teams/shop", "baoNamespace": "teams/shop"}, "kubernetes shop teams/shop"},
		"audience of the store": {parameters{"audience": "vault"}, "kubernetes shop"},
		"audience alone":        {parameters{"audience": "openbao"}, "bao-kubernetes shop"},
		"audience and address":  {parameters{"vaultAddress": "https://vault.invalid:8200", "audience": "openbao"}, "bao-kubernetes shop"},
		"the role's prefixes":   {parameters{"roleName": "", "openbaoRoleName": "prefixed"}, "kubernetes prefixed"},
		"audience, other store": {parameters{"vaultAuthMountPath": "bao-kubernetes", "audience": "openbao"}, "bao-kubernetes shop"},
		"all":                   {parameters{"vaultAddress": "https://vault.invalid:8200", "vaultNamespace": "teams/shop", "vaultAuthMountPath": "kubernetes", "audience": "vault"}, "kubernetes shop teams/shop"},
	}
	for name, test := range tests {
		for _, socket := range []string{"vault.sock", "openbao.sock"} {
			t.Run(name+" at "+socket, func(t *testing.T) {
				w, server := startVault(t, socket)
				if _, _, err := w.mount(t, w.vaultVolume(vaultKey, test.parameters)); err != nil {
					t.Fatal(err)
				}
				if _, logins := server.seen(); !slices.Equal(logins, []string{test.login}) {
					t.Errorf("logins %q, want %q", logins, test.login)
				}
			})
		}
	}
}

func TestVaultStoresThatAreNone(t *testing.T) {
	type parameters = map[string]string
	stanza := func(name, address, more, mount, audience string) string {
		return "stores:\n  - name: " + name + "\n    vault:\n      addresses: [\"" + address + "\"]\n" + more +
			"      auth: {method: kubernetes, mount: \"" + mount + "\", audience: \"" + audience + "\"}\n    access: store # the policies of that Vault decide"
	}
	without := func(names ...string) func(*setup, *vaultServer) {
		return func(s *setup, _ *vaultServer) {
			s.options.Backends = slices.DeleteFunc(s.options.Backends, func(b provider.Backend) bool { return slices.Contains(names, b.Name) })
		}
	}
	twice := func(s *setup, server *vaultServer) {
		s.options.Backends = append(s.options.Backends, server.backend(t, "one", "", "twice", "vault"), server.backend(t, "two", "", "twice", "vault"))
	}
	asBundle := func(s *setup, _ *vaultServer) {
		s.options.Backends[0].Name = "default"
		s.options.Backends = s.options.Backends[:1]
	}
	nothing := func(*setup, *vaultServer) {}
	tests := map[string]struct {
		socket     string
		change     func(*setup, *vaultServer)
		parameters parameters
		want       string
	}{
		"another address": {
			"vault.sock", nothing,
			parameters{"vaultAddress": "https://other.invalid"},
			"no store of keymount.yaml has address \"https://other.invalid:443\"; if pods may log in there, the operator adds this:\n" +
				stanza("other-invalid", "https://other.invalid:443", "", "kubernetes", "vault"),
		},
		"http is not https": {
			"openbao.sock", nothing,
			parameters{"openbaoAddress": "http://vault.invalid:8200"},
			"no store of keymount.yaml has address \"http://vault.invalid:8200\"; if pods may log in there, the operator adds this:\n" +
				stanza("vault-invalid", "http://vault.invalid:8200", "", "kubernetes", "openbao"),
		},
		"everything else": {
			"vault.sock", nothing,
			parameters{"vaultAddress": "https://[0:0::1]:8200", "vaultNamespace": "a\", b: c", "vaultAuthMountPath": "k8s", "audience": "mine"},
			"no store of keymount.yaml has address \"https://[::1]:8200\", namespace \"a\\\", b: c\", auth mount \"k8s\"; if pods may log in there, the operator adds this:\n" +
				stanza("1", "https://[::1]:8200", "      namespace: \"a\\\", b: c\"\n", "k8s", "mine"),
		},
		"no default": {
			"openbao.sock", without("default"), nil,
			"the class names no openbaoAddress, and keymount.yaml has no store \"default\"; add the parameter, or the operator this:\n" +
				stanza("default", "https://vault.example:8200", "", "kubernetes", "openbao"),
		},
		"default is a bundle": {
			"vault.sock", asBundle, nil,
			`the class names no vaultAddress, and store "default" of keymount.yaml is no Vault; add the parameter`,
		},
		"two stores": {
			"vault.sock", twice,
			parameters{"vaultAuthMountPath": "twice"},
			`store "one" and store "two" fit auth mount "twice"; add what tells them apart: vaultAddress, vaultNamespace, vaultAuthMountPath or audience`,
		},
		"another audience": {
			"vault.sock", nothing,
			parameters{"audience": "mine"},
			`audience: "mine" is not that of store "default", which is "vault" and which keymount.yaml alone decides; remove the parameter, ` +
				"or have the operator set vault.auth.audience of the store and tokenRequests of the CSIDriver object",
		},
		"a path in the address":  {"vault.sock", nothing, parameters{"vaultAddress": "https://vault.invalid/ui"}, "vaultAddress: is not of the form https://host:port"},
		"a password in it":       {"vault.sock", nothing, parameters{"vaultAddress": "https://a:" + canary + "@vault.invalid"}, "vaultAddress: is not of the form https://host:port"},
		"as the class spells it": {"vault.sock", nothing, parameters{"baoAddress": "https://vault.invalid/ui"}, "baoAddress: is not of the form https://host:port"},
		"of two the first":       {"openbao.sock", nothing, parameters{"vaultAddress": "https://vault.invalid:8200", "openbaoAddress": "x"}, "openbaoAddress: is not of the form https://host:port"},
		"two auth mounts of two prefixes": {
			"openbao.sock", nothing, parameters{"baoAuthMountPath": "kubernetes", "openbaoKubernetesMountPath": "b"}, "baoAuthMountPath and openbaoKubernetesMountPath differ; keep one",
		},
		"no role, another prefix": {"openbao.sock", nothing, parameters{"roleName": "", "baoRoleName": ""}, "roleName: missing; name the role to log in with"},
		"a path for a mount":      {"vault.sock", nothing, parameters{"vaultAuthMountPath": "auth/kubernetes"}, `vaultAuthMountPath: "auth/kubernetes" is more than the name of the mount; write "kubernetes"`},
		"a path with its end": {
			"openbao.sock", nothing,
			parameters{"openbaoKubernetesMountPath": "/v1/auth/kubernetes/login/"},
			`openbaoKubernetesMountPath: "v1/auth/kubernetes/login" is more than the name of the mount; write "kubernetes"`,
		},
		"an audience that no store has": {
			"openbao.sock", nothing,
			parameters{"audience": "mine"},
			`audience: "mine" is not that of store "default", which is "vault" and which keymount.yaml alone decides; remove the parameter, ` +
				"or have the operator set vault.auth.audience of the store and tokenRequests of the CSIDriver object",
		},
		"two stores of one audience": {
			"vault.sock", func(s *setup, server *vaultServer) {
				s.options.Backends = append(s.options.Backends, server.backend(t, "one", "", "kubernetes", "mine"), server.backend(t, "two", "", "kubernetes", "mine"))
			},
			parameters{"audience": "mine"},
			`store "one" and store "two" fit audience "mine"; add what tells them apart: vaultAddress, vaultNamespace, vaultAuthMountPath or audience`,
		},
		"two auth mounts":  {"vault.sock", nothing, parameters{"vaultAuthMountPath": "kubernetes", "vaultKubernetesMountPath": "b"}, "vaultAuthMountPath and vaultKubernetesMountPath differ; keep one"},
		"no role":          {"vault.sock", nothing, parameters{"roleName": ""}, "roleName: missing; name the role to log in with"},
		"strict is a text": {"vault.sock", nothing, parameters{"strict": "very"}, "strict: is not true or false"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w, server := startVault(t, test.socket, test.change)
			w.refused(t, w.vaultVolume(vaultKey, test.parameters), codes.InvalidArgument, app+": "+test.want)
			if requests, logins := server.seen(); requests != nil || logins != nil {
				t.Errorf("the store was asked %q %q", requests, logins)
			}
		})
	}
}

// What the other providers pass over in silence is told, and refused on demand.
func TestVaultWarnings(t *testing.T) {
	const tls = ": has no effect; the TLS settings of the store in keymount.yaml decide"
	tests := map[string]struct{ name, value, object, want string }{
		"unknown parameter":   {"vaultAdress", "x", "", `unknown parameter "vaultAdress"; did you mean "vaultAddress"?`},
		"keymount's own":      {"store", "team", "", `unknown parameter "store"`},
		"CA":                  {"vaultCACertPath", "/ca", "", "vaultCACertPath" + tls},
		"CAs":                 {"baoCADirectory", "/ca", "", "baoCADirectory" + tls},
		"client certificate":  {"openbaoTLSClientCertPath", "/c", "", "openbaoTLSClientCertPath" + tls},
		"client key":          {"vaultTLSClientKeyPath", "/c", "", "vaultTLSClientKeyPath" + tls},
		"server name":         {"vaultTLSServerName", "x", "", "vaultTLSServerName" + tls},
		"no verification":     {"vaultSkipTLSVerify", "true", "", "vaultSkipTLSVerify: has no effect; the server's certificate is always verified"},
		"verification":        {"vaultSkipTLSVerify", "false", "", ""},
		"verification, short": {"vaultSkipTLSVerify", "F", "", ""},
		"verification, 0":     {"baoSkipTLSVerify", "0", "", ""},
		"none, shouted":       {"openbaoSkipTLSVerify", "TRUE", "", "openbaoSkipTLSVerify: has no effect; the server's certificate is always verified"},
		"another role":        {"vaultRoleName", "other", "", "vaultRoleName: has no effect beside roleName; remove it"},
		"an empty one":        {"vaultCACertPath", "", "", ""},
		"unknown field":       {"", "", "secretkey: x", `objects[0]: unknown field "secretkey"; did you mean "secretKey"?`},
		"args of a GET":       {"", "", "secretArgs: {a: b}", "objects[0]: secretArgs: have no effect on a GET; add method: PUT or remove them"},
		"query of a write":    {"", "", `method: PUT, secretPath: "pki/issue/shop?ttl=1h"`, `objects[0]: secretPath: the text after "?" has no effect on a write; use secretArgs or remove it`},
		"decimal permission":  {"", "", "filePermission: 600", `objects[0]: filePermission: 600 is decimal to YAML and is taken as octal; write "0600"`},
		"octal permission":    {"", "", "filePermission: 0600", ""},
		"several, in a place": {"rol", "x", "filePermission: 600", `unknown parameter "rol"; objects[0]: filePermission: 600 is decimal to YAML and is taken as octal; write "0600"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w, _ := startVault(t, "vault.sock")
			objects := strings.Replace(vaultKey, "}", ", "+test.object+"}", 1)
			if strings.Contains(test.object, "secretPath") {
				objects = "[{objectName: a, " + test.object + "}]"
			}
			v := w.vaultVolume(objects, nil)
			if test.name != "" {
				v.Parameters[test.name] = test.value
			}
			if _, _, err := w.mount(t, v); err != nil {
				t.Fatal(err)
			}
			if got := w.warning(t); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			v.Parameters["strict"] = "true"
			_, _, err := w.mount(t, v)
			if (err != nil) != (test.want != "") {
				t.Fatalf("strict: %v", err)
			}
			for part := range strings.SplitSeq(test.want, "; objects") {
				if !strings.Contains(statusText(err), part) {
					t.Errorf("strict: got %v, want %s", err, test.want)
				}
			}
		})
	}
}

// warning is that of the last call, as its log line has it.
func (w *world) warning(t *testing.T) string {
	t.Helper()
	lines := bytes.Split(bytes.TrimSpace(w.log.Bytes()), []byte("\n"))
	var line struct{ Warning string }
	if err := json.Unmarshal(lines[len(lines)-1], &line); err != nil {
		t.Fatal(err)
	}
	return line.Warning
}

func TestVaultPermissions(t *testing.T) {
	const mistake = `bad request: SecretProviderClass shop/app: objects[0]: filePermission: %q is not an octal mode from "0001" to "0777", such as "0400"`
	tests := map[string]struct {
		mode int32
		want string // the warning, or the mistake
	}{
		"":        {0o644, ""}, // the driver's
		"0600":    {0o600, ""},
		`"0600"`:  {0o600, ""},
		"'0400'":  {0o400, ""},
		`"600"`:   {0o600, ""},
		`"420"`:   {0o420, ""},
		"0o640":   {0o640, ""},
		"0420":    {0o420, ""},
		"600":     {0o600, `objects[0]: filePermission: 600 is decimal to YAML and is taken as octal; write "0600"`},
		"444":     {0o444, `objects[0]: filePermission: 444 is decimal to YAML and is taken as octal; write "0444"`},
		"400":     {0o400, `objects[0]: filePermission: 400 is decimal to YAML and is taken as octal; write "0400"`},
		"511":     {0o511, `objects[0]: filePermission: 511 is decimal to YAML and is taken as octal; write "0511", or "0777" if that is meant, of which YAML tools make 511`},
		"510":     {0o510, `objects[0]: filePermission: 510 is decimal to YAML and is taken as octal; write "0510", or "0776" if that is meant, of which YAML tools make 510`},
		"420":     {0o644, `objects[0]: filePermission: 420 is decimal to YAML and no octal mode that makes sense, so it is taken as decimal; write "0644"`},
		"384":     {0o600, `objects[0]: filePermission: 384 is decimal to YAML and no octal mode that makes sense, so it is taken as decimal; write "0600"`},
		"256":     {0o400, `objects[0]: filePermission: 256 is decimal to YAML and no octal mode that makes sense, so it is taken as decimal; write "0400"`},
		"493":     {0o755, `objects[0]: filePermission: 493 is decimal to YAML and no octal mode that makes sense, so it is taken as decimal; write "0755"`},
		"0":       {0o644, `objects[0]: filePermission: "0" is no permission at all; the usual 0644 is taken`},
		"1000":    {0, fmt.Sprintf(mistake, "1000")},
		"07777":   {0, fmt.Sprintf(mistake, "07777")},
		"-600":    {0, fmt.Sprintf(mistake, "-600")},
		"u+r":     {0, fmt.Sprintf(mistake, "u+r")},
		`"384"`:   {0, fmt.Sprintf(mistake, "384")},
		"123":     {0, fmt.Sprintf(mistake, "123")},
		"0x180":   {0, fmt.Sprintf(mistake, "0x180")},
		"[06, 0]": {0, "bad request: SecretProviderClass shop/app: objects[0]: filePermission: not a text"},
	}
	w, _ := startVault(t, "vault.sock")
	for text, test := range tests {
		attributes, err := w.vaultVolume(strings.Replace(vaultKey, "}", ", filePermission: "+text+"}", 1), nil).Attributes()
		if err != nil {
			t.Fatal(err)
		}
		response, err := w.driver.Call(t.Context(), attributes)
		switch {
		case err != nil:
			if got := statusText(err); test.mode != 0 || got != test.want {
				t.Errorf("%s:\ngot  %s\nwant %s", text, got, test.want)
			}
		case response.GetFiles()[0].GetMode() != test.mode || w.warning(t) != test.want:
			t.Errorf("%s: got %04o and %q, want %04o and %q", text, response.GetFiles()[0].GetMode(), w.warning(t), test.mode, test.want)
		}
	}
}

// The mode of files for which the class says none is the driver's.
func TestVaultPermissionOfTheDriver(t *testing.T) {
	w, _ := startVault(t, "vault.sock")
	attributes, err := w.vaultVolume(vaultKey, nil).Attributes()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+w.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for permission, want := range map[string]int32{"": 0o644, "420": 0o644, "256": 0o400} {
		response, err := v1alpha1.NewCSIDriverProviderClient(conn).Mount(t.Context(), &v1alpha1.MountRequest{Attributes: attributes, Permission: permission})
		if err != nil || response.GetFiles()[0].GetMode() != want {
			t.Errorf("%q: got %v", permission, err)
		}
	}
}

// Arguments and queries are part of what a read is; their spelling is not.
func TestVaultReads(t *testing.T) {
	w, server := startVault(t, "vault.sock")
	files, _, err := w.mount(t, w.vaultVolume(`
- {objectName: api, secretPath: pki/issue/shop, secretKey: certificate, method: PUT, secretArgs: {common_name: api, ttl: 24h}}
- {objectName: web, secretPath: pki/issue/shop, secretKey: certificate, method: PUT, secretArgs: {common_name: web, ttl: 24h}}
- {objectName: same, secretPath: /v1/pki/issue/shop, secretKey: certificate, method: POST, secretArgs: {ttl: 24h, common_name: api}}
- {objectName: token, secretPath: aws/sts/shop, secretKey: token}
- {objectName: short, secretPath: "aws/sts/shop?a=%26&ttl=15m", secretKey: token}
- {objectName: again, secretPath: "aws/sts/shop?ttl=15m&a=%26", secretKey: token}
- {objectName: now, secretPath: secret/data/shop/db, secretKey: password}
- {objectName: old, secretPath: "secret/data/shop/db?version=2", secretKey: password}
- {objectName: user, secretPath: v1/secret/data/shop/db, secretKey: user}
`, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"api": canary + " of api", "web": canary + " of web", "same": canary + " of api",
		"token": canary, "short": canary + " for 15m", "again": canary + " for 15m",
		"now": canary, "old": canary + " of old", "user": "shop",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	requests, logins := server.seen()
	slices.Sort(requests)
	wanted := []string{
		"GET aws/sts/shop", "GET aws/sts/shop?a=%26&ttl=15m",
		"GET secret/data/shop/db", "GET secret/data/shop/db?version=2", "PUT pki/issue/shop", "PUT pki/issue/shop",
	}
	if diff := cmp.Diff(wanted, requests); diff != "" || len(logins) != 1 {
		t.Errorf("%d logins, requests (-want +got):\n%s", len(logins), diff)
	}
}

// Nothing that the store has not changed looks like a rotation.
func TestVaultPolls(t *testing.T) {
	w, server := startVault(t, "vault.sock")
	v := w.vaultVolume(`
- {objectName: whole, secretPath: secret/data/shop/db}
- {objectName: lease, secretPath: aws/sts/shop}
- {objectName: key, secretPath: secret/data/shop/db, secretKey: password}
`, nil)
	files, versions, err := w.mount(t, v)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		again, versionsAgain, err := w.mount(t, v)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(files, again) + cmp.Diff(versions, versionsAgain); diff != "" {
			t.Errorf("changed without a change:\n%s", diff)
		}
	}
	if got, want := sortedKeys(versions), []string{"key", "lease", "whole"}; !slices.Equal(got, want) {
		t.Errorf("ids %q, want the objectNames %q", got, want)
	}
	server.mu.Lock()
	server.answers["secret/data/shop/db"] = strings.Replace(server.answers["secret/data/shop/db"], `"shop"`, `"other"`, 1)
	server.mu.Unlock()
	_, changed, err := w.mount(t, v)
	if err != nil {
		t.Fatal(err)
	}
	for file, version := range versions {
		if (changed[file] != version) != (file == "whole") {
			t.Errorf("%s: the version went from %s to %s", file, version, changed[file])
		}
	}
}

// Each socket has its own syntax, at the same time.
func TestSocketsHaveDialects(t *testing.T) {
	folder := ""
	w, _ := startVault(t, "vault.sock", func(s *setup, _ *vaultServer) {
		folder = filepath.Dir(s.sockets[0])
		s.sockets = append(s.sockets, filepath.Join(folder, "openbao.sock"), filepath.Join(folder, "keymount.sock"), filepath.Join(folder, "vault-csi.sock"))
	})
	native := w.vaultVolume("[{path: secret/shop/db, key: password, file: a}]", nil)
	delete(native.Parameters, "roleName")
	native.Parameters["role"] = "shop"
	for socket, good := range map[string]providertest.Volume{
		"vault.sock": w.vaultVolume(vaultKey, nil), "openbao.sock": w.vaultVolume(vaultKey, nil), "keymount.sock": native, "vault-csi.sock": native,
	} {
		driver, err := providertest.Dial(filepath.Join(folder, socket))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := driver.Mount(t.Context(), good, t.TempDir()); err != nil {
			t.Errorf("%s: %v", socket, err)
		}
		other := native
		if class.DialectOf(socket) == class.DialectKeymount {
			other = w.vaultVolume(vaultKey, nil)
		}
		if _, err := driver.Mount(t.Context(), other, t.TempDir()); err == nil {
			t.Errorf("%s takes the other syntax", socket)
		}
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
	}
}
