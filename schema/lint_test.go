package schema_test

import (
	"io/fs"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/lint"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/schema"
	"github.com/keymount/keymount/store/all"
)

// TestLintAgrees holds every class of the repository's examples and test data against the
// schemas: where lint finds no error, an editor has to find none either.
func TestLintAgrees(t *testing.T) {
	clean, wrong := 0, 0
	ofClass, ofObjects := compile(t, schema.Class), compile(t, schema.Objects)
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".yaml" {
			return err
		}
		read := manifest.Parse(file, read(t, file))
		if len(read.Mistakes) > 0 {
			return nil
		}
		for _, finding := range lint.Check([]*manifest.File{read}, lint.Options{Kinds: all.All()}).Findings {
			if finding.Severity == lint.Error {
				wrong++
				return nil
			}
		}
		for _, o := range read.Objects {
			c, isClass := o.Class()
			if !isClass {
				continue
			}
			clean++
			text, err := yaml.Marshal(o.Node)
			if err != nil {
				return err
			}
			if err := validate(ofClass, text); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if c.Provider == "keymount" {
				if err := validate(ofObjects, []byte(c.Parameters["objects"])); err != nil {
					t.Errorf("%s: objects: %v", file, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("%d classes are clean, %d files are not", clean, wrong); clean == 0 || wrong == 0 {
		t.Error("found too few of them")
	}
}
