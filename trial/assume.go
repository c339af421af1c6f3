package trial

import (
	"maps"
	"slices"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store/kind"
)

// Assume is a keymount.yaml with the stores that a class names, each of the first kind that
// the class makes fewest mistakes with. Its rules allow everything.
func Assume(c Class, kinds []kind.Kind) *config.Config {
	chosen := map[string]kind.Kind{}
	for _, name := range c.storeNames() {
		chosen[name] = kinds[0]
	}
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		chosen[name] = slices.MinFunc(kinds, func(a, b kind.Kind) int { return c.mistakes(chosen, name, a) - c.mistakes(chosen, name, b) })
	}
	return c.assumed(chosen)
}

// storeNames are those that the class names, or the one that it means without a name.
func (c Class) storeNames() []string {
	var names []string
	for _, o := range c.check(nil).Objects {
		if name := o.Secret.Store; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		names = []string{config.DefaultStore}
	}
	return names
}

func (c Class) check(stores map[string]class.Store) class.Checked {
	return class.Check(c.Dialect, c.Namespace, c.Parameters, stores)
}

// mistakes counts those of the class if the store of that name is of a kind.
func (c Class) mistakes(chosen map[string]kind.Kind, name string, of kind.Kind) int {
	tried := maps.Clone(chosen)
	tried[name] = of
	return len(c.check(Stores(c.assumed(tried))).Mistakes)
}

// assumed is the keymount.yaml with stores of these kinds. A class of another provider means
// any of them, whatever address it gives.
func (c Class) assumed(stores map[string]kind.Kind) *config.Config {
	assumed := config.Assume(stores)
	if c.Dialect == class.DialectKeymount {
		return assumed
	}
	for i := range assumed.Stores {
		assumed.Stores[i].Settings = wherever{assumed.Stores[i].Settings, c.Parameters["audience"]}
	}
	return assumed
}

// wherever are settings of a store that is where a class says it is, with the audience that
// the class says.
type wherever struct {
	kind.Settings

	audience string
}

// Audience implements [kind.Settings].
func (a wherever) Audience() string {
	if a.audience != "" {
		return a.audience
	}
	return a.Settings.Audience()
}

// Fits implements [kind.Settings]: of a place only its kind counts.
func (a wherever) Fits(place kind.Place) bool {
	return a.Settings.Fits(kind.Place{"kind": place["kind"]})
}

// OpenMadeUp implements [kind.MadeUp].
func (a wherever) OpenMadeUp(env kind.Env, secrets map[string]secret.Tree) (kind.Layers, error) {
	return kind.OpenMadeUp(a.Settings, env, secrets)
}
