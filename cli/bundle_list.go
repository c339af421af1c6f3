package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/bundle"
)

// listed is the result of bundle list.
type listed struct {
	File    string         `json:"file"`
	Secrets []listedSecret `json:"secrets"`
}

type listedSecret struct {
	Path string      `json:"path"`
	Keys []listedKey `json:"keys"`
}

type listedKey struct {
	Key   string `json:"key"`
	Bytes int    `json:"bytes"`
}

// listedRecipients is the result of bundle list --recipients.
type listedRecipients struct {
	File       string   `json:"file"`
	Recipients []string `json:"recipients"`
}

func newBundleList() *cobra.Command {
	var identityFile string
	var recipients bool
	command := &cobra.Command{
		Use:   "list BUNDLE",
		Short: "List paths, keys and sizes in a bundle",
		Long: `List what is in a bundle: the paths, their keys, and how many bytes a file of each
value would have. Values are not shown. A key that holds a map or a list is one line,
with the size of it as JSON.

With --recipients it lists who can open the bundle, as a recipients file: one on each
line. That is known of bundles that keymount encrypted, and of those for one alone.`,
		Example: `  keymount bundle list --identity key.txt secrets.age
  keymount bundle list --identity key.txt --recipients secrets.age > recipients.txt`,
		Args:              bundleArgs("BUNDLE"),
		ValidArgsFunction: inOrder(byFiles(bundleFiles()...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if recipients {
				return listRecipients(cmd, args[0], identityFile)
			}
			return list(cmd, args[0], identityFile)
		},
	}
	addIdentity(command, &identityFile)
	command.Flags().BoolVar(&recipients, "recipients", false, "list who can open the bundle")
	return command
}

func list(cmd *cobra.Command, name, identityFile string) error {
	file, err := openBundle(name, identityFile)
	if err != nil {
		return err
	}
	document, err := file.document()
	if err != nil {
		return err
	}
	result := listed{File: file.name}
	for _, text := range document.Paths() {
		secret, err := listSecret(document, text)
		if err != nil {
			return fmt.Errorf("%s: %q: %w", file.name, text, err)
		}
		result.Secrets = append(result.Secrets, secret)
	}
	return printResult(cmd, result, result.print)
}

func listSecret(document bundle.Document, text string) (listedSecret, error) {
	path, err := store.ParsePath(text)
	if err != nil {
		return listedSecret{}, err
	}
	result := listedSecret{Path: text, Keys: []listedKey{}}
	tree, _ := document.Get(path)
	for _, key := range tree.Keys() {
		value, _ := tree.Child(key)
		content, err := value.Text()
		if err != nil {
			return listedSecret{}, err
		}
		result.Keys = append(result.Keys, listedKey{key, content.Len()})
	}
	return result, nil
}

func (l listed) print(w io.Writer) {
	rows := [][]string{{"PATH", "KEY", "BYTES"}}
	for _, secret := range l.Secrets {
		if len(secret.Keys) == 0 {
			rows = append(rows, []string{shown(secret.Path), "(no key)", "0"})
		}
		for _, key := range secret.Keys {
			rows = append(rows, []string{shown(secret.Path), shown(key.Key), strconv.Itoa(key.Bytes)})
		}
	}
	printTable(w, rows)
}

func listRecipients(cmd *cobra.Command, name, identityFile string) error {
	file, err := openToWrite(name, identityFile)
	if err != nil {
		return err
	}
	result := listedRecipients{name, bundle.Names(file.recipients)}
	return printResult(cmd, result, func(w io.Writer) {
		for _, name := range result.Recipients {
			_, _ = fmt.Fprintln(w, name)
		}
	})
}

// printTable prints aligned rows.
func printTable(w io.Writer, rows [][]string) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	_ = table.Flush()
}

// shown quotes a name with invisible characters, or with ones that move the cursor of a
// terminal.
func shown(name string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	if name == "" || strings.TrimSpace(name) != name || strings.ContainsFunc(name, odd) {
		return strconv.Quote(name)
	}
	return name
}

// bundleArgs wants an argument for each of these names; one in brackets may be absent.
func bundleArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usagef("unexpected argument %q", args[len(names)])
		}
		for i, name := range names {
			if !strings.HasPrefix(name, "[") && (len(args) <= i || args[i] == "") {
				return usagef("%s is missing", name)
			}
		}
		return nil
	}
}
