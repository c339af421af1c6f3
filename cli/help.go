package cli

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]...",
		Short:   "Explain a command",
		Long:    "Explain a command, as its flag --help does.",
		Example: `  keymount help config check`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []cobra.Completion
			for _, sub := range about.Commands() {
				if sub.Hidden { // of cobra, for the scripts of shells
					continue
				}
				names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usage{err}
			}
			if len(rest) > 0 {
				return noSuchCommand(about, rest)
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// helpOfKnown has --help behind the name of no command note that in misspelt, and show
// nothing: cobra would show the help of the command before it.
func helpOfKnown(root *cobra.Command, misspelt *error) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if cmd.HasSubCommands() {
			*misspelt = noSuchCommand(cmd, cmd.Flags().Args())
		}
		if *misspelt == nil {
			help(cmd, args)
		}
	})
}

// narrow wraps the paragraphs that are too wide, but for those with indented lines.
func narrow(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, paragraph := range paragraphs {
		lines := strings.Split(paragraph, "\n")
		isWide := slices.ContainsFunc(lines, func(line string) bool { return utf8.RuneCountInString(line) > width })
		if isWide && !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, " ") }) {
			paragraphs[i] = wrapped(strings.Join(strings.Fields(paragraph), " "), 0, "")
		}
	}
	return strings.Join(paragraphs, "\n\n")
}
