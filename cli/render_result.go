package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/trial"
)

// rendered is the result of render, and of mount.
type rendered struct {
	Class          string         `json:"class,omitempty"`
	ServiceAccount string         `json:"serviceAccount,omitempty"`
	Files          []renderedFile `json:"files,omitempty"`
	Reads          []renderedRead `json:"reads,omitempty"`
	// Unchecked says that there were no rules to check.
	Unchecked bool     `json:"rulesUnchecked,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	To        string   `json:"to,omitempty"`
	Notes     []string `json:"notes,omitempty"`
	// Code is the answer that the driver would get: OK with the files, and another one with
	// an Error.
	Code     string `json:"code,omitempty"`
	Error    string `json:"error,omitempty"`
	ExitCode int    `json:"exitCode,omitempty"`

	revealed bool
}

// renderedFile is one file of the volume.
type renderedFile struct {
	Path    string `json:"path"`
	Mode    string `json:"mode"`
	Bytes   int    `json:"bytes"`
	Content string `json:"content"` // text, JSON, PEM or binary
	Value   string `json:"value,omitempty"`
	Base64  string `json:"valueBase64,omitempty"` // in place of Value
}

// renderedRead is one secret of the class, with the rule that decided.
type renderedRead struct {
	Store   string   `json:"store"`
	Role    string   `json:"role,omitempty"`
	Path    string   `json:"path"`
	Write   bool     `json:"write,omitempty"`
	Allowed *bool    `json:"allowed,omitempty"`
	Rule    string   `json:"rule,omitempty"`
	List    string   `json:"list,omitempty"` // of the rule, that does not fit
	Files   []string `json:"files,omitempty"`
}

func (r *rendering) result(try trial.Try, o *trial.Outcome) rendered {
	result := rendered{
		Class: try.Class.Name, ServiceAccount: try.Pod.Namespace + "/" + try.Pod.ServiceAccount, Unchecked: r.config == "",
		Warnings: o.Warnings, Code: o.Code, Error: o.Message, Notes: r.notes, revealed: r.reveal,
	}
	if o.Message != "" {
		result.ExitCode = exitFailed
	}
	for _, f := range o.Files {
		result.Files = append(result.Files, renderedOf(f.Path, f.Mode, f.Contents.Reveal(), r.reveal))
	}
	for _, read := range o.Reads {
		one := renderedRead{Store: read.Store, Role: read.Role, Path: read.Path, Write: read.Write, Files: read.Files}
		if !result.Unchecked {
			one.Allowed, one.Rule, one.List = &read.Rule.Allowed, read.Rule.Rule, read.Rule.List
		}
		result.Reads = append(result.Reads, one)
	}
	return result
}

func renderedOf(path string, mode int32, content []byte, reveal bool) renderedFile {
	f := renderedFile{Path: path, Mode: fmt.Sprintf("%04o", mode), Bytes: len(content), Content: contentOf(content)}
	switch {
	case !reveal:
	case f.Content == "binary":
		f.Base64 = base64.StdEncoding.EncodeToString(content)
	default:
		f.Value = string(content)
	}
	return f
}

// contentOf names the content of a file.
func contentOf(content []byte) string {
	text := strings.TrimSpace(string(content))
	switch {
	case len(content) == 0:
		return "empty"
	case !utf8.Valid(content) || strings.ContainsFunc(string(content), movesCursor):
		return "binary"
	case strings.HasPrefix(text, "-----BEGIN "):
		return "PEM"
	case (strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[")) && json.Valid(content):
		return "JSON"
	}
	return "text"
}

// movesCursor tells characters that a terminal would obey.
func movesCursor(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\n\r\t", r) }

func (r rendered) print(w io.Writer, s style) {
	_, _ = fmt.Fprintf(w, "%s\n\n", s.bold(fmt.Sprintf("Class %s, mounted as service account %s:", r.Class, r.ServiceAccount)))
	rows := [][]string{{"FILE", "MODE", "CONTENT", "VALUE"}}
	for _, f := range r.Files {
		rows = append(rows, []string{f.Path, f.Mode, f.Content, f.shown(r.revealed)})
	}
	printRows(w, rows)
	for _, f := range r.Files {
		f.printLong(w, s, r.revealed)
	}
	r.printReads(w)
	for _, warning := range r.Warnings {
		_, _ = fmt.Fprintf(w, "\nwarning: %s\n", wrapped(warning, len("warning: "), hanging))
	}
	if r.To != "" {
		_, _ = fmt.Fprintf(w, "\nThe files are in %s.\n", r.To)
	}
}

// shown is the value in the table.
func (f renderedFile) shown(revealed bool) string {
	switch {
	case !revealed || f.Base64 != "":
		return masked(f.Bytes)
	case f.isLong():
		return fmt.Sprintf("%d bytes, below", f.Bytes)
	}
	return f.Value
}

// printLong prints a value that does not fit the table.
func (f renderedFile) printLong(w io.Writer, s style, revealed bool) {
	if revealed && f.isLong() {
		_, _ = fmt.Fprintf(w, "\n%s\n%s", s.bold(f.Path+":"), indented(f.Value))
	}
}

// isLong tells values that do not fit the table.
func (f renderedFile) isLong() bool {
	const widest = 40
	return strings.ContainsAny(f.Value, "\n\t\r") || len(f.Value) > widest
}

func indented(text string) string {
	var all strings.Builder
	for line := range strings.Lines(text) {
		all.WriteString("   " + strings.TrimRight(line, "\r\n") + "\n")
	}
	return all.String()
}

func (r rendered) printReads(w io.Writer) {
	_, _ = fmt.Fprintln(w)
	if r.Unchecked {
		_, _ = fmt.Fprintf(w, "Without --config no access rules were checked.\n")
		return
	}
	rows := [][]string{{"SECRET", "STORE", "ALLOWED BY"}}
	for _, read := range r.Reads {
		rows = append(rows, []string{read.Path, read.Store, read.Rule})
	}
	printRows(w, rows)
}

func printRows(w io.Writer, rows [][]string) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintf(table, "   %s\n", strings.Join(row, "\t"))
	}
	_ = table.Flush()
}

// noteDenials names the rules that nearly allow what is denied.
func (r *rendering) noteDenials(cmd *cobra.Command, o *trial.Outcome) {
	for _, read := range o.Reads {
		if !read.Rule.Allowed && read.Rule.Rule != "" {
			r.note(cmd, "of all rules, %s is nearest to allow %q; its list %s does not fit", read.Rule.Rule, read.Path, read.Rule.List)
		}
	}
}

// refuse ends the command with the answer that the driver would get.
func (r rendered) refuse(cmd *cobra.Command) error {
	if isJSON(cmd) {
		if err := printResult(cmd, r, nil); err != nil {
			return err
		}
		return exitError{code: exitFailed}
	}
	return fmt.Errorf("%s: %s", r.Code, r.Error)
}

// checkEmpty looks whether a folder is new or empty.
func checkEmpty(folder string) error {
	switch there, err := os.ReadDir(folder); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look into the folder: %w", err)
	case len(there) > 0:
		return fmt.Errorf("%s is not empty; name a new folder, or empty this one", folder)
	}
	return nil
}

// writeFiles puts files into a folder that is new or empty.
func writeFiles(folder string, files []provider.File) error {
	const private = 0o700
	if err := checkEmpty(folder); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, private); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return fmt.Errorf("open the folder: %w", err)
	}
	failures := make([]error, 0, len(files)+1)
	for _, f := range files {
		failures = append(failures, writeFile(root, f))
	}
	return errors.Join(append(failures, root.Close())...)
}

func writeFile(root *os.Root, f provider.File) error {
	const private, secretly = 0o700, 0o600
	if err := root.MkdirAll(filepath.Dir(f.Path), private); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	if err := root.WriteFile(f.Path, f.Contents.Reveal(), secretly); err != nil {
		return fmt.Errorf("write the files: %w", err)
	}
	if err := root.Chmod(f.Path, os.FileMode(f.Mode)); err != nil { //nolint:gosec // a mode of the class has nine bits
		return fmt.Errorf("write the files: %w", err)
	}
	return nil
}
