package pods_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// serviceAccounts begins the names of the users that the chart makes.
const serviceAccounts = "system:serviceaccount:" + releaseNamespace + ":"

// auditEvent is a line of the API server's audit log.
type auditEvent struct {
	Stage      string
	Verb       string
	RequestURI string
	User       struct{ Username string }
	ObjectRef  struct{ APIGroup, Resource, Subresource, Namespace string }
	Status     struct{ Code int } `json:"responseStatus"`
}

// request is what somebody asked the API server for, without names.
type request struct {
	account   string // service account of the release
	what      string // verb, and API group and resource, or a path
	namespace string // "" is none, and in what is granted any
}

func (r request) String() string {
	if r.namespace == "" {
		return fmt.Sprintf("%s: %s", r.account, r.what)
	}
	return fmt.Sprintf("%s: %s in %s", r.account, r.what, r.namespace)
}

func (e auditEvent) request() request {
	account := strings.TrimPrefix(e.User.Username, serviceAccounts)
	if e.ObjectRef.Resource == "" {
		path, _, _ := strings.Cut(e.RequestURI, "?")
		return request{account, e.Verb + " " + path, ""}
	}
	return request{account, e.Verb + " " + strings.Trim(e.ObjectRef.APIGroup+"/"+e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource, "/"), e.ObjectRef.Namespace}
}

// The service accounts of the chart, the provider's and the hook's, ask the API server
// for nothing but what the chart grants them by name, in the namespaces of the grants,
// and the issuer's keys, which everybody may read, and are refused nothing.
func (s *suite) testRights(t *testing.T) {
	if s.cluster == nil {
		t.Skip("the API server's audit log of a cluster that is not ours cannot be read")
	}
	c := s.newScene(t, "rights", "recommended")
	const class = "objects: \"[{path: forms/none, key: a, file: a}]\""
	c.class("app", class, "")
	c.start("app", "app")
	c.tells("SecretMountFailed: ", "forms/none") // an event is made,
	c.class("app", strings.ReplaceAll(class, "none", "neither"), "")
	c.tells("SecretMountFailed: ", "forms/neither") // and changed
	counts := s.audit(t)
	for _, one := range slices.SortedFunc(maps.Keys(counts), func(a, b request) int { return strings.Compare(a.String(), b.String()) }) {
		s.report("asked of the API server by %s, %d times", one, counts[one])
	}
	for _, want := range []request{
		{release, "get /openid/v1/jwks", ""}, {release, "create events", ""}, {release, "patch events", ""}, {versionKeySecret, "create secrets", ""},
	} {
		if counts[want] == 0 {
			t.Errorf("never seen is %s: either the audit log is not read rightly, or the right is not needed", want)
		}
	}
}

// audit counts what was asked so far, in all namespaces. All of it has to be granted.
func (s *suite) audit(t *testing.T) map[request]int {
	t.Helper()
	granted := s.granted(t)
	counts := map[request]int{}
	for one, how := range s.asked(t) {
		if allows(granted, one) == "" {
			t.Errorf("%s, which the chart does not grant", one)
		}
		if how.refused > 0 {
			t.Errorf("%s was refused %d times", one, how.refused)
		}
		counts[request{one.account, one.what, ""}] += how.count
	}
	return counts
}

// allows says by what a request is granted.
func allows(granted map[request]string, one request) string {
	if role := granted[one]; role != "" {
		return role
	}
	if role := granted[request{one.account, one.what, ""}]; role != "" {
		return role
	}
	return granted[request{"", one.what, ""}]
}

// What a role allows in one namespace it does not allow in another, or another account.
func TestAllows(t *testing.T) {
	granted := map[request]string{
		{"hook", "create secrets", "keymount"}: "Role hook",
		{"keymount", "create events", ""}:      "ClusterRole events",
		{"", "get /openid/v1/jwks", ""}:        "everybody",
	}
	for one, want := range map[request]string{
		{"hook", "create secrets", "keymount"}:     "Role hook",
		{"hook", "create secrets", "shop"}:         "",
		{"keymount", "create secrets", "keymount"}: "",
		{"keymount", "create events", "shop"}:      "ClusterRole events",
		{"hook", "create events", "shop"}:          "",
		{"hook", "get /openid/v1/jwks", ""}:        "everybody",
		{"hook", "list secrets", "keymount"}:       "",
	} {
		if got := allows(granted, one); got != want {
			t.Errorf("%s: granted by %q, want %q", one, got, want)
		}
	}
}

// granted is what the chart's roles allow, those of its hooks as well, which are gone
// when they have done their work.
func (s *suite) granted(t *testing.T) map[request]string {
	t.Helper()
	const everybody = "" // no account's name
	granted := map[request]string{
		{everybody, "get /.well-known/openid-configuration", ""}: "every service account",
		{everybody, "get /openid/v1/jwks", ""}:                   "every service account",
	}
	manifests := s.runHelm(t, "get", "manifest", release, "--namespace", releaseNamespace) +
		"\n---\n" + s.runHelm(t, "get", "hooks", release, "--namespace", releaseNamespace)
	rules := map[string][]rbac.PolicyRule{} // by kind and name
	var bindings []rbacObject
	for _, object := range rbacObjects(t, manifests) {
		if strings.HasSuffix(object.Kind, "Binding") {
			bindings = append(bindings, object)
		} else {
			rules[object.Kind+" "+object.Name] = object.Rules
		}
	}
	if len(bindings) < 2 {
		t.Fatalf("the chart has %d bindings of roles, want one for events and one for the hook", len(bindings))
	}
	for _, binding := range bindings {
		namespace := binding.Namespace
		if binding.Kind == "ClusterRoleBinding" {
			namespace = ""
		}
		role := binding.RoleRef.Kind + " " + binding.RoleRef.Name
		for _, subject := range binding.Subjects {
			if subject.Kind != rbac.ServiceAccountKind || subject.Namespace != releaseNamespace {
				t.Errorf("%s binds %s %s/%s", binding.Name, subject.Kind, subject.Namespace, subject.Name)
			}
			for _, what := range spelledOut(t, role, rules[role]) {
				granted[request{subject.Name, what, namespace}] = role
			}
		}
	}
	return granted
}

