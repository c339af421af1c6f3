package provider_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/provider/providertest"
)

// attacks are classes whose authors mean harm: to keep a node's provider busy, or
// to make it too large.
func attacks() map[string]string {
	quoted := func(template string) string { return "[{path: shop/big, file: f, template: '" + template + "'}]" }
	return map[string]string{
		"comparisons":    quoted(`{{ $b := .long }}{{ range 100000 }}{{ $x := eq $b ` + strings.Repeat("$b ", 200) + `}}{{ end }}`),
		"joins":          quoted(`{{ range 100000 }}{{ $x := join "" $.empties }}{{ end }}`),
		"arguments":      quoted(`{{ default 1` + strings.Repeat(" .a", 21_000) + ` }}`),
		"many templates": strings.Repeat("- {path: shop/big, file: f, template: '"+strings.Repeat("{{1}}", 1600)+"'}\n", 60),
		"many actions":   strings.Repeat("- {path: shop/big, file: f, template: '"+strings.Repeat("{{1}}", 13_000)+"'}\n", 15),
		"many fields":    "[{" + strings.Repeat("a,", 510_000) + "}]",
		"many mistakes":  "[" + strings.Repeat("{a: b},", 140) + strings.Repeat("x,", 400_000) + "]",
		"deep lists":     "[[" + strings.Repeat("a,", 510_000) + "]]",
		"bad encodings":  strings.Repeat("- {path: shop/big, key: long, encoding: hex, file: f}\n", 900),
		"bad certificates": func() string {
			var b strings.Builder
			for i := range 900 {
				fmt.Fprintf(&b, "- {path: shop/big, key: long, format: pem, file: f%d}\n", i)
			}
			return b.String()
		}(),
	}
}

func startAttacked(t *testing.T) *world {
	t.Helper()
	w := start(t)
	empties := make([]any, 100_000)
	for i := range empties {
		empties[i] = ""
	}
	w.memory.Set("shop/big", map[string]any{"long": strings.Repeat("x", 1<<20), "empties": empties, "a": "a"})
	w.memory.Set("blog/db", map[string]any{"password": canary})
	return w
}

// Each attack ends with a final answer, and takes neither the deadline nor memory
// without bounds.
func TestAttacksEnd(t *testing.T) {
	w := startAttacked(t)
	for name, objects := range attacks() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := w.mount(t, w.volume(pod("shop", "api"), objects))
			runtime.ReadMemStats(&after)
			if code := status.Code(err); (code != codes.InvalidArgument && code != codes.FailedPrecondition) || strings.Contains(statusText(err), "deadline") {
				t.Errorf("answered %s: %.300s", code, statusText(err))
			}
			// All that was allocated, most of it free again at any moment.
			if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 400 {
				t.Errorf("the mount allocated %d MiB", allocated)
			}
		})
	}
}

// While all attacks are under way at once, and again, others are served, and the
// process stays small.
func TestAttacksHarmNobodyElse(t *testing.T) {
	w := startAttacked(t)
	ctx, stop := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	for _, objects := range attacks() {
		v := w.volume(pod("shop", "api"), objects)
		attackers.Go(func() {
			for ctx.Err() == nil {
				checkHarmless(ctx, t, w, v)
			}
		})
	}
	peak := uint64(0)
	for range 5 {
		if _, _, err := w.mount(t, w.volume(pod("blog", "web"), "[{path: blog/db, file: ./}]")); err != nil {
			t.Errorf("an honest mount: %v", err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}
	stop()
	attackers.Wait()
	// The attackers, their requests and the race detector are in here, too.
	if peak >>= 20; peak > 800 {
		t.Errorf("%d MiB were in use", peak)
	}
}

func checkHarmless(ctx context.Context, t *testing.T, w *world, v providertest.Volume) {
	t.Helper()
	attributes, err := v.Attributes()
	if err != nil {
		t.Error(err)
		return
	}
	_, err = w.driver.Call(ctx, attributes)
	if code := status.Code(err); ctx.Err() == nil && code != codes.InvalidArgument && code != codes.FailedPrecondition {
		t.Errorf("an attack is answered %s: %.300s", code, statusText(err))
	}
}

// Small files weigh more on the wire than what they hold.
func TestManyTinyFiles(t *testing.T) {
	w := start(t)
	tiny := map[string]any{}
	for i := range 60_000 {
		tiny[fmt.Sprintf("k%d", i)] = "x"
	}
	w.memory.Set("shop/tiny", tiny)
	_, _, err := w.mount(t, w.volume(pod("shop", "api"), "[{path: shop/tiny, file: ./}]"))
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(statusText(err), "the files are too large: ") {
		t.Errorf("got %s: %.300s", status.Code(err), statusText(err))
	}
}

// The time that a mount has ends its rendering, too.
func TestRenderingEndsWithTheMount(t *testing.T) {
	w := startAttacked(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	objects := strings.Repeat("- {path: shop/big, file: f, template: '{{ range 100000 }}{{ $x := eq $.long $.long }}{{ end }}'}\n", 1)
	_, err := w.driver.Mount(ctx, w.volume(pod("shop", "api"), objects), t.TempDir())
	if code := status.Code(err); code != codes.FailedPrecondition {
		t.Errorf("answered %s: %v", code, err)
	}
}
