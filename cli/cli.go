// Package cli is keymount's command line, one file per subcommand. The result of a
// command goes to standard output, everything else to standard error, so that a pipe
// gets the result alone.
package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the command was understood and failed
	exitUsage  = 2 // the command line itself is wrong
)

// usage is a mistake of the command line, not a failure of the command.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

func isUsage(err error) bool {
	_, is := errors.AsType[usage](err)
	return is
}

// exitError ends a command with a code of its own, and silently without an err.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// Run executes one command line and returns the exit code. It ends soon after
// ctx does.
func Run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot() //nolint:contextcheck // cobra hands ctx to each command
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	command, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case isUsage(err):
		text := err.Error()
		_, _ = fmt.Fprintf(errOut, "keymount: %s\nSee '%s --help'.\n", text, command.CommandPath())
		return exitUsage
	}
	exit := exitError{exitFailed, err}
	_ = errors.As(err, &exit)
	if exit.err != nil {
		_, _ = fmt.Fprintf(errOut, "keymount: %s\n", err)
	}
	return exit.code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keymount",
		Short: "Mount secrets from external stores into pods, read-only and in memory",
		Long: `Keymount is a provider for the Kubernetes Secrets Store CSI driver. It proves who
a pod is with the pod's own service account token, reads the pod's secrets from an
external store and hands them to the driver, which writes them into the pod's tmpfs.

Start with 'keymount demo': it shows a mount, a rotation and a denial on this
machine, without a cluster.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return cmd.Help()
		},
	}
	root.PersistentFlags().StringP("output", "o", "text", "how a result is printed: text or json")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return checkOutput(cmd) }
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.AddCommand(newServe(), newAudit(), newDemo(), newBundle(), newConfig(), newConvert(), newHealth(), newRefresh(), newVersion(), newVersionKey())
	return root
}

func checkOutput(cmd *cobra.Command) error {
	if o := cmd.Flag("output").Value.String(); o != "text" && o != "json" {
		return usagef("--output is %q; it is text or json", o)
	}
	return nil
}

func isJSON(cmd *cobra.Command) bool { return cmd.Flag("output").Value.String() == "json" }

// noArgs refuses arguments as a mistake of usage.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q", args[0])
	}
	return nil
}

// printResult prints a command's result: as one JSON object with -o json, else by
// calling text.
func printResult(cmd *cobra.Command, result any, text func(io.Writer)) error {
	if !isJSON(cmd) {
		w := bufio.NewWriter(cmd.OutOrStdout())
		text(w)
		if err := w.Flush(); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
		return nil
	}
	encoder := json.NewEncoder(cmd.OutOrStdout())
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(result); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}
