package main_test

import (
	"encoding/json"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/bundle"
	"github.com/keymount/keymount/store/vault"
)

// TestChartKnowsEveryField holds the schema of the chart's values and the structs of
// the package config together: Helm refuses what keymount would, and nothing else.
func TestChartKnowsEveryField(t *testing.T) {
	data, err := os.ReadFile("deploy/chart/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Definitions map[string]struct {
			Properties map[string]json.RawMessage `json:"properties"`
		} `json:"definitions"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	structs := map[string][]string{}
	addStructs(reflect.TypeFor[config.Config](), "", structs)
	for _, k := range all.All() {
		structs["Store"] = append(structs["Store"], k.Name())
		addStructs(reflect.TypeOf(k.New()), strings.ToUpper(k.Name()[:1])+k.Name()[1:], structs)
	}
	slices.Sort(structs["Store"])
	for name, want := range structs {
		got := slices.Sorted(maps.Keys(schema.Definitions[name].Properties))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("definition %s of deploy/chart/values.schema.json does not have the fields of config.%s (-config +chart):\n%s", name, name, diff)
		}
	}
}

// addStructs adds the YAML names of a struct's fields, sorted, and those of all
// structs within. Those of a kind of store are called after it: Vault, VaultAuth.
func addStructs(t reflect.Type, kind string, structs map[string][]string) {
	switch t.Kind() { //nolint:exhaustive // the others hold no structs
	case reflect.Pointer, reflect.Slice, reflect.Map:
		addStructs(t.Elem(), kind, structs)
	case reflect.Struct:
		name := kind + strings.TrimPrefix(t.Name(), "Settings")
		for field := range t.Fields() {
			if field.IsExported() && field.Tag.Get("yaml") != "-" {
				if yamlName := field.Tag.Get("yaml"); yamlName != "" {
					structs[name] = append(structs[name], yamlName)
				}
				addStructs(field.Type, kind, structs)
			}
		}
		slices.Sort(structs[name])
	}
}

// TestChartRepeatsTheDefaults holds what the chart says by itself and the defaults of
// keymount.yaml together: templates cannot ask Go.
func TestChartRepeatsTheDefaults(t *testing.T) {
	for _, repeated := range []struct{ file, expression, want string }{
		{"values.yaml", `(?m)^providersDir: (.*)$`, path.Dir(config.DefaultSocket)},
		{"templates/_config.tpl", `ne \.Values\.providersDir "(.*?)"`, path.Dir(config.DefaultSocket)},
		{"templates/_config.tpl", `"%s/(.*?)" \.Values\.providersDir`, path.Base(config.DefaultSocket)},
		{"templates/_config.tpl", `\$store\.name \| default "(.*?)"`, config.DefaultStore},
		{"templates/_config.tpl", `\$audience = \.audience \| default "(.*?)"`, bundle.DefaultAudience},
		{"templates/_config.tpl", `\.auth .*\.audience \| default "(.*?)"`, vault.DefaultAudience},
	} {
		text, err := os.ReadFile(filepath.Join("deploy/chart", repeated.file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(repeated.expression).FindAllSubmatch(text, -1)
		if len(found) != 1 || string(found[0][1]) != repeated.want {
			t.Errorf("deploy/chart/%s: %s finds %q, want one place with %q", repeated.file, repeated.expression, found, repeated.want)
		}
	}
}

// TestChartCarriesGoodConfiguration reads the config of the values that the chart is
// tested with.
func TestChartCarriesGoodConfiguration(t *testing.T) {
	files, err := filepath.Glob("deploy/chart/ci/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var values struct{ Config yaml.Node }
		if err := yaml.Unmarshal(data, &values); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		text, err := yaml.Marshal(&values.Config)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if _, err := config.Parse(text, all.All()); err != nil {
			t.Errorf("%s: config: %v", file, err)
		}
	}
}

// TestChartHasTheProjectsVersion compares the chart with the newest release in
// CHANGELOG.md; before the first one it is 0.0.0.
func TestChartHasTheProjectsVersion(t *testing.T) {
	changes, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("deploy/chart/Chart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := "0.0.0"
	if m := regexp.MustCompile(`(?m)^## \[v?(\d+\.\d+\.\d+[^\]]*)\]`).FindSubmatch(changes); m != nil {
		want = string(m[1])
	}
	var chart struct {
		Version    string `yaml:"version"`
		AppVersion string `yaml:"appVersion"`
	}
	if err := yaml.Unmarshal(data, &chart); err != nil {
		t.Fatal(err)
	}
	if chart.Version != want || chart.AppVersion != want {
		t.Errorf("deploy/chart/Chart.yaml: version %s and appVersion %s; the project's is %s", chart.Version, chart.AppVersion, want)
	}
}
