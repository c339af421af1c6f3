package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/internal/spelling"
)

// kubectl runs the program of that name: what it may do is what the caller may do.
type kubectl struct{ context, kubeconfig string }

// add adds the flags of kubectl. when says when they count, and may be empty.
func (k *kubectl) add(command *cobra.Command, when string) {
	command.Flags().StringVar(&k.context, "context", "", when+"the context for kubectl")
	command.Flags().StringVar(&k.kubeconfig, "kubeconfig", "", when+"the kubeconfig for kubectl")
	completeFile(command, "kubeconfig")
	k.completes(command, "context", func(ctx context.Context) ([]string, error) {
		return k.lines(ctx, "config", "get-contexts", "--output", "name")
	})
}

// completes has the shell complete a flag by what kubectl lists, and by nothing where kubectl
// does not answer soon.
func (k *kubectl) completes(command *cobra.Command, flag string, list func(context.Context) ([]string, error)) {
	const soon = 2 * time.Second
	completeBy(command, flag, func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), soon)
		defer cancel()
		names, err := list(ctx)
		if err != nil { // a shell shows no errors
			names = nil
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
}

func (k *kubectl) lines(ctx context.Context, args ...string) ([]string, error) {
	text, err := k.run(ctx, args...)
	return strings.Fields(string(text)), err
}

func (k *kubectl) namespaces(ctx context.Context) ([]string, error) {
	names, err := k.lines(ctx, "get", "namespaces", "--output", "name")
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, "namespace/")
	}
	return names, err
}

func (k *kubectl) installed() error {
	if _, err := exec.LookPath("kubectl"); err != nil {
		return errors.New("the API server is asked with kubectl, and there is none in $PATH; install it")
	}
	return nil
}

// run returns the output of kubectl. Its error is what kubectl says. What follows a -- among
// args is the command of exec.
func (k *kubectl) run(ctx context.Context, args ...string) ([]byte, error) {
	if err := k.installed(); err != nil {
		return nil, err
	}
	var flags []string
	if k.context != "" {
		flags = append(flags, "--context", k.context)
	}
	if k.kubeconfig != "" {
		flags = append(flags, "--kubeconfig", k.kubeconfig)
	}
	var out, said bytes.Buffer
	end := slices.Index(args, "--")
	if end < 0 {
		end = len(args)
	}
	command := exec.CommandContext(ctx, "kubectl", slices.Concat(args[:end], flags, args[end:])...) //nolint:gosec // no shell takes part
	command.Stdout, command.Stderr = &out, &said
	command.WaitDelay = time.Second // for a program of kubectl's that logs in, and outlives it
	if err := command.Run(); err != nil {
		const most = 400
		return nil, fmt.Errorf("kubectl: %w: %s", err, spelling.Visible(spelling.Cut(strings.Join(strings.Fields(said.String()), " "), most)))
	}
	return out.Bytes(), nil
}

// providerPod is keymount's pod on a node.
type providerPod struct{ name, node, phase string }

// providers are keymount's pods of a release in a namespace, one a node; node chooses one,
// and empty is all.
func (k *kubectl) providers(ctx context.Context, namespace, node string) ([]providerPod, error) {
	args := []string{"get", "pods", "--namespace", namespace, "--output", "json", "--selector", "app.kubernetes.io/name=keymount,app.kubernetes.io/component=provider"}
	if node != "" {
		args = append(args, "--field-selector", "spec.nodeName="+node)
	}
	data, err := k.run(ctx, args...)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ NodeName string }
			Status   struct{ Phase string }
		}
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("read what kubectl says of the pods: %w", err)
	}
	pods := make([]providerPod, len(list.Items))
	for i, item := range list.Items {
		pods[i] = providerPod{item.Metadata.Name, item.Spec.NodeName, item.Status.Phase}
	}
	slices.SortFunc(pods, func(a, b providerPod) int { return strings.Compare(a.node, b.node) })
	if len(pods) == 0 && node != "" {
		return nil, fmt.Errorf("namespace %s has no pod of keymount on node %q; name its namespace with -n", namespace, node)
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("namespace %s has no pod of keymount; name its namespace with -n", namespace)
	}
	return pods, nil
}
