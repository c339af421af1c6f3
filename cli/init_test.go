package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/schema"
	"github.com/keymount/keymount/store/all"
)

const initConfig = `stores:
  - name: prod
    vault: {addresses: [https://vault:8200]}
    access: store
  - name: local
    bundle: {file: secrets.age, identityFile: key.txt}
    access: [{namespaces: [shop], serviceAccounts: ["*"], paths: ["secret/{namespace}/**"]}]
`

// What init class prints is a class to the schema and to the parser of mounts, of each form,
// and in JSON the same.
func TestInitClass(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keymount.yaml")
	if err := os.WriteFile(file, []byte(initConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, _ := run(t, "__complete", "init", "class", "--form", "")
	forms := strings.Split(strings.TrimSpace(out), "\n")
	for _, form := range forms[:len(forms)-1] {
		for store, wantsRole := range map[string]bool{"prod": true, "local": false} {
			args := []string{"init", "class", "--config", file, "--store", store, "--form", form, "-n", "shop", "--name", "api", "--path", "secret/shop/db"}
			code, text, errOut := run(t, args...)
			if code != 0 || errOut != "" {
				t.Fatalf("%q: exit code %d, %s", args, code, errOut)
			}
			if !strings.HasPrefix(text, schema.Header(schema.Class)+"\n") {
				t.Errorf("%s: has no header", form)
			}
			value := fitsSchema(t, schema.Class, text)
			parameters := parametersOf(t, text)
			if (parameters["role"] == "api") != wantsRole {
				t.Errorf("%s of %s: role %q", form, store, parameters["role"])
			}
			parsesInMount(t, parameters)
			lintsClean(t, file, text)
			_, asJSON, _ := run(t, append(args, "-o", "json")...)
			var same any
			if err := json.Unmarshal([]byte(asJSON), &same); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(value, same); diff != "" {
				t.Errorf("%s in JSON:\n%s", form, diff)
			}
		}
	}
}

// What init config prints is right, and fits the schema.
func TestInitConfig(t *testing.T) {
	_, text, _ := run(t, "init", "config")
	if _, err := config.Parse([]byte(text), all.All()); err != nil || !strings.HasPrefix(text, schema.Header(schema.Config)+"\n") {
		t.Errorf("%v\n%s", err, text)
	}
	fitsSchema(t, schema.Config, text)
}

// fitsSchema holds a YAML text against what the command schema prints, and returns its value.
func fitsSchema(t *testing.T, name, text string) any {
	t.Helper()
	_, printed, _ := run(t, "schema", name)
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(printed))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("it", document); err != nil {
		t.Fatal(err)
	}
	against, err := compiler.Compile("it")
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	if err := against.Validate(value); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	return value
}

// lintsClean has lint find nothing in a class for this keymount.yaml, whose rules say what
// may be read.
func lintsClean(t *testing.T, config, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "class.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := run(t, "lint", "--strict", "--config", config, file); code != 0 {
		t.Errorf("lint: exit code %d, %s%s", code, out, errOut)
	}
}

func parametersOf(t *testing.T, text string) map[string]string {
	t.Helper()
	var c struct {
		Spec struct{ Parameters map[string]string }
	}
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c.Spec.Parameters
}

// parsesInMount reads parameters as a mount does.
func parsesInMount(t *testing.T, parameters map[string]string) {
	t.Helper()
	c, err := config.Parse([]byte(initConfig), all.All())
	if err != nil {
		t.Fatal(err)
	}
	stores := map[string]class.Store{}
	for _, s := range c.Stores {
		stores[s.Name] = class.Store{Traits: s.Kind.Traits(), Settings: s.Settings}
	}
	parameters["secretProviderClass"] = "api"
	for name, value := range map[string]string{"pod.name": "p", "pod.namespace": "shop", "pod.uid": "u", "serviceAccount.name": "api"} {
		parameters["csi.storage.k8s.io/"+name] = value
	}
	attributes, err := json.Marshal(parameters)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := class.Parse(class.Call{Dialect: class.DialectKeymount, Attributes: string(attributes), Permission: "420"}, stores); err != nil {
		t.Error(err)
	}
}

// Each schema is printed as it lies in the repository.
func TestSchema(t *testing.T) {
	for _, name := range schema.Names() {
		want, err := os.ReadFile("../schema/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if code, out, _ := run(t, "schema", name); code != 0 || !bytes.Equal(want, []byte(out)) {
			t.Errorf("%s: exit code %d, %d bytes of %d", name, code, len(out), len(want))
		}
	}
}
