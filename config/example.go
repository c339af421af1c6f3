package config

import _ "embed"

//go:embed testdata/example.yaml
var example []byte

// Example is a keymount.yaml with comments, to start from: the one of the manual.
func Example() string { return string(example) }
