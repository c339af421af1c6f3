package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// stateFile is the name of a file that holds the last checkpoint, for the next process to
// name; empty keeps none.
type stateFile string

// OpenState reads the last checkpoint that an earlier process has kept; nil where there is
// none, or no name of a file. What cannot be read, as after a loss of power, is logged, and the
// trail says that it does not know what was before. It fails where the file could not be
// replaced later.
func OpenState(ctx context.Context, s string, log *slog.Logger) (*Predecessor, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // none is no error
	}
	probe, err := os.CreateTemp(filepath.Dir(s), ".audit-*")
	if err == nil {
		err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	}
	if err != nil {
		return nil, fmt.Errorf("audit.stateFile: %w; name a file in a folder that keymount may write to", err)
	}
	text, err := os.ReadFile(s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // none is no error
	}
	if err != nil {
		return nil, fmt.Errorf("audit.stateFile: %w", err)
	}
	last := new(Predecessor)
	if err := json.Unmarshal(text, last); err != nil {
		log.LogAttrs(ctx, slog.LevelWarn, "the state file of the audit trail holds no checkpoint, and the trail will not know what was before",
			slog.String("file", s), slog.String("error", err.Error()))
		return nil, nil //nolint:nilnil // none is no error
	}
	return last, nil
}

// write replaces the file whole.
func (s stateFile) write(last Predecessor) error {
	if s == "" {
		return nil
	}
	text, err := json.Marshal(last)
	if err != nil {
		return fmt.Errorf("audit.stateFile: %w", err)
	}
	made, err := os.CreateTemp(filepath.Dir(string(s)), ".audit-*")
	if err != nil {
		return fmt.Errorf("audit.stateFile: %w", err)
	}
	_, err = made.Write(append(text, '\n'))
	err = errors.Join(err, made.Sync(), made.Close())
	if err == nil {
		err = os.Rename(made.Name(), string(s))
	}
	if err != nil {
		return fmt.Errorf("audit.stateFile: %w", errors.Join(err, os.Remove(made.Name())))
	}
	return nil
}
