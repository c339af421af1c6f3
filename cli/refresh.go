package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store/all"
)

// refreshed is the result of the command refresh.
type refreshed struct {
	Socket string `json:"socket"`
}

func newRefresh() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "refresh",
		Short: "Have the keymount of this node read every secret again",
		Long: `Tell the keymount that serves on this node to read every secret again with its next mount,
whatever refresh of keymount.yaml says: after a rotation that cannot wait. The kubelet
calls every minute or so; nothing is read before that. Credentials with a lease and
certificates stay as they are, since another one would be made.

It takes the right to open the driver's socket, which belongs to root:

  kubectl -n keymount exec ds/keymount -- /keymount refresh     # one node
  kubectl -n keymount rollout restart ds/keymount               # all nodes; new credentials, too,
                                                              # unless it has a stateFolder`,
		Example: `  keymount refresh --config /etc/keymount/keymount.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file, all.All())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), defaultHealthTimeout)
			defer cancel()
			result := refreshed{Socket: c.Sockets[0]}
			if err := refresh(ctx, result.Socket); err != nil {
				return fmt.Errorf("socket %s: %w", result.Socket, err)
			}
			return printResult(cmd, result, result.print)
		},
	}
	command.Flags().StringVarP(&file, "config", "c", defaultConfigFile, "the operator's file, for its sockets")
	completeFile(command, "config", yamlFiles()...)
	return command
}

func refresh(ctx context.Context, socket string) error {
	connection, err := dial(ctx, socket)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	return provider.Refresh(ctx, connection)
}

func (r refreshed) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s: every secret is read again with its next mount\n", r.Socket)
}
