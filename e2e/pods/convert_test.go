package pods_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/convert"
	"github.com/keymount/keymount/e2e/image"
	"github.com/keymount/keymount/manifest"
)

// conversion is an input of convert, and the files that its tool made of the secrets of
// testConverted.
type conversion struct {
	name  string
	input string
	files map[string]string
}

const convertedAuth = `
apiVersion: secrets.hashicorp.com/v1beta1
kind: VaultAuth
metadata: {name: default}
spec: {method: kubernetes, mount: kubernetes, kubernetes: {role: e2e, serviceAccount: app, audiences: [vault]}}
---`

const convertedStore = `
apiVersion: external-secrets.io/v1
kind: SecretStore
metadata: {name: vault}
spec: {provider: {vault: {server: "https://vault.invalid:8200", path: secret, auth: {kubernetes: {mountPath: kubernetes, role: e2e, serviceAccountRef: {name: app}}}}}}
---`

// conversions are two of each tool whose objects become classes.
func conversions() []conversion {
	class := func(name, objects string) string {
		return fmt.Sprintf(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: %s}
spec: {provider: vault, parameters: {roleName: e2e, objects: %q}}
`, name, objects)
	}
	external := func(name, spec string) string {
		return convertedStore + fmt.Sprintf("\napiVersion: external-secrets.io/v1\nkind: ExternalSecret\nmetadata: {name: %s}\nspec: {secretStoreRef: {name: vault}, %s}\n", name, spec)
	}
	static := func(name, destination string) string {
		return convertedAuth + fmt.Sprintf("\napiVersion: secrets.hashicorp.com/v1beta1\nkind: VaultStaticSecret\nmetadata: {name: %s}\nspec: {mount: secret, type: kv-v2, path: e2e/converted/db, destination: {%s}}\n", name, destination)
	}
	return []conversion{
		{"csi-key", class("csi-key", "[{objectName: db/password, secretPath: secret/data/e2e/converted/db, secretKey: password}]"), map[string]string{"db/password": "fake-1"}},
		{"csi-values", class("csi-values", "[{objectName: user, secretPath: secret/data/e2e/converted/db, secretKey: user}, {objectName: host, secretPath: v1/secret/data/e2e/converted/host, secretKey: name}]"), map[string]string{"user": "shop", "host": "db.shop.svc"}},
		{"eso-extract", external("eso-extract", "dataFrom: [{extract: {key: e2e/converted/db}}]"), map[string]string{"user": "shop", "password": "fake-1"}},
		{"eso-template", external("eso-template", `target: {template: {data: {conf: "user={{ .u }} host={{ .h | upper }}"}}},
 data: [{secretKey: u, remoteRef: {key: e2e/converted/db, property: user}}, {secretKey: h, remoteRef: {key: e2e/converted/host, property: name}}]`), map[string]string{"conf": "user=shop host=DB.SHOP.SVC"}},
		{"vso-static", static("vso-static", "name: vso, transformation: {excludeRaw: true}"), map[string]string{"user": "shop", "password": "fake-1"}},
		{"vso-template", static("vso-template", `name: vso, transformation: {excludes: [".*"], templates: {login: {text: '{{ get .Secrets "user" }}:{{ .Secrets.password | b64enc }}'}}}`), map[string]string{"login": "shop:ZmFrZS0x"}},
	}
}

// testConverted mounts what convert makes of other tools' objects, two of each, in pods that
// read the very Vault.
func (s *suite) testConverted(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "converted", "fast")
	s.put(t, "e2e/converted/db", map[string]any{"user": "shop", "password": "fake-1"})
	s.put(t, "e2e/converted/host", map[string]any{"name": "db.shop.svc"})
	for _, one := range conversions() {
		t.Run(one.name, func(t *testing.T) {
			s.apply(t, c.converted(t, one.input))
			c.running(one.name, one.name)
			files, _ := c.tree(one.name)
			if diff := cmp.Diff(one.files, files); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
	for name, template := range map[string]string{
		"agent-template": `{{ with secret "secret/data/e2e/converted/db" }}{{ .Data.data.user }}:{{ .Data.data.password }}{{ end }}`,
		"agent-range":    `{{ with secret "secret/data/e2e/converted/db" }}{{ range $k, $v := .Data.data }}{{ $k }}={{ $v }} {{ end }}{{ end }}`,
	} {
		t.Run(name, func(t *testing.T) {
			s.apply(t, c.converted(t, c.injected(name, template)))
			c.ready(t, c.namespace, name, readyLimit)
			want := map[string]string{"agent-template": "shop:fake-1", "agent-range": "password=fake-1 user=shop "}[name]
			if got, err := c.exec(t, c.namespace, name, "cat", "/vault/secrets/app.conf"); err != nil || got != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
}

// injected is a pod for the agent's injector.
func (c *scene) injected(name, template string) string {
	selector := "{}"
	if c.node != "" {
		selector = "{kubernetes.io/hostname: " + c.node + "}"
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: %s
  annotations:
    vault.hashicorp.com/agent-inject: "true"
    vault.hashicorp.com/role: e2e
    vault.hashicorp.com/agent-inject-template-app.conf: '%s'
spec:
  serviceAccountName: app
  terminationGracePeriodSeconds: 0
  nodeSelector: %s
  tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]
  containers: [{name: app, image: %s, command: [sleep, "1000000"]}]
`, name, template, selector, image.BusyboxImage)
}

// converted are the classes and pods that convert makes of an input, for the store prod.
func (c *scene) converted(t *testing.T, input string) string {
	t.Helper()
	// The store of the suite has an address and rules of its own.
	r := convert.Convert([]*manifest.File{manifest.Parse("input.yaml", []byte(c.placed(input)))}, convert.Options{Store: "prod"})
	text, err := convert.YAML(append(r.Classes, r.Pods...)...)
	if err != nil || len(r.Classes) == 0 {
		t.Fatalf("nothing converted of %s: %v, %v", input, r.Notes, err)
	}
	return string(text)
}

// placed has each object in the scene's namespace.
func (c *scene) placed(input string) string {
	input = strings.ReplaceAll(input, "metadata: {", "metadata: {namespace: "+c.namespace+", ")
	return strings.ReplaceAll(input, "metadata:\n", "metadata:\n  namespace: "+c.namespace+"\n")
}
