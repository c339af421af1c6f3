// Package config is garden.yaml, which says what grows
// where. See [Config].
//
// It is read once.
package config

import "time"

// Config is the whole of garden.yaml.
type Config struct {
	// Beds are where plants grow; DryAfter counts for all of them. At least one.
	Beds []Bed `yaml:"beds"`
	// DryAfter is when a bed without rain needs water. Default: 24h.
	DryAfter time.Duration `yaml:"dryAfter"`
}

// Bed is one piece of ground. Its Plants decide how many rows fit.
type Bed struct {
	// Plants are the names of what grows there, such as `bean|pea`.
	Plants []string `yaml:"plants,omitempty"`
	// Rows is how many rows there are.
	//
	// From 1 to 9.
	Rows int `yaml:"rows"`
	// Covered keeps the rain out. Default: false.
	Covered bool `yaml:"covered"`
	// Fence goes around the bed. Default: none.
	Fence *Fence `yaml:"fence"`
}

// Fence keeps rabbits out.
type Fence struct {
	// Colour is any name of a colour.
	Colour string `yaml:"colour"`
}

// Store is where the harvest goes; it names one kind.
type Store struct {
	// Shelves are how many there are.
	Shelves int `yaml:"shelves"`
}

// Harvest is not read from the file.
type Harvest struct{ Kilos int }

type hidden struct {
	Field string `yaml:"field"`
}
