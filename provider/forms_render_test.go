package provider_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/trial"
)

// TestFormsAreTried tries every form as it is documented, without a node: made-up secrets
// stand in for a store, for that of any version as well.
func TestFormsAreTried(t *testing.T) {
	chain := newChain(t)
	for _, f := range readForms(t) {
		t.Run(f.Form, func(t *testing.T) {
			c := operatorOf(t, f)
			made := map[string]map[string]secret.Tree{"default": chain.trees(t, f.Secrets), "eu": chain.trees(t, f.Elsewhere)}
			parameters := map[string]string{"objects": f.Objects}
			if f.Store == "versions" {
				parameters["role"] = "shop"
			}
			p := pod("shop", "api")
			issuer, err := trial.NewIssuer(p)
			if err != nil {
				t.Fatal(err)
			}
			outcome, err := trial.Try{
				Class: trial.Class{Name: "app", Dialect: class.DialectKeymount, Parameters: parameters}, Pod: p,
				Config: c, Secrets: made, Issuer: issuer, Version: "v0.0.0-test", Log: slog.New(slog.DiscardHandler),
			}.Mount(t.Context())
			if err != nil || outcome.Message != "" {
				t.Fatalf("%v, %s", err, outcome.Message)
			}
			got, modes := map[string]string{}, map[string]string{}
			for _, file := range outcome.Files {
				got[file.Path] = chain.describe(file.Contents.Reveal())
				if mode := fmt.Sprintf("%04o", file.Mode); mode != "0444" {
					modes[file.Path] = mode
				}
			}
			if diff := cmp.Diff(f.Files, got); diff != "" {
				t.Errorf("files (-documented +tried):\n%s", diff)
			}
			if len(modes)+len(f.Modes) > 0 {
				if diff := cmp.Diff(f.Modes, modes); diff != "" {
					t.Errorf("modes (-documented +tried):\n%s", diff)
				}
			}
		})
	}
}

// operatorOf is a keymount.yaml for a form.
func operatorOf(t *testing.T, f form) *config.Config {
	t.Helper()
	text := `stores:
  - {name: default, bundle: {file: a, identityFile: b}, access: [{namespaces: ["*"], serviceAccounts: ["*"], paths: ["**"]}]}
  - {name: eu, bundle: {file: a, identityFile: b}, access: [{namespaces: ["*"], serviceAccounts: ["*"], paths: ["{namespace}/eu"]}]}
`
	if f.Store == "versions" {
		text = `stores: [{vault: {addresses: ["https://vault.invalid"], mounts: {shop: kv2}}, access: store}]`
	}
	c, err := config.Parse([]byte(text), all.All())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// trees are the secrets of a document by path.
func (c certificates) trees(t *testing.T, document string) map[string]secret.Tree {
	t.Helper()
	if document == "" {
		return map[string]secret.Tree{}
	}
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(document), &node); err != nil {
		t.Fatal(err)
	}
	c.replaceIn(&node)
	text, err := yaml.Marshal(&node)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := trial.ParseSecrets("secrets", text)
	if err != nil {
		t.Fatal(err)
	}
	c2, err := config.Parse([]byte(`stores: [{bundle: {file: a, identityFile: b}}]`), all.All())
	if err != nil {
		t.Fatal(err)
	}
	of, err := parsed.For(c2)
	if err != nil {
		t.Fatal(err)
	}
	return of["default"]
}

// replaceIn puts real certificates in place of their names.
func (c certificates) replaceIn(node *yaml.Node) {
	if node.Kind == yaml.ScalarNode {
		if text, _ := c.replace(node.Value).(string); text != node.Value {
			node.SetString(text)
		}
	}
	for _, child := range node.Content {
		c.replaceIn(child)
	}
}
