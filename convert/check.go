package convert

import (
	"gopkg.in/yaml.v3"

	keymount "github.com/keymount/keymount/class"
	"github.com/keymount/keymount/store/vault"
)

// check parses a class as a mount does, and takes out what would not mount, with a note. So
// a mistake of the input, such as a file with a name that the driver refuses, costs no more
// than its object.
func (c *conversion) check(cl *class) {
	cl.place.name = defaultStore
	whole := cl.entries
	if cl.mistakes() == nil {
		return
	}
	var good []entry
	for _, e := range whole {
		cl.entries = []entry{e}
		if err := cl.mistakes(); err != nil {
			for _, mistake := range mistakesOf(err) {
				cl.lost(e.at, e.field, mistake, "left out of the class; write the object by hand")
			}
			continue
		}
		cl.entries = append(good, e) //nolint:gocritic // on trial
		if err := cl.mistakes(); err != nil {
			for _, mistake := range mistakesOf(err) {
				cl.lost(e.at, e.field, mistake, "left out of the class; write the object by hand")
			}
			continue
		}
		good = append(good, e)
	}
	cl.entries = good
}

// mistakes are those of the class as it would be written.
func (cl *class) mistakes() error {
	store := keymount.Store{Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{}}
	stores := map[string]keymount.Store{defaultStore: store}
	for _, e := range cl.entries {
		if e.place != nil {
			e.place.name = defaultStore
		}
	}
	written, err := encode(cl.parameters())
	if err != nil {
		return err
	}
	var parameters map[string]string
	if err := yaml.Unmarshal(written, &parameters); err != nil {
		return err //nolint:wrapcheck // a text about the class
	}
	_, err = parsed(keymount.DialectKeymount, parameters, cl, stores)
	return err
}
