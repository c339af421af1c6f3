package cli_test

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestLintDocument holds the example of docs/lint.md against what the script of lint finds.
func TestLintDocument(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/script/lint.txt")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../docs/lint.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range archive.Files {
		if f.Name == "findings.txt" {
			found++
		}
		if f.Name == "findings.txt" && !strings.Contains(string(document), "$ keymount lint class.yaml\n"+string(f.Data)+"```\n") {
			t.Errorf("docs/lint.md does not have what is found:\n%s", f.Data)
		}
	}
	if found != 1 {
		t.Errorf("the script has %d files findings.txt, want 1", found)
	}
}
