package convert_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/convert"
	"github.com/keymount/keymount/manifest"
)

// TestFields has an object of each kind with all the fields that its definition has, and one
// that it has not. Each of them makes a difference to what comes out, or is in the report, or
// is idle for the reason in the list beside the object.
func TestFields(t *testing.T) {
	inputs, err := filepath.Glob("testdata/fields/*.yaml")
	if err != nil || len(inputs) < 12 {
		t.Fatalf("%d kinds: %v", len(inputs), err)
	}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			idle := idleFields(t, strings.TrimSuffix(input, ".yaml")+".idle")
			whole := convert.Convert([]*manifest.File{manifest.Parse("input.yaml", text)}, convert.Options{})
			var object yaml.Node
			if err := yaml.Unmarshal(text, &object); err != nil {
				t.Fatal(err)
			}
			_, others, _ := strings.Cut(string(text), "\n---\n")
			leaves(object.Content[0], "", func(leaf string, without func()) {
				if leaf == "apiVersion" || leaf == "kind" {
					return
				}
				without()
				changed, err := convert.YAML(object.Content[0])
				if err != nil {
					t.Fatal(err)
				}
				file := manifest.Parse("input.yaml", []byte(string(changed)+"---\n"+others))
				differs := made(t, convert.Convert([]*manifest.File{file}, convert.Options{})) != made(t, whole)
				isIdle := idle[leaf] || isBelowAny(idle, leaf)
				switch {
				case differs && idle[leaf]:
					t.Errorf("%s is said to be idle, and makes a difference", leaf)
				case !differs && !isIdle && !isNoted(whole, leaf):
					t.Errorf("%s makes no difference and is not in the report", leaf)
				}
			})
		})
	}
}

// leaves visits each field of a node that has none below, with a function that takes it out
// until the visit ends.
func leaves(n *yaml.Node, at string, visit func(leaf string, without func())) {
	step := 1
	if n.Kind == yaml.MappingNode {
		step = 2
	}
	for i := 0; i < len(n.Content); i += step {
		name, value := at+"["+strconv.Itoa(i)+"]", n.Content[i]
		if step == 2 {
			name, value = strings.TrimPrefix(at+"."+n.Content[i].Value, "."), n.Content[i+1]
		}
		if len(value.Content) > 0 {
			leaves(value, name, visit)
			continue
		}
		before := n.Content
		visit(name, func() { n.Content = append(append([]*yaml.Node(nil), before[:i]...), before[i+step:]...) })
		n.Content = before
	}
}

// made is all that came out, without the lines of the input.
func made(t *testing.T, r *convert.Result) string {
	t.Helper()
	text, err := convert.YAML(r.Documents()...)
	if err != nil {
		t.Fatal(err)
	}
	out := string(text)
	for _, n := range r.Notes {
		n.Line, n.Column = 0, 0
		out += fmt.Sprintf("%+v\n", n)
	}
	return out
}

// isNoted tells whether a note is about a field, or about one that it is in.
func isNoted(r *convert.Result, leaf string) bool {
	for _, n := range r.Notes {
		if n.Field != "" && n.Field != "spec" && (n.Field == leaf || isIn(leaf, n.Field)) {
			return true
		}
	}
	return false
}

func isIn(leaf, field string) bool {
	return strings.HasPrefix(leaf, field+".") || strings.HasPrefix(leaf, field+"[")
}

func isBelowAny(fields map[string]bool, leaf string) bool {
	for field := range fields {
		if isIn(leaf, field) {
			return true
		}
	}
	return false
}

// idleFields reads a list of fields, each with its reason.
func idleFields(t *testing.T, file string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	idle := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		field, why, ok := strings.Cut(line, ": ")
		if !ok || strings.TrimSpace(why) == "" {
			t.Fatalf("%s: %q has no reason", file, line)
		}
		idle[field] = true
	}
	return idle
}
