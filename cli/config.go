package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/store/all"
)

const defaultConfigFile = "/etc/keymount/keymount.yaml"

func newConfig() *cobra.Command {
	command := &cobra.Command{
		Use:   "config",
		Short: "Work with keymount.yaml",
		Long: `Work with keymount.yaml, the operator's file: the stores, the rules for reading them, and the
limits of a mount. docs/configuration.md is its manual.`,
		Example: `  keymount config check keymount.yaml`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(newConfigCheck())
	return command
}

// checked is the result of config check.
type checked struct {
	File   string         `json:"file"`
	Stores []checkedStore `json:"stores,omitempty"`
	// Unlooked says that the files it names were not looked at.
	Unlooked bool      `json:"filesUnchecked,omitempty"`
	Mistakes []mistake `json:"mistakes,omitempty"`
	Warnings []mistake `json:"warnings,omitempty"`
}

// mistake is a [config.Mistake] of the one file.
type mistake struct {
	Line  int    `json:"line,omitempty"`
	Place string `json:"place,omitempty"`
	Text  string `json:"text"`

	whole config.Mistake
}

func mistakesOf(mistakes []config.Mistake) []mistake {
	all := make([]mistake, len(mistakes))
	for i, m := range mistakes {
		all[i] = mistake{m.Line, m.Place, m.Text, m}
	}
	return all
}

type checkedStore struct {
	Name     string `json:"name"`
	Audience string `json:"audience"`
	Rules    int    `json:"rules"`
	// Open says that the store's own policies decide alone.
	Open bool `json:"open,omitempty"`
}

// stdinName is how standard input is named, on the command line and in messages.
const (
	stdinArg  = "-"
	stdinName = "standard input"
)

func newConfigCheck() *cobra.Command {
	var file string
	var files bool
	command := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Read keymount.yaml and report the mistakes in it",
		Long: `Read keymount.yaml as serve would and report the mistakes in it, each with its line: all names
and types that are wrong, or, when those are right, all values that are. Then the files that
it names are looked into: a bundle has to open with its identity, a caFile to hold
certificates. Warnings are no mistakes. The exit code is 0 when there is no mistake and 1
otherwise. No store is asked over a network.

FILE may be the values.yaml of keymount's chart, whose part below config is checked, or - for
standard input. Of both the files are on another machine and not looked into, nor with
--files=false.`,
		Example: `  keymount config check keymount.yaml
  keymount config check values.yaml -o json
  kubectl get configmap keymount -o jsonpath='{.data.keymount\.yaml}' |
    keymount config check -`,
		Args:              atMostOneFile,
		ValidArgsFunction: inOrder(byFiles(yamlFiles()...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if cmd.Flag("config").Changed {
					return usagef("name the file once, as the argument or by --config")
				}
				file = args[0]
			}
			text, err := openText(cmd, file)
			if err != nil {
				return err
			}
			return checkConfig(cmd, text, file, func() bool {
				if cmd.Flag("files").Changed {
					return files
				}
				return file != stdinArg && !text.Values()
			})
		},
	}
	command.Flags().StringVarP(&file, "config", "c", defaultConfigFile, "the file to check, as the argument")
	completeFile(command, "config", yamlFiles()...)
	command.Flags().BoolVar(&files, "files", true, "look into the files that it names (default: not those of - and of the chart's values)")
	return command
}

func openText(cmd *cobra.Command, file string) (*config.Text, error) {
	if file != stdinArg {
		return config.Open(file)
	}
	text, err := config.Read(stdinName, cmd.InOrStdin())
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return text, nil
}

// checkConfig prints what is wrong, and how much there is where nothing is. look tells
// whether to look into files.
func checkConfig(cmd *cobra.Command, text *config.Text, file string, look func() bool) error {
	result := checked{File: file}
	c, err := text.Config(all.All())
	if err != nil {
		if result.Mistakes = mistakesOf(config.Mistakes(err)); len(result.Mistakes) == 0 {
			return err
		}
		return result.refuse(cmd)
	}
	result.Warnings = mistakesOf(text.Placed(node.Warn(c)))
	if result.Unlooked = !look(); !result.Unlooked {
		result.Mistakes = mistakesOf(text.Placed(node.Inspect(cmd.Context(), c)))
	}
	if len(result.Mistakes) > 0 {
		return result.refuse(cmd)
	}
	for _, s := range c.Stores {
		result.Stores = append(result.Stores, checkedStore{s.Name, s.Settings.Audience(), len(s.Access.Rules), s.Access.Store})
	}
	if err := result.warn(cmd); err != nil {
		return err
	}
	return printResult(cmd, result, result.print)
}

// refuse ends the command with the mistakes: as the result with -o json, else as its error.
func (c checked) refuse(cmd *cobra.Command) error {
	if isJSON(cmd) {
		if err := printResult(cmd, c, nil); err != nil {
			return err
		}
		return exitError{code: exitFailed}
	}
	if err := c.warn(cmd); err != nil {
		return err
	}
	mistakes := make([]error, len(c.Mistakes))
	for i, m := range c.Mistakes {
		mistakes[i] = m.whole
	}
	return errors.Join(mistakes...)
}

// warn prints the warnings beside the result, unless they are a part of it.
func (c checked) warn(cmd *cobra.Command) error {
	if isJSON(cmd) {
		return nil
	}
	for _, w := range c.Warnings {
		if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w.whole); err != nil {
			return fmt.Errorf("print a warning: %w", err)
		}
	}
	return nil
}

func (c checked) print(w io.Writer) {
	name := c.File
	if name == stdinArg {
		name = stdinName
	}
	_, _ = fmt.Fprintf(w, "%s: no mistakes\n", name)
	for _, s := range c.Stores {
		if s.Open {
			_, _ = fmt.Fprintf(w, "  store %-12s audience %-12s access: the store's own policies\n", s.Name, s.Audience)
			continue
		}
		_, _ = fmt.Fprintf(w, "  store %-12s audience %-12s access rules: %d\n", s.Name, s.Audience, s.Rules)
		if s.Rules == 0 {
			_, _ = fmt.Fprintf(w, "    without access rules nobody can read from it\n")
		}
	}
	if c.Unlooked {
		_, _ = fmt.Fprintf(w, "  the files that it names were not looked into\n")
	}
}
