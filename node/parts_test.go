package node_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/node"
)

// Background work ends after the mounts in flight, and a part that fails
// ends all.
func TestOrderOfTheEnd(t *testing.T) {
	broken := errors.New("broken")
	waits := func(took time.Duration, ended *time.Time, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err == nil {
				<-ctx.Done()
			}
			<-time.After(took)
			*ended = time.Now()
			return err
		}
	}
	for name, c := range map[string]struct{ serving, behind error }{"told to": {}, "serving fails": {serving: broken}, "behind fails": {behind: broken}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var serving, behind time.Time
				began := time.Now()
				err := node.RunParts(ctx, waits(20*time.Second, &serving, c.serving), waits(time.Second, &behind, c.behind))
				if want := errors.Join(c.serving, c.behind); want == nil && err != nil || want != nil && !errors.Is(err, broken) {
					t.Errorf("got %v", err)
				}
				if c.behind == nil && behind.Sub(serving) != time.Second {
					t.Errorf("what stands behind ended %s after what serves", behind.Sub(serving))
				}
				if took := time.Since(began); err != nil && took > time.Minute {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}
