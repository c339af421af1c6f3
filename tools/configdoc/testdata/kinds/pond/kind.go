// Package pond is a kind of store.
package pond

import "kind"

// Kind is the kind of a pond.
type Kind struct{}

// Name is the key of its settings.
func (Kind) Name() string { return "pond" }

// New makes empty settings.
func (Kind) New() kind.Settings { return &Settings{} }

// Settings is water with a rim.
type Settings struct {
	// Depth is how deep it is. Default: 1.
	Depth int `yaml:"depth"`
	// Rim is around it.
	Rim Rim `yaml:"rim"`
}

// Rim keeps the water in.
type Rim struct {
	// Stone is what it is made of.
	Stone string `yaml:"stone"`
}
