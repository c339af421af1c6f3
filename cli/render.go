package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/trial"
)

// rendering is one run of render, by its flags.
type rendering struct {
	classFlags

	config string
	values string
	bundle bundleFlags
	live   liveFlags
	to     string
	pod    string
	sketch bool // print secrets for the class, and mount nothing

	notes []string // told so far
}

func newRender() *cobra.Command {
	var r rendering
	command := &cobra.Command{
		Use:   "render CLASS",
		Short: "Show the files that a class would make, without a cluster",
		Long: `Show the files that a SecretProviderClass would make, through the code that mounts on a
node: it needs no cluster, no root and no running keymount, and no node accepts its token.
CLASS is a file, a folder or - for standard input, as kubectl reads it; a pod in it that
mounts the class gives --as. A failure is the text that the pod's events would have.

Secrets are made up, unless they come from --values, --bundle or --live. --print-values
writes a file for --values with each path and key of the class. Without --config stores are
made up as well, and access rules are not checked; with it nothing else of that node is
needed. Of what is beyond data/ in a path only the store itself is sure: list the mounts of
its engines in keymount.yaml.`,
		Example: `  keymount render class.yaml --as shop/api
  keymount render class.yaml --print-values > made-up.yaml
  keymount render class.yaml --as shop/api --config values.yaml --values made-up.yaml --reveal
  keymount render class.yaml --config keymount.yaml --live --as shop/api`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.class = args[0]
			return fold(r.run(cmd))
		},
	}
	r.add(command)
	flags := command.Flags()
	flags.StringVar(&r.pod, "pod", "", "the pod to mount as, where several in CLASS do; with --live it runs, and the token is bound to it")
	flags.StringVarP(&r.config, "config", "c", "", "the operator's keymount.yaml, or the chart's values with one")
	flags.StringVar(&r.values, "values", "", "a file of made-up secrets: paths, each with keys and values")
	r.bundle.add(command)
	r.live.add(command)
	flags.StringVar(&r.to, "to", "", "write the files into this folder, which is new or empty")
	flags.BoolVar(&r.sketch, "print-values", false, "print secrets to begin a file for --values with, and mount nothing")
	completeFile(command, "config", yamlFiles()...)
	completeFile(command, "values", yamlFiles()...)
	completeBy(command, "pod", ofClassFile(trial.Pods))
	_ = command.MarkFlagDirname("to") // there is such a flag
	return command
}

// classFlags choose a class of the argument CLASS, and the service account that mounts it.
type classFlags struct {
	class, name, as string
	reveal          bool
}

// add adds them, and the argument.
func (f *classFlags) add(command *cobra.Command) {
	command.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("name one file with a class, or - for standard input")
		}
		return nil
	}
	command.ValidArgsFunction = inOrder(byFiles("yaml", "yml", "json"))
	flags := command.Flags()
	flags.StringVar(&f.as, "as", "", "the service account to mount as, NAMESPACE/SERVICEACCOUNT (default: that of the pod in CLASS)")
	flags.StringVar(&f.name, "name", "", "the class, where CLASS has several")
	flags.BoolVar(&f.reveal, "reveal", false, "show the values instead of masking them")
	completeBy(command, "name", ofClassFile(trial.Classes))
	completeBy(command, "as", ofClassFile(trial.Accounts))
}

// ofClassFile completes a flag by what names tells of the manifests in the argument.
func ofClassFile(names func([]*manifest.File) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 || args[0] == manifest.Stdin {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		files, err := manifest.Read(args[:1], false, nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(files), cobra.ShellCompDirectiveNoFileComp
	}
}

func (r *rendering) run(cmd *cobra.Command) error {
	as, err := r.check()
	if err != nil {
		return err
	}
	r.live.pod = r.pod
	picked, err := pickFrom(cmd, r.class, trial.Choice{Class: r.name, As: as, Pod: r.pod, Anyone: r.sketch})
	if err != nil {
		return err
	}
	if len(picked.Unlike) > 0 {
		r.note(cmd, "%s and %s mount the class with different volumeAttributes; this is for the first, and --pod chooses another",
			picked.Unlike[0], picked.Unlike[1])
	}
	if err := r.checkFolder(); err != nil {
		return err
	}
	c, elsewhere, err := r.open(cmd, picked.Class)
	if err != nil {
		return err
	}
	if r.sketch {
		text, err := trial.Sketch(picked, c)
		if err != nil {
			return err
		}
		return printText(cmd, text)
	}
	made, err := r.secrets(cmd, picked, c, elsewhere)
	if err != nil {
		return err
	}
	return r.mount(cmd, picked, c, made)
}

// check holds the flags against each other.
func (r *rendering) check() (as trial.Account, err error) {
	sources := 0
	for _, given := range []bool{r.values != "", r.bundle.file != "", r.live.on, r.sketch} {
		if given {
			sources++
		}
	}
	switch {
	case sources > 1:
		return as, usagef("choose one of --values, --bundle, --live and --print-values")
	case r.class == stdinArg && r.config == stdinArg:
		return as, usagef("standard input is the class or the configuration; name a file for one of them")
	case r.live.on && r.config == "":
		return as, usagef("--live needs --config, which says where the stores are")
	}
	if err := errors.Join(r.bundle.check(), r.live.check()); err != nil {
		return as, err
	}
	return parseAs(r.as)
}

// checkFolder looks at --to before anything is read or made in a store.
func (r *rendering) checkFolder() error {
	if r.to == "" || r.sketch {
		return nil
	}
	return checkEmpty(r.to)
}

// open reads --config, or makes up the stores that the class names. The files that the
// chart's values name are elsewhere.
func (r *rendering) open(cmd *cobra.Command, class trial.Class) (c *config.Config, elsewhere bool, err error) {
	if r.config == "" {
		if class.IsOther() {
			r.note(cmd, "the class has provider: %[1]s, and is read in keymount's syntax, as a node with a socket %[1]s.sock would", class.Provider)
		}
		return trial.Assume(class, all.All()), true, nil
	}
	text, err := openText(cmd, r.config)
	if err != nil {
		return nil, false, err
	}
	c, err = text.Config(all.All())
	if err == nil && class.Socket(c) == "" {
		r.note(cmd, "%s has no socket %s.sock, so that a node would not get this class: it has provider: %s", r.config, class.Provider, class.Provider)
	}
	return c, text.Values(), err
}

// note tells something beside the result; with -o json it is a part of it.
func (r *rendering) note(cmd *cobra.Command, format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
	if !isJSON(cmd) {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "note: %s\n", wrapped(fmt.Sprintf(format, args...), len("note: "), hanging))
	}
}

