package pods_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// nodeStatus is what keymount status -o json says of a node, as far as the test looks at it.
type nodeStatus struct {
	Node   string
	Stores []struct{ Name, State string }

	Volumes []volumeStatus
}

type volumeStatus struct {
	Namespace, Pod, Class, State, Code, Error, Changed string

	Files int
}

// testStatus asks each node what is broken, while a pod mounts, another one fails, and a
// store is away.
func (s *suite) testStatus(t *testing.T) {
	s.put(t, "e2e/status", map[string]any{"password": "fake-1"})
	c := s.newScene(t, "status", "fast")
	const class = `
store: prod
role: e2e
objects: "[{path: secret/e2e/%s, key: password, file: password}]"
`
	c.class("good", fmt.Sprintf(class, "status"), "")
	c.class("broken", fmt.Sprintf(class, "none"), "")
	c.running("good", "good")
	c.start("app", "broken")
	c.tells("SecretMountFailed: ", "secret/e2e/none")
	nodes, said := s.statuses(t)
	if strings.Contains(said, "fake-1") {
		t.Errorf("the status has a secret:\n%s", said)
	}
	found := map[string]volumeStatus{}
	for _, n := range nodes {
		for _, v := range n.Volumes {
			if v.Namespace == c.namespace {
				found[v.Class] = v
			}
		}
		if i := slices.IndexFunc(n.Stores, func(one struct{ Name, State string }) bool { return one.Name == "prod" }); i < 0 || n.Stores[i].State != "up" {
			t.Errorf("node %s: stores %+v", n.Node, n.Stores)
		}
	}
	if v := found["good"]; v.State != "fresh" || v.Files != 1 || v.Pod != "good" || v.Changed == "" {
		t.Errorf("the pod that mounts is %+v", v)
	}
	if v := found["broken"]; v.State != "failing" || v.Code != "NotFound" || !strings.Contains(v.Error, "secret/e2e/none") {
		t.Errorf("the pod that fails is %+v", v)
	}
}

// statuses are what all nodes say, through the commands of keymount and kubectl.
func (s *suite) statuses(t *testing.T) (all []nodeStatus, said string) {
	t.Helper()
	command := s.command(t, "status", "-n", releaseNamespace, "--kubeconfig", s.kubeconfig, "-o", "json")
	out, err := command.Output()
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as it is returned
		t.Fatalf("%v: %s\n%s", err, exit.Stderr, out)
	} else if err != nil {
		t.Fatal(err)
	}
	var result struct {
		Nodes []struct{ Status *nodeStatus }
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, n := range result.Nodes {
		all = append(all, *n.Status)
	}
	return all, string(out)
}
