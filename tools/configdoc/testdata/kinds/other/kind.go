// Package other is no kind of store.
package other

// Kind is not read from a file.
type Kind struct{}
