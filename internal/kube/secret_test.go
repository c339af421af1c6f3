package kube_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.Method + " " + r.URL.Path
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
			if err != nil && strings.Contains(err.Error(), "fake") {
				t.Error("the error holds the key")
			}
		})
	}
}
