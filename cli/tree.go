package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keymount/keymount/internal/spelling"
)

// settle gives the commands of a tree what all of them have: mistakes of arguments are
// mistakes of usage, a misspelt subcommand gets a hint, nothing is completed as the name of a
// file that is none, and texts are no wider than a terminal.
func settle(command *cobra.Command) {
	for _, sub := range command.Commands() {
		settle(sub)
	}
	command.Long = narrow(command.Long)
	if command.HasSubCommands() {
		command.Args = noSuchCommand
	} else if args := command.Args; args != nil {
		command.Args = func(cmd *cobra.Command, given []string) error { return asUsage(args(cmd, given)) }
	}
	if takesNoArgs := len(strings.Fields(command.Use)) == 1; takesNoArgs && command.ValidArgsFunction == nil {
		command.ValidArgsFunction = cobra.NoFileCompletions
	}
	command.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if _, known := command.GetFlagCompletionFunc(flag.Name); !known && flag.Value.Type() != "bool" {
			_ = command.RegisterFlagCompletionFunc(flag.Name, cobra.NoFileCompletions) // there is such a flag
		}
	})
	if !command.HasParent() {
		command.SetUsageTemplate(strings.ReplaceAll(command.UsageTemplate(), "FlagUsages ", fmt.Sprintf("FlagUsagesWrapped %d ", width)))
	}
}

func asUsage(err error) error {
	if err == nil || isUsage(err) {
		return err
	}
	return usage{err}
}

// noSuchCommand refuses the arguments of a command that only has subcommands.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var known []string
	for _, sub := range cmd.Commands() {
		known = append(known, sub.Name())
	}
	return usagef("unknown command %q%s", args[0], spelling.Hint(args[0], known))
}

// oneOfValid refuses a word that is none of the known ones.
func oneOfValid(word string, known []string) error {
	if slices.Contains(known, word) {
		return nil
	}
	return usagef("%q is none of %s%s", word, strings.Join(known, ", "), spelling.Hint(word, known))
}

// unknownFlagHint adds the flag that may be meant.
func unknownFlagHint(cmd *cobra.Command, err error) error {
	unknown, ok := err.(*pflag.NotExistError) //nolint:errorlint // the library wraps none
	if !ok || unknown.GetSpecifiedShortnames() != "" {
		return usage{err}
	}
	var known []string
	cmd.Flags().VisitAll(func(flag *pflag.Flag) { known = append(known, "--"+flag.Name) })
	return usagef("%w%s", err, spelling.Hint("--"+unknown.GetSpecifiedName(), known))
}
