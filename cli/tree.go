package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keymount/keymount/internal/spelling"
)

// helpWidth is the width of help, in columns.
const helpWidth = 100

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
		command.SetUsageTemplate(strings.ReplaceAll(command.UsageTemplate(), "FlagUsages ", fmt.Sprintf("FlagUsagesWrapped %d ", helpWidth)))
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

// The names that kubectl looks for: of its plugin, and of the program that completes the
// plugin's command line.
const (
	pluginName   = "kubectl-keymount"
	completeName = "kubectl_complete-keymount"
	pluginShown  = "kubectl keymount"
)

// asPlugin has a plugin of kubectl speak of itself as it is called, and returns its
// arguments.
func asPlugin(root *cobra.Command, name string, args []string) []string {
	name = strings.TrimSuffix(name[strings.LastIndexAny(name, `/\`)+1:], ".exe")
	if name != pluginName && name != completeName {
		return args
	}
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: pluginShown}
	var names []string
	for _, sub := range root.Commands() {
		names = append(names, regexp.QuoteMeta(sub.Name()))
	}
	called := regexp.MustCompile(`(^|[\s'(])keymount(\s+(?:--version|` + strings.Join(names, "|") + `)\b)`)
	rename(root, func(text string) string { return called.ReplaceAllString(text, "${1}"+pluginShown+"${2}") })
	if name == completeName {
		return slices.Concat([]string{cobra.ShellCompRequestCmd}, args)
	}
	return args
}

// rename changes the texts of a tree of commands.
func rename(command *cobra.Command, change func(string) string) {
	command.Short, command.Long, command.Example = change(command.Short), narrow(change(command.Long)), change(command.Example)
	for _, sub := range command.Commands() {
		rename(sub, change)
	}
}

// narrow wraps the paragraphs that are too wide, but for those with indented lines.
func narrow(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, paragraph := range paragraphs {
		lines := strings.Split(paragraph, "\n")
		isWide := slices.ContainsFunc(lines, func(line string) bool { return utf8.RuneCountInString(line) > helpWidth })
		if isWide && !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, " ") }) {
			paragraphs[i] = wrap(strings.Fields(paragraph))
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

func wrap(words []string) string {
	var text strings.Builder
	column := 0
	for _, word := range words {
		switch length := utf8.RuneCountInString(word); {
		case column == 0:
			column = length
		case column+1+length > helpWidth:
			text.WriteByte('\n')
			column = length
		default:
			text.WriteByte(' ')
			column += 1 + length
		}
		text.WriteString(word)
	}
	return text.String()
}
