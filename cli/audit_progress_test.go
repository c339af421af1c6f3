package cli_test

import (
	"strings"
	"testing"

	"github.com/keymount/keymount/cli"
)

// Nothing is drawn in the first second, and the bar is taken away in the end.
func TestProgress(t *testing.T) {
	bar := func(n int, text string) string {
		return "\r[" + strings.Repeat("#", n) + strings.Repeat(" ", 40-n) + "] " + text
	}
	want := bar(20, " 50 %") + bar(40, "100 %") + bar(40, "100 %") + "\r" + strings.Repeat(" ", 48) + "\r"
	if got := cli.ProgressText(100, 10, 20, 20, 50, 30); got != want {
		t.Errorf("drawn %q, want %q", got, want)
	}
	for name, got := range map[string]string{"short": cli.ProgressText(100, 100), "of unknown length": cli.ProgressText(0, 1, 1, 1, 1)} {
		if got != "" {
			t.Errorf("%s: drawn %q", name, got)
		}
	}
}
