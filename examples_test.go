package main_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/bundle"
)

// manifest is what these tests read of a Kubernetes object.
type manifest struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		podSpec    `yaml:",inline"`
		Provider   string
		Parameters map[string]string
		Template   struct{ Spec podSpec }
	}
}

type podSpec struct {
	ServiceAccountName string `yaml:"serviceAccountName"`
	Volumes            []struct {
		CSI struct {
			ReadOnly         bool              `yaml:"readOnly"`
			VolumeAttributes map[string]string `yaml:"volumeAttributes"`
		} `yaml:"csi"`
	}
}

// TestExamples reads every example as kubectl and keymount will.
func TestExamples(t *testing.T) {
	o := readOperator(t)
	for _, folder := range exampleFolders(t) {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			namespace := "example-" + filepath.Base(folder)
			objects := readFolder(t, folder)
			if first := objects[0]; first.Kind != "Namespace" || first.Metadata.Name != namespace {
				t.Errorf("begins with %s %s, want Namespace %s: kubectl apply goes by the files' names", first.Kind, first.Metadata.Name, namespace)
			}
			accounts, classes := namesOf(objects, "ServiceAccount"), namesOf(objects, "SecretProviderClass")
			mounted := 0
			for _, object := range objects[1:] {
				if object.Metadata.Namespace != namespace {
					t.Errorf("%s %s is in namespace %q, want %s", object.Kind, object.Metadata.Name, object.Metadata.Namespace, namespace)
				}
				switch object.Kind {
				case "SecretProviderClass":
					o.checkClass(t, object)
				case "Pod":
					mounted += checkPod(t, object.Spec.podSpec, accounts, classes)
				case "Deployment":
					mounted += checkPod(t, object.Spec.Template.Spec, accounts, classes)
				}
			}
			if mounted == 0 {
				t.Error("no pod mounts a class")
			}
		})
	}
}

// TestExamplesHaveRules holds the rules of values.yaml against the examples: each
// has one, and nobody else has.
func TestExamplesHaveRules(t *testing.T) {
	var allowed, want []string
	for _, s := range readOperator(t).config.Stores {
		for _, rule := range s.Access.Rules {
			allowed = append(allowed, rule.Namespaces...)
		}
	}
	for _, folder := range exampleFolders(t) {
		want = append(want, "example-"+filepath.Base(folder))
	}
	slices.Sort(allowed)
	if diff := cmp.Diff(want, slices.Compact(allowed)); diff != "" {
		t.Errorf("namespaces in the rules of values.yaml (-examples +rules):\n%s", diff)
	}
}

// TestExamplesManuals looks for every file that a README names, by a link or in a
// command, and for every example in the list of all.
func TestExamplesManuals(t *testing.T) {
	list := string(read(t, "examples", "README.md"))
	checkNames(t, "examples", list)
	for _, folder := range exampleFolders(t) {
		text := string(read(t, folder, "README.md"))
		checkNames(t, folder, text)
		if !strings.Contains(text, "kubectl apply -f "+folder+"/\n") {
			t.Errorf("%s/README.md does not say: kubectl apply -f %s/", folder, folder)
		}
		if !strings.Contains(list, "]("+filepath.Base(folder)+"/README.md)") {
			t.Errorf("examples/README.md has no link to %s", folder)
		}
	}
}

// checkNames looks for the targets of links, and for paths of this repository.
func checkNames(t *testing.T, folder, text string) {
	t.Helper()
	var names []string
	for _, link := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(text, -1) {
		names = append(names, filepath.Join(folder, link[1]))
	}
	names = append(names, regexp.MustCompile(`\b(?:examples|deploy)/[\w./-]*\w`).FindAllString(text, -1)...)
	for _, name := range names {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("%s/README.md names what is not there: %v", folder, err)
		}
	}
}

func exampleFolders(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	var folders []string
	for _, entry := range entries {
		if entry.IsDir() {
			folders = append(folders, filepath.Join("examples", entry.Name()))
		}
	}
	return folders
}

// readFolder reads manifests in the order of kubectl apply.
func readFolder(t *testing.T, folder string) []manifest {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d manifests: %v", len(files), err)
	}
	var all []manifest
	for _, file := range files {
		all = append(all, manifests(t, read(t, file))...)
	}
	return all
}

