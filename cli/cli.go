// Package cli is keymount's command line, one file per subcommand. The result of a
// command goes to standard output, everything else to standard error, so that a pipe
// gets the result alone.
package cli

//go:generate go test -run ^TestManPages$ . -update

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/internal/contain"
)

// program is the name of keymount's program.
const program = "keymount"

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
	return RunAs(ctx, program, args, in, out, errOut)
}

// RunAs is Run for a program that was called by this name: as a plugin of kubectl it has
// another one than its own.
func RunAs(ctx context.Context, name string, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRoot() //nolint:contextcheck // cobra hands ctx to each command
	args = asPlugin(root, name, args)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	command := root
	var misspelt error
	helpOfKnown(root, &misspelt)
	err := contain.Run(func() (err error) {
		command, err = root.ExecuteContextC(ctx)
		return cmp.Or(err, misspelt)
	})
	switch {
	case err == nil, isUnread(command, err):
		return exitOK
	case wantsJSON(args):
		return failInJSON(out, err)
	}
	return fail(command, err, errOut)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   program,
		Short: "Mount secrets from external stores into pods, read-only and in memory",
		Long: `Keymount is a provider for the Kubernetes Secrets Store CSI driver. It proves who
a pod is with the pod's own service account token, reads the pod's secrets from an
external store and hands them to the driver, which writes them into the pod's tmpfs.

Start with 'keymount demo': it shows a mount, a rotation and a denial on this
machine, without a cluster.`,
		Example: `  keymount demo
  keymount config check keymount.yaml
  keymount audit verify /var/log/keymount/audit*`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flag("version").Changed {
				return printBuild(cmd)
			}
			return cmd.Help()
		},
	}
	root.Flags().Bool("version", false, "print which keymount this is")
	root.PersistentFlags().StringP("output", "o", "text", "how a result is printed: text or json")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return checkOutput(cmd) }
	complete(root, "output", []string{"text", "json"})
	root.SetFlagErrorFunc(unknownFlagHint)
	root.SetHelpCommand(newHelp())
	root.AddCommand(
		newServe(), newAudit(), newBundle(), newConfig(), newConvert(), newDemo(), newHealth(), newLint(), newInit(),
		newMount(), newRefresh(), newRender(), newSchema(), newStatus(), newVersion(), newVersionKey(), newCompletion(),
	)
	root.InitDefaultHelpCmd()
	settle(root)
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
// calling text. A command decides on its exit code after that.
func printResult(cmd *cobra.Command, result any, text func(io.Writer)) error {
	if !isJSON(cmd) {
		w := bufio.NewWriter(cmd.OutOrStdout())
		text(w)
		return asPrinted(cmd, w.Flush())
	}
	encoder := json.NewEncoder(cmd.OutOrStdout())
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return asPrinted(cmd, encoder.Encode(result))
}

// asPrinted is the error of having printed a result. A reader that went away is none: the
// command goes on to the exit code of what it found, which a gate behind a pipe relies on.
func asPrinted(cmd *cobra.Command, err error) error {
	if err == nil || isUnread(cmd, err) {
		return nil
	}
	return fmt.Errorf("print the result: %w", err)
}
