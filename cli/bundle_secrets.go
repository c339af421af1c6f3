package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/trial"
)

// bundleFlags name a bundle whose secrets stand in for those of stores.
type bundleFlags struct{ file, identity string }

func (b *bundleFlags) add(command *cobra.Command) {
	command.Flags().StringVar(&b.file, "bundle", "", "a bundle that stands in for the stores")
	command.Flags().StringVar(&b.identity, "identity", "", "the file with the identity that opens --bundle")
	completeFile(command, "bundle", bundleFiles()...)
	completeFile(command, "identity")
}

func (b *bundleFlags) check() error {
	switch {
	case b.file == "" && b.identity != "":
		return usagef("--identity opens the --bundle, and there is none; add it")
	case b.file != "" && b.identity == "":
		return usagef("--bundle needs --identity, the file with the key that opens it")
	}
	return nil
}

func (b *bundleFlags) secrets() (*trial.Secrets, error) {
	file, err := openBundle(b.file, b.identity)
	if err != nil {
		return nil, err
	}
	document, err := file.document()
	if err != nil {
		return nil, err
	}
	secrets := map[string]secret.Tree{}
	for _, text := range document.Paths() {
		path, err := store.ParsePath(text)
		if err != nil {
			return nil, fmt.Errorf("%s: path %w", b.file, err)
		}
		secrets[text], _ = document.Get(path)
	}
	return trial.SecretsOf(b.file, secrets), nil
}
