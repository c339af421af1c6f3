package pods_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keymount/keymount/audit"
)

// answer is a line of keymount's log: a call of the driver, and how it was answered.
type answer struct {
	RPC       string
	Code      string
	Namespace string
	Pod       string
}

// keymounts are the provider's pods: all, or the one on a node.
func (k *kube) keymounts(t *testing.T, node string) []core.Pod {
	t.Helper()
	options := metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=keymount,app.kubernetes.io/component=provider"}
	if node != "" {
		options.FieldSelector = "spec.nodeName=" + node
	}
	list, err := k.CoreV1().Pods(releaseNamespace).List(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// answers are those to Mount by the keymount of a pod's node, since its container was
// started.
func (c *scene) answers(pod string) []answer {
	c.t.Helper()
	node := c.node
	if node == "" {
		node = c.pod(c.t, c.namespace, pod).Spec.NodeName
	}
	var all []answer
	for _, keymount := range c.keymounts(c.t, node) {
		all = append(all, mountAnswers(c.t, c.logs(c.t, keymount.Namespace, keymount.Name))...)
	}
	return all
}

func mountAnswers(t *testing.T, log string) (found []answer) {
	t.Helper()
	for line := range strings.Lines(log) {
		if isAudit(line) {
			continue
		}
		var one answer
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("keymount's log has a line that is not JSON: %q", line)
		}
		if one.RPC == "Mount" {
			found = append(found, one)
		}
	}
	return found
}

// isAudit tells a record of the audit trail from a line of the log: a container's output has
// both.
func isAudit(line string) bool {
	_, err := audit.Read([]byte(line))
	return err == nil
}

// mounts counts the answered mounts of a pod.
func (c *scene) mounts(pod string) int {
	c.t.Helper()
	count := 0
	for _, one := range c.answers(pod) {
		if one.Namespace == c.namespace && one.Pod == pod && one.Code == "OK" {
			count++
		}
	}
	return count
}

// failedTries counts the mounts of a pod that keymount refused.
func (c *scene) failedTries(pod string) int {
	c.t.Helper()
	count := 0
	for _, one := range c.answers(pod) {
		if one.Namespace == c.namespace && one.Pod == pod && one.Code != "OK" {
			count++
		}
	}
	return count
}

// republished waits until keymount has answered n more mounts of the pod.
func (c *scene) republished(pod string, n int) {
	c.t.Helper()
	before := c.mounts(pod)
	c.within(c.t, 3*time.Minute, fmt.Sprintf("%s is mounted %d more times", pod, n), func() error {
		if now := c.mounts(pod); now < before+n {
			return fmt.Errorf("%d of %d", now-before, n)
		}
		return nil
	})
}

// notFinal are the codes after which the driver keeps the folder of a first mount, and
// takes it for a finished one when it is asked again.
func notFinal() []string {
	return []string{"Unavailable", "DeadlineExceeded", "ResourceExhausted", "Aborted", "Canceled"}
}

// keptFolder is the error that one of the answers is with such a code.
func keptFolder(answers []answer) error {
	var errs []error
	for _, one := range answers {
		if slices.Contains(notFinal(), one.Code) {
			errs = append(errs, fmt.Errorf("keymount answered the mount of %s/%s with %s", one.Namespace, one.Pod, one.Code))
		}
	}
	return errors.Join(errs...)
}

// keymount never answers with a code that leads to an empty mount. What it logged
// before it was killed is looked at by whoever kills it.
func (s *suite) testCodes(t *testing.T) {
	refused := 0
	for _, keymount := range s.keymounts(t, "") {
		answers := mountAnswers(t, s.logs(t, keymount.Namespace, keymount.Name))
		if err := keptFolder(answers); err != nil {
			t.Errorf("on node %s: %v", keymount.Spec.NodeName, err)
		}
		for _, one := range answers {
			if one.Code != "OK" {
				refused++
			}
		}
	}
	s.report("keymount refused %d mounts", refused)
	if refused == 0 {
		t.Error("no mount was refused in the whole suite: this test looks at nothing")
	}
}
