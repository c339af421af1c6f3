package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/node"
)

// versionKeyName is the key's name in the Secret, and so its file's.
const versionKeyName = "version.key"

// madeKey is the result of version-key.
type madeKey struct {
	Secret  string `json:"secret"`
	Created bool   `json:"created"`
}

func newVersionKey() *cobra.Command {
	var target string
	command := &cobra.Command{
		Use:   "version-key --secret NAMESPACE/NAME",
		Short: "Make the key that versions of files are derived from, once per cluster",
		Long: `Make a Kubernetes Secret with 32 random bytes under version.key, the key that the
versions of files are derived from (versionKeyFile), unless the Secret is there already.
It runs in a pod that may create Secrets in that namespace; the Helm chart runs it before
an installation. Outside of a cluster, write such a file with
'head -c 32 /dev/urandom > version.key'.

The Secret stays when the chart is removed: with another key every file gets a new
version, and all that follows versions is updated once.`,
		Example:           `  keymount version-key --secret keymount/keymount-version-key`,
		ValidArgsFunction: cobra.NoFileCompletions,
		Args:              noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace, name, ok := strings.Cut(target, "/")
			if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
				return usagef("--secret is %q; it is NAMESPACE/NAME", target)
			}
			created, err := kube.CreateSecretOnce(cmd.Context(), namespace, name, versionKeyName, node.NewVersionKey())
			if err != nil {
				return err
			}
			result := madeKey{target, created}
			return printResult(cmd, result, result.print)
		},
	}
	command.Flags().StringVar(&target, "secret", "", "the Secret to make, NAMESPACE/NAME")
	return command
}

func (m madeKey) print(w io.Writer) {
	if m.Created {
		_, _ = fmt.Fprintf(w, "created the Secret %s\n", m.Secret)
		return
	}
	_, _ = fmt.Fprintf(w, "the Secret %s is there already and stays as it is\n", m.Secret)
}
