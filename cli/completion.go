package cli

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"
)

// shells are those with a script of completion.
func shells() []string { return []string{"bash", "zsh", "fish", "powershell"} }

func newCompletion() *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print the script with which a shell completes keymount's command line",
		Long: `Print the script with which bash, zsh, fish or powershell completes keymount's commands, flags and
their values. For bash it takes the package bash-completion.

As a plugin of kubectl, keymount is completed by kubectl itself: for that the program lies in the
PATH under the name kubectl_complete-keymount, too.`,
		Example: `  keymount completion bash > /etc/bash_completion.d/keymount
  keymount completion zsh > "${fpath[1]}/_keymount"
  keymount completion fish > ~/.config/fish/completions/keymount.fish
  ln -s "$(command -v kubectl-keymount)" /usr/local/bin/kubectl_complete-keymount`,
		ValidArgsFunction: inOrder(byWords(shells())),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one shell: bash, zsh, fish or powershell")
			}
			return oneOfValid(args[0], shells())
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := onlyText(cmd, "standard output is the script itself"); err != nil {
				return err
			}
			script, err := scriptFor(args[0], cmd.Root())
			if err != nil {
				return fmt.Errorf("make the script: %w", err)
			}
			return writeOut(cmd, script)
		},
	}
}

func scriptFor(shell string, root *cobra.Command) ([]byte, error) {
	var script bytes.Buffer
	var err error
	switch shell {
	case "bash":
		err = root.GenBashCompletionV2(&script, true)
	case "zsh":
		err = root.GenZshCompletion(&script)
	case "fish":
		err = root.GenFishCompletion(&script, true)
	default:
		err = root.GenPowerShellCompletionWithDesc(&script)
	}
	return script.Bytes(), err
}

// complete has the shell complete the values of a flag.
func complete(command *cobra.Command, flag string, values []string) {
	completeBy(command, flag, byWords(values))
}

func completeBy(command *cobra.Command, flag string, by cobra.CompletionFunc) {
	// It fails where there is no such flag, or twice, which a test would show.
	_ = command.RegisterFlagCompletionFunc(flag, by)
}

// completeFile has the shell complete a flag by the names of files with these extensions, or
// of all files.
func completeFile(command *cobra.Command, flag string, extensions ...string) {
	completeBy(command, flag, byFiles(extensions...))
}

// yamlFiles are the extensions of a keymount.yaml.
func yamlFiles() []string { return []string{"yaml", "yml"} }

// bundleFiles are the extensions of a bundle.
func bundleFiles() []string { return []string{"age"} }

// byFiles completes the names of files with these extensions, or of all files.
func byFiles(extensions ...string) cobra.CompletionFunc {
	if len(extensions) == 0 {
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	}
	return cobra.FixedCompletions(extensions, cobra.ShellCompDirectiveFilterFileExt)
}

// byWords completes one of a few words.
func byWords(words []string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// inOrder completes each argument by a way of its own, and those behind them not at all.
func inOrder(each ...cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= len(each) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return each[len(args)](cmd, args, begun)
	}
}
