package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/trial"
)

// liveFlags say how to ask the API server for the token of a service account.
type liveFlags struct {
	kubectl

	on  bool
	pod string // that the token is bound to; empty for none
}

func (l *liveFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.BoolVar(&l.on, "live", false, "read the stores of --config, with a token that kubectl gets from the API server")
	l.kubectl.add(command, "with --live: ")
}

func (l *liveFlags) check() error {
	var given []string
	if l.context != "" {
		given = append(given, "--context")
	}
	if l.kubeconfig != "" {
		given = append(given, "--kubeconfig")
	}
	if l.on || len(given) == 0 {
		return nil
	}
	return usagef("%s: for --live, which is not there; add it", strings.Join(given, ", "))
}

// issue has the API server prove the pod. A token without a pod is enough here, unless one
// is named.
func (l *liveFlags) issue(ctx context.Context, try *trial.Try) error {
	if err := l.installed(); err != nil {
		return err
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
	out, err := l.flags.run(ctx, args...)
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
	data, err := l.flags.run(ctx, "get", "--raw", path)
	if err != nil {
		return nil, fmt.Errorf("ask the API server for the keys of its tokens: %w", err)
	}
	return data, nil
}
