package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keymount/keymount/cli"
)

// commands are all commands, each by its words: "" for keymount itself, "audit verify".
func commands() map[string]*cobra.Command {
	found := map[string]*cobra.Command{}
	var walk func(*cobra.Command)
	walk = func(command *cobra.Command) {
		_, words, _ := strings.Cut(command.CommandPath(), " ")
		found[words] = command
		for _, sub := range command.Commands() {
			walk(sub)
		}
	}
	walk(cli.NewRoot())
	return found
}

// run runs a command line with nothing on standard input.
func run(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = cli.Run(t.Context(), args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// Every command explains itself within 100 columns, also as a plugin of kubectl.
func TestHelp(t *testing.T) {
	for words, command := range commands() {
		if command.Short == "" || command.Long == "" || !strings.HasPrefix(command.Example, "  ") {
			t.Errorf("keymount %s: has no Short, no Long or no Example", words)
		}
		for _, name := range []string{"keymount", "/usr/local/bin/kubectl-keymount"} {
			var out, errOut bytes.Buffer
			code := cli.RunAs(t.Context(), name, append(strings.Fields(words), "--help"), strings.NewReader(""), &out, &errOut)
			if code != 0 || errOut.Len() > 0 {
				t.Errorf("%s %s --help: exit code %d, %s", name, words, code, &errOut)
			}
			for line := range strings.Lines(out.String()) {
				// An example is as wide as it is written, and longer by kubectl's name.
				if n := utf8.RuneCountInString(strings.TrimSuffix(strings.ReplaceAll(line, "kubectl keymount", "keymount"), "\n")); n > 100 {
					t.Errorf("%s %s --help: %d columns: %s", name, words, n, line)
				}
			}
		}
	}
}

// Each command that has others refuses what is none of them, with a hint.
func TestMisspeltCommands(t *testing.T) {
	for words, command := range commands() {
		for _, sub := range command.Commands() {
			slip := sub.Name() + "x"
			code, out, errOut := run(t, append(strings.Fields(words), slip)...)
			want := "keymount: unknown command \"" + slip + "\"; did you mean \"" + sub.Name() + "\"?\nSee '" + command.CommandPath() + " --help'.\n"
			if code != 2 || out != "" || errOut != want {
				t.Errorf("keymount %s %s: exit code %d, %s%s", words, slip, code, out, errOut)
			}
		}
	}
}

// With -o json a failure is one JSON value on standard output, of the command line and of
// the work.
func TestFailuresInJSON(t *testing.T) {
	for words, command := range commands() {
		lines := [][]string{{"--no-such-flag", "-o", "json"}, {"--output=json", "-"}, {"-o", "json", "absent-1", "absent-2", "absent-3"}, {"-o", "json"}}
		if command.Flag("config") != nil {
			lines = append(lines, []string{"-o=json", "--config", "absent.yaml"}, []string{"-o=json", "--config", "absent.yaml", "absent"})
		}
		if name := command.Name(); name == "serve" || name == "demo" || name == "version-key" {
			lines = lines[:3] // the rest would run for long, or asks a cluster
		}
		for _, line := range lines {
			t.Chdir(t.TempDir())
			args := append(strings.Fields(words), line...)
			code, out, errOut := run(t, args...)
			if code == 0 {
				continue
			}
			var failed struct {
				Error    string
				ExitCode int
			}
			decoder := json.NewDecoder(strings.NewReader(out))
			if err := decoder.Decode(&failed); err != nil || decoder.More() {
				t.Errorf("keymount %s: exit code %d, no JSON value: %v\n%s%s", strings.Join(args, " "), code, err, out, errOut)
			}
			if own := strings.Contains(out, `"mistakes"`) || strings.Contains(out, `"findings"`) || strings.Contains(out, `"problems"`) || strings.Contains(out, `"complete": false`); !own && (failed.Error == "" || failed.ExitCode != code || errOut != "") {
				t.Errorf("keymount %s: exit code %d:\n%s%s", strings.Join(args, " "), code, out, errOut)
			}
		}
	}
}

// uncompleted are the flags with values that nothing is known of, and why.
func uncompleted() map[string]string {
	const past, free = "names something of the past, which only the records know", "a text of the user's own"
	return map[string]string{
		"audit keygen --name": free, "version-key --secret": "names something to be made", "serve --node-name": free,
		"health --timeout": "a duration", "demo --vault-addr": free, "demo --vault-token": "is secret",
		"audit show --namespace": past, "audit show --pod": past, "audit show --path": past, "audit show --rule": past,
		"audit show --since": "a time", "audit show --until": "a time", "audit verify --node": past, "audit verify --key": free,
		"audit show --field": past, "audit verify --field": past, "audit who --field": past, "audit rules --field": past, "audit replay --field": past,
		"render --name": "is among what CLASS has, once that is there", "render --as": "likewise", "render --pod": "a cluster knows them", "render --context": "kubectl knows them",
		"status --context": "kubectl knows them", "status --namespace": "a cluster knows them", "status --node": "a cluster knows them",
		"convert --store": "names something to be made", "convert --namespace": free, "lint --namespace": free,
		"init class --name": "names something to be made", "init class --namespace": free, "init class --role": free, "init class --path": free,
		"mount --name": "likewise", "mount --as": "likewise", "mount --audience": free,
		"bundle encrypt --recipient": free, "bundle rekey --recipient": free,
	}
}

// Each flag with a value is completed by the shell, or has a reason against it; and so are
// the arguments.
func TestCompletion(t *testing.T) {
	t.Setenv("PATH", "") // what kubectl lists is its cluster's
	reasons := uncompleted()
	for words, command := range commands() {
		args := append([]string{"__complete"}, strings.Fields(words)...)
		command.Flags().VisitAll(func(flag *pflag.Flag) {
			place := strings.TrimSpace(words + " --" + flag.Name)
			if flag.Value.Type() == "bool" || flag.NoOptDefVal != "" || command.InheritedFlags().Lookup(flag.Name) != nil {
				return
			}
			line := slices.Clone(args)
			if command.Flag("config") != nil && flag.Name != "config" { // which names come out of
				line = append(line, "--config", "../config/testdata/example.yaml")
			}
			completes := completesSomething(t, append(line, "--"+flag.Name, ""))
			if completes == (reasons[place] != "") {
				t.Errorf("keymount %s: completes: %v, reason against: %q", place, completes, reasons[place])
			}
			delete(reasons, place)
		})
		// Without a way of its own, what is completed are files.
		if len(strings.Fields(command.Use)) > 1 && command.ValidArgsFunction == nil && len(command.ValidArgs) == 0 && !strings.HasSuffix(command.Use, " FILE...") {
			t.Errorf("keymount %s: completes no arguments", words)
		}
		if n, bounded := argumentsOf(command); bounded && completesSomething(t, slices.Concat(args, slices.Repeat([]string{"given"}, n), []string{""})) {
			t.Errorf("keymount %s: completes an argument more than the %d that it takes", words, n)
		}
	}
	for place := range reasons {
		t.Errorf("there is no %s any more", place)
	}
}

// argumentsOf is how many arguments a command takes at most, if that is bounded.
func argumentsOf(command *cobra.Command) (n int, bounded bool) {
	use := strings.Fields(command.Use)
	for i, word := range use[1:] {
		if isFlag := strings.HasPrefix(word, "--") || strings.HasPrefix(use[i], "--"); !isFlag {
			n++
		}
	}
	return n, !command.HasSubCommands() && !strings.HasSuffix(command.Use, "...")
}

// completesSomething tells whether the shell would offer anything: values, or files.
func completesSomething(t *testing.T, args []string) bool {
	t.Helper()
	code, out, errOut := run(t, args...)
	if code != 0 {
		t.Fatalf("%q: %s", args, errOut)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return len(lines) > 1 || lines[0] != ":4" // which is: no values, no files
}

// The commands by which cobra completes are offered to nobody.
func TestHelpCompletesNoHidden(t *testing.T) {
	if _, out, _ := run(t, "__complete", "help", ""); strings.Contains(out, "__complete") || !strings.Contains(out, "lint") {
		t.Errorf("help completes:\n%s", out)
	}
}

func TestCompletedValues(t *testing.T) {
	tests := map[string][]string{
		"version -o ":                  {"text", "json", ":4"},
		"serve --log-level ":           {"debug", "info", "warn", "error", ":4"},
		"config check ":                {"yaml", "yml", ":8"},
		"bundle rm ":                   {"age", ":8"},
		"bundle rm secrets.age ":       {":4"},
		"completion ":                  {"bash", "zsh", "fish", "powershell", ":4"},
		"schema class ":                {":4"},
		"help audit ":                  {"keygen", "replay", "rules", "show", "verify", "who", ":4"},
		"lint -o ":                     {"text", "json", "sarif", ":4"},
		"bundle list --identity ":      {":0"},
		"audit show --kind checkpoint": {"checkpoint", ":4"},
	}
	for line, want := range tests {
		_, out, _ := run(t, append([]string{"__complete"}, strings.Split(line, " ")...)...)
		var got []string
		for line := range strings.Lines(out) {
			value, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			got = append(got, value)
		}
		if line == "audit show --kind checkpoint" { // shells filter by themselves
			got = slices.DeleteFunc(got, func(value string) bool { return value != "checkpoint" && value[0] != ':' })
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
}

// broken panics where a command reads it.
type broken struct{}

func (broken) Read([]byte) (int, error) { panic(errors.New("with a secret in it")) }

// A bug is one line, which holds no value that the program had in its hands.
func TestBug(t *testing.T) {
	t.Chdir(t.TempDir())
	if code, _, errOut := run(t, "bundle", "keygen", "key.txt"); code != 0 {
		t.Fatal(errOut)
	}
	for _, test := range []struct{ line, asked string }{
		{"config check -", ""},
		{"config check -", "1"},
		{"bundle decrypt --identity key.txt -", "1"}, // which reads in a goroutine
	} {
		asked := test.asked
		t.Setenv("KEYMOUNT_DEBUG", asked)
		var out, errOut bytes.Buffer
		code := cli.Run(t.Context(), strings.Fields(test.line), broken{}, &out, &errOut)
		text := errOut.String()
		if code != 1 || out.Len() > 0 || !strings.HasPrefix(text, "keymount: this is a bug in keymount (*errors.errorString); please report it ") || strings.Contains(text, "secret") {
			t.Errorf("exit code %d: %s%s", code, &out, text)
		}
		if stack := strings.Contains(text, "broken.Read"); stack != (asked != "") || asked == "" && strings.Count(text, "\n") != 1 {
			t.Errorf("KEYMOUNT_DEBUG=%s: %s", asked, text)
		}
	}
}

// A reader who has enough ends a command in silence.
func TestClosedPipe(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"version", "-o", "json"}, {"completion", "bash"}, {"--version"}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = reader.Close()
		var errOut bytes.Buffer
		if code := cli.Run(t.Context(), args, strings.NewReader(""), writer, &errOut); code != 0 || errOut.Len() > 0 {
			t.Errorf("%q: exit code %d, %s", args, code, &errOut)
		}
		_ = writer.Close()
	}
}

// A gate behind a pipe, such as lint | head, has the exit code of what was found however little
// of it is read.
func TestClosedPipeKeepsFindings(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"class.yaml": "{apiVersion: secrets-store.csi.x-k8s.io/v1, kind: SecretProviderClass, metadata: {name: a}, spec: {provider: keymount}}",
		"wrong.yaml": "stores: [{bundle: {fiel: a.age, identityFile: a.txt}}]",
		"one.yaml":   "paths: {shop/db: {password: one}}", "two.yaml": "paths: {shop/db: {password: two}}",
		"audit.jsonl": "no record\n",
		"else.yaml":   "{apiVersion: external-secrets.io/v1, kind: ExternalSecret, metadata: {name: a}, spec: {secretStoreRef: {name: none}, data: []}}",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, recipient, _ := run(t, "bundle", "keygen", "key.txt")
	for _, name := range []string{"one", "two"} {
		if code, out, errOut := run(t, "bundle", "encrypt", "--recipient", strings.TrimSpace(recipient), "--out", name+".age", name+".yaml"); code != 0 {
			t.Fatalf("exit code %d: %s%s", code, out, errOut)
		}
	}
	for line, want := range map[string]int{
		"lint class.yaml":                        1,
		"lint class.yaml -o json":                1,
		"lint class.yaml -o sarif":               1,
		"config check wrong.yaml -o json":        1,
		"audit verify audit.jsonl":               3,
		"convert else.yaml":                      1,
		"convert else.yaml -o json":              1,
		"bundle diff -i key.txt one.age two.age": 1,
	} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = reader.Close()
		var errOut bytes.Buffer
		if code := cli.Run(t.Context(), strings.Fields(line), strings.NewReader(""), writer, &errOut); code != want || strings.Contains(errOut.String(), "pipe") {
			t.Errorf("%s: exit code %d, want %d: %s", line, code, want, &errOut)
		}
		_ = writer.Close()
	}
}

// Shell scripts are those of the shell that is named.
func TestCompletionScripts(t *testing.T) {
	marks := map[string]string{"bash": "__start_keymount", "zsh": "#compdef keymount", "fish": "complete -c keymount", "powershell": "Register-ArgumentCompleter"}
	for _, shell := range slices.Sorted(maps.Keys(marks)) {
		if code, out, _ := run(t, "completion", shell); code != 0 || !strings.Contains(out, marks[shell]) {
			t.Errorf("%s: exit code %d, %d bytes without %q", shell, code, len(out), marks[shell])
		}
	}
}
