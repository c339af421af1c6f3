package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/store/bundle"
)

// The exit codes of bundle diff, as of diff(1).
const (
	exitDifferent = 1
	exitTrouble   = 2
)

// differences is the result of bundle diff.
type differences struct {
	Before  string          `json:"before"`
	After   string          `json:"after"`
	Changes []bundle.Change `json:"changes"`
}

func newBundleDiff() *cobra.Command {
	var identityFiles []string
	command := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "List the keys in which two bundles differ",
		Long: `List the paths and keys that were added, removed or changed from one bundle to another.
Values are compared and not shown. Comments and the form of the documents do not count,
nor does who can open the bundles.

The exit code is that of diff(1): 0 when they are the same, 1 when they differ, 2 when
they could not be compared.`,
		Example: `  keymount bundle diff --identity key.txt secrets.age new.age
  git show HEAD~1:secrets.age > old.age
  keymount bundle diff -i key.txt old.age secrets.age`,
		Args:              bundleArgs("BEFORE", "AFTER"),
		ValidArgsFunction: inOrder(byFiles(bundleFiles()...), byFiles(bundleFiles()...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			result, err := compareBundles(args[0], args[1], identityFiles)
			if isUsage(err) {
				return err
			}
			if err == nil {
				err = printResult(cmd, result, func(w io.Writer) { printChanges(w, result.Changes) })
			}
			switch {
			case err != nil:
				return exitError{exitTrouble, err}
			case len(result.Changes) > 0:
				return exitError{code: exitDifferent}
			default:
				return nil
			}
		},
	}
	command.Flags().StringArrayVarP(&identityFiles, "identity", "i", nil, "a file with an identity that opens one of the bundles or both; may be repeated")
	completeFile(command, "identity")
	return command
}

func compareBundles(before, after string, identityFiles []string) (differences, error) {
	result := differences{before, after, []bundle.Change{}}
	var documents []bundle.Document
	for _, name := range []string{before, after} {
		file, err := openBundle(name, identityFiles...)
		if err != nil {
			return differences{}, err
		}
		document, err := file.document()
		if err != nil {
			return differences{}, err
		}
		documents = append(documents, document)
	}
	result.Changes = append(result.Changes, bundle.Diff(documents[0], documents[1])...)
	return result, nil
}
