package provider_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/internal/turns"
	"github.com/keymount/keymount/provider/providertest"
)

const noTurn = "no time was left in the queue of mounts"

// withTurns runs a provider with this queue.
func withTurns(q *turns.Queue) func(*world, *setup) {
	return func(_ *world, s *setup) { s.options.Turns = q }
}

// Neither a class is parsed nor an object made out of turn.
func TestWorkWaitsForItsTurn(t *testing.T) {
	q := turns.New("mounts", 1, 1, time.Now)
	w := start(t, withTurns(q))
	w.memory.Set("shop/db", map[string]any{"password": canary})
	known := w.volume(pod("shop", "api"), "[{path: shop/db, key: password, file: password}]")
	if _, _, err := w.mount(t, known); err != nil {
		t.Fatal(err)
	}
	broken := w.volume(pod("shop", "api"), "[{path: shop/db, mistake: true}]")

	leave, err := q.Take(t.Context(), turns.Of{Namespace: "blog"})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]providertest.Volume{"parsing": broken, "rendering": known} {
		attributes, err := v.Attributes()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if _, err := w.driver.Call(ctx, attributes); err == nil || !strings.Contains(statusText(err), noTurn) && status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%s did not wait for its turn: %v", name, err)
		}
		cancel()
	}
	leave()
	if _, _, err := w.mount(t, known); err != nil {
		t.Error(err)
	}
	if _, _, err := w.mount(t, broken); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

// A template that works for more than a second ends, whatever the mount's deadline is.
func TestTemplatesEndAfterASecond(t *testing.T) {
	var ticks atomic.Int64
	clock := func() time.Time { return time.Unix(0, 0).Add(time.Duration(ticks.Add(1)) * 10 * time.Millisecond) }
	w := start(t, withTurns(turns.New("mounts", 1, 1, clock)))
	w.memory.Set("shop/db", map[string]any{"password": canary})
	short := w.volume(pod("shop", "api"), `[{path: shop/db, file: f, template: "{{ range 50 }}{{ end }}"}]`)
	if _, _, err := w.mount(t, short); err != nil {
		t.Errorf("less than a second: %v", err)
	}
	long := w.volume(pod("shop", "api"), `[{path: shop/db, file: f, template: "{{ range 500 }}{{ end }}"}]`)
	_, _, err := w.mount(t, long)
	if want := "template: it takes longer than a second; its work grows with what is in the secrets"; status.Code(err) != codes.FailedPrecondition || !strings.Contains(statusText(err), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
