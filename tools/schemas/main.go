// Schemas writes JSON schemas for kubeconform, a checker of manifests, from Go modules
// alone: every kind of Kubernetes from the OpenAPI document of the module
// k8s.io/kubernetes, and the Prometheus operator's monitors from their Go types.
//
//	go run -C tools/schemas . -out FOLDER
//	kubeconform -schema-location 'FOLDER/{{.ResourceKind}}{{.KindSuffix}}.json' ...
//
// They are strict: a field unknown to Kubernetes is a mistake.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// schema is a JSON schema, or a part of one.
type schema = map[string]any

// kinds are complete schemas by kubeconform's names of their files.
type kinds map[string]schema

func main() { os.Exit(run()) }

func run() int {
	kubernetes := flag.String("kubernetes", "../../e2e/kubernetes", "the folder of the go.mod that says which version of k8s.io/kubernetes counts")
	out := flag.String("out", "", "the folder to write to, which is there already")
	flag.Parse()
	if err := write(context.Background(), *kubernetes, *out); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "schemas:", err)
		return 1
	}
	return 0
}

func write(ctx context.Context, kubernetes, out string) error {
	if out == "" {
		return errors.New("name the folder to write to with -out")
	}
	document, err := openAPI(ctx, kubernetes)
	if err != nil {
		return err
	}
	all, err := fromOpenAPI(document)
	if err != nil {
		return err
	}
	maps.Copy(all, monitors())
	for name, s := range all {
		data, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(out, name), data, 0o600); err != nil {
			return fmt.Errorf("write a schema: %w", err)
		}
	}
	return nil
}

// openAPI is Kubernetes's OpenAPI document, version 2. The module is not part of this
// one: it cannot be required without a replace line for each of its staging modules.
func openAPI(ctx context.Context, folder string) ([]byte, error) {
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", "k8s.io/kubernetes")
	command.Dir = folder
	command.Stderr = os.Stderr
	answer, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("download k8s.io/kubernetes for %s: %w", folder, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(answer, &module); err != nil {
		return nil, fmt.Errorf("read what go mod download answers: %w", err)
	}
	document, err := os.ReadFile(filepath.Join(module.Dir, "api", "openapi-spec", "swagger.json"))
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	return document, nil
}

// fileName is kubeconform's {{.ResourceKind}}{{.KindSuffix}} of a kind.
func fileName(group, version, kind string) string {
	name := kind + "-" + version
	if group != "" {
		group, _, _ = strings.Cut(group, ".")
		name = kind + "-" + group + "-" + version
	}
	return strings.ToLower(name) + ".json"
}
