//go:build race

package e2e_test

// raced says whether keymount is built with the race detector, like the tests.
const raced = true
