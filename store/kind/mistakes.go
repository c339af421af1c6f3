package kind

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/internal/spelling"
)

// Mistakes collects the mistakes in keymount.yaml, each with its place in the file.
type Mistakes struct {
	place string
	all   *[]Mistake
}

// Mistake is one of them. Its place is that of a field, such as stores[0].vault.caFile.
type Mistake = access.Mistake

// NewMistakes starts at the top of the file.
func NewMistakes() Mistakes { return Mistakes{all: new([]Mistake)} }

// At is the same collection at a place further in.
func (m Mistakes) At(place string) Mistakes {
	if m.place != "" && place != "" {
		place = m.place + "." + place
	}
	return Mistakes{place: place, all: m.all}
}

// Index is the same collection at an entry of the list at m.
func (m Mistakes) Index(i int) Mistakes { return Mistakes{fmt.Sprintf("%s[%d]", m.place, i), m.all} }

// Add notes a mistake here.
func (m Mistakes) Add(format string, args ...any) {
	*m.all = append(*m.all, Mistake{Place: m.place, Err: fmt.Errorf(format, args...)})
}

// Join adds mistakes that already have their places, several in one error; nil is none.
func (m Mistakes) Join(err error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok { // a join itself, not a wrapped one
		for _, one := range several.Unwrap() {
			m.Join(one)
		}
		return
	}
	if one, ok := errors.AsType[Mistake](err); ok {
		*m.all = append(*m.all, one)
	} else if err != nil {
		m.Add("%w", err)
	}
}

// OneOf notes a value that is none of the known ones.
func (m Mistakes) OneOf(value string, known ...string) {
	if !slices.Contains(known, value) {
		m.Add("%q is none of %s%s", value, strings.Join(known, ", "), spelling.Hint(value, known))
	}
}

// Place is where m is, such as stores[0].access.
func (m Mistakes) Place() string { return m.place }

// All are the mistakes so far.
func (m Mistakes) All() []Mistake { return *m.all }
