package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// rekeyed is the result of bundle rekey.
type rekeyed struct {
	File       string `json:"file"`
	Recipients int    `json:"recipients"`
}

// rekeying is the command line of bundle rekey.
type rekeying struct {
	recipientFlags
	identityFile string
	force        bool
}

func newBundleRekey() *cobra.Command {
	var r rekeying
	command := &cobra.Command{
		Use:   "rekey BUNDLE",
		Short: "Encrypt a bundle for other recipients",
		Long: `Encrypt a bundle for the recipients given here and for no others; the document stays as
it is. Name everybody: 'keymount bundle list --recipients' prints who is in it now. One of
the new recipients has to be that of the identity in use, lest you lock yourself out; with
--force that is not asked for.

To take somebody's access away, change the secrets too: what was read stays known, and so
does every older copy of the file.`,
		Example: `  keymount bundle list --identity key.txt --recipients secrets.age > recipients.txt
  echo age1... >> recipients.txt
  keymount bundle rekey --identity key.txt --recipients-file recipients.txt secrets.age`,
		Args:              bundleArgs("BUNDLE"),
		ValidArgsFunction: inOrder(byFiles(bundleFiles()...)),
		RunE:              r.run,
	}
	addIdentity(command, &r.identityFile)
	r.addFlags(command)
	command.Flags().BoolVar(&r.force, "force", false, "encrypt it even if the identity does not open it afterwards")
	return command
}

func (r *rekeying) run(cmd *cobra.Command, args []string) error {
	recipients, err := r.parse()
	if err != nil {
		return err
	}
	file, err := openBundle(args[0], r.identityFile)
	if err != nil {
		return err
	}
	if !r.force && !file.opens(recipients) {
		return fmt.Errorf("%s: none of the new recipients is that of an identity in %s, which would not open the bundle any more; name its recipient too, or add --force", file.name, r.identityFile)
	}
	if err := file.replace(file.text.Reveal(), recipients); err != nil {
		return err
	}
	result := rekeyed{file.name, len(recipients)}
	return printResult(cmd, result, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%s: recipients: %d\n", result.File, result.Recipients)
	})
}
