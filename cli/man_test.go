package cli_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/man")

const manFolder = "../docs/man"

// TestManPages holds docs/man and the commands together. The pages are made here and not in
// the program, which would grow by what a package of an operating system does once.
func TestManPages(t *testing.T) {
	t.Setenv("NODE_NAME", "") // a default of the machine
	want := map[string]string{}
	for _, command := range commands() {
		want[pageOf(command)+".1"] = manPage(command)
	}
	if *update {
		writePages(t, want)
	}
	got := map[string]string{}
	files, err := filepath.Glob(filepath.Join(manFolder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got[filepath.Base(file)] = string(text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/man is not that of the commands; write it by go generate ./cli\n%s", diff)
	}
}

func writePages(t *testing.T, pages map[string]string) {
	t.Helper()
	if err := os.RemoveAll(manFolder); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(manFolder, 0o755); err != nil { //nolint:gosec // documentation is public
		t.Fatal(err)
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(manFolder, name), []byte(text), 0o644); err != nil { //nolint:gosec // documentation is public
			t.Fatal(err)
		}
	}
}

func pageOf(command *cobra.Command) string {
	return strings.ReplaceAll(command.CommandPath(), " ", "-")
}

// manPage is the page of a command. It has no date and no version, which would change
// without the command.
func manPage(command *cobra.Command) string {
	var b strings.Builder
	name := pageOf(command)
	_, _ = fmt.Fprintf(&b, ".\\\" Made of the command by 'go generate ./cli'.\n.TH %s 1 \"\" \"keymount\" \"Manual of keymount\"\n", roff(strings.ToUpper(name)))
	_, _ = fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(name), roff(lowerFirst(command.Short)))
	_, _ = fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(command.UseLine()))
	b.WriteString(".SH DESCRIPTION\n" + manText(command.Long))
	if command.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range command.Commands() {
			_, _ = fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", roff(sub.Name()), roff(sub.Short))
		}
	}
	manFlags(&b, "OPTIONS", command.NonInheritedFlags())
	manFlags(&b, "OPTIONS OF ALL COMMANDS", command.InheritedFlags())
	b.WriteString(".SH EXIT STATUS\n0 when it is done, 1 when it failed or found what it looks for, 2 when the command line is wrong, unless\nthe description says otherwise.\n")
	if !command.HasParent() {
		b.WriteString(".SH ENVIRONMENT\n.TP\n.B NO_COLOR\nNo colours, also on a terminal.\n.TP\n.B KEYMOUNT_DEBUG\nOf a bug in keymount, print the stack.\n")
	}
	b.WriteString(".SH EXAMPLES\n" + literally(command.Example))
	b.WriteString(".SH SEE ALSO\n" + roff(strings.Join(related(command), ", ")) + "\n")
	return b.String()
}

func manFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	b.WriteString(".SH " + title + "\n")
	flags.VisitAll(func(f *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if unset := []string{"", "false", "[]"}; !slices.Contains(unset, f.DefValue) && !strings.Contains(usage, "(default") {
			usage += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		if value != "" { // which a switch has none of
			value = " \\fI" + roff(value) + "\\fR"
		}
		_, _ = fmt.Fprintf(b, ".TP\n\\fB%s\\fR%s\n%s\n", roff(name), value, roff(usage))
	})
}

// manText is a text of paragraphs, of which the indented ones are kept as they are.
func manText(text string) string {
	var paragraphs []string
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if strings.HasPrefix(paragraph, " ") {
			paragraphs = append(paragraphs, literally(paragraph))
		} else {
			paragraphs = append(paragraphs, roff(paragraph)+"\n")
		}
	}
	return strings.Join(paragraphs, ".PP\n")
}

func literally(text string) string { return ".nf\n" + roff(strings.TrimRight(text, "\n")) + "\n.fi\n" }

// roff escapes what has a meaning to roff: backslashes and hyphens anywhere, and dots and
// quotes where a line begins.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "~", `\(ti`, "^", `\(ha`, "`", `\(ga`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func lowerFirst(text string) string { return strings.ToLower(text[:1]) + text[1:] }

// related are the pages of the command's parent and subcommands.
func related(command *cobra.Command) []string {
	var pages []string
	if command.HasParent() {
		pages = append(pages, pageOf(command.Parent())+"(1)")
	}
	for _, sub := range command.Commands() {
		pages = append(pages, pageOf(sub)+"(1)")
	}
	return pages
}

// What has a meaning to roff is shown as it is.
func TestRoff(t *testing.T) {
	const text = "a -b\n.c 'd'\n'e' \\n"
	const want = "a \\-b\n\\&.c \\(aqd\\(aq\n\\(aqe\\(aq \\en"
	if got := roff(text); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
