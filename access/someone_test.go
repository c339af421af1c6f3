package access_test

import (
	"strings"
	"testing"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/store"
)

func TestSomeone(t *testing.T) {
	rules, err := access.Compile("access", []access.Rule{
		{Namespaces: []string{"shop"}, ServiceAccounts: []string{"api"}, Roles: []string{"r-{serviceAccount}"}, Paths: []string{"{namespace}/{serviceAccount}/*"}},
	}, access.Kind{Roles: access.Required})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"shop r-api shop/api/db": true, "shop r-x shop/web/db": true, "shop r shop/api/db": false, "team r-api team/api/db": false, "shop r-api shop/db": false} {
		var q access.Query
		var path string
		q.Namespace, q.Role, path = three(text)
		q.Path, err = store.ParsePath(path)
		if err != nil {
			t.Fatal(err)
		}
		if d, _ := rules.Someone().Judge(q); d.Allowed != want {
			t.Errorf("%s: %+v", text, d)
		}
		if d, _ := rules.Judge(q); d.Allowed {
			t.Errorf("%s: allowed without a service account: Someone changed the rules", text)
		}
	}
	if d, _ := (access.Rules{}).Someone().Judge(access.Query{}); d.Allowed {
		t.Error("no rules allow someone")
	}
	if d, _ := access.Open("access").Someone().Judge(access.Query{}); !d.Allowed {
		t.Error("the store does not decide")
	}
}

func three(text string) (a, b, c string) {
	fields := strings.Fields(text)
	return fields[0], fields[1], fields[2]
}
