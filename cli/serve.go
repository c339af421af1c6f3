package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/store/all"
)

// serveName names the command that has no result.
const serveName = "serve"

func newServe() *cobra.Command {
	var file, name, level string
	command := &cobra.Command{
		Use:   serveName,
		Short: "Answer the driver's Mount calls on this node",
		Long: `Answer the Secrets Store CSI driver's Mount calls on this node, on the sockets of
keymount.yaml, until SIGTERM or SIGINT. Logs go to standard error, as text on a terminal
and as JSON lines otherwise; the audit trail goes to standard output or to a file.`,
		Example: `  keymount serve --config /etc/keymount/keymount.yaml --node-name worker-1`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file, all.All())
			if err != nil {
				return err
			}
			log, err := newLog(cmd.ErrOrStderr(), level)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, nodeOptions(name, log, cmd.OutOrStdout()))
		},
	}
	command.Flags().StringVarP(&file, "config", "c", defaultConfigFile, "the operator's file")
	command.Flags().StringVar(&name, "node-name", os.Getenv("NODE_NAME"), "this node as the API server knows it (default $NODE_NAME)")
	command.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	completeFile(command, "config", yamlFiles()...)
	complete(command, "log-level", []string{"debug", "info", "warn", "error"})
	return command
}

// serve runs until ctx ends.
func serve(ctx context.Context, c *config.Config, o node.Options) error {
	log := o.Log
	opened, err := node.Open(ctx, c, o)
	if err != nil {
		return err
	}
	log.LogAttrs(ctx, slog.LevelInfo, "serving", slog.Any("sockets", c.Sockets), slog.String("node", o.Node),
		slog.Int("stores", len(c.Stores)), slog.Int("issuers", len(c.Issuers)), slog.Bool("events", c.Events), slog.String("metrics", c.Metrics),
		slog.Bool("watch_volumes", c.WatchVolumes),
		slog.String("mount_deadline", c.Limits.MountDeadline.String()))
	if err := opened.Run(ctx); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, "stopped")
	return nil
}

// nodeOptions are those of this keymount on the node of that name.
func nodeOptions(name string, log *slog.Logger, stdout io.Writer) node.Options {
	b := readBuild()
	return node.Options{Node: name, Version: b.Version, Revision: b.Revision, Log: log, Stdout: stdout}
}

// newLog writes text to a terminal and JSON lines to everything else.
func newLog(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level is %q; it is debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}
