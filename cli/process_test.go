package cli_test

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

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

// Free memory is returned every minute.
func TestTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- cli.Tidy(ctx) }()
		before := forcedCollections()
		<-time.After(150 * time.Second)
		synctest.Wait()
		if n := forcedCollections() - before; n != 2 {
			t.Errorf("%d collections in two minutes and a half", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func forcedCollections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}
