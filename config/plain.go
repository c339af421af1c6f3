package config

import (
	"cmp"
	"reflect"
	"slices"
	"strings"

	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store/kind"
)

// notPlain are the mistakes of all texts but those of rules, which are judged as patterns.
// Any of them may become a name, a path, a header or part of a message, whatever else is
// asked of it.
func (c *Config) notPlain() []kind.Mistake {
	m := kind.NewMistakes()
	checkPlain(m, reflect.ValueOf(c))
	return m.All()
}

func checkPlain(m kind.Mistakes, v reflect.Value) {
	switch v.Kind() { //nolint:exhaustive // the others hold no text
	case reflect.String:
		if err := cmp.Or(spelling.Plain(v.String()), spelling.Unspaced(v.String())); err != nil {
			m.Add("%w", err)
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			checkPlain(m, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			checkPlain(m.Index(i), v.Index(i))
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			checkPlain(m.At(key.String()), v.MapIndex(key))
		}
	case reflect.Struct:
		checkFields(m, v)
	}
}

func checkFields(m kind.Mistakes, v reflect.Value) {
	for field, value := range v.Fields() {
		if name, _, _ := strings.Cut(field.Tag.Get("yaml"), ","); name != "" && name != "-" {
			checkPlain(m.At(name), value)
		}
	}
	if s, ok := reflect.TypeAssert[*Store](v.Addr()); ok && s.Kind != nil {
		checkPlain(m.At(s.Kind.Name()), reflect.ValueOf(s.Settings))
	}
}

// elsewhere leaves out the mistakes at the places of others.
func elsewhere(mistakes, others []kind.Mistake) []kind.Mistake {
	return slices.DeleteFunc(mistakes, func(m kind.Mistake) bool {
		return slices.ContainsFunc(others, func(other kind.Mistake) bool { return other.Place == m.Place })
	})
}
