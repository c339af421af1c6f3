package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what was got into testdata/out.md")

func TestGenerate(t *testing.T) {
	got, err := generate("testdata/in", "testdata/kinds")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/out.md", got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/out.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got:\n%s\nwhen it is better than testdata/out.md: go test . -update", got)
	}
}

func TestMistakes(t *testing.T) {
	tests := map[string]struct{ field, want string }{
		"no comment":   {"Name string `yaml:\"name\"`", "Config.Name: no comment"},
		"no tag":       {"// First comes.\nFirst int `yaml:\"first\"`\n// Name is a name.\nName string", "Config.Name: no yaml tag"},
		"unknown type": {"// Name is a name.\nName map[string]error `yaml:\"name\"`", "Config.Name: no words for a field of type"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			write(t, filepath.Join(folder, "config.go"), "package config\n\n// Config is it.\ntype Config struct {\n"+test.field+"\n}\n")
			write(t, filepath.Join(folder, "testdata", "example.yaml"), "name: x\n")
			if _, err := generate(folder, ""); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestMistakesOfKinds(t *testing.T) {
	const declares = "package lake\n\ntype Kind struct{}\n\nfunc (Kind) New() kind.Settings { return nil }\n"
	const named = "func (Kind) Name() string { return \"lake\" }\n"
	const settings = "// Settings is water.\ntype Settings struct {\n\t// Depth is how deep it is.\n\tDepth int `yaml:\"depth\"`\n}\n"
	tests := map[string]struct{ source, want string }{
		"no mistake":      {declares + named + settings, ""},
		"no settings":     {declares + named, "declares a kind of store and no struct Settings with yaml tags"},
		"another name":    {declares + named + strings.ReplaceAll(settings, "Settings", "Options"), "declares a kind of store and no struct Settings with yaml tags"},
		"another folder":  {declares + strings.ReplaceAll(named, "lake", "sea") + settings, `declares the kind "sea" in the folder "lake"`},
		"no name":         {declares + settings, `declares the kind "" in the folder "lake"`},
		"a computed name": {declares + strings.ReplaceAll(named, `"lake"`, "name()") + settings, `declares the kind "" in the folder "lake"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			write(t, filepath.Join(folder, "lake", "kind.go"), test.source)
			_, err := readKinds(folder)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
