package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// build tells which keymount this is, as the Go toolchain recorded it.
type build struct {
	Version  string `json:"version"`            // semantic version, as the driver wants it
	Revision string `json:"revision,omitempty"` // commit, with -dirty when the tree had changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuild() build {
	b := build{Version: "v0.0.0-unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if strings.HasPrefix(info.Main.Version, "v") {
		b.Version = info.Main.Version
	}
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if b.Revision != "" {
		b.Revision += dirty
	}
	return b
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which keymount this is",
		Long: `Print the version, the commit it was built from, the Go release and the platform. 'keymount
--version' does the same.`,
		Example: `  keymount version
  keymount version -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return printBuild(cmd) },
	}
}

func printBuild(cmd *cobra.Command) error {
	b := readBuild()
	return printResult(cmd, b, func(w io.Writer) {
		revision := b.Revision
		if revision == "" {
			revision = "no revision recorded"
		}
		_, _ = fmt.Fprintf(w, "keymount %s (%s, %s, %s)\n", b.Version, revision, b.Go, b.Platform)
	})
}
