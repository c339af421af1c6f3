package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/internal/contain"
)

// fail tells a person why a command failed, and returns the exit code.
func fail(command *cobra.Command, err error, errOut io.Writer) int {
	code, err := outcomeOf(err)
	if err != nil {
		text := err.Error()
		if _, long := errors.AsType[folded](err); long {
			text = wrapped(text, len("keymount: "), hanging)
		}
		_, _ = fmt.Fprintf(errOut, "keymount: %s\n", text)
	}
	if isUsage(err) {
		_, _ = fmt.Fprintf(errOut, "See '%s --help'.\n", command.CommandPath())
	}
	return code
}

// failure is a failed command in JSON. Commands that look for mistakes print those instead.
type failure struct {
	Error    string `json:"error"`
	ExitCode int    `json:"exitCode"`
}

// failInJSON tells a program, on standard output, where it reads results, and in one line,
// since some results are a line each.
func failInJSON(out io.Writer, err error) int {
	code, err := outcomeOf(err)
	if err != nil {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(failure{err.Error(), code})
	}
	return code
}

// outcomeOf is the exit code for an error, and the error to tell: nil where the command has
// told it.
func outcomeOf(err error) (int, error) {
	if isUsage(err) {
		return exitUsage, err
	}
	if bug, ok := errors.AsType[*contain.Panic](err); ok {
		return exitFailed, reportOf(bug)
	}
	exit := exitError{exitFailed, err}
	_ = errors.As(err, &exit)
	if exit.err == nil {
		err = nil
	}
	return exit.code, err
}

// debugVariable asks for the stack of a bug.
const debugVariable = "KEYMOUNT_DEBUG"

func reportOf(bug *contain.Panic) error {
	report := fmt.Errorf("this is a bug in keymount (%s); please report it with the command line at https://github.com/keymount/keymount/issues", bug.Cause)
	if os.Getenv(debugVariable) == "" {
		return fmt.Errorf("%w, and with what it prints with %s=1", report, debugVariable)
	}
	return fmt.Errorf("%w\n%s", report, bug.Stack)
}

// isUnread tells that the reader of standard output went away, as head does when it has
// enough. What serve writes there is wanted to the end.
func isUnread(command *cobra.Command, err error) bool {
	out, isFile := command.OutOrStdout().(*os.File)
	written, ok := errors.AsType[*fs.PathError](err)
	return ok && isFile && written.Path == out.Name() && errors.Is(written.Err, syscall.EPIPE) && command.Name() != serveName
}

// wantsJSON looks at the command line itself: where that is wrong, flags may not have been
// read.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	for i, arg := range args {
		switch arg {
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			if i+1 < len(args) && args[i+1] == "json" {
				return true
			}
		}
	}
	return false
}
