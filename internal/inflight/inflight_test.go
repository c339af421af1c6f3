package inflight_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/inflight"
)

// A stop waits for work that ends soon, ends what takes longer, and leaves behind what does
// not heed that.
func TestSettle(t *testing.T) {
	for name, test := range map[string]struct {
		work func(context.Context)
		want time.Duration
	}{
		"nothing": {nil, 0},
		"short":   {func(context.Context) { time.Sleep(100 * time.Millisecond) }, 100 * time.Millisecond},
		"long":    {func(ctx context.Context) { <-ctx.Done() }, inflight.Grace},
		"deaf":    {func(context.Context) { time.Sleep(time.Minute) }, inflight.Grace + inflight.Last},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := inflight.NewGroup()
				if test.work != nil {
					ctx, end := g.Begin(t.Context(), time.Hour)
					go func() { defer end(); test.work(ctx) }()
				}
				began := time.Now()
				g.Settle()
				if late, end := g.Begin(t.Context(), time.Hour); late.Err() == nil {
					synctest.Wait()
					if late.Err() == nil {
						t.Error("work began after the stop")
					}
					end()
				}
				if took := time.Since(began); took != test.want {
					t.Errorf("it took %s, want %s", took, test.want)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// Work outlives its caller, has its values, and ends at its limit; after a stop there is no
// time for more of it.
func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		g := inflight.NewGroup()
		caller, gone := context.WithCancel(context.WithValue(t.Context(), key{}, "of the caller"))
		ctx, end := g.Begin(caller, time.Hour)
		gone()
		if synctest.Wait(); ctx.Err() != nil || ctx.Value(key{}) != "of the caller" {
			t.Errorf("%v, with %v", ctx.Err(), ctx.Value(key{}))
		}
		if time.Sleep(time.Hour + time.Second); ctx.Err() == nil {
			t.Error("it has no limit")
		}
		end()
		_, deaf := g.Begin(t.Context(), time.Hour)
		g.Settle()
		late, end := g.Begin(t.Context(), time.Hour)
		if synctest.Wait(); late.Err() == nil {
			t.Error("work began after the stop")
		}
		end()
		deaf()
	})
}
