package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/e2e/vaulttest"
)

const examples = "../../examples"

// Every setup.sh runs, and runs again, and then each class of its example can read
// what it names, with the policies of its role and as the service account of its pods.
func TestExamples(t *testing.T) {
	server, postgres := vaulttest.Start(t), vaulttest.StartPostgres(t)
	authority := vaulttest.NewAuthority(t, time.Hour)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("reviewer"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := setup{server: server, environment: []string{
		"POSTGRES=" + postgres.Address + "/postgres?sslmode=disable",
		"POSTGRES_USERNAME=" + vaulttest.Superuser, "POSTGRES_PASSWORD=" + postgres.Password,
	}}
	for _, round := range []string{"first", "second"} {
		t.Run(round+" time", func(t *testing.T) {
			s.run(t, "setup.sh", "kubernetes_host=https://127.0.0.1:6443", "kubernetes_ca_cert=@"+authority.File, "token_reviewer_jwt=@"+token)
			for _, script := range scripts(t) {
				s.run(t, script)
			}
		})
	}
	checkKubernetes(t, server, string(authority.PEM))
	for _, script := range scripts(t) {
		folder := filepath.Dir(script)
		t.Run(folder, func(t *testing.T) { checkExample(t, server, folder) })
	}
	t.Run("a user of the database", func(t *testing.T) {
		answer, err := server.Client(t).Logical().ReadWithContext(t.Context(), "database/creds/example-database-credential")
		if err != nil {
			t.Fatal(err)
		}
		username, _ := answer.Data["username"].(string)
		password, _ := answer.Data["password"].(string)
		if err := postgres.Open(t, username, password).PingContext(t.Context()); err != nil {
			t.Errorf("log in to the database: %v", err)
		}
	})
}

// scripts are the setup.sh of every example that has one.
func scripts(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(examples, "*", "setup.sh"))
	if err != nil || len(found) == 0 {
		t.Fatalf("found %d setup.sh: %v", len(found), err)
	}
	for i := range found {
		found[i] = strings.TrimPrefix(found[i], examples+"/")
	}
	return found
}

// setup runs scripts of examples.
type setup struct {
	server      *vaulttest.Server
	environment []string
}

func (s setup) run(t *testing.T, script string, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "./"+filepath.Base(script), args...) //nolint:gosec // G204: a script of this repository
	command.Dir = filepath.Join(examples, filepath.Dir(script))
	command.Env = append([]string{
		"PATH=" + filepath.Dir(vaultBinary) + ":/usr/bin:/bin",
		"VAULT_ADDR=" + s.server.Address, "VAULT_TOKEN=" + s.server.RootToken,
	}, s.environment...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func checkKubernetes(t *testing.T, server *vaulttest.Server, ca string) {
	t.Helper()
	config, err := server.Client(t).Logical().ReadWithContext(t.Context(), "auth/kubernetes/config")
	if err != nil {
		t.Fatal(err)
	}
	if config.Data["kubernetes_host"] != "https://127.0.0.1:6443" || config.Data["kubernetes_ca_cert"] != ca || config.Data["token_reviewer_jwt_set"] != true {
		t.Errorf("auth/kubernetes/config = %v", config.Data)
	}
}

// class is what is read of a SecretProviderClass. That keymount reads it, too, is
// tested with the examples themselves.
type class struct {
	Metadata struct{ Namespace string }
	Spec     struct{ Parameters parameters }
}

// parameters and objects are in keymount's syntax or that of vault-csi-provider.
type parameters struct {
	Store, Role string
	RoleName    string `yaml:"roleName"`
	Objects     string
}

type object struct {
	Store, Path, Key, Template string
	Args                       map[string]any
	SecretPath                 string `yaml:"secretPath"`
	SecretKey                  string `yaml:"secretKey"`
}

func checkExample(t *testing.T, server *vaulttest.Server, folder string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(examples, folder, "2-class.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c class
	if err := yaml.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	var objects []object
	if err := yaml.Unmarshal([]byte(c.Spec.Parameters.Objects), &objects); err != nil || len(objects) == 0 {
		t.Fatalf("found %d objects: %v", len(objects), err)
	}
	client := login(t, server, c.Metadata.Namespace, c.Spec.Parameters.Role+c.Spec.Parameters.RoleName)
	for _, o := range objects {
		if o.Store == "default" {
			continue
		}
		checkRead(t, client, o.Path+o.SecretPath, o.Key+o.SecretKey, o.Args)
		for _, found := range regexp.MustCompile(`\(secret "([^"]+)"\)\.(\w+)`).FindAllStringSubmatch(o.Template, -1) {
			checkRead(t, client, found[1], found[2], nil)
		}
	}
}

// login is a client with the policies of the role, which is for the pods of the
// example. Logins themselves need a cluster.
func login(t *testing.T, server *vaulttest.Server, namespace, name string) *api.Client {
	t.Helper()
	root := server.Client(t)
	role, err := root.Logical().ReadWithContext(t.Context(), "auth/kubernetes/role/"+name)
	if err != nil || role == nil {
		t.Fatalf("role %q: %v, %v", name, role, err)
	}
	for field, want := range map[string]string{
		"bound_service_account_namespaces": "[" + namespace + "]", "bound_service_account_names": "[app]", "audience": "vault",
	} {
		if got := fmt.Sprint(role.Data[field]); got != want {
			t.Errorf("role %s: %s is %s, want %s", name, field, got, want)
		}
	}
	var policies []string
	if list, ok := role.Data["token_policies"].([]any); ok {
		for _, policy := range list {
			policies = append(policies, fmt.Sprint(policy))
		}
	}
	token, err := root.Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{Policies: policies, NoParent: true})
	if err != nil {
		t.Fatal(err)
	}
	client := server.Client(t)
	client.SetToken(token.Auth.ClientToken)
	return client
}

// checkRead reads a path, or writes args to it, and looks for key in the answer.
func checkRead(t *testing.T, client *api.Client, path, key string, args map[string]any) {
	t.Helper()
	if rest, isKV := strings.CutPrefix(path, "secret/"); isKV {
		path = "secret/data/" + strings.TrimPrefix(rest, "data/")
	}
	var answer *api.Secret
	var err error
	if args == nil {
		answer, err = client.Logical().ReadWithContext(t.Context(), path)
	} else {
		answer, err = client.Logical().WriteWithContext(t.Context(), path, args)
	}
	if err != nil || answer == nil {
		t.Fatalf("%s: %v, %v", path, answer, err)
	}
	data := answer.Data
	if inner, isKV := data["data"].(map[string]any); isKV {
		data = inner
	}
	if key != "" && data[key] == nil {
		t.Errorf("%s has no %q", path, key)
	}
}

// Every setup.sh can be run by itself and says so to the file system.
func TestScriptsAreExecutable(t *testing.T) {
	for _, script := range slices.Concat([]string{"setup.sh"}, scripts(t)) {
		info, err := os.Stat(filepath.Join(examples, script))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s cannot be executed; chmod +x it", script)
		}
	}
}
