package keep_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/queue"
)

// slowly is a store that answers one question after the other, when it is let.
type slowly struct {
	let    chan struct{}
	served []string // paths
}

func (s *slowly) Read(_ context.Context, _ login.Request, ref store.Ref) (store.Value, error) {
	s.served = append(s.served, ref.Path.String())
	<-s.let
	return store.Value{}, nil
}

// A pod that starts does not wait among republishes although one of them has asked
// for the same before.
func TestAPodThatWaitsHurriesWhatItJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &slowly{let: make(chan struct{})}
		s := newKept(queue.Limit(asked(inner), 1), keep.Options{Refresh: refresh, Pool: poolOf(1 << 20), Now: time.Now})
		read := func(path string, waiting bool) {
			as := session("api", "a")
			as.Waiting = waiting
			go func() { _, _ = s.Read(t.Context(), as, refTo(t, path)) }()
			synctest.Wait()
		}
		for _, path := range []string{"a", "b", "c", "d", "e"} {
			read(path, false)
		}
		read("d", true)
		read("e", true)
		read("d", true) // once more
		for range 5 {
			inner.let <- struct{}{}
			synctest.Wait()
		}
		if got := strings.Join(inner.served, " "); got != "a d e b c" {
			t.Errorf("served %s", got)
		}
	})
}
