package cli_test

import (
	"runtime/debug"
	"strconv"
	"testing"
	"testing/fstest"

	"github.com/keymount/keymount/cli"
)

// Garbage is collected early, unless the operator has said when.
func TestPrepare(t *testing.T) {
	const goes = 100 // Go's own
	for operator, want := range map[string]int{"": 40, "200": goes} {
		t.Setenv("GOGC", operator) // which the runtime has read long ago
		before := debug.SetGCPercent(goes)
		limit := debug.SetMemoryLimit(-1)
		err := cli.Prepare()
		debug.SetMemoryLimit(limit)
		if got := debug.SetGCPercent(before); err != nil || got != want {
			t.Errorf("with GOGC=%s: %d percent, %v, want %d", operator, got, err, want)
		}
	}
}

// The memory limit is four fifths of the cgroup's, unless the operator has said another.
func TestLimitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const mib, untouched = 1 << 20, 1 << 40
	for operator, want := range map[string]int64{"": 800 * mib, "123MiB": untouched, "off": untouched} {
		t.Setenv("GOMEMLIMIT", operator) // which the runtime has read long ago
		debug.SetMemoryLimit(untouched)
		cli.LimitMemory(fstest.MapFS{
			"proc/self/cgroup": {Data: []byte("0::/")}, "sys/fs/cgroup/memory.max": {Data: []byte(strconv.Itoa(1000 * mib))},
		})
		if got := debug.SetMemoryLimit(-1); got != want {
			t.Errorf("with GOMEMLIMIT=%s: %d bytes, want %d", operator, got, want)
		}
	}
	debug.SetMemoryLimit(untouched)
	t.Setenv("GOMEMLIMIT", "")
	if cli.LimitMemory(fstest.MapFS{}); debug.SetMemoryLimit(-1) != untouched {
		t.Error("without a cgroup there is a limit")
	}
}