func namesOf(objects []manifest, kind string) []string {
	var names []string
	for _, object := range objects {
		if object.Kind == kind {
			names = append(names, object.Metadata.Name)
		}
	}
	return names
}

// checkPod returns how many classes the pod mounts.
func checkPod(t *testing.T, pod podSpec, accounts, classes []string) (mounted int) {
	t.Helper()
	if !slices.Contains(accounts, pod.ServiceAccountName) {
		t.Errorf("a pod runs as service account %q, which the example does not make", pod.ServiceAccountName)
	}
	for _, volume := range pod.Volumes {
		class, ok := volume.CSI.VolumeAttributes["secretProviderClass"]
		if !ok {
			continue
		}
		mounted++
		if !slices.Contains(classes, class) || !volume.CSI.ReadOnly {
			t.Errorf("a volume has class %q and readOnly %t, want one of %q and true", class, volume.CSI.ReadOnly, classes)
		}
	}
	return mounted
}

// operator is what all examples share: the configuration in values.yaml, and what
// is in the bundle.
type operator struct {
	config   *config.Config
	stores   map[string]class.Store
	rules    map[string]access.Rules
	document bundle.Document
}

func readOperator(t *testing.T) operator {
	t.Helper()
	var values struct{ Config map[string]any }
	if err := yaml.Unmarshal(read(t, "examples", "values.yaml"), &values); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(values.Config)
	if err != nil {
		t.Fatal(err)
	}
	o := operator{stores: map[string]class.Store{}, rules: map[string]access.Rules{}}
	if o.config, err = config.Parse(text, all.All()); err != nil {
		t.Fatalf("config of values.yaml: %v", err)
	}
	if o.document, err = bundle.Parse(read(t, "examples", "bundle.yaml")); err != nil {
		t.Fatalf("bundle.yaml: %v", err)
	}
	for _, s := range o.config.Stores {
		o.stores[s.Name] = class.Store{Traits: s.Kind.Traits(), Settings: s.Settings}
		o.rules[s.Name] = s.Rules()
	}
	return o
}

// checkClass reads a class with the parser of its provider's socket, judges what it
// wants by the rules, and looks into the bundle for what comes from there.
func (o operator) checkClass(t *testing.T, class manifest) {
	t.Helper()
	pod := auth.Pod{Namespace: class.Metadata.Namespace, Name: "pod", UID: "uid", ServiceAccount: "app"}
	attributes, err := providertest.Volume{Pod: pod, Class: class.Metadata.Name, Parameters: class.Spec.Parameters}.Attributes()
	if err != nil {
		t.Fatal(err)
	}
	request := o.parse(t, class.Spec.Provider, attributes)
	for _, secret := range request.Secrets {
		o.checkSecret(t, pod, secret)
	}
	for _, object := range request.Objects {
		if object.Key == "" || o.stores[object.Secret.Store].Traits != (bundle.Kind{}).Traits() {
			continue
		}
		content, _ := o.document.Get(object.Secret.Path)
		if _, err := content.Get(object.Key); err != nil {
			t.Errorf("%s: %v", object.Secret, err)
		}
	}
}

func (o operator) parse(t *testing.T, name, attributes string) class.Request {
	t.Helper()
	isOf := func(socket string) bool { return filepath.Base(socket) == name+".sock" }
	if !slices.ContainsFunc(o.config.Sockets, isOf) {
		t.Errorf("provider %q has no socket in values.yaml", name)
	}
	request, err := class.Parse(class.Call{Attributes: attributes, Permission: "420", Dialect: class.DialectOf(name + ".sock")}, o.stores)
	if err != nil || len(request.Warnings) > 0 {
		t.Errorf("%v, warnings: %q", err, request.Warnings)
	}
	return request
}

// checkSecret knows of Vault that secret is a KV engine of version 2, whose secrets
// are judged without data/.
func (o operator) checkSecret(t *testing.T, pod auth.Pod, secret class.Secret) {
	t.Helper()
	path, err := store.ParsePath(strings.Replace(secret.Path.String(), "secret/data/", "secret/", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.rules[secret.Store].Judge(access.Query{
		Store: secret.Store, Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount,
		Role: secret.Role, Path: path, Write: secret.Args != "",
	}); err != nil {
		t.Error(err)
	}
	if _, found := o.document.Get(secret.Path); !found && o.stores[secret.Store].Traits == (bundle.Kind{}).Traits() {
		t.Errorf("%s is not in bundle.yaml", secret)
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
