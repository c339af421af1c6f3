package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/trial"
)

// liveFlags say how to ask the API server for the token of a service account.
type liveFlags struct {
	on                       bool
	pod, context, kubeconfig string
}

func (l *liveFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.BoolVar(&l.on, "live", false, "read the stores of --config, with a token that kubectl gets from the API server")
	flags.StringVar(&l.pod, "pod", "", "with --live: the running pod to bind the token to")
	flags.StringVar(&l.context, "context", "", "with --live: the context for kubectl")
	flags.StringVar(&l.kubeconfig, "kubeconfig", "", "with --live: the kubeconfig for kubectl")
	completeFile(command, "kubeconfig")
}

func (l *liveFlags) check() error {
	for name, value := range map[string]string{"pod": l.pod, "context": l.context, "kubeconfig": l.kubeconfig} {
		if value != "" && !l.on {
			return usagef("--%s is for --live; add it", name)
		}
	}
	return nil
}

// issue has the API server prove the pod. A token without a pod is enough here, unless one
// is named.
func (l *liveFlags) issue(ctx context.Context, try *trial.Try) error {
	if _, err := exec.LookPath("kubectl"); err != nil {
		return errors.New("--live asks the API server with kubectl, and there is none in $PATH; install it")
	}
	issuer := &liveIssuer{flags: *l, try: try}
	issuer.ClusterKeys = auth.ClusterKeys{Get: issuer.get}
	try.Issuer = issuer
	if l.pod != "" {
		try.Pod.Name = l.pod
		_, err := issuer.Token(ctx, try.Config.Stores[0].Settings.Audience()) // it names uid and node of the pod
		return err
	}
	c := *try.Config
	c.Stores = slices.Clone(c.Stores)
	for i := range c.Stores {
		c.Stores[i].TokensWithoutPod = true
	}
	try.Config = &c
	return nil
}

// liveIssuer is the API server, as kubectl reaches it.
type liveIssuer struct {
	auth.ClusterKeys

	flags liveFlags
	try   *trial.Try
}

// Token implements [trial.Issuer].
func (l *liveIssuer) Token(ctx context.Context, audience string) (string, error) {
	pod := l.try.Pod
	args := []string{"create", "token", pod.ServiceAccount, "--namespace", pod.Namespace, "--audience", audience, "--duration", "10m"}
	if l.flags.pod != "" {
		args = append(args, "--bound-object-kind", "Pod", "--bound-object-name", l.flags.pod)
	}
	out, err := l.kubectl(ctx, args...)
	if err != nil {
		return "", l.refused(err)
	}
	token := strings.TrimSpace(string(out))
	if l.flags.pod != "" {
		l.bind(token)
	}
	return token, nil
}

// refused names the right that is missing.
func (l *liveIssuer) refused(err error) error {
	pod := l.try.Pod
	if !strings.Contains(err.Error(), " is forbidden: ") {
		return fmt.Errorf("ask for a token of service account %s/%s: %w", pod.Namespace, pod.ServiceAccount, err)
	}
	return fmt.Errorf("you may not ask for a token of service account %s/%s: that takes the right to create serviceaccounts/token in namespace %s; "+
		"see 'kubectl auth can-i create serviceaccounts/token -n %s': %w", pod.Namespace, pod.ServiceAccount, pod.Namespace, pod.Namespace, err)
}

// bind takes uid and node of the pod from a token that is verified later, by which time they
// have to fit.
func (l *liveIssuer) bind(token string) {
	var claims struct {
		Kubernetes struct {
			Pod, Node struct{ Name, UID string }
		} `json:"kubernetes.io"`
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	if text, err := base64.RawURLEncoding.DecodeString(payload); err == nil {
		_ = json.Unmarshal(text, &claims) // or else the token does not verify
	}
	l.try.Pod.UID, l.try.Node = claims.Kubernetes.Pod.UID, claims.Kubernetes.Node.Name
}

// get is a document of the API server.
func (l *liveIssuer) get(ctx context.Context, path string) ([]byte, error) {
	data, err := l.kubectl(ctx, "get", "--raw", path)
	if err != nil {
		return nil, fmt.Errorf("ask the API server for the keys of its tokens: %w", err)
	}
	return data, nil
}

// kubectl runs it. Its error is what kubectl says.
func (l *liveIssuer) kubectl(ctx context.Context, args ...string) ([]byte, error) {
	if l.flags.context != "" {
		args = append(args, "--context", l.flags.context)
	}
	if l.flags.kubeconfig != "" {
		args = append(args, "--kubeconfig", l.flags.kubeconfig)
	}
	var out, said bytes.Buffer
	command := exec.CommandContext(ctx, "kubectl", args...) //nolint:gosec // no shell takes part
	command.Stdout, command.Stderr = &out, &said
	if err := command.Run(); err != nil {
		const most = 400
		return nil, fmt.Errorf("kubectl: %w: %s", err, spelling.Visible(spelling.Cut(strings.Join(strings.Fields(said.String()), " "), most)))
	}
	return out.Bytes(), nil
}
