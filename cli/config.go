package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/config"
)

const defaultConfigFile = "/etc/keymount/keymount.yaml"

func newConfig() *cobra.Command {
	command := &cobra.Command{
		Use:   "config",
		Short: "Work with keymount.yaml",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(newConfigCheck())
	return command
}

// checked is the result of config check.
type checked struct {
	File   string         `json:"file"`
	Stores []checkedStore `json:"stores"`
}

type checkedStore struct {
	Name     string `json:"name"`
	Audience string `json:"audience"`
	Rules    int    `json:"rules"`
	// Open says that the store's own policies decide alone.
	Open bool `json:"open,omitempty"`
}

func newConfigCheck() *cobra.Command {
	var file string
	command := &cobra.Command{
		Use:   "check",
		Short: "Read keymount.yaml and report the mistakes in it",
		Long: `Read keymount.yaml as serve would and report the mistakes in it: all names and types that
are wrong, or, when those are right, all values that are. The exit code is 0 when there is
none and 1 otherwise. No store is opened and no secret is read.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file)
			if err != nil {
				return err
			}
			result := checked{File: file}
			for _, s := range c.Stores {
				result.Stores = append(result.Stores, checkedStore{s.Name, s.Audience(), len(s.Access.Rules), s.Access.Store})
			}
			return printResult(cmd, result, result.print)
		},
	}
	command.Flags().StringVarP(&file, "config", "c", defaultConfigFile, "the file to check")
	return command
}

func (c checked) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s: no mistakes\n", c.File)
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
}
