package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
age. keymount.yaml names the file, and the identity file that opens it on the nodes.`,
		Example: `  keymount bundle keygen key.txt > recipient.txt
  keymount bundle encrypt --recipients-file recipient.txt --out secrets.age secrets.yaml
  keymount bundle decrypt --identity key.txt secrets.age`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(newBundleKeygen(), newBundleEncrypt(), newBundleDecrypt())
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
		Example: `  keymount bundle keygen key.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: name one file to write the identity to", errUsage)
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
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and is not written over; name another file, or move it away", file)
	}
	if err != nil {
		return fmt.Errorf("write the identity: %w", err)
	}
	_, err = fmt.Fprintf(f, "# created: %s\n# public key: %s\n%s\n", time.Now().Format(time.RFC3339), identity.Recipient(), identity)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the identity: %w", err), os.Remove(file))
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
	recipients     []string
	recipientsFile string
	out            string
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
		Example: `  keymount bundle encrypt --recipient age1... --recipient age1... --out secrets.age secrets.yaml
  keymount bundle decrypt --identity key.txt secrets.age | sed s/old/new/ |
    keymount bundle encrypt --recipients-file recipients.txt --out secrets.age`,
		Args: atMostOneFile,
		RunE: e.run,
	}
	flags := command.Flags()
	flags.StringArrayVarP(&e.recipients, "recipient", "r", nil, "encrypt for this recipient, age1...; may be repeated")
	flags.StringVarP(&e.recipientsFile, "recipients-file", "R", "", "encrypt for the recipients in this file, one on each line")
	flags.StringVar(&e.out, "out", "", "the bundle file to write; without it standard output")
	return command
}

func (e *encryption) run(cmd *cobra.Command, args []string) error {
	if e.out == "" {
		if err := onlyText(cmd, "standard output is the bundle itself, without a result; add --out"); err != nil {
			return err
		}
	}
	recipients, err := e.parseRecipients()
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

// parseRecipients never quotes what it got: it may be an identity by mistake.
func (e *encryption) parseRecipients() ([]age.Recipient, error) {
	var all []age.Recipient
	for i, text := range e.recipients {
		if strings.HasPrefix(text, "AGE-SECRET-KEY-") {
			return nil, fmt.Errorf("%w: --recipient number %d is an identity, which is secret and now in your shell's history; give its recipient, the age1... in the identity file's comment", errUsage, i+1)
		}
		recipients, err := bundle.ParseRecipients([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%w: --recipient number %d is no age recipient; it starts with age1, 'keymount bundle keygen' prints one", errUsage, i+1)
		}
		all = append(all, recipients...)
	}
	if e.recipientsFile != "" {
		data, err := readFile(e.recipientsFile, bundle.MaxCiphertext)
		if err != nil {
			return nil, fmt.Errorf("read the recipients: %w", err)
		}
		recipients, err := bundle.ParseRecipients(data)
		if err != nil {
			return nil, fmt.Errorf("recipients file %s: %w", e.recipientsFile, err)
		}
		all = append(all, recipients...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: nobody to encrypt for; add --recipient or --recipients-file", errUsage)
	}
	return all, nil
}

func newBundleDecrypt() *cobra.Command {
	var identityFile string
	command := &cobra.Command{
		Use:   "decrypt [BUNDLE]",
		Short: "Print the document in a bundle",
		Long: `Decrypt a bundle and print its document, as it was encrypted, to standard output.
The bundle comes from BUNDLE, or from standard input when that is absent or "-".

What is printed is secret: give it to a pipe rather than to a file.`,
		Example: `  keymount bundle decrypt --identity key.txt secrets.age | less`,
		Args:    atMostOneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if identityFile == "" {
				return fmt.Errorf("%w: nothing to decrypt with; add --identity", errUsage)
			}
			if err := onlyText(cmd, "standard output is the document itself, without a result"); err != nil {
				return err
			}
			return decrypt(cmd, identityFile, args)
		},
	}
	command.Flags().StringVarP(&identityFile, "identity", "i", "", "the file with the identity that opens the bundle")
	return command
}

func decrypt(cmd *cobra.Command, identityFile string, args []string) error {
	key, err := readFile(identityFile, bundle.MaxCiphertext)
	if err != nil {
		return fmt.Errorf("read the identity: %w", err)
	}
	identities, err := bundle.ParseIdentities(key)
	if err != nil {
		return fmt.Errorf("identity file %s: %w", identityFile, err)
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
		return fmt.Errorf("%w: unexpected argument %q", errUsage, args[1])
	}
	return nil
}

// onlyText refuses -o json where there is nothing to print in it.
func onlyText(cmd *cobra.Command, why string) error {
	if cmd.Flag("output").Value.String() != "text" {
		return fmt.Errorf("%w: --output is not for this: %s", errUsage, why)
	}
	return nil
}

// readInput reads the file in args, or standard input, and names it for errors.
func readInput(cmd *cobra.Command, args []string, limit int64) (data []byte, name string, err error) {
	if len(args) == 1 && args[0] != "-" {
		data, err := readFile(args[0], limit)
		return data, args[0], err
	}
	data, err = readAll(cmd.InOrStdin(), limit)
	if err != nil {
		return nil, "", fmt.Errorf("standard input: %w", err)
	}
	return data, "standard input", nil
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err // names the file
	}
	defer func() { _ = f.Close() }() // nothing was written
	data, err := readAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

func readAll(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	switch n, err := b.ReadFrom(io.LimitReader(r, limit+1)); {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, fmt.Errorf("is larger than %d MiB", limit>>20)
	}
	return b.Bytes(), nil
}

func writeOut(cmd *cobra.Command, data []byte) error {
	if _, err := cmd.OutOrStdout().Write(data); err != nil {
		return fmt.Errorf("write to standard output: %w", err)
	}
	return nil
}

// replaceFile puts data in place of a file, all at once, so that a reader or a
// crash finds the old file or the new one. A symlink stays and its target changes.
func replaceFile(file string, data []byte) error {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	mode := fs.FileMode(0o600)
	switch info, err := os.Stat(file); {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", file)
	case err == nil:
		mode = info.Mode().Perm()
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(filepath.Dir(file))
}

// syncFolder makes a rename outlast a power failure.
func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
