package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/convert"
)

// The files of convert --to.
const (
	convertedClasses = "classes.yaml"
	convertedRules   = "keymount.yaml"
	convertedPods    = "pods.yaml"
	convertedReport  = "REPORT.txt"
)

// converted is the result of convert.
type converted struct {
	Complete bool           `json:"complete"`
	Classes  []any          `json:"classes"`
	Keymount any            `json:"keymount,omitempty"`
	Pods     []any          `json:"pods,omitempty"`
	Notes    []convert.Note `json:"notes"`
	Files    []string       `json:"files,omitempty"`
}

func newConvert() *cobra.Command {
	storeName := regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	var options convert.Options
	var to string
	var force, deep bool
	command := &cobra.Command{
		Use:   "convert FILE...",
		Short: "Turn classes and objects of other tools into keymount's",
		Long: `Turn what other tools read into classes in keymount's own syntax, the narrowest rules for them, and
a report of what has no counterpart:

  - SecretProviderClasses of vault-csi-provider and openbao-csi-provider,
  - ExternalSecrets with their SecretStores,
  - secrets of the Vault Secrets Operator with their VaultAuths and VaultConnections,
  - pods and workloads with annotations of the Vault Agent injector.

An object may need others: give the stores with the secrets, and the pods too, so that the rules can
name their service accounts. FILE is what kubectl reads, a folder, or - for standard input. Nothing
is asked over a network. docs/migration.md has a table of counterparts for each tool.

The documents go to standard output and the report to standard error, or with --to into the files
classes.yaml, keymount.yaml, pods.yaml and REPORT.txt of a folder. The exit code is 0 when all of it
was converted, and 1 when something has no counterpart; what has one is printed in both cases.`,
		Example: `  keymount convert --to converted manifests/
  kubectl get externalsecrets,secretstores,deploy -A -o yaml | keymount convert --to converted -
  keymount convert -n shop --store prod class.yaml -o json`,
		Args: fileArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !storeName.MatchString(options.Store) {
				return usagef("--store is %q; a name is made of lower-case letters, digits and dashes, 63 at most", options.Store)
			}
			files, err := readManifests(cmd, args, deep)
			if err != nil {
				return err
			}
			result := convert.Convert(files, options)
			if err := emit(cmd, result, to, force); err != nil {
				return err
			}
			if !result.Complete() {
				return exitError{code: exitFailed}
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.Store, "store", "default", "the name of the store in keymount.yaml; further ones are called NAME-2 and so on")
	flags.StringVarP(&options.Namespace, "namespace", "n", "default", "the namespace of objects that name none")
	flags.StringVar(&to, "to", "", "the folder to write the files to, in place of standard output")
	flags.BoolVar(&force, "force", false, "overwrite files in the folder, and remove those of an earlier run that are not written")
	flags.BoolVarP(&deep, "recursive", "R", false, "read folders with all below them")
	command.ValidArgsFunction = byFiles("yaml", "yml", "json")
	completeBy(command, "to", cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs))
	return command
}

// emit writes the documents and the report where they belong.
func emit(cmd *cobra.Command, r *convert.Result, to string, force bool) error {
	var report bytes.Buffer
	r.Report(&report)
	var files []string
	if to != "" {
		var err error
		if files, err = writeConverted(r, report.Bytes(), to, force); err != nil {
			return err
		}
	}
	switch {
	case isJSON(cmd):
		return emitJSON(cmd, r, files)
	case to != "":
		return printResult(cmd, nil, func(w io.Writer) {
			_, _ = w.Write(report.Bytes())
			_, _ = fmt.Fprintf(w, "written: %s\n", strings.Join(files, ", "))
		})
	}
	text, err := convert.YAML(r.Documents()...)
	if err != nil {
		return err
	}
	if err := printResult(cmd, nil, func(w io.Writer) { _, _ = w.Write(text) }); err != nil {
		return err
	}
	if _, err := cmd.ErrOrStderr().Write(report.Bytes()); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}

func emitJSON(cmd *cobra.Command, r *convert.Result, files []string) error {
	result := converted{Complete: r.Complete(), Classes: []any{}, Notes: r.Notes, Files: files}
	if result.Notes == nil {
		result.Notes = []convert.Note{}
	}
	for _, part := range []struct {
		nodes []*yaml.Node
		add   func(any)
	}{
		{r.Classes, func(v any) { result.Classes = append(result.Classes, v) }},
		{r.Pods, func(v any) { result.Pods = append(result.Pods, v) }},
		{r.Stores(), func(v any) { result.Keymount = v }},
	} {
		for _, n := range part.nodes {
			var value any
			if err := n.Decode(&value); err != nil {
				return fmt.Errorf("write JSON: %w", err)
			}
			part.add(value)
		}
	}
	return printResult(cmd, result, nil)
}

// writeConverted writes the files of a folder: all of them, or none where one is there.
func writeConverted(r *convert.Result, report []byte, to string, force bool) (names []string, err error) {
	texts := map[string][]byte{convertedReport: report}
	for name, nodes := range map[string][]*yaml.Node{convertedClasses: r.Classes, convertedRules: r.Stores(), convertedPods: r.Pods} {
		if len(nodes) == 0 {
			continue
		}
		if texts[name], err = convert.YAML(nodes...); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // manifests are no secret
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	for _, name := range sortedKeys(texts) {
		if _, err := os.Lstat(filepath.Join(to, name)); !force && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is there already; name another folder, or overwrite it with --force", filepath.Join(to, name))
		}
	}
	if err := removeStale(to, texts, force); err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(texts) {
		file := filepath.Join(to, name)
		if err := os.WriteFile(file, texts[name], 0o644); err != nil { //nolint:gosec // manifests are no secret
			return nil, fmt.Errorf("write a file: %w", err)
		}
		names = append(names, file)
	}
	return names, nil
}

// removeStale removes the files of an earlier run that this one does not write, or says that
// they are there: beside new classes they would be taken for theirs.
func removeStale(to string, texts map[string][]byte, force bool) error {
	for _, name := range []string{convertedClasses, convertedRules, convertedPods} {
		file := filepath.Join(to, name)
		if _, err := os.Lstat(file); texts[name] != nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !force {
			return fmt.Errorf("%s of an earlier run is there; name another folder, or remove it with --force", file)
		}
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove a file of an earlier run: %w", err)
		}
	}
	return nil
}
