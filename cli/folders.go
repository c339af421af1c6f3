package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/manifest"
)

// readManifests is [manifest.Read] for a command with -R: of a named folder with others in it
// that were not read it says so.
func readManifests(cmd *cobra.Command, names []string, deep bool) ([]*manifest.File, error) {
	var files []*manifest.File
	for _, name := range names {
		read, err := manifest.Read([]string{name}, deep, cmd.InOrStdin())
		unread := 0
		if !deep && name != manifest.Stdin {
			unread = manifest.Unread(name)
		}
		switch {
		case errors.Is(err, manifest.ErrNoFiles) && unread > 0:
			return nil, fmt.Errorf("%w; -R reads the folders in it", err)
		case err != nil:
			return nil, err
		case unread > 0:
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s not read; -R reads them\n", name, folders(unread))
		}
		files = append(files, read...)
	}
	return files, nil
}

func folders(n int) string {
	if n == 1 {
		return "1 folder in it was"
	}
	return fmt.Sprintf("%d folders in it were", n)
}