// secrets are those that stand in for stores.
func (r *rendering) secrets(cmd *cobra.Command, picked trial.Picked, c *config.Config, elsewhere bool) (standIns, error) {
	switch {
	case r.live.on:
		return standIns{of: unread(picked.Class, c)}, nil
	case r.values != "":
		data, err := readFile(r.values, bundleSized)
		if err != nil {
			return standIns{}, fmt.Errorf("read the secrets: %w", err)
		}
		return newStandIns(c, func() (*trial.Secrets, error) { return trial.ParseSecrets(r.values, data) })
	case r.bundle.file != "":
		return newStandIns(c, r.bundle.secrets)
	}
	text, err := trial.Sketch(picked, c)
	if err != nil {
		return standIns{}, nil //nolint:nilerr // the class has mistakes, which the mount tells
	}
	made, err := newStandIns(c, func() (*trial.Secrets, error) { return trial.ParseSecrets("the made-up secrets", text) })
	if err == nil && r.config != "" && !elsewhere {
		err = r.keepLocal(cmd.Context(), picked.Class, c, made)
	}
	if len(made.of) > 0 {
		r.note(cmd, "the values are made up: see --values, --bundle and --live")
	}
	return made, err
}

// unread are no secrets for each store that the class does not read from, so that none of
// these is opened.
func unread(class trial.Class, c *config.Config) map[string]map[string]secret.Tree {
	none := map[string]map[string]secret.Tree{}
	for _, s := range c.Stores {
		if !class.Reads(c, s.Name) {
			none[s.Name] = map[string]secret.Tree{}
		}
	}
	return none
}

// keepLocal drops the secrets made up for stores that lie on this machine and that the class
// reads from, and looks whether these can be read: a node would wait for a file that is not
// there.
func (*rendering) keepLocal(ctx context.Context, class trial.Class, c *config.Config, made standIns) error {
	m := kind.NewMistakes()
	for i, s := range c.Stores {
		if !s.Kind.Traits().Memory && class.Reads(c, s.Name) {
			delete(made.of, s.Name)
			kind.Inspect(ctx, s.Settings, m.At("stores").Index(i).At(s.Kind.Name()))
		}
	}
	var mistakes []error
	for _, mistake := range m.All() {
		mistakes = append(mistakes, mistake)
	}
	if len(mistakes) == 0 {
		return nil
	}
	return fmt.Errorf("%w; or name secrets that stand in for it, with --values or --bundle", errors.Join(mistakes...))
}

// standIns are secrets in place of stores.
type standIns struct {
	file *trial.Secrets // nil for none
	of   map[string]map[string]secret.Tree
}

func newStandIns(c *config.Config, read func() (*trial.Secrets, error)) (made standIns, err error) {
	if made.file, err = read(); err != nil {
		return made, err
	}
	made.of, err = made.file.For(c)
	return made, err
}

// mount tries the mount and shows what came of it.
func (r *rendering) mount(cmd *cobra.Command, picked trial.Picked, c *config.Config, made standIns) error {
	try := trial.Try{
		Class: picked.Class, Pod: picked.Pod, Config: c, Secrets: made.of, Version: readBuild().Version, Log: quiet(cmd.ErrOrStderr()),
	}
	if err := r.issue(cmd.Context(), &try); err != nil {
		return err
	}
	outcome, err := try.Mount(cmd.Context())
	switch {
	case err != nil && made.file != nil:
		return made.file.Placed(err)
	case err != nil:
		return err
	}
	if made.file != nil {
		for _, hint := range made.file.Missing(outcome) {
			r.note(cmd, "%s", hint)
		}
	}
	if outcome.Message != "" {
		r.noteDenials(cmd, outcome)
		return r.result(try, outcome).refuse(cmd)
	}
	result := r.result(try, outcome)
	if r.to != "" {
		if err := writeFiles(r.to, outcome.Files); err != nil {
			return err
		}
		result.To = r.to
	}
	return printResult(cmd, result, func(w io.Writer) { result.print(w, styleOf(cmd.OutOrStdout())) })
}

// issue says whose tokens prove the pod.
func (r *rendering) issue(ctx context.Context, try *trial.Try) (err error) {
	if r.live.on {
		return r.live.issue(ctx, try)
	}
	try.Issuer, err = trial.NewIssuer(try.Pod)
	return err
}

func printText(cmd *cobra.Command, text []byte) error {
	if isJSON(cmd) {
		return printResult(cmd, map[string]string{"values": string(text)}, nil)
	}
	if _, err := cmd.OutOrStdout().Write(text); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// bundleSized bounds a file of secrets, in bytes.
const bundleSized = 8 << 20

// masked is what stands for a value.
func masked(bytes int) string { return strings.Repeat("*", 8) + fmt.Sprintf(" (%d bytes)", bytes) }
