package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store/bundle"
)

// bundleFile is a bundle as read from its file.
type bundleFile struct {
	name       string
	identities []age.Identity
	sealed     []byte
	text       secret.Bytes    // the document
	recipients []age.Recipient // only after openToWrite
}

// openBundle reads and decrypts a bundle; it does not look into the document.
func openBundle(name string, identityFiles ...string) (*bundleFile, error) {
	identities, err := readIdentities(identityFiles...)
	if err != nil {
		return nil, err
	}
	sealed, err := readFile(name, bundle.MaxCiphertext)
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	text, err := bundle.Decrypt(sealed, identities)
	if err != nil {
		return nil, fmt.Errorf("%s, opened with the identities in %s: %w", name, strings.Join(identityFiles, ", "), err)
	}
	return &bundleFile{name: name, identities: identities, sealed: sealed, text: secret.New(text)}, nil
}

// openToWrite also finds the recipients to encrypt for again. It fails without them,
// before a user types in vain.
func openToWrite(name, identityFile string) (*bundleFile, error) {
	file, err := openBundle(name, identityFile)
	if err != nil {
		return nil, err
	}
	if file.recipients, err = bundle.Recipients(file.sealed, file.identities); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return file, nil
}

func (b *bundleFile) document() (bundle.Document, error) {
	document, err := bundle.Parse(b.text.Reveal())
	if err != nil {
		return bundle.Document{}, fmt.Errorf("%s: %w", b.name, err)
	}
	return document, nil
}

var errMeanwhile = errors.New("somebody else changed it meanwhile, and it is left as they wrote it; do this again")

// changeBundle revises a bundle, and again when another program changed it meanwhile:
// many may set different keys at a time.
func changeBundle(name, identityFile string, revise func([]byte) ([]byte, error)) ([]bundle.Change, error) {
	const most = 50
	for try := 1; ; try++ {
		file, err := openToWrite(name, identityFile)
		if err != nil {
			return nil, err
		}
		changes, err := file.change(revise)
		if !errors.Is(err, errMeanwhile) || try == most {
			return changes, err
		}
	}
}

// change replaces the document by its revision, and returns the changes. Without a
// change it writes nothing.
func (b *bundleFile) change(revise func([]byte) ([]byte, error)) ([]bundle.Change, error) {
	before, err := b.document()
	if err != nil {
		return nil, err
	}
	text, err := revise(b.text.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	after, err := bundle.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	changes := bundle.Diff(before, after)
	if len(changes) == 0 {
		return nil, nil
	}
	return changes, b.replace(text, b.recipients)
}

// replace writes a new document for these recipients, unless the file has changed since
// it was read.
func (b *bundleFile) replace(text []byte, recipients []age.Recipient) error {
	sealed, err := b.seal(text, recipients)
	if err != nil {
		return err
	}
	unlock := lockFolder(b.name)
	defer unlock()
	now, err := readFile(b.name, bundle.MaxCiphertext)
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	if !bytes.Equal(now, b.sealed) {
		return fmt.Errorf("%s: %w", b.name, errMeanwhile)
	}
	if err := replaceFile(b.name, sealed); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}

// seal encrypts a document and checks the result: the document has no mistakes, and
// it opens if one of the identities is among the recipients.
func (b *bundleFile) seal(text []byte, recipients []age.Recipient) ([]byte, error) {
	if _, err := bundle.Parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	sealed, err := bundle.Encrypt(text, recipients)
	if err != nil {
		return nil, err
	}
	if !b.opens(recipients) {
		return sealed, nil
	}
	if back, err := bundle.Decrypt(sealed, b.identities); err != nil || !bytes.Equal(back, text) {
		return nil, fmt.Errorf("%s: the new bundle does not open again, and the old one stays; this is a bug, please report it", b.name)
	}
	return sealed, nil
}

// opens tells whether one of the identities is among the recipients.
func (b *bundleFile) opens(recipients []age.Recipient) bool {
	names := bundle.Names(recipients)
	return slices.ContainsFunc(b.identities, func(identity age.Identity) bool {
		own := bundle.Names([]age.Recipient{bundle.RecipientOf(identity)})[0]
		return own != "" && slices.Contains(names, own)
	})
}

func addIdentity(command *cobra.Command, file *string) {
	command.Flags().StringVarP(file, "identity", "i", "", "the file with the identity that opens the bundle")
	completeFile(command, "identity")
}

// readIdentities reads every identity in these files; none at all is an error.
func readIdentities(files ...string) ([]age.Identity, error) {
	var all []age.Identity
	for _, file := range files {
		if file == "" {
			continue
		}
		key, err := readFile(file, bundle.MaxCiphertext)
		if err != nil {
			return nil, fmt.Errorf("read the identity: %w", err)
		}
		identities, err := bundle.ParseIdentities(key)
		if err != nil {
			return nil, fmt.Errorf("identity file %s: %w", file, err)
		}
		all = append(all, identities...)
	}
	if len(all) == 0 {
		return nil, usagef("nothing to decrypt with; add --identity")
	}
	return all, nil
}

// await returns when f does or when ctx ends. A read from a terminal cannot be
// interrupted: then f is left behind, and ends with the process. A panic of f becomes the
// error.
func await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := contain.Do(f)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// readInput reads the file in args, or standard input, and names it for errors.
func readInput(cmd *cobra.Command, args []string, limit int64) (data []byte, name string, err error) {
	if len(args) == 1 && args[0] != "-" {
		data, err := readFile(args[0], limit)
		return data, args[0], err
	}
	data, err = await(cmd.Context(), func() ([]byte, error) { return readAll(cmd.InOrStdin(), limit) })
	if err != nil {
		return nil, "", fmt.Errorf("standard input: %w", err)
	}
	return data, "standard input", nil
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err // it names the file
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
	if err = errors.Join(err, keepOwner(file, f), f.Chmod(mode), f.Sync(), f.Close()); err == nil {
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
