package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/audit"
)

// madeAuditKey is the result of audit keygen.
type madeAuditKey struct {
	File string `json:"file"`
	Key  string `json:"key"` // the public half
}

func newAuditKeygen() *cobra.Command {
	name := "keymount"
	command := &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key that signs where trails come from",
		Long: `Make an Ed25519 key for audit.keyFile of keymount.yaml, write it to FILE, which only its owner
may read, and print its public half, for the --key of 'keymount audit verify'. It signs the
begin of each trail. A file that is there is never written over.`,
		Example: `  keymount audit keygen audit.key
  keymount audit verify --key keymount+1b2c3d4e+AbC...= audit.jsonl`,
		ValidArgsFunction: inOrder(byFiles()),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one file to write the key to")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			private, public, err := audit.NewKey(name)
			if err != nil {
				return usagef("--name: %w", err)
			}
			if err := writeNew(args[0], "key", private+"\n"); err != nil {
				return err
			}
			result := madeAuditKey{args[0], public}
			return printResult(cmd, result, func(w io.Writer) { _, _ = fmt.Fprintln(w, result.Key) })
		},
	}
	command.Flags().StringVar(&name, "name", name, "the name of the key, without spaces and +: of the cluster, for example")
	return command
}
