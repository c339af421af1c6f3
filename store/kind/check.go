package kind

import "context"

// Ruled are [Settings] that know of patterns in rules which fit nothing of the store.
// Settings without it know of none.
type Ruled interface {
	// Never says why no path, or role, of the store fits a pattern in that list of a rule,
	// with the cure; nil where one may. It is pure.
	Never(list, pattern string) error
}

// Inspected are [Settings] with more to look at than their text. Settings without it have
// nothing else.
type Inspected interface {
	// Inspect looks into the files that the settings name, as opening the store would, and
	// notes what is wrong with them. It asks nothing over a network.
	Inspect(ctx context.Context, m Mistakes)
	// Warn notes what is allowed and seldom meant.
	Warn(m Mistakes)
}

// Never is that of [Ruled], for any settings.
func Never(s Settings) func(list, pattern string) error {
	if ruled, ok := s.(Ruled); ok {
		return ruled.Never
	}
	return nil
}

// Inspect is that of [Inspected], for any settings.
func Inspect(ctx context.Context, s Settings, m Mistakes) {
	if inspected, ok := s.(Inspected); ok {
		inspected.Inspect(ctx, m)
	}
}

// Warn is that of [Inspected], for any settings.
func Warn(s Settings, m Mistakes) {
	if inspected, ok := s.(Inspected); ok {
		inspected.Warn(m)
	}
}
