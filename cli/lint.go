package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/store/all"
)

// linted is the result of lint.
type linted struct {
	Findings []lint.Finding `json:"findings"`
	Fixed    []lint.Finding `json:"fixed,omitempty"`
	Counts   lintCounts     `json:"counts"`

	mayBeEmpty, hasConfig bool
	// broken is the keymount.yaml that has errors, so that nothing was held against it.
	broken string
}

type lintCounts struct {
	Files    int `json:"files"`
	Classes  int `json:"classes"`
	Others   int `json:"otherClasses"` // of other providers, which were not looked into
	Pods     int `json:"pods"`
	Configs  int `json:"configurations"`
	Errors   int `json:"errors"`
	Warnings int `json:"warnings"`
	// RulesChecked says that there was a keymount.yaml to hold the classes against.
	RulesChecked bool `json:"rulesChecked"`
}

// lintFlags are those of lint.
type lintFlags struct {
	config, values, namespace, format string
	recursive, strict, fix, empty     bool
}

const formatSARIF = "sarif"

func newLint() *cobra.Command {
	var f lintFlags
	command := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Find mistakes in classes, pods and keymount.yaml before a cluster does",
		Long: `Read SecretProviderClasses, the pods and workloads that mount them, keymount.yaml and the
chart's values, and report each mistake with its file, line and column, also within the objects of
a class. FILE is what kubectl reads: YAML or JSON with one object or several, a folder, or - for
standard input. No cluster and no store is asked.

With --config or --values, or with such a file among the others, classes are also held against its
stores and rules: what would be denied, and the rule to add. Without one, a class may name any
store. docs/lint.md lists the rules of lint.

The exit code is 0 without an error, 1 with one or where there was nothing to check, and 2 for a
wrong command line.`,
		Example: `  keymount lint class.yaml pod.yaml
  keymount lint -R deploy/ --values values.yaml
  helm template shop ./chart | keymount lint -n shop -
  keymount lint --fix class.yaml
  keymount lint -R . --format sarif > keymount.sarif`,
		Args:              fileArgs(),
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return f.check(cmd) },
		RunE:              f.run,
	}
	f.addTo(command)
	return command
}

func (f *lintFlags) addTo(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "the keymount.yaml to hold classes against")
	flags.StringVar(&f.values, "values", "", "the chart's values to hold classes against")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "the namespace of objects that name none")
	flags.StringP("output", "o", "text", "how a result is printed: text, json or sarif")
	flags.StringVar(&f.format, "format", "", "sarif, for services that show findings beside the code")
	flags.BoolVarP(&f.recursive, "recursive", "R", false, "read the folders in a folder, too")
	flags.BoolVar(&f.strict, "strict", false, "end with 1 for warnings, too")
	flags.BoolVar(&f.fix, "fix", false, "write safe corrections into the files")
	flags.BoolVar(&f.empty, "allow-empty", false, "end with 0 where there is nothing to check, for hooks that give any files")
	completeFile(command, "config", yamlFiles()...)
	completeFile(command, "values", yamlFiles()...)
	complete(command, "output", []string{"text", "json", formatSARIF})
	complete(command, "format", []string{formatSARIF})
	command.ValidArgsFunction = byFiles("yaml", "yml", "json")
}

// check takes -o sarif for --format sarif, which only lint has.
func (f *lintFlags) check(cmd *cobra.Command) error {
	output := cmd.Flag("output")
	if output.Value.String() == formatSARIF {
		f.format = formatSARIF
		if err := output.Value.Set("text"); err != nil {
			return fmt.Errorf("--output: %w", err)
		}
	}
	if !slices.Contains([]string{"text", "json"}, output.Value.String()) {
		return usagef("--output is %q; it is text, json or %s", output.Value, formatSARIF)
	}
	if f.format != "" && f.format != formatSARIF {
		return usagef("--format is %q; it is %s, or use -o json", f.format, formatSARIF)
	}
	if f.config != "" && f.values != "" {
		return usagef("name the configuration once, by --config or by --values")
	}
	return nil
}

