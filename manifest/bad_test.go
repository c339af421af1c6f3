package manifest_test

import (
	"strings"
	"testing"

	"github.com/keymount/keymount/manifest"
)

// TestBadLine has a @ in the line that a person would point to.
func TestBadLine(t *testing.T) {
	for _, text := range []string{
		"- a: b\n  b: c\n @d: e\n", "- a: @[b\n  c: d\n", "a:\n  b: c\n---\n- d\n@}\n", "@{a\n",
		"a: [b,\n c]\nd: {e: f,\n g: [h,\n i]}\nj: k\n  @l: m\nn: [o,\n p]\n", "a: 'b\n c'\n@}\nd: [e,\n f]\n",
		"metadata:\n\t@name: a\n", "@a: \"b\nc: d\ne: \"f\n",
	} {
		line, _ := place(text)
		if got := manifest.BadLine([]byte(strings.ReplaceAll(text, "@", ""))); got.Line != line {
			t.Errorf("%q: line %d, want %d", text, got.Line, line)
		}
	}
	if got := manifest.BadLine([]byte("a: [b,\n c]\n--- \n{}\n")); got != (manifest.Position{}) {
		t.Errorf("a line of good YAML is bad: %+v", got)
	}
}
