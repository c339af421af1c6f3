//go:build !race

package cli_test

// weighsTwice says that the race detector takes memory of its own.
const weighsTwice = false
