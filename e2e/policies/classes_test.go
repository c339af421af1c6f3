package policies_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	yamlv3 "gopkg.in/yaml.v3"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// class is a SecretProviderClass that the cases change one thing of.
type class struct {
	apiVersion string
	namespace  string
	provider   string
	parameters map[string]any
}

func validClass() *class {
	return &class{"secrets-store.csi.x-k8s.io/v1", "shop", "keymount", map[string]any{
		"role": "shop",
		"objects": `- path: secret/shop/db
  key: password
  file: db/password
- {path: shop/license, store: local, key: text, file: license}
`,
	}}
}

func (c *class) object() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": c.apiVersion, "kind": "SecretProviderClass",
		"metadata": map[string]any{"name": "app", "namespace": c.namespace},
		"spec":     map[string]any{"provider": c.provider, "parameters": c.parameters},
	}}
}

func classCase(want, name string, change func(*class)) judgement {
	c := validClass()
	change(c)
	kind := classKind
	kind.Version = c.apiVersion[strings.LastIndexByte(c.apiVersion, '/')+1:]
	return judgement{name, kind, c.object(), "keymount-stores", want}
}

// with is the valid class with one more line in its objects.
func with(line string) func(*class) {
	return func(c *class) {
		c.parameters["objects"] = fmt.Sprintf("%s- path: secret/shop/app\n  %s\n", c.parameters["objects"], line)
	}
}

// ofVault is a class of vault-csi-provider, with names and values of parameters.
func ofVault(texts ...string) func(*class) {
	return func(c *class) {
		c.provider, c.parameters = "vault", map[string]any{"roleName": "shop"}
		for i := 0; i < len(texts); i += 2 {
			c.parameters[texts[i]] = texts[i+1]
		}
	}
}

// atVault is the same with the address that is allowed.
func atVault(texts ...string) func(*class) {
	return ofVault(append(texts, "vaultAddress", "https://vault.example:8200")...)
}

