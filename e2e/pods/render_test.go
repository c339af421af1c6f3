package pods_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testRender renders a class with --live, and compares with the files in a pod: once with a
// token that is bound to no pod, and once with that of the pod.
func (s *suite) testRender(t *testing.T) {
	t.Parallel()
	c := s.newScene(t, "render", "fast")
	s.put(t, "e2e/render", map[string]any{"user": "shop", "password": "fake-1"})
	const parameters = `
store: prod
role: e2e
objects: |
  - {path: secret/e2e/render, key: password, file: password}
  - {path: secret/e2e/render, file: dsn, template: "{{ .user }}:{{ .password }}"}`
	c.class("app", parameters, "")
	c.running("app", "app")
	want, _ := c.tree("app")
	folder := s.writeTrial(t, c, parameters)
	for name, more := range map[string][]string{"without a pod": nil, "of the pod": {"--pod", "app"}} {
		args := append([]string{
			"render", filepath.Join(folder, "class.yaml"), "--config", filepath.Join(folder, "keymount.yaml"), "--as", c.namespace + "/app",
			"--live", "--kubeconfig", s.kubeconfig, "--reveal", "-o", "json",
		}, more...)
		out, err := s.command(t, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		var rendered struct {
			Files []struct{ Path, Value string }
		}
		if err := json.Unmarshal(out, &rendered); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got := map[string]string{}
		for _, f := range rendered.Files {
			got[f.Path] = f.Value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: files (-in the pod +rendered):\n%s", name, diff)
		}
	}
}

// command is one of keymount's on this machine, which finds kubectl.
func (s *suite) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	command := exec.CommandContext(t.Context(), s.keymountProgram(t), args...) //nolint:gosec // G204: ours
	command.Env = append(os.Environ(), "PATH="+filepath.Dir(s.kubectlProgram)+string(os.PathListSeparator)+os.Getenv("PATH"))
	return command
}

// keymountProgram is keymount for this machine.
func (s *suite) keymountProgram(t *testing.T) string {
	t.Helper()
	s.building.Lock()
	defer s.building.Unlock()
	program := filepath.Join(s.folder, "keymount")
	if _, err := os.Stat(program); err == nil {
		return program
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".") //nolint:gosec // G204: ours
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// writeTrial writes a class, and a keymount.yaml with the store prod as this process reaches
// it.
func (s *suite) writeTrial(t *testing.T, c *scene, parameters string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for name, text := range map[string]string{
		"class.yaml": fmt.Sprintf(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: app, namespace: %s}
spec:
  provider: keymount
  parameters:
%s
`, c.namespace, indent(parameters, 4)),
		"keymount.yaml": fmt.Sprintf(`
stores:
  - name: prod
    vault: {addresses: [%q], mounts: {secret: kv2}}
    access: [{namespaces: ["e2e-*"], serviceAccounts: [app], roles: [e2e], paths: ["secret/e2e/**"]}]
`, s.vault.Address()),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}
