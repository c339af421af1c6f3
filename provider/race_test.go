//go:build race

package provider_test

// weighsTwice says that the race detector takes memory of its own.
const weighsTwice = true
