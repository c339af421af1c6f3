package cli_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/cli"
)

// TestTryGuide runs docs/try.md: each file that it names is written, and each command
// prints what the page says.
func TestTryGuide(t *testing.T) {
	page, err := os.ReadFile("../docs/try.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	blocks := regexp.MustCompile("(?ms)^(?:`([a-z.-]+)`:\n\n```yaml\n(.*?)|```console\n\\$ keymount (.*?)\n(.*?))^```$").FindAllStringSubmatch(string(page), -1)
	commands := 0
	for _, block := range blocks {
		file, content, line, want := block[1], block[2], block[3], block[4]
		if file != "" {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil { //nolint:gosec // a name of the page
				t.Fatal(err)
			}
			continue
		}
		commands++
		var out bytes.Buffer
		cli.Run(t.Context(), strings.Fields(line), strings.NewReader(""), &out, &out)
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("keymount %s (-page +printed):\n%s", line, diff)
		}
	}
	if commands != strings.Count(string(page), "$ keymount ") || commands == 0 {
		t.Errorf("%d commands were run", commands)
	}
}