func (f *lintFlags) run(cmd *cobra.Command, args []string) error {
	result, err := f.lint(cmd, args)
	if err != nil {
		return err
	}
	if err := f.print(cmd, result); err != nil {
		return err
	}
	result.sum(cmd.ErrOrStderr())
	if result.Counts.Errors > 0 || f.strict && result.Counts.Warnings > 0 || result.checkedNothing() {
		return exitError{code: exitFailed}
	}
	return nil
}

func (f *lintFlags) lint(cmd *cobra.Command, args []string) (linted, error) {
	if f.fix && slices.Contains(args, manifest.Stdin) {
		return linted{}, usagef("--fix writes into files, and standard input is none; name the files, or leave --fix out")
	}
	files, err := readManifests(cmd, args, f.recursive)
	if err != nil {
		return linted{}, err
	}
	o := lint.Options{Namespace: f.namespace, Kinds: all.All(), Warn: node.Warn}
	if name := f.config + f.values; name != "" {
		read, err := manifest.Read([]string{name}, false, cmd.InOrStdin())
		if err != nil {
			return linted{}, err
		}
		if len(read) != 1 {
			return linted{}, usagef("%s is a folder; name one file", name)
		}
		o.Config = read[0]
	}
	found := lint.Check(files, o)
	var fixed []lint.Finding
	if f.fix {
		if found, fixed, err = fixAll(files, found, o); err != nil {
			return linted{}, err
		}
	}
	result := newLinted(len(files), found, fixed)
	result.mayBeEmpty = f.empty
	result.ofConfig(found, files, o.Config)
	return result, nil
}

// ofConfig notes whether there is a keymount.yaml among the files, where one that is named beside
// them does not count, and the one that has errors.
func (l *linted) ofConfig(found lint.Result, files []*manifest.File, named *manifest.File) {
	isAmong := named == nil || slices.ContainsFunc(files, func(f *manifest.File) bool { return f.Name == named.Name })
	l.hasConfig = found.Configs > 1 || found.Configs == 1 && isAmong
	switch {
	case found.Judged:
	case named != nil:
		l.broken = named.Name
	case found.Configs == 1:
		is := func(f lint.Finding) bool { return f.Rule == "config" && f.Severity == lint.Error }
		if i := slices.IndexFunc(found.Findings, is); i >= 0 {
			l.broken = found.Findings[i].File
		}
	}
}

// checkedNothing tells files that have nothing for lint, as with a folder too far up: a gate
// would be green for ever.
func (l linted) checkedNothing() bool {
	c := l.Counts
	return c.Classes+c.Others+c.Pods+c.Errors == 0 && !l.hasConfig && !l.mayBeEmpty
}

func newLinted(files int, r lint.Result, fixed []lint.Finding) linted {
	l := linted{
		Findings: append([]lint.Finding{}, r.Findings...), Fixed: fixed,
		Counts: lintCounts{Files: files, Classes: r.Classes, Others: r.Others, Pods: r.Pods, Configs: r.Configs, RulesChecked: r.Judged},
	}
	for _, found := range r.Findings {
		if found.Severity == lint.Error {
			l.Counts.Errors++
		} else {
			l.Counts.Warnings++
		}
	}
	return l
}

// fixAll makes edits until there are none, since one can show the next, and writes the
// changed files.
func fixAll(files []*manifest.File, found lint.Result, o lint.Options) (after lint.Result, fixed []lint.Finding, err error) {
	const most = 10 // rounds
	changed := map[int]bool{}
	for range most {
		before := len(fixed)
		for i, f := range files {
			text, made := lint.Fix(f, found.Findings)
			if len(made) == 0 || f.Name == manifest.StdinName {
				continue
			}
			files[i], changed[i] = manifest.Parse(f.Name, text), true
			fixed = append(fixed, made...)
		}
		if len(fixed) == before {
			break
		}
		found = lint.Check(files, o)
	}
	for i, f := range files {
		if !changed[i] {
			continue
		}
		if err := replaceFile(f.Name, f.Text); err != nil {
			return found, nil, fmt.Errorf("write %s: %w", f.Name, err)
		}
	}
	return found, fixed, nil
}

