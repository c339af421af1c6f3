package cli_test

import (
	"runtime/debug"
	"testing"

	"github.com/keymount/keymount/cli"
)

// Garbage is collected early, unless the operator has said when.
func TestPrepare(t *testing.T) {
	const goes = 100 // Go's own
	for operator, want := range map[string]int{"": 40, "200": goes} {
		t.Setenv("GOGC", operator) // which the runtime has read long ago
		before := debug.SetGCPercent(goes)
		err := cli.Prepare()
		if got := debug.SetGCPercent(before); err != nil || got != want {
			t.Errorf("with GOGC=%s: %d percent, %v, want %d", operator, got, err, want)
		}
	}
}
