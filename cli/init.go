package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/schema"
	"github.com/keymount/keymount/store/all"
)

func newInit() *cobra.Command {
	command := &cobra.Command{
		Use:   "init",
		Short: "Print a class or a keymount.yaml to start from",
		Long: `Print a SecretProviderClass or a keymount.yaml to start from, with comments, and with the line by
which an editor finds its schema.`,
		Example: `  keymount init class --store prod --name api -n shop > class.yaml
  keymount init config > keymount.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command.AddCommand(newInitClass(), newInitConfig())
	return command
}

// draft is a class to be written.
type draft struct {
	name, namespace, store, role, path, form string

	config string
}

func newInitClass() *cobra.Command {
	var d draft
	command := &cobra.Command{
		Use:   "class",
		Short: "Print a SecretProviderClass to start from",
		Long: `Print a SecretProviderClass with one object, of the form that --form names, and the fields that it
may have as comments. With --config the store has to be in that keymount.yaml, and a role is
written where its kind needs one; a read that no rule allows yet is told on standard error, with the
rule to add. 'keymount lint' tells what is wrong with the class that becomes of it.`,
		Example: `  keymount init class --name api -n shop --path secret/shop/db > class.yaml
  keymount init class --config keymount.yaml --store prod --form template`,
		Args: noArgs,
		RunE: d.run,
	}
	flags := command.Flags()
	flags.StringVar(&d.name, "name", "app", "the name of the class")
	flags.StringVarP(&d.namespace, "namespace", "n", "default", "the namespace of the class, which is that of its pods")
	flags.StringVar(&d.store, "store", config.DefaultStore, "the store of keymount.yaml to read from")
	flags.StringVar(&d.role, "role", "", "the store's role to log in with (default: the name of the class, where a role is needed)")
	flags.StringVar(&d.path, "path", "", "the secret in the store (default: NAMESPACE/db)")
	flags.StringVar(&d.form, "form", draftForms()[0].name, "what becomes of the secret: "+strings.Join(draftFormNames(), ", "))
	flags.StringVarP(&d.config, "config", "c", "", "the keymount.yaml with the store")
	complete(command, "form", draftFormNames())
	completeFile(command, "config", yamlFiles()...)
	completeBy(command, "store", storesOfConfig)
	return command
}

// storesOfConfig completes the names of the stores in the file of --config.
func storesOfConfig(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	file := cmd.Flag("config").Value.String()
	if file == "" {
		file = defaultConfigFile
	}
	c, err := config.Load(file, all.All())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return storeNames(c), cobra.ShellCompDirectiveNoFileComp
}

func storeNames(c *config.Config) []string {
	names := make([]string, len(c.Stores))
	for i, s := range c.Stores {
		names[i] = s.Name
	}
	return names
}

func (d *draft) run(cmd *cobra.Command, _ []string) error {
	if err := oneOfValid(d.form, draftFormNames()); err != nil {
		return err
	}
	if d.path == "" {
		d.path = d.namespace + "/db"
	}
	var known *manifest.File
	if d.config != "" {
		if err := d.fitTo(d.config); err != nil {
			return err
		}
		read, err := manifest.Read([]string{d.config}, false, nil)
		if err != nil {
			return err
		}
		known = read[0]
	}
	text := d.text()
	if err := tryDraft(cmd, text, known); err != nil {
		return err
	}
	return printYAML(cmd, text)
}

// tryDraft has lint look at a class. What lint refuses comes of the flags; what the rules of
// keymount.yaml deny may be allowed later, and is told beside the class.
func tryDraft(cmd *cobra.Command, text string, known *manifest.File) error {
	draft := manifest.Parse("the class", []byte(text))
	var mistakes []error
	for _, found := range lint.Check([]*manifest.File{draft}, lint.Options{Kinds: all.All(), Config: known}).Findings {
		switch {
		case found.File != draft.Name: // keymount.yaml's own
		case found.Severity == lint.Error && found.Rule != "denied":
			mistakes = append(mistakes, fmt.Errorf("the class would not work: %s", found.Text)) //nolint:err113 // it is told once
		default:
			const before = "warning: "
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s%s\n%s", before, wrapped(found.Text, len(before), hanging), rulesToAdd(found))
		}
	}
	return asUsage(errors.Join(mistakes...))
}

// fitTo looks the store up.
func (d *draft) fitTo(file string) error {
	c, err := config.Load(file, all.All())
	if err != nil {
		return err
	}
	for _, s := range c.Stores {
		if s.Name == d.store {
			if d.role == "" && s.Kind.Traits().Roles == access.Required {
				d.role = d.name
			}
			return nil
		}
	}
	return fmt.Errorf("%s has no store %q%s; it has %s", file, d.store, spelling.Hint(d.store, storeNames(c)), strings.Join(storeNames(c), ", "))
}

// draftForm is something to make of a secret. PATH in its text is that of the secret.
type draftForm struct{ name, object string }

func draftForms() []draftForm {
	return []draftForm{
		{"one-key", `# One value of a secret. Dots go deeper: users.0.name.
- path: PATH
  key: password
  file: db/password
`},
		{"all-keys", `# A file for each key of a secret, in a folder.
- path: PATH
  file: db/
`},
		{"dotenv", `# A whole secret in one file: as dotenv, or as json, yaml or properties.
- path: PATH
  format: dotenv
  file: db.env
`},
		{"template", `# A text out of several values. Other secrets: {{ (secret "path").key }}.
- path: PATH
  template: postgres://{{ .username }}:{{ .password }}@db/{{ .database | default "app" }}
  file: db/dsn
`},
		{"certificate", `# A certificate with its chain and key: tls.crt, tls.key and ca.crt in a folder.
- path: PATH
  format: pem
  file: tls/
`},
		{"keystore", `# A Java keystore of a certificate and its key; its password is in the same secret.
- path: PATH
  format: jks
  passwordKey: password
  file: tls.jks
`},
	}
}

func draftFormNames() []string {
	var names []string
	for _, f := range draftForms() {
		names = append(names, f.name)
	}
	return names
}

func (d *draft) text() string {
	object := ""
	for _, f := range draftForms() {
		if f.name == d.form {
			object = strings.Replace(f.object, "PATH", scalar(d.path), 1)
		}
	}
	object += `  # mode: "0400"     # default: "0444"; a container that is not root has to be able to read
  # optional: true   # absent in the store: no file, and no error
`
	role := "# role: " + scalar(d.name)
	if d.role != "" {
		role = "role: " + scalar(d.role)
	}
	return schema.Header(schema.Class) + `
# What the pods that name this class read, and the files that it becomes in them.
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: ` + scalar(d.name) + `
  namespace: ` + scalar(d.namespace) + `
spec:
  provider: keymount
  parameters:
    # A store of keymount.yaml, whose rules have to allow what is read.
    store: ` + scalar(d.store) + `
    # The store's role to log in with, where its kind has roles.
    ` + role + `
    objects: |
` + indent(object, "      ")
}

// scalar is a text as YAML writes it: in quotes where it has to be.
func scalar(text string) string {
	written, err := yaml.Marshal(text)
	if err != nil || bytes.Count(written, []byte("\n")) != 1 {
		return fmt.Sprintf("%q", text)
	}
	return strings.TrimSpace(string(written))
}

func indent(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(by + line)
	}
	return b.String()
}

func newInitConfig() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print a keymount.yaml to start from",
		Long: `Print the example of docs/configuration.md: a keymount.yaml with a store of each kind, their rules
and the defaults of all else. 'keymount config check' tells what is wrong with the one that
becomes of it.`,
		Example: `  keymount init config > keymount.yaml`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printYAML(cmd, schema.Header(schema.Config)+"\n"+config.Example())
		},
	}
}

// printYAML prints a document with its comments, or what it says as JSON.
func printYAML(cmd *cobra.Command, text string) error {
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	return printResult(cmd, value, func(w io.Writer) { _, _ = io.WriteString(w, text) })
}
