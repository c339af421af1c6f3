package class_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"
	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

const (
	audience = "keymount"
	oneKey   = "[{path: shop/db, key: password, file: db/password}]"
)

func pod() auth.Pod {
	return auth.Pod{Namespace: "shop", Name: "api-0", UID: "uid-shop-api", ServiceAccount: "api"}
}

func FuzzParseRequest(f *testing.F) {
	for _, objects := range []string{oneKey, "", "[]", "- {path: a/b, file: ./, mode: 0400, optional: true}", "- &a {path: x}\n- *a", "- {<<: {}}", "[[[[", "- path: !!binary YQ==", "- {path: a, key: null, file: ~}"} {
		attributes, err := providertest.Volume{Pod: pod(), Class: "app", Parameters: map[string]string{"objects": objects}, Tokens: map[string]string{audience: "x"}}.Attributes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(attributes)
	}
	f.Fuzz(checkParsed)
}

func FuzzParseObjects(f *testing.F) {
	for _, objects := range []string{oneKey, "- {path: a/b, file: ./}", "- {path: a/b, key: c.0, file: d/e, mode: \"0400\"}"} {
		f.Add(objects)
	}
	for _, documented := range readForms(f) {
		f.Add(documented.Objects)
	}
	f.Fuzz(func(t *testing.T, objects string) {
		attributes, err := json.Marshal(map[string]string{
			"objects": objects, "csi.storage.k8s.io/pod.name": "p", "csi.storage.k8s.io/pod.namespace": "n",
			"csi.storage.k8s.io/pod.uid": "u", "csi.storage.k8s.io/serviceAccount.name": "s",
		})
		if err != nil {
			t.Fatal(err)
		}
		checkParsed(t, string(attributes))
	})
}

// readForms are the forms that docs/forms.md shows.
func readForms(tb testing.TB) (forms []struct{ Objects string }) {
	tb.Helper()
	data, err := os.ReadFile("../provider/testdata/forms.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &forms); err != nil {
		tb.Fatal(err)
	}
	return forms
}

// checkParsed checks what must hold of any attributes: reading them twice gives
// the same, and what is accepted is safe to read from a store and to write.
func checkParsed(t *testing.T, attributes string) {
	t.Helper()
	stores := map[string]class.Store{"default": {}, "vault": {Traits: kind.Traits{Roles: access.Required, Versions: true}}}
	request, err := class.Parse(class.Call{Attributes: attributes}, stores)
	again, errAgain := class.Parse(class.Call{Attributes: attributes}, stores)
	if (err == nil) != (errAgain == nil) || len(request.Objects) != len(again.Objects) {
		t.Fatal("the same text is read in two ways")
	}
	if err != nil {
		return
	}
	for _, o := range request.Objects {
		path, errPath := store.ParsePath(o.Secret.Path.String())
		file := []*v1alpha1.File{{Path: filepath.Join(o.File, "key")}}
		if errPath != nil || path != o.Secret.Path || fileutil.Validate(file) != nil || o.Mode&^0o777 != 0 {
			t.Errorf("accepted %+v", o)
		}
		for _, text := range []string{o.File, o.Key, o.Secret.Role, o.Secret.Store, o.Secret.Version, o.Secret.Path.String(), o.PasswordKey, request.Class} {
			if err := spelling.Plain(text); err != nil {
				t.Error(err)
			}
		}
	}
}