// rbacObject is a role or the binding of one.
type rbacObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Rules    []rbac.PolicyRule
	RoleRef  rbac.RoleRef
	Subjects []rbac.Subject
}

func rbacObjects(t *testing.T, manifests string) (found []rbacObject) {
	t.Helper()
	reader := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		var raw unstructured.Unstructured
		err := reader.Decode(&raw.Object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if raw.GroupVersionKind().Group != rbac.GroupName {
			continue
		}
		text, err := raw.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var object rbacObject
		if err := json.Unmarshal(text, &object); err != nil {
			t.Fatal(err)
		}
		found = append(found, object)
	}
}

// spelledOut are the requests that a role allows. A wildcard would make the test say
// nothing.
func spelledOut(t *testing.T, role string, rules []rbac.PolicyRule) (all []string) {
	t.Helper()
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			for _, resource := range rule.Resources {
				for _, group := range rule.APIGroups {
					if verb == "*" || resource == "*" || group == "*" {
						t.Errorf("%s grants %s on %s of %q", role, verb, resource, group)
					}
					all = append(all, verb+" "+strings.Trim(group+"/"+resource, "/"))
				}
			}
			for _, path := range rule.NonResourceURLs {
				all = append(all, verb+" "+path)
			}
		}
	}
	return all
}

type requests struct{ count, refused int }

// asked counts the requests of the release's service accounts.
func (s *suite) asked(t *testing.T) map[request]requests {
	t.Helper()
	file, err := os.Open(s.cluster.Audit)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	asked := map[request]requests{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var event auditEvent
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatalf("read the audit log: %v", err)
		}
		answered := "ResponseComplete"
		if event.Verb == "watch" { // that goes on
			answered = "ResponseStarted"
		}
		if !strings.HasPrefix(event.User.Username, serviceAccounts) || event.Stage != answered {
			continue
		}
		one := asked[event.request()]
		one.count++
		if event.Status.Code == 401 || event.Status.Code == 403 {
			one.refused++
		}
		asked[event.request()] = one
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return asked
}

// Uninstalling leaves nothing in the cluster but the key of the versions, which is
// kept on purpose, and nothing on a node.
func (s *suite) testUninstall(t *testing.T) {
	added := s.added(t)
	for _, want := range []string{"DaemonSet", "ConfigMap", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Pod"} {
		if !slices.ContainsFunc(added, func(name string) bool { return strings.HasPrefix(name, want+" ") }) {
			t.Errorf("before the uninstall no %s was there that had not been before the install: %q", want, added)
		}
	}
	for name, node := range s.nodes {
		if sockets := providerSockets(t, node.Providers); !slices.Contains(sockets, "keymount.sock") {
			t.Errorf("before the uninstall, node %s has no socket of keymount: %q", name, sockets)
		}
	}
	s.runHelm(t, "uninstall", release, "--namespace", releaseNamespace, "--wait")
	s.within(t, 2*time.Minute, "nothing of the release is left", func() error {
		left := s.added(t)
		if !slices.Equal(left, []string{"Secret " + releaseNamespace + "/" + versionKeySecret}) {
			return fmt.Errorf("there are %q, want the version key alone", left)
		}
		return nil
	})
	for name, node := range s.nodes {
		s.within(t, time.Minute, "node "+name+" has no socket of keymount", func() error {
			if left := providerSockets(t, node.Providers); len(left) > 0 {
				return fmt.Errorf("there are %q", left)
			}
			return nil
		})
	}
}

func providerSockets(t *testing.T, folder string) (names []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		names = append(names, filepath.Base(name))
	}
	return names
}

// furnished is an error while the namespace of the release lacks what the controllers
// put into every namespace.
func (s *suite) furnished(t *testing.T) error {
	t.Helper()
	_, account := s.CoreV1().ServiceAccounts(releaseNamespace).Get(t.Context(), "default", metav1.GetOptions{})
	_, authority := s.CoreV1().ConfigMaps(releaseNamespace).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
	return errors.Join(account, authority)
}

// passing are kinds of objects that come and go without the chart.
func passing() []string {
	return []string{
		"Event", "Namespace", "Node", "CSINode", "IPAddress", "Lease", "CertificateSigningRequest",
		"PersistentVolume", "VolumeAttachment", "NodeMetrics", "PodMetrics", "ComponentStatus",
	}
}

// inventory names all objects of the release's namespace and of none.
func (s *suite) inventory(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, kind := range s.listable(t) {
		resource := kind.Namespace("")
		if kind.namespaced {
			resource = kind.Namespace(releaseNamespace)
		}
		found, err := resource.List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range found.Items {
			if !slices.Contains(passing(), object.GetKind()) {
				all[strings.ReplaceAll(object.GetKind()+" "+object.GetNamespace()+"/"+object.GetName(), " /", " ")] = true
			}
		}
	}
	return all
}

// added is what the cluster has now and did not have before keymount was installed.
func (s *suite) added(t *testing.T) (names []string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(s.inventory(t))) {
		if !s.before[name] {
			names = append(names, name)
		}
	}
	return names
}
