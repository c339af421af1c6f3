package class_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/vault"
)

const vaultKey = "[{objectName: a, secretPath: secret/data/shop/db, secretKey: password}]"

// Files without a mode in the class have the driver's.
func TestVaultPermissionOfTheDriver(t *testing.T) {
	for permission, want := range map[string]int32{"": 0o644, "420": 0o644, "256": 0o400} {
		r, err := class.Parse(class.Call{Attributes: vaultAttributes(t, vaultKey, nil), Permission: permission, Dialect: class.DialectVault}, vaultStores())
		if err != nil || r.Objects[0].Mode != want {
			t.Errorf("%q: got %04o, %v", permission, r.Objects[0].Mode, err)
		}
	}
	for _, permission := range []string{"-1", "0644", "512", "x", `"420"`} {
		_, err := class.Parse(class.Call{Attributes: vaultAttributes(t, vaultKey, nil), Permission: permission, Dialect: class.DialectVault}, vaultStores())
		const want = "bad request: SecretProviderClass shop/app: the driver's permission is not the mode of a file; is the caller the Secrets Store CSI driver?"
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v", permission, err)
		}
	}
}

// The manual names everything, and its two classes are one.
func TestMigrationManual(t *testing.T) {
	text, err := os.ReadFile("../docs/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"roleName", "vaultAddress", "vaultNamespace", "vaultAuthMountPath", "vaultKubernetesMountPath", "audience", "vaultCACertPath",
		"vaultCADirectory", "vaultTLSClientCertPath", "vaultTLSClientKeyPath", "vaultTLSServerName", "vaultSkipTLSVerify", "objects", "strict",
		"objectName", "secretPath", "secretKey", "method", "secretArgs", "filePermission", "encoding",
	} {
		if !bytes.Contains(text, []byte("`"+name+"`")) {
			t.Errorf("the manual does not know %s", name)
		}
	}
	type part struct{ file, key, args string }
	var parts [][]part
	for _, block := range strings.Split(string(text), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		var manifest struct {
			Spec struct {
				Provider   string            `yaml:"provider"`
				Parameters map[string]string `yaml:"parameters"`
			} `yaml:"spec"`
		}
		if err := yaml.Unmarshal([]byte(block), &manifest); err != nil {
			t.Fatal(err)
		}
		attributes, err := providertest.Volume{Pod: pod(), Class: "app", Parameters: manifest.Spec.Parameters}.Attributes()
		if err != nil {
			t.Fatal(err)
		}
		request, err := class.Parse(class.Call{Attributes: attributes, Permission: "420", Dialect: class.DialectOf(manifest.Spec.Provider + ".sock")}, vaultStores())
		if err != nil || request.Warnings != nil {
			t.Errorf("%v %q", err, request.Warnings)
		}
		var list []part
		for _, o := range request.Objects {
			list = append(list, part{o.File, o.Key, o.Secret.Args})
		}
		parts = append(parts, list)
	}
	if len(parts) != 2 || len(parts[0]) != 2 || !slices.Equal(parts[0], parts[1]) {
		t.Errorf("the classes of the manual differ: %+v", parts)
	}
}

func vaultStores() map[string]class.Store {
	return map[string]class.Store{
		"local": {}, "default": {Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{
			Addresses: []string{"https://vault.invalid:8200", "https://vault.example:8200"}, Namespace: "teams/{namespace}", Auth: vault.Auth{Mount: "kubernetes", Audience: "vault"},
		}},
	}
}

func vaultAttributes(tb testing.TB, objects string, parameters map[string]string) string {
	tb.Helper()
	v := providertest.Volume{Pod: pod(), Class: "app", Parameters: map[string]string{"objects": objects, "roleName": "shop"}}
	maps.Copy(v.Parameters, parameters)
	attributes, err := v.Attributes()
	if err != nil {
		tb.Fatal(err)
	}
	return attributes
}

func FuzzParseVault(f *testing.F) {
	for _, objects := range []string{
		vaultKey, "", "[]", "- {objectName: a/b, secretPath: /v1/pki/issue/x, method: PUT, secretArgs: {a: [1, {b: c}]}, filePermission: 0600}",
		"- {objectName: a, secretPath: \"v1/aws/sts/x?version=02&b=%26&a\", filePermission: \"420\", encoding: hex, secretKey: 1.5}",
		"- &a {objectName: x}\n- *a", "- {objectName: ~, secretPath: []}",
	} {
		f.Add(objects, "https://vault.invalid:8200/", "teams/shop", "kubernetes", "420")
	}
	f.Fuzz(func(t *testing.T, objects, address, namespace, mount, permission string) {
		attributes := vaultAttributes(t, objects, map[string]string{"vaultAddress": address, "baoNamespace": namespace, "vaultKubernetesMountPath": mount})
		request, err := class.Parse(class.Call{Attributes: attributes, Permission: permission, Dialect: class.DialectVault}, vaultStores())
		again, errAgain := class.Parse(class.Call{Attributes: attributes, Permission: permission, Dialect: class.DialectVault}, vaultStores())
		if fmt.Sprint(err) != fmt.Sprint(errAgain) || !slices.Equal(request.Warnings, again.Warnings) {
			t.Fatal("the same text is read in two ways")
		}
		if err != nil {
			return
		}
		for i, o := range request.Objects {
			path, errPath := store.ParsePath(o.Secret.Path.String())
			file := []*v1alpha1.File{{Path: o.File}}
			if errPath != nil || path != o.Secret.Path || fileutil.Validate(file) != nil || o.Mode&^0o777 != 0 || o.Secret != again.Objects[i].Secret {
				t.Errorf("accepted %+v", o)
			}
			for _, text := range []string{o.File, o.Key, o.Secret.Role, o.Secret.Path.String(), o.Secret.Query} {
				if err := spelling.Plain(text); err != nil {
					t.Error(err)
				}
			}
			if o.Secret.Store != "default" || o.Secret.Role == "" || o.Secret.Args != "" && (o.Secret.Version != "" || o.Secret.Query != "" || !json.Valid([]byte(o.Secret.Args))) {
				t.Errorf("accepted %+v", o.Secret)
			}
		}
	})
}