func (f *lintFlags) print(cmd *cobra.Command, l linted) error {
	if f.format != formatSARIF {
		return printResult(cmd, l, func(w io.Writer) { l.print(w, styleOf(cmd.OutOrStdout())) })
	}
	folder, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("name the files: %w", err)
	}
	encoder := json.NewEncoder(cmd.OutOrStdout())
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return asPrinted(cmd, encoder.Encode(lint.SARIF(l.Findings, readBuild().Version, folder)))
}

func (l linted) print(w io.Writer, s style) {
	for _, f := range l.Fixed {
		_, _ = fmt.Fprintf(w, "%s: fixed: %s\n", place(f), wrapped(f.Text+" ("+f.Rule+")", len(place(f))+len(": fixed: "), hanging))
	}
	for _, f := range l.Findings {
		severity := s.yellow(string(f.Severity))
		if f.Severity == lint.Error {
			severity = s.red(string(f.Severity))
		}
		_, _ = fmt.Fprintf(w, "%s: %s: %s\n", place(f), severity, wrapped(f.Text+" ("+f.Rule+")", len(place(f))+len(f.Severity)+len(": : "), hanging))
		_, _ = io.WriteString(w, rulesToAdd(f))
	}
}

// rulesToAdd are the lines for keymount.yaml that put a finding right; empty for none.
func rulesToAdd(f lint.Finding) string {
	if f.Add == "" {
		return ""
	}
	return "    to add to keymount.yaml:\n" + indent(strings.TrimSuffix(f.Add, "\n")+"\n", "      ")
}

func place(f lint.Finding) string {
	switch {
	case f.Line == 0:
		return f.File
	case f.Column == 0:
		return fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
}

// sum says how much was read and found.
func (l linted) sum(w io.Writer) {
	c := l.Counts
	parts := []string{fmt.Sprintf("errors: %d", c.Errors), fmt.Sprintf("warnings: %d", c.Warnings)}
	if len(l.Fixed) > 0 {
		parts = slices.Insert(parts, 0, fmt.Sprintf("fixed: %d", len(l.Fixed)))
	}
	if fixable := count(l.Findings, func(f lint.Finding) bool { return f.Fix != nil }); fixable > 0 {
		parts = append(parts, fmt.Sprintf("that --fix corrects: %d", fixable))
	}
	_, _ = fmt.Fprintf(w, "files: %d, classes: %d, pods and workloads: %d; %s\n", c.Files, c.Classes, c.Pods, strings.Join(parts, ", "))
	if c.Others > 0 {
		_, _ = fmt.Fprintf(w, "classes of other providers, not looked into: %d\n", c.Others)
	}
	if l.checkedNothing() {
		_, _ = fmt.Fprintln(w, "nothing was checked: no class, pod, workload or keymount.yaml is in them; --allow-empty allows that")
	}
	switch {
	case c.Classes == 0 || c.RulesChecked:
	case l.broken != "":
		_, _ = fmt.Fprintf(w, "stores and rules were not checked, since %s has errors\n", l.broken)
	case c.Configs > 1:
		_, _ = fmt.Fprintf(w, "stores and rules were not checked, since there are %d configurations; name one by --config\n", c.Configs)
	default:
		_, _ = fmt.Fprintf(w, "stores and rules were not checked; name keymount.yaml by --config, or the chart's values by --values\n")
	}
}

func count[T any](list []T, is func(T) bool) (n int) {
	for _, one := range list {
		if is(one) {
			n++
		}
	}
	return n
}
