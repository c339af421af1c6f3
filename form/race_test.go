//go:build race

package form_test

// attackRuns is fewer than in norace_test.go: the race detector looks at each byte
// that an attack makes.
const attackRuns = 200