func classCases() []judgement {
	const in = `default, local, prod, https://vault.example:8200, namespace=team-shop, mount=clusters/shop, audience=vault`
	foreign := func(names, namespace, in string) string {
		return fmt.Sprintf(`store %s is not for the classes of namespace %s, which may choose %s; name one of these (a class without one means default), `+
			`or have the operator add it to the ConfigMap keymount/keymount-stores`, names, namespace, in)
	}
	unclear := func(line string) string {
		return fmt.Sprintf(`objects: %q has the word store where this policy cannot tell which store is meant: write it as store: NAME on one line, `+
			`without anchors, tags and question marks; where it means no store, write it as part of a longer word or as all of a value`, line)
	}
	nowhere := func(places, name, namespace, in string) string {
		return fmt.Sprintf(`%s without an address could mean a store at any address: add %s, where the classes of namespace %s may choose %s`, places, name, namespace, in)
	}
	escaped := func(line string) string {
		return fmt.Sprintf(`objects: %q has an escape behind which a store could hide: write the character itself in place of \x.., \u.... and \U........, `+
			`and end no line with a backslash`, line)
	}
	return []judgement{
		classCase("", "valid", func(*class) {}),
		classCase("", "no parameters", func(c *class) { c.parameters = nil }),
		classCase("", "the class's store", func(c *class) { c.parameters["store"] = "prod" }),
		classCase("", "another provider", func(c *class) { c.provider, c.parameters["store"] = "aws", "eu" }),
		classCase("", "blanks and quotes", with(`'store' : "prod"`)),
		classCase("", "JSON", func(c *class) {
			c.parameters["objects"] = `[{"path":"secret/shop/db","store":"prod","key":"a","file":"a"}]`
		}),
		classCase("", "a path with the word", with("file: store/bookstore.store")),
		classCase("", "a value of the word", with(`key: "store" # all of it`)),
		classCase("", "a backslash in a template", with(`template: "{{ .a }}\n"`)),
		classCase(foreign(`"eu"`, "shop", in), "a foreign store of the class", func(c *class) { c.parameters["store"] = "eu" }),
		classCase(foreign(`"local"`, "blog", "default"), "a store of another namespace", func(c *class) { c.namespace = "blog" }),
		classCase(foreign(`"eu"`, "shop", in), "v1alpha1", func(c *class) {
			c.apiVersion, c.parameters["store"] = "secrets-store.csi.x-k8s.io/v1alpha1", "eu"
		}),
		classCase(foreign(`"eu"`, "shop", in), "a foreign store of an object", with("store: eu")),
		classCase(foreign(`"eu", "us"`, "shop", in), "two foreign stores", with("store: eu\n- {path: a, store: us}")),
		classCase(foreign(`"eu"`, "shop", in), "the first of two", with("store: eu\n  store: prod")),
		classCase(foreign(`"eu"`, "shop", in), "a flow map", with("x: 1\n- {path: a, store: eu}")),
		classCase(foreign(`"eu"`, "shop", in), "JSON of a foreign store", func(c *class) { c.parameters["objects"] = `[{"path":"a","store":"eu"}]` }),
		classCase(foreign(`"eu-west"`, "shop", in), "a comment behind it", with("store: eu-west # not prod")),
		classCase(escaped(`"st\u006fre": eu`), "an escaped key", with(`"st\u006fre": eu`)),
		classCase(escaped(`"sto\`), "a key over two lines", with("\"sto\\\n    re\": eu")),
		classCase(unclear(`? store`), "an explicit key", with("? store\n  : eu")),
		classCase(unclear(`store:`), "the name on the next line", with("store:\n    eu")),
		classCase(unclear(`store: >-`), "a folded name", with("store: >-\n    eu")),
		classCase(unclear(`store: *eu`), "an alias", with("store: *eu")),
		classCase(unclear(`store: &eu eu`), "an anchor", with("store: &eu eu")),
		classCase(unclear(`store: !!str eu`), "a tag", with("store: !!str eu")),
		classCase(unclear(`store: [eu]`), "a list", with("store: [eu]")),
		classCase(unclear(`# the store of eu`), "a comment with the word", with("# the store of eu")),

		classCase("", "Vault's address", ofVault("vaultAddress", "https://vault.example:8200")),
		classCase("", "Vault's namespace", atVault("vaultNamespace", "team-shop")),
		classCase("", "Vault's auth mount", atVault("vaultAuthMountPath", "clusters/shop")),
		classCase("", "Vault's audience", atVault("audience", "vault")),
		classCase("", "an audience, and the default store", ofVault("audience", "eu")),
		classCase("", "nothing of a Vault", ofVault("vaultAddress", "")),
		classCase("", "text that is no object's store", ofVault("objects", "- objectName: store eu")),
		classCase(foreign(`"https://vault.example:8201"`, "shop", in), "another address", ofVault("vaultAddress", "https://vault.example:8201")),
		classCase(foreign(`"https://vault.example:8200/"`, "shop", in), "the address in another spelling", ofVault("baoAddress", "https://vault.example:8200/")),
		classCase(foreign(`"namespace=team-blog"`, "shop", in), "another namespace of Vault", atVault("openbaoNamespace", "team-blog")),
		classCase(foreign(`"mount=kubernetes"`, "shop", in), "another auth mount", atVault("vaultKubernetesMountPath", "kubernetes")),
		classCase(foreign(`"audience=eu"`, "shop", in), "another audience", atVault("audience", "eu")),
		classCase(nowhere(`"mount=clusters/shop"`, "vaultAddress", "shop", "https://vault.example:8200"), "an auth mount at any address",
			ofVault("vaultAuthMountPath", "clusters/shop", "audience", "vault")),
		classCase(nowhere(`"namespace=team-shop", "mount=clusters/shop"`, "openbaoAddress", "shop", "https://vault.example:8200"), "a namespace at any address", func(c *class) {
			c.provider, c.parameters = "openbao", map[string]any{"vaultNamespace": "team-shop", "baoAuthMountPath": "clusters/shop"}
		}),
		classCase(nowhere(`"namespace=team-shop"`, "vaultAddress", "blog", "none"), "a namespace where no address is allowed", func(c *class) {
			ofVault("vaultNamespace", "team-shop")(c)
			c.namespace = "blog"
		}),
		classCase(foreign(`"https://eu.example"`, "shop", in), "OpenBao", func(c *class) {
			c.provider, c.parameters = "openbao", map[string]any{"openbaoAddress": "https://eu.example"}
		}),
	}
}

// testSpellings writes a foreign store in many ways and in many places. Whatever a
// reader of YAML takes for it, here one that follows anchors and merges, too, is denied.
func (j *judge) testSpellings(t *testing.T) {
	places := []string{
		"- path: a\n  %s\n", "- %s\n  path: a\n", "- {path: a, %s}\n", "- {%s, path: a}\n", "[{\"path\":\"a\",%s}]",
		"- &a {%s}\n- {<<: *a, path: b}\n", "- path: a\n  args: {x: &x {%s}}\n- <<: *x\n", "---\n- path: a\n  %s\n",
		"- path: |\n   %s\n  %s\n", "- path: \"\n   %s\"\n  %s\n", "- ? path\n  : a\n  ? %s\n", "- path: &s store\n  *s : eu\n  %s\n",
	}
	keys := []string{
		`store`, `"store"`, `'store'`, `"s\x74ore"`, `"s\u0074ore"`, `"s\U00000074ore"`, "\"sto\\\n    re\"", "\"sto\\\r\n    re\"", "\"sto\\\u0085    re\"",
		"\"sto\\\u2028re\"", "? store\n ", "? \"store\"\n ", "? |-\n    store\n ", "? >-\n    store\n ", "!!str store", "! store", "&k store", "?store",
		"store\t", "store ", "? store # key\n ",
	}
	values := []string{
		": eu", ":eu", ": \"eu\"", ": 'eu'", ": &v eu", ": !!str eu", ":\n    eu", ": # value\n    eu", ": |-\n    eu", ": >-\n    eu", ": \"e\\\n     u\"",
		": \"e\\x75\"", ":\teu", ":   eu   ", ": eu # prod", ": prod\n  store: eu", " : eu", "\n  : eu",
	}
	foreign := 0
	for _, place := range places {
		for _, key := range keys {
			for _, value := range values {
				text := strings.ReplaceAll(place, "%s", key+value)
				if !namesEU(text) {
					continue
				}
				foreign++
				c := classCase("", "", func(c *class) { c.parameters["objects"] = text })
				if err := j.create(t.Context(), c.kind, c.object); err == nil {
					t.Errorf("accepted: %q", text)
				}
			}
		}
	}
	if foreign < 1000 {
		t.Errorf("only %d texts name a foreign store; the test has lost its sense", foreign)
	}
}

// namesEU tells whether an object of the list has the store eu.
func namesEU(text string) bool {
	var list []map[any]any
	if yamlv3.Unmarshal([]byte(text), &list) != nil {
		return false // keymount refuses it
	}
	for _, object := range list {
		if object["store"] == "eu" {
			return true
		}
	}
	return false
}

// testExamples lets every class of examples/ pass with the stores of its values.yaml.
func (j *judge) testExamples(t *testing.T) {
	j.allow(t, map[string]string{"_all": "default prod http://vault.vault.svc:8200"})
	defer j.allow(t, allowed)
	j.await(t, classCase("", "prod in any namespace", func(c *class) { c.namespace, c.parameters = "blog", map[string]any{"store": "prod"} }), isAllowed)
	files, err := filepath.Glob("../../examples/*/2-class.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d classes: %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &object.Object); err != nil {
			t.Fatal(err)
		}
		object.SetNamespace("blog") // their own are not there
		if err := j.create(t.Context(), classKind, object); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// testUpdates changes a class that is there.
func (j *judge) testUpdates(t *testing.T) {
	ctx, classes := t.Context(), j.objects.Resource(classKind).Namespace("shop")
	object := validClass().object()
	object.SetFinalizers([]string{"example.org/hold"})
	if _, err := classes.Create(ctx, object, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	update := func(change func(*unstructured.Unstructured), options meta.UpdateOptions) error {
		found, err := classes.Get(ctx, "app", meta.GetOptions{})
		if err != nil {
			return fmt.Errorf("get the class: %w", err)
		}
		change(found)
		_, err = classes.Update(ctx, found, options)
		return err //nolint:wrapcheck // its text is what is tested
	}
	dry := meta.UpdateOptions{DryRun: []string{meta.DryRunAll}}
	toEU := func(o *unstructured.Unstructured) {
		_ = unstructured.SetNestedField(o.Object, "eu", "spec", "parameters", "store")
	}
	label := func(o *unstructured.Unstructured) { o.SetLabels(map[string]string{"a": "b"}) }
	release := func(o *unstructured.Unstructured) { o.SetFinalizers(nil) }

	t.Run("to a foreign store", func(t *testing.T) { wantDenied(t, update(toEU, dry)) })
	t.Run("of a label", func(t *testing.T) { wantAllowed(t, update(label, dry)) })
	j.allow(t, map[string]string{"_all": "default"})
	defer j.allow(t, allowed)
	j.await(t, classCase("", "a class of before", func(*class) {}), isDenied)
	t.Run("of a label of a class of before", func(t *testing.T) { wantDenied(t, update(label, dry)) })
	if err := classes.Delete(ctx, "app", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Run("to a foreign store while it goes", func(t *testing.T) { wantDenied(t, update(toEU, dry)) })
	t.Run("of the finalizer", func(t *testing.T) { wantAllowed(t, update(release, meta.UpdateOptions{})) })
}

// testNoList takes the list away: nobody may write classes then.
func (j *judge) testNoList(t *testing.T) {
	if err := j.cluster.Client.CoreV1().ConfigMaps("keymount").Delete(t.Context(), "keymount-stores", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	j.await(t, classCase("", "any class", func(*class) {}), func(err error) bool {
		return err != nil && strings.Contains(err.Error(), "'keymount-stores' with binding 'keymount-stores' denied request: failed to configure binding: no params found")
	})
}

func wantDenied(t *testing.T, err error) {
	t.Helper()
	if !isDenied(err) {
		t.Errorf("the answer is %v, want a denial", err)
	}
}

func wantAllowed(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
