package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/store/bundle"
)

// changed is the result of a command that changes a bundle.
type changed struct {
	File    string          `json:"file"`
	Written bool            `json:"written"`
	Changes []bundle.Change `json:"changes"`
}

func (c changed) print(w io.Writer) { printChanges(w, c.Changes) }

func printChanges(w io.Writer, changes []bundle.Change) {
	var rows [][]string
	for _, c := range changes {
		key := shown(c.Key)
		if c.Key == "" {
			key = "(no key)"
		}
		rows = append(rows, []string{shown(c.Path), key, c.What})
	}
	printTable(w, rows)
}

func newBundleRemove() *cobra.Command {
	var identityFile string
	command := &cobra.Command{
		Use:   "rm BUNDLE PATH [KEY]",
		Short: "Remove a key, or a whole secret, from a bundle",
		Long: `Remove one key of the secret at PATH, or the whole secret when KEY is absent. A secret
goes with its last key. The last secret stays: remove the file instead. KEY is a name as
'keymount bundle list' shows it; dots do not go deeper.

The comments in the document stay, except those of what is removed (a comment right above
it is taken for its own), and so does the order; blank lines may not. To keep every
character use 'keymount bundle edit'. The bundle stays encrypted for the same recipients.`,
		Example: `  keymount bundle rm --identity key.txt secrets.age shop/db old-password
  keymount bundle rm --identity key.txt secrets.age shop/db`,
		Args:              bundleArgs("BUNDLE", "PATH", "[KEY]"),
		ValidArgsFunction: inOrder(byFiles(bundleFiles()...)),
		RunE:              func(cmd *cobra.Command, args []string) error { return removeFrom(cmd, identityFile, args) },
	}
	addIdentity(command, &identityFile)
	return command
}

func removeFrom(cmd *cobra.Command, identityFile string, args []string) error {
	key := ""
	if len(args) == 3 {
		key = args[2]
	}
	path, key, err := parsePlace(args[1], key)
	if err != nil {
		return err
	}
	changes, err := changeBundle(args[0], identityFile, func(text []byte) ([]byte, error) {
		if len(args) == 3 {
			return bundle.RemoveKey(text, path, key)
		}
		return bundle.RemoveSecret(text, path)
	})
	if err != nil {
		return err
	}
	result := changed{args[0], true, changes}
	return printResult(cmd, result, result.print)
}
