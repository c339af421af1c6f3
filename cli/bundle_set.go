package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/bundle"
)

// setting is the command line of bundle set.
type setting struct {
	identityFile string
	valueFile    string
	json         bool
	keepNewline  bool
}

func newBundleSet() *cobra.Command {
	var s setting
	command := &cobra.Command{
		Use:   "set BUNDLE PATH KEY",
		Short: "Set one value in a bundle",
		Long: `Set one value in a bundle; the path and the key are made when they are not there. The
value comes from standard input, without the newline at its end (see --keep-newline), or
from a file, as it is (see --from-file). On a terminal it is asked for and not shown. It
is never given on the command line, from where it would get into the shell's history and
be seen by everybody who lists processes.

The value is a text, or with --json a JSON value: a number, true, null, a list, a map.
KEY is a name as 'keymount bundle list' shows it; dots do not go deeper.

The comments in the document stay, except inside of a value that is replaced, and so does
the order; blank lines and what surrounds an end mark may not. To keep every
character use 'keymount bundle edit'. The bundle stays encrypted for the same recipients.`,
		Example: `  keymount bundle set --identity key.txt secrets.age shop/db password
  openssl rand -base64 24 | keymount bundle set -i key.txt secrets.age shop/db password
  keymount bundle set --identity key.txt --from-file tls.key secrets.age shop/tls tls.key
  echo 5432 | keymount bundle set --identity key.txt --json secrets.age shop/db port`,
		Args:              noValueInArgs,
		ValidArgsFunction: inOrder(byFiles(bundleFiles()...)),
		RunE:              s.run,
	}
	command.SetFlagErrorFunc(noValueInFlags)
	addIdentity(command, &s.identityFile)
	flags := command.Flags()
	flags.StringVar(&s.valueFile, "from-file", "", "read the value from this file instead of standard input")
	completeFile(command, "from-file")
	flags.BoolVar(&s.json, "json", false, "the value is a JSON value and not a text")
	flags.BoolVar(&s.keepNewline, "keep-newline", false, "keep a newline at the end of standard input")
	return command
}

const valueCure = "a value on the command line gets into the shell's history and the list of processes; give it on standard input or with --from-file, and if this was one, make a new one"

// noValueInArgs does not repeat an argument too many: it may be a value.
func noValueInArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 3 {
		return usagef("unexpected argument after KEY; %s", valueCure)
	}
	return bundleArgs("BUNDLE", "PATH", "KEY")(cmd, args)
}

// noValueInFlags does not repeat an unknown flag: it may be a value with a dash.
func noValueInFlags(_ *cobra.Command, err error) error {
	_, unknown := errors.AsType[unknownFlag](err)
	_, odd := errors.AsType[oddFlag](err)
	if unknown || odd {
		return usagef("unknown flag; %s", valueCure)
	}
	return usage{err}
}

// unknownFlag and oddFlag are the flag library's errors that quote an argument.
type (
	unknownFlag interface {
		error
		GetSpecifiedShortnames() string
	}
	oddFlag interface {
		error
		GetSpecifiedFlag() string
	}
)

func (s *setting) run(cmd *cobra.Command, args []string) error {
	path, key, err := parsePlace(args[1], args[2])
	if err != nil {
		return err
	}
	// Before a user types in vain.
	if _, err := openToWrite(args[0], s.identityFile); err != nil {
		return err
	}
	value, err := s.value(cmd, fmt.Sprintf("%s %s", path, key))
	if err != nil {
		return err
	}
	changes, err := changeBundle(args[0], s.identityFile, func(text []byte) ([]byte, error) { return bundle.Set(text, path, key, value) })
	if err != nil {
		return err
	}
	result := changed{args[0], len(changes) > 0, changes}
	if len(changes) == 0 {
		result.Changes = []bundle.Change{{Path: path.String(), Key: key, What: bundle.Unchanged}}
	}
	return printResult(cmd, result, result.print)
}

func parsePlace(pathText, key string) (store.Path, string, error) {
	path, err := store.ParsePath(pathText)
	if err != nil {
		return store.Path{}, "", usagef("PATH %w", err)
	}
	if !utf8.ValidString(key) {
		return store.Path{}, "", usagef("KEY is not UTF-8")
	}
	return path, key, nil
}

// value reads the value; its errors hold nothing of the value.
func (s *setting) value(cmd *cobra.Command, place string) (secret.Tree, error) {
	data, name, err := s.read(cmd, place)
	if err != nil {
		return secret.Tree{}, err
	}
	if s.json {
		value, err := bundle.ParseValue(data)
		if err != nil {
			return secret.Tree{}, fmt.Errorf("%s: %w", name, err)
		}
		return value, nil
	}
	if len(data) == 0 {
		return secret.Tree{}, fmt.Errorf(`%s: is empty, which looks like a mistake; for an empty text give "" with --json`, name)
	}
	return secret.NewTree(string(data))
}

func (s *setting) read(cmd *cobra.Command, place string) (data []byte, name string, err error) {
	if s.valueFile != "" {
		data, err := readFile(s.valueFile, bundle.MaxPlaintext)
		if err != nil {
			return nil, "", fmt.Errorf("read the value: %w", err)
		}
		return data, s.valueFile, nil
	}
	if terminal, ok := cmd.InOrStdin().(*os.File); ok && isTerminal(terminal) {
		data, err := askValue(cmd.Context(), terminal, cmd.ErrOrStderr(), place)
		return data, "the value", err
	}
	data, name, err = readInput(cmd, nil, bundle.MaxPlaintext)
	if !s.keepNewline {
		if shorter, ok := bytes.CutSuffix(data, []byte("\n")); ok {
			data = bytes.TrimSuffix(shorter, []byte("\r"))
		}
	}
	return data, name, err
}

// askValue reads a line from a terminal without echo. When ctx ends, the echo has to be
// switched on again.
func askValue(ctx context.Context, terminal *os.File, prompt io.Writer, place string) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("ask for the value: %w", err)
	}
	_, _ = fmt.Fprintf(prompt, "Value of %s: ", place)
	value, err := await(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	_, _ = fmt.Fprintln(prompt)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ask for the value: %w", err), term.Restore(fd, before))
	}
	return value, nil
}
