package cli

import (
	"encoding/json"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/schema"
)

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema NAME",
		Short: "Print a JSON Schema, with which an editor completes and checks YAML",
		Long: `Print a JSON Schema: of keymount.yaml (config), of a SecretProviderClass (class), of the list in its
objects (objects), or of the chart's values (values). Editors with yaml-language-server, such as
VS Code with the extension YAML, Neovim and Helix, complete and explain names with it, and mark
those that are wrong, when a file names its schema in a comment:

  # yaml-language-server: $schema=` + schema.Address(schema.Class) + `

In place of the address the name of a file works, too. 'keymount init' writes such a line.`,
		Example: `  keymount schema class > class.json
  keymount schema values | jq .properties.config`,
		ValidArgsFunction: inOrder(byWords(schema.Names())),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one schema: %s", strings.Join(schema.Names(), ", "))
			}
			return oneOfValid(args[0], schema.Names())
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := schema.Read(args[0])
			if err != nil {
				return err
			}
			return printResult(cmd, json.RawMessage(text), func(w io.Writer) { _, _ = w.Write(text) })
		},
	}
}
