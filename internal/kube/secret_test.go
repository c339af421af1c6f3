package kube_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/internal/secret"
)

func TestCreateSecretOnce(t *testing.T) {
	const reason = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"message":"no","code":%d}`
	for name, c := range map[string]struct {
		code    int
		answer  string
		created bool
		err     string
	}{
		"made":   {http.StatusCreated, `{"kind":"Secret","apiVersion":"v1"}`, true, ""},
		"there":  {http.StatusConflict, fmt.Sprintf(reason, "AlreadyExists", http.StatusConflict), false, ""},
		"denied": {http.StatusForbidden, fmt.Sprintf(reason, "Forbidden", http.StatusForbidden), false, "create the Secret keymount/version: no"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked string
			var body core.Secret
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.Method + " " + r.URL.Path
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
					t.Error(err)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.code)
				_, _ = fmt.Fprint(w, c.answer)
			}))
			defer server.Close()
			created, err := kube.CreateSecretOnceAt(t.Context(), &rest.Config{Host: server.URL}, "keymount", "version", "version.key", secret.New([]byte("fake")))
			if created != c.created || (err == nil) != (c.err == "") || (err != nil && err.Error() != c.err) {
				t.Errorf("got %t, %v", created, err)
			}
			if asked != "POST /api/v1/namespaces/keymount/secrets" {
				t.Errorf("asked %q", asked)
			}
			want := core.Secret{
				TypeMeta: meta.TypeMeta{APIVersion: "v1", Kind: "Secret"},
				ObjectMeta: meta.ObjectMeta{
					Namespace: "keymount", Name: "version", Labels: map[string]string{"app.kubernetes.io/name": "keymount"},
					Annotations: map[string]string{"helm.sh/resource-policy": "keep"}, // or an upgrade changes all versions
				},
				Data: map[string][]byte{"version.key": []byte("fake")},
			}
			if diff := cmp.Diff(want, body); diff != "" {
				t.Errorf("body (-want +got)\n%s", diff)
			}
			if err != nil && strings.Contains(err.Error(), "fake") {
				t.Error("the error holds the key")
			}
		})
	}
}
