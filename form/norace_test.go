//go:build !race

package form_test

const attackRuns = 1000
