package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/keymount/keymount/store/bundle"
)

func newBundle() *cobra.Command {
	command := &cobra.Command{
		Use:   "bundle",
		Short: "Make and open bundles: files of secrets, encrypted with age",
		Long: `A bundle is a store without a server: one YAML document of secrets, encrypted with
age. keymount.yaml names the file, and the identity file that opens it on the nodes.

Who can open a bundle is noted inside of it, where only they can read it: edit, set and
rm encrypt it for the same recipients again, and rekey for others. They replace the file
all at once, so keymount may run meanwhile, and not at all when somebody else changed it
since they read it.`,
		Example: `  keymount bundle keygen key.txt > recipient.txt
  keymount bundle encrypt --recipients-file recipient.txt --out secrets.age secrets.yaml
  keymount bundle list --identity key.txt secrets.age
  keymount bundle edit --identity key.txt secrets.age`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(newBundleKeygen(), newBundleEncrypt(), newBundleDecrypt(), newBundleList(), newBundleSet(),
		newBundleRemove(), newBundleEdit(), newBundleRekey(), newBundleDiff())
	return command
}

// generated is the result of bundle keygen.
type generated struct {
	File      string `json:"file"`
	Recipient string `json:"recipient"`
}

func newBundleKeygen() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make an identity: what opens bundles",
		Long: `Make an age X25519 identity, write it to FILE, which only its owner may read, and
print its recipient: what bundles are encrypted for, and no secret. A file that is
there is never written over, for the bundles encrypted for it would be lost.`,
		Example:           `  keymount bundle keygen key.txt`,
		ValidArgsFunction: inOrder(byFiles()),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one file to write the identity to")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			identity, err := age.GenerateX25519Identity()
			if err != nil {
				return fmt.Errorf("make an identity: %w", err)
			}
			if err := writeIdentity(args[0], identity); err != nil {
				return err
			}
			result := generated{args[0], identity.Recipient().String()}
			return printResult(cmd, result, func(w io.Writer) { _, _ = fmt.Fprintln(w, result.Recipient) })
		},
	}
}

// writeIdentity writes the file as age-keygen does.
func writeIdentity(file string, identity *age.X25519Identity) error {
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n", time.Now().Format(time.RFC3339), identity.Recipient(), identity)
	return writeNew(file, "identity", text)
}

// writeNew writes a file that only its owner may read, and that was not there.
func writeNew(file, what, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and is not written over; name another file, or move it away", file)
	}
	if err != nil {
		return fmt.Errorf("write the %s: %w", what, err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the %s: %w", what, err), os.Remove(file))
	}
	return nil
}

// encrypted is the result of bundle encrypt.
type encrypted struct {
	File       string `json:"file"`
	Paths      int    `json:"paths"`
	Recipients int    `json:"recipients"`
}

// encryption is the command line of bundle encrypt.
type encryption struct {
	recipientFlags
	out string
}

func newBundleEncrypt() *cobra.Command {
	var e encryption
	command := &cobra.Command{
		Use:   "encrypt [PLAINTEXT]",
		Short: "Encrypt a YAML document of secrets",
		Long: `Check a YAML document of secrets and encrypt it for every recipient. The document is
a map of paths to maps of keys to values; it comes from PLAINTEXT, or from standard
input when that is absent or "-". The bundle goes to standard output, or in place of
the file of --out, all at once: keymount never sees half of it.

An identity opens the bundle when its recipient is among these, no other does. To
take somebody's access away, change the secrets too: what was read stays known.`,
		Example: `  keymount bundle encrypt -r age1... -r age1... --out secrets.age secrets.yaml
  keymount bundle decrypt --identity key.txt secrets.age | sed s/old/new/ |
    keymount bundle encrypt --recipients-file recipients.txt --out secrets.age`,
		Args:              atMostOneFile,
		ValidArgsFunction: inOrder(byFiles(yamlFiles()...)),
		RunE:              e.run,
	}
	e.addFlags(command)
	command.Flags().StringVar(&e.out, "out", "", "the bundle file to write; without it standard output")
	completeFile(command, "out", bundleFiles()...)
	return command
}

func (e *encryption) run(cmd *cobra.Command, args []string) error {
	if e.out == "" {
		if err := onlyText(cmd, "standard output is the bundle itself, without a result; add --out"); err != nil {
			return err
		}
	}
	recipients, err := e.parse()
	if err != nil {
		return err
	}
	plaintext, name, err := readInput(cmd, args, bundle.MaxPlaintext)
	if err != nil {
		return err
	}
	document, err := bundle.Parse(plaintext)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	sealed, err := bundle.Encrypt(plaintext, recipients)
	if err != nil {
		return err
	}
	if e.out == "" {
		return writeOut(cmd, sealed)
	}
	if err := replaceFile(e.out, sealed); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	result := encrypted{e.out, len(document.Paths()), len(recipients)}
	return printResult(cmd, result, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%s: paths: %d, recipients: %d\n", result.File, result.Paths, result.Recipients)
	})
}

func newBundleDecrypt() *cobra.Command {
	var identityFile string
	command := &cobra.Command{
		Use:   "decrypt [BUNDLE]",
		Short: "Print the document in a bundle",
		Long: `Decrypt a bundle and print its document, as it was encrypted, to standard output.
The bundle comes from BUNDLE, or from standard input when that is absent or "-".

What is printed is secret: give it to a pipe rather than to a file.`,
		Example:           `  keymount bundle decrypt --identity key.txt secrets.age | less`,
		Args:              atMostOneFile,
		ValidArgsFunction: inOrder(byFiles(bundleFiles()...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := onlyText(cmd, "standard output is the document itself, without a result"); err != nil {
				return err
			}
			return decrypt(cmd, identityFile, args)
		},
	}
	addIdentity(command, &identityFile)
	return command
}

func decrypt(cmd *cobra.Command, identityFile string, args []string) error {
	identities, err := readIdentities(identityFile)
	if err != nil {
		return err
	}
	data, name, err := readInput(cmd, args, bundle.MaxCiphertext)
	if err != nil {
		return err
	}
	plaintext, err := bundle.Decrypt(data, identities)
	if err != nil {
		return fmt.Errorf("%s, opened with the identities in %s: %w", name, identityFile, err)
	}
	return writeOut(cmd, plaintext)
}

// atMostOneFile refuses more arguments than one as a mistake of usage.
func atMostOneFile(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("unexpected argument %q", args[1])
	}
	return nil
}

// onlyText refuses -o json where there is nothing to print in it.
func onlyText(cmd *cobra.Command, why string) error {
	if cmd.Flag("output").Value.String() != "text" {
		return usagef("--output is not for this: %s", why)
	}
	return nil
}
