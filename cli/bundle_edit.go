package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/state"
	"github.com/keymount/keymount/store/bundle"
)

func newBundleEdit() *cobra.Command {
	var identityFile string
	command := &cobra.Command{
		Use:   "edit BUNDLE",
		Short: "Edit the document in a bundle",
		Long: `Decrypt a bundle, open its document in $VISUAL or $EDITOR, else vi, and encrypt what
comes back, as it was typed, for the same recipients. When nothing changed, nothing is
written. A document with mistakes is never written: on a terminal it can be edited again.

The text is in a private folder in memory, on the tmpfs at /dev/shm or in $XDG_RUNTIME_DIR;
without one there is nothing to edit in. The folder is removed however this ends, unless it is
killed or aborted, with all that an editor leaves there, and $TMPDIR points to it. But some
editors keep copies in your home as well, of what was cut or undone: tell them not to, as below
for vim.`,
		Example: `  keymount bundle edit --identity key.txt secrets.age
  EDITOR='vim -i NONE -n --cmd "set noundofile nobackup"' \
    keymount bundle edit --identity key.txt secrets.age`,
		Args:              bundleArgs("BUNDLE"),
		ValidArgsFunction: inOrder(byFiles(bundleFiles()...)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := openToWrite(args[0], identityFile)
			if err != nil {
				return err
			}
			return edit(cmd, file)
		},
	}
	addIdentity(command, &identityFile)
	return command
}

func edit(cmd *cobra.Command, file *bundleFile) error {
	folder, err := memoryFolder("/dev/shm", os.Getenv("XDG_RUNTIME_DIR"))
	if err != nil {
		return err
	}
	e := editor{cmd: cmd, terminal: isTerminalInput(cmd.InOrStdin()), file: filepath.Join(folder, "secrets.yaml")}
	text, err := e.editIn(folder, file)
	if err != nil {
		return err
	}
	return finishEdit(cmd, file, text)
}

// editIn removes the folder when it returns, and when it panics.
func (e *editor) editIn(folder string, file *bundleFile) (text []byte, err error) {
	defer func() {
		if removal := os.RemoveAll(folder); removal != nil { //nolint:gosec // memoryFolder made it
			text, err = nil, errors.Join(err, fmt.Errorf("the document in clear is still in %s, remove it: %w", folder, removal))
		}
	}()
	ctx, stop := e.untilEnded()
	defer stop()
	if err := os.WriteFile(e.file, file.text.Reveal(), 0o600); err != nil {
		return nil, fmt.Errorf("write the document to edit: %w", err)
	}
	text, err = e.loop(ctx, file.text.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%s is left as it was: %w", file.name, err)
	}
	return text, nil
}

func finishEdit(cmd *cobra.Command, file *bundleFile, text []byte) error {
	result := changed{File: file.name, Changes: []bundle.Change{}}
	if bytes.Equal(text, file.text.Reveal()) {
		return printResult(cmd, result, func(w io.Writer) { _, _ = fmt.Fprintf(w, "%s: unchanged\n", file.name) })
	}
	after, err := bundle.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file.name, err)
	}
	if err := file.replace(text, file.recipients); err != nil {
		return err
	}
	before, _ := bundle.Parse(file.text.Reveal()) // with mistakes it is empty: all is added
	result.Written, result.Changes = true, append(result.Changes, bundle.Diff(before, after)...)
	return printResult(cmd, result, func(w io.Writer) {
		if len(result.Changes) == 0 {
			_, _ = fmt.Fprintf(w, "%s: written; no value changed\n", file.name)
		}
		result.print(w)
	})
}

// memoryFolder makes a private folder in the first candidate in memory.
func memoryFolder(candidates ...string) (string, error) {
	for _, candidate := range candidates {
		if !filepath.IsAbs(candidate) || !state.InMemory(candidate) {
			continue
		}
		if folder, err := os.MkdirTemp(candidate, "keymount-edit-"); err == nil {
			return folder, nil
		}
	}
	return "", errors.New("no place in memory to edit in, and the document is not written to a disk; " +
		"mount a tmpfs at /dev/shm, name one in $XDG_RUNTIME_DIR, or use 'keymount bundle set'")
}

// editor runs the user's editor on one file.
type editor struct {
	cmd      *cobra.Command
	terminal bool // a user can be asked
	file     string
}

// untilEnded returns a context that ends as well with the signals that would end
// the process before the folder is removed. On a terminal ctrl-C does not end it:
// it reaches the editor too, where it is a key like others.
func (e *editor) untilEnded() (context.Context, context.CancelFunc) {
	ctx := e.cmd.Context()
	if !e.terminal {
		return signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	}
	ctx = context.WithoutCancel(ctx)
	_, release := signal.NotifyContext(ctx, os.Interrupt) // caught and ignored
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	return ctx, func() { stop(); release() }
}

// loop runs the editor until the document is without mistakes, or unchanged.
func (e *editor) loop(ctx context.Context, before []byte) ([]byte, error) {
	for {
		if err := e.run(ctx); err != nil {
			return nil, err
		}
		text, err := readFile(e.file, bundle.MaxPlaintext)
		if err != nil {
			return nil, fmt.Errorf("read what was edited: %w", err)
		}
		if bytes.Equal(text, before) {
			return text, nil
		}
		_, mistakes := bundle.Parse(text)
		if mistakes == nil {
			return text, nil
		}
		if !e.terminal {
			return nil, mistakes
		}
		if err := e.askAgain(ctx, mistakes); err != nil {
			return nil, err
		}
	}
}

// run starts the editor in the shell, for it may have arguments and quotes. Without the
// trap the shell would die of a ctrl-C meant for the editor, although the editor ended
// well.
func (e *editor) run(ctx context.Context) error {
	command := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	c := exec.CommandContext(ctx, "sh", "-c", "trap : INT; "+command+` "$1"`, "sh", e.file) //nolint:gosec // it is the user's own command
	c.Stdin, c.Stdout, c.Stderr = e.cmd.InOrStdin(), e.cmd.ErrOrStderr(), e.cmd.ErrOrStderr()
	if isTerminal(e.cmd.OutOrStdout()) {
		c.Stdout = e.cmd.OutOrStdout()
	}
	c.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(e.file))
	c.WaitDelay = 5 * time.Second
	endWith(c, e.terminal)
	err := c.Run()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the edit was ended: %w", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("the editor %q failed: %w; set $EDITOR to another one", command, err)
	default:
		return nil
	}
}

// askAgain returns when the user wants to edit again.
func (e *editor) askAgain(ctx context.Context, mistakes error) error {
	_, _ = fmt.Fprintf(e.cmd.ErrOrStderr(), "%s\nPress Enter to edit again, ctrl-C to give up.\n", mistakes)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	_, err := await(ctx, func() (struct{}, error) { return struct{}{}, skipLine(e.cmd.InOrStdin()) })
	if err != nil {
		return errors.New("given up") // ctrl-C, ctrl-D, or the terminal went away
	}
	return nil
}

// skipLine reads up to a newline and no byte more: the rest is the editor's.
func skipLine(r io.Reader) error {
	for b := make([]byte, 1); b[0] != '\n'; {
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
	}
	return nil
}

func isTerminalInput(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && isTerminal(file)
}
