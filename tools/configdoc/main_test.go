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
	got, err := generate("testdata/in")
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
			if _, err := generate(folder); err == nil || !strings.Contains(err.Error(), test.want) {
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
