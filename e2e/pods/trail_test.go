package pods_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/store/all"
)

// The audit trail in the output of each keymount has every mount that its log has, verifies,
// and holds no secret; the rules of keymount.yaml would decide all of it again in the same
// way, and so would the narrowest ones that are proposed.
func (s *suite) testTrail(t *testing.T) {
	program := filepath.Join(s.folder, "keymount")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".") //nolint:gosec // G204: a go build of our own source
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build keymount: %v\n%s", err, out)
	}
	run := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput() //nolint:gosec // G204: the program from above
		if err != nil {
			t.Errorf("keymount %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	config := filepath.Join(s.folder, "keymount.yaml")
	if err := os.WriteFile(config, []byte(s.keymountYAML(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, keymount := range s.keymounts(t, "") {
		file := filepath.Join(s.folder, keymount.Name+".log")
		log := s.logs(t, keymount.Namespace, keymount.Name)
		if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		s.checkTrail(t, keymount, log)
	}
	flags := append([]string{"--skip-others"}, files...)
	s.report("audit verify:\n%s", run(append([]string{"audit", "verify"}, flags...)...))
	run(append([]string{"audit", "replay", "--config", config}, flags...)...)
	s.report("audit rules:\n%s", run(append([]string{"audit", "rules", "--config", config}, flags...)...))
	narrow := filepath.Join(s.folder, "narrow.yaml")
	if err := os.WriteFile(narrow, narrowed(t, config, run(append([]string{"audit", "rules", "-o", "json", "--config", config}, flags...)...)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(append([]string{"audit", "replay", "--config", narrow}, flags...)...)
	s.checkNarrow(t, narrow, files)
}

// checkNarrow asks the proposed rules for accesses that nothing in the trail has had.
func (s *suite) checkNarrow(t *testing.T, file string, logs []string) {
	t.Helper()
	c, err := config.Load(file, all.All())
	if err != nil {
		t.Fatal(err)
	}
	used := usesIn(t, logs)
	asked := 0
	for i := range c.Stores {
		one := &c.Stores[i]
		if one.Access.Store {
			continue // which Vault's policies decide
		}
		for _, use := range used {
			if use.Store != one.Name {
				continue
			}
			for _, other := range othersOf(use.Access) {
				asked++
				query, err := other.Query()
				if err != nil {
					t.Fatal(err)
				}
				if decision, _ := one.Rules().Judge(query); decision.Allowed && !had(used, other) {
					t.Errorf("%+v is allowed by %s, and nothing in the trail has had it", other, decision.Rule)
				}
			}
		}
	}
	s.report("asked the proposed rules for %d accesses that nothing has had", asked)
	if asked < 50 {
		t.Errorf("%d accesses were asked for, want 50 at least", asked)
	}
}

// usesIn are the accesses in the trails within logs.
func usesIn(t *testing.T, logs []string) []audit.Use {
	t.Helper()
	sources := make([]audit.Source, len(logs))
	for i, name := range logs {
		sources[i] = audit.Source{Name: name, Open: func() (io.ReadCloser, error) { return os.Open(name) }}
	}
	uses := audit.NewUses()
	if _, err := (audit.Form{Others: true}).Walk(t.Context(), sources, func(e audit.Entry) error { uses.Add(e); return nil }); err != nil {
		t.Fatal(err)
	}
	return uses.All()
}

// othersOf are the accesses beside one: of another identity, role, path and verb.
func othersOf(a audit.Access) []audit.Access {
	namespace, account, path, below, verb := a, a, a, a, a
	namespace.Namespace += "-x"
	account.ServiceAccount += "-x"
	path.Path += "-x"
	below.Path += "/x"
	verb.Write = !verb.Write
	others := []audit.Access{namespace, account, path, below, verb}
	if a.Role != "" { // or the store has none
		role := a
		role.Role += "-x"
		others = append(others, role)
	}
	return others
}

// had tells whether the trail has an access.
func had(used []audit.Use, a audit.Access) bool {
	return slices.ContainsFunc(used, func(u audit.Use) bool { return u.Access == a })
}

// narrowed is a keymount.yaml with the rules that are proposed in place of its own.
func narrowed(t *testing.T, config, proposed string) []byte {
	t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	var proposals struct {
		Proposals []struct {
			Store string
			Rules []any
		}
	}
	if err := errors.Join(yaml.Unmarshal(text, &file), json.Unmarshal([]byte(proposed), &proposals)); err != nil {
		t.Fatal(err)
	}
	rules := map[string][]any{}
	for _, p := range proposals.Proposals {
		rules[p.Store] = p.Rules
	}
	stores, _ := file["stores"].([]any)
	for _, one := range stores {
		store, _ := one.(map[string]any)
		name, _ := store["name"].(string)
		if name == "" {
			name = "default"
		}
		if len(rules[name]) > 0 {
			store["access"] = rules[name]
		}
	}
	if len(rules) == 0 || len(stores) == 0 {
		t.Errorf("%d stores, and rules are proposed for %d", len(stores), len(rules))
	}
	text, err = yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// keymountYAML is the one of the release.
func (s *suite) keymountYAML(t *testing.T) string {
	t.Helper()
	daemonSets, err := s.AppsV1().DaemonSets(releaseNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=keymount"})
	if err != nil || len(daemonSets.Items) != 1 {
		t.Fatalf("%d DaemonSets of keymount: %v", len(daemonSets.Items), err)
	}
	for _, v := range daemonSets.Items[0].Spec.Template.Spec.Volumes {
		for _, name := range configMapsOf(v) {
			found, err := s.CoreV1().ConfigMaps(releaseNamespace).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if text := found.Data["keymount.yaml"]; text != "" {
				return text
			}
		}
	}
	t.Fatal("no ConfigMap of the DaemonSet has keymount.yaml")
	return ""
}

// configMapsOf are the ConfigMaps that a volume is made of.
func configMapsOf(v core.Volume) (names []string) {
	if v.ConfigMap != nil {
		names = append(names, v.ConfigMap.Name)
	}
	if v.Projected != nil {
		for _, source := range v.Projected.Sources {
			if source.ConfigMap != nil {
				names = append(names, source.ConfigMap.Name)
			}
		}
	}
	return names
}

// checkTrail holds the trail of a keymount against its log.
func (s *suite) checkTrail(t *testing.T, keymount core.Pod, log string) {
	t.Helper()
	granted, refused := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(log) {
		r, err := audit.Read([]byte(line))
		if err == nil && strings.Contains(line, "fake-") { // as every secret of this suite begins
			t.Errorf("a secret stands in the trail of %s", keymount.Name)
		}
		if err != nil || r.Kind != audit.KindMount {
			continue
		}
		if r.Node != keymount.Spec.NodeName {
			t.Errorf("a record of node %s is in the output of %s", r.Node, keymount.Name)
		}
		pod := fmt.Sprint(r.Pod.Namespace, "/", r.Pod.Name)
		if r.Code == "OK" {
			granted[pod] = true
		} else {
			refused[pod] = true
		}
	}
	mounts := 0
	for _, one := range mountAnswers(t, log) {
		pod := one.Namespace + "/" + one.Pod
		if one.Code == "OK" && !granted[pod] || one.Code != "OK" && !refused[pod] {
			t.Errorf("the mount of %s, answered with %s, is in no record", pod, one.Code)
		}
		mounts++
	}
	s.report("%s: %d mounts in the log are in the trail, %d pods served and %d refused", keymount.Name, mounts, len(granted), len(refused))
}
