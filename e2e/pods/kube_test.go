package pods_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/keymount/keymount/e2e/cluster"
)

// pollEvery is how often a condition is looked at.
const pollEvery = 300 * time.Millisecond

// kube is the cluster as kubectl sees it.
type kube struct {
	ctx      context.Context // of the whole suite, and ends with ctrl-C
	patience int             // what limits are multiplied with
	config   *rest.Config
	*kubernetes.Clientset
	objects dynamic.Interface
	applier *cluster.Applier
}

func newKube(ctx context.Context, t *testing.T, config *rest.Config, patience int) *kube {
	t.Helper()
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = -1, -1         // a test waits for the cluster, not for itself
	config.WarningHandler = rest.NoWarnings{} // of old kinds, when all are listed
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	applier, err := cluster.NewApplier(config)
	if err != nil {
		t.Fatal(err)
	}
	return &kube{ctx, patience, config, clients, objects, applier}
}

// apply is `kubectl apply -f -` for YAML documents.
func (k *kube) apply(t *testing.T, documents string) {
	t.Helper()
	if err := k.applier.Apply(t.Context(), []byte(documents)); err != nil {
		t.Fatal(err)
	}
}

// applyFolder is `kubectl apply -f folder`.
func (k *kube) applyFolder(t *testing.T, folder string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests in %s: %v", folder, err)
	}
	slices.Sort(files)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		k.apply(t, string(data))
	}
}

// pod is one that exists.
func (k *kube) pod(t *testing.T, namespace, name string) *core.Pod {
	t.Helper()
	pod, err := k.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// ready waits until the pod's containers run and are ready.
func (k *kube) ready(t *testing.T, namespace, name string, limit time.Duration) {
	t.Helper()
	k.within(t, limit, "pod "+namespace+"/"+name+" is ready", func() error {
		pod, err := k.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !isReady(pod) {
			return fmt.Errorf("it is %s, with events: %s", pod.Status.Phase, strings.Join(k.events(t, namespace, name), "; "))
		}
		return nil
	})
}

func isReady(pod *core.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c core.PodCondition) bool {
		return c.Type == core.PodReady && c.Status == core.ConditionTrue
	})
}

// hasStarted says whether any container of the pod was ever started.
func hasStarted(pod *core.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(s core.ContainerStatus) bool {
		return s.State.Running != nil || s.State.Terminated != nil || s.RestartCount > 0
	})
}

// remove deletes a pod at once and waits until it is gone.
func (k *kube) remove(t *testing.T, namespace, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var now int64
	err := k.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	k.within(t, time.Minute, "pod "+namespace+"/"+name+" is gone", func() error {
		_, err := k.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is there"), err)
	})
}

// events are the texts of a pod's events, "Reason: message".
func (k *kube) events(t *testing.T, namespace, pod string) []string {
	t.Helper()
	list, err := k.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, event := range list.Items {
		texts = append(texts, event.Reason+": "+event.Message)
	}
	return texts
}

// exec runs a command in the pod's first container and returns what it prints.
func (k *kube) exec(t *testing.T, namespace, pod string, command ...string) (string, error) {
	t.Helper()
	request := k.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&core.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewSPDYExecutor(k.config, "POST", request.URL())
	if err != nil {
		return "", err
	}
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut}); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// logs are what a pod's containers have printed.
func (k *kube) logs(t *testing.T, namespace, pod string) string {
	t.Helper()
	data, err := k.CoreV1().Pods(namespace).GetLogs(pod, &core.PodLogOptions{}).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("read the log of %s/%s: %v", namespace, pod, err)
	}
	return string(data)
}

// within tries again until attempt has no error, and fails the test with the last
// one when there is no time left. Limits are for nodes whose kubelets are in no hurry
// as well: see kube.patience.
func (k *kube) within(t *testing.T, limit time.Duration, what string, attempt func() error) {
	t.Helper()
	limit *= time.Duration(k.patience)
	if err := k.retry(t, limit, attempt); err != nil {
		t.Fatalf("after %s it is not so that %s: %v", limit, what, err)
	}
}

// retry is within without a judgement. It also ends with ctrl-C.
func (k *kube) retry(t *testing.T, limit time.Duration, attempt func() error) error {
	t.Helper()
	late := time.After(limit)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		select {
		case <-late:
			return err
		case <-k.ctx.Done():
			t.Fatalf("interrupted: %v", err)
		case <-tick.C:
		}
	}
}
