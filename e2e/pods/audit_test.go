package pods_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// auditEvent is a line of the API server's audit log.
type auditEvent struct {
	Stage      string
	Verb       string
	RequestURI string
	User       struct{ Username string }
	ObjectRef  struct{ APIGroup, Resource, Subresource string }
	Status     struct{ Code int } `json:"responseStatus"`
}

// what says what was asked for, without names.
func (e auditEvent) what() string {
	if e.ObjectRef.Resource == "" {
		path, _, _ := strings.Cut(e.RequestURI, "?")
		return e.Verb + " " + path
	}
	return e.Verb + " " + strings.Trim(e.ObjectRef.APIGroup+"/"+e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource, "/")
}

// The provider asks the API server for nothing but what the chart grants it by name
// and the issuer's keys, which everybody may read, and is refused nothing.
func (s *suite) testRights(t *testing.T) {
	if s.cluster == nil {
		t.Skip("the API server's audit log of a cluster that is not ours cannot be read")
	}
	c := s.newScene(t, "rights", "recommended")
	const class = "objects: \"[{path: forms/none, key: a, file: a}]\""
	c.class("app", class, "")
	c.pod("app", "app")
	c.tells("SecretMountFailed: ", "forms/none") // an event is made,
	c.class("app", strings.ReplaceAll(class, "none", "neither"), "")
	c.tells("SecretMountFailed: ", "forms/neither") // and changed
	granted := map[string]string{
		"get /.well-known/openid-configuration": "every service account",
		"get /openid/v1/jwks":                   "every service account",
	}
	selector := metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=" + release}
	roles, err := s.RbacV1().ClusterRoles().List(t.Context(), selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range roles.Items {
		grant(t, granted, role.Name, role.Rules)
	}
	namespaced, err := s.RbacV1().Roles("").List(t.Context(), selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range namespaced.Items {
		grant(t, granted, role.Name, role.Rules)
	}
	asked := s.asked(t, "system:serviceaccount:"+releaseNamespace+":"+release)
	for _, what := range slices.Sorted(maps.Keys(asked)) {
		s.report("keymount asked the API server: %s, %d times (granted by %s)", what, asked[what].count, granted[what])
		if granted[what] == "" {
			t.Errorf("keymount asked for %q, which the chart does not grant it", what)
		}
		if asked[what].refused > 0 {
			t.Errorf("%q was refused %d times", what, asked[what].refused)
		}
	}
	for _, what := range []string{"get /openid/v1/jwks", "create events", "patch events"} {
		if asked[what].count == 0 {
			t.Errorf("keymount never asked for %q: either the audit log is not read rightly, or the right is not needed", what)
		}
	}
}

// grant notes what a role allows. A wildcard would make the test say nothing.
func grant(t *testing.T, granted map[string]string, role string, rules []rbac.PolicyRule) {
	t.Helper()
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			for _, resource := range rule.Resources {
				if verb == "*" || resource == "*" {
					t.Errorf("role %s grants %s on %s", role, verb, resource)
				}
				for _, group := range rule.APIGroups {
					granted[verb+" "+strings.Trim(group+"/"+resource, "/")] = role
				}
			}
		}
	}
}

type requests struct{ count, refused int }

// asked counts a user's requests.
func (s *suite) asked(t *testing.T, user string) map[string]requests {
	t.Helper()
	file, err := os.Open(s.cluster.Audit)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	asked := map[string]requests{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var event auditEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatalf("read the audit log: %v", err)
		}
		if event.User.Username != user || event.Stage != "ResponseComplete" {
			continue
		}
		one := asked[event.what()]
		one.count++
		if event.Status.Code == 401 || event.Status.Code == 403 {
			one.refused++
		}
		asked[event.what()] = one
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return asked
}

// Uninstalling leaves nothing in the cluster but the key of the versions, which is
// kept on purpose, and nothing on a node.
func (s *suite) testUninstall(t *testing.T) {
	s.runHelm(t, "uninstall", release, "--namespace", releaseNamespace, "--wait")
	within(t, 2*time.Minute, "nothing of the chart is left", func() error { return s.leftover(t) })
	for name, node := range s.nodes {
		within(t, time.Minute, "node "+name+" has no socket of keymount", func() error {
			left, err := filepath.Glob(filepath.Join(node.Providers, "*"))
			if len(left) > 0 {
				return fmt.Errorf("there are %q", left)
			}
			return err
		})
	}
}

// leftover is the error that something of the chart is in the cluster.
func (s *suite) leftover(t *testing.T) error {
	t.Helper()
	for _, resource := range s.listable(t) {
		found, err := resource.List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=keymount"})
		if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
			continue // not a kind of objects that are kept
		}
		if err != nil {
			return err
		}
		for _, object := range found.Items {
			if object.GetKind() != "Secret" || object.GetName() != versionKeySecret {
				return fmt.Errorf("%s %s/%s is there", object.GetKind(), object.GetNamespace(), object.GetName())
			}
		}
	}
	return nil
}
