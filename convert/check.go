package convert

import (
	"slices"

	"gopkg.in/yaml.v3"

	keymount "github.com/keymount/keymount/class"
	"github.com/keymount/keymount/store/vault"
)

// check parses a class as a mount does, and takes out what would not mount, with a note. So
// a mistake of the input, such as a file with a name that the driver refuses, costs no more
// than its object.
func (c *conversion) check(cl *draft) {
	whole := cl.entries
	if len(cl.mistakes()) == 0 {
		return
	}
	var good []entry
	for _, e := range whole {
		cl.entries = append(slices.Clip(good), e)
		mistakes := cl.mistakes()
		for _, m := range mistakes {
			cl.lost(e.at, e.field, m.Text, "left out of the class; write the object by hand")
		}
		if len(mistakes) == 0 {
			good = cl.entries
		}
	}
	cl.entries = good
}

// mistakes are those of the class as it would be written, for a store of any name.
func (cl *draft) mistakes() []keymount.Mistake {
	cl.origin.name = defaultStore
	for _, e := range cl.entries {
		if e.origin != nil {
			e.origin.name = defaultStore
		}
	}
	written, err := encode(cl.parameters())
	var parameters map[string]string
	if err != nil || yaml.Unmarshal(written, &parameters) != nil {
		return []keymount.Mistake{{Text: "it cannot be written as YAML"}}
	}
	stores := map[string]keymount.Store{defaultStore: {Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{}}}
	return keymount.Check(keymount.DialectKeymount, cl.namespace, parameters, stores).Mistakes
}
