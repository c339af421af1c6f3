package main_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/bundle"
)

// manifest is what these tests read of a Kubernetes object.
type manifest struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct{ Parameters map[string]string }
	Data     map[string]string
}

// TestExamples reads every example as keymount will: the operator's file, the
// bundle, and the classes, whose secrets are in the bundle.
func TestExamples(t *testing.T) {
	folders, err := filepath.Glob("examples/*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("found %d examples: %v", len(folders), err)
	}
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			c, err := config.Parse(read(t, folder, "keymount.yaml"))
			if err != nil {
				t.Fatalf("keymount.yaml: %v", err)
			}
			document, err := bundle.Parse(read(t, folder, "bundle.yaml"))
			if err != nil {
				t.Fatalf("bundle.yaml: %v", err)
			}
			stores := map[string]provider.Features{}
			for _, s := range c.Stores {
				stores[s.Name] = provider.Features{Roles: s.HasRoles()}
			}
			for _, class := range manifests(t, read(t, folder, "secretproviderclass.yaml")) {
				checkClass(t, class, stores, document)
			}
		})
	}
}

func checkClass(t *testing.T, class manifest, stores map[string]provider.Features, document bundle.Document) {
	t.Helper()
	attributes, err := providertest.Volume{
		Pod:        auth.Pod{Namespace: class.Metadata.Namespace, Name: "pod", UID: "uid", ServiceAccount: "account"},
		Class:      class.Metadata.Name,
		Parameters: class.Spec.Parameters,
	}.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	request, err := provider.ParseRequest(attributes, stores)
	if err != nil {
		t.Error(err)
	}
	for _, object := range request.Objects {
		secret, found := document.Get(object.Secret.Path)
		if !found && !object.Optional {
			t.Errorf("class %s wants %s, which the bundle does not have", class.Metadata.Name, object.Secret.Path)
		}
		if _, err := secret.Get(object.Key); found && object.Key != "" && err != nil {
			t.Errorf("class %s: %s: %v", class.Metadata.Name, object.Secret.Path, err)
		}
	}
}

// TestManifestsCarryGoodConfiguration reads the keymount.yaml in deploy/.
func TestManifestsCarryGoodConfiguration(t *testing.T) {
	found := 0
	for _, object := range manifests(t, read(t, "deploy", "daemonset.yaml")) {
		if text, ok := object.Data["keymount.yaml"]; ok && object.Kind == "ConfigMap" {
			found++
			if _, err := config.Parse([]byte(text)); err != nil {
				t.Error(err)
			}
		}
	}
	if found == 0 {
		t.Error("deploy/daemonset.yaml has no ConfigMap with a keymount.yaml")
	}
}

func read(t *testing.T, elements ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func manifests(t *testing.T, data []byte) []manifest {
	t.Helper()
	var all []manifest
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var m manifest
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
}
