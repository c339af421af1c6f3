package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/keep"
)

// Free memory is returned every minute.
func TestReturnMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- node.ReturnMemory(ctx) }()
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

// What is remembered has a part of the process's memory, unless keymount.yaml says how much.
func TestSharedBytes(t *testing.T) {
	const mib = 1 << 20
	for name, test := range map[string]struct {
		said        *int
		limit, want int64
	}{
		"the chart's":     {nil, 204 * mib, 204 * mib / 10 * 2},
		"keymount.yaml's": {new(9), 204 * mib, 9 * mib},
		"no limit":        {nil, math.MaxInt64, 40 * mib},
		"a large one":     {nil, 100 << 30, 1024 * mib},
		"a tiny one":      {nil, mib, mib},
	} {
		if got := node.SharedBytes(test.said, test.limit); got != test.want {
			t.Errorf("%s: %d bytes, want %d", name, got, test.want)
		}
	}
}

// Stores share one memory, and one with memoryMiB has its own.
func TestStoresShareOneMemory(t *testing.T) {
	const secrets, size, mib = 200, 8 << 10, 1 << 20
	known := map[string]map[string]any{}
	for i := range secrets {
		known[fmt.Sprint("prod/", i)] = map[string]any{"password": strings.Repeat("x", size)}
	}
	c, err := config.Parse([]byte(`
memoryMiB: 1
stores:
  - {name: a, toy: {server: a}, access: [{namespaces: [shop], serviceAccounts: [api], roles: [""], paths: ["**"]}]}
  - {name: b, toy: {server: b}, access: [{namespaces: [shop], serviceAccounts: [api], roles: [""], paths: ["**"]}]}
  - {name: c, toy: {server: c}, memoryMiB: 3, access: [{namespaces: [shop], serviceAccounts: [api], roles: [""], paths: ["**"]}]}
`), append(all.All(), toy{cloud: newCloud(t, known)}))
	if err != nil {
		t.Fatal(err)
	}
	backends, _, err := node.OpenStores(t.Context(), c, &observe.Rotation{}, slog.New(noBugs{t}))
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]int64{}
	for _, b := range backends {
		kept, _ := b.Store.(*keep.Keeper)
		for i := range secrets {
			path, err := store.ParsePath(fmt.Sprint("prod/", i))
			if err != nil {
				t.Fatal(err)
			}
			request := requestOf("api-0")
			request.Role = ""
			if _, err := kept.Read(t.Context(), request, store.Ref{Path: path}, store.Resolved{Path: path}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, b := range backends {
		kept, _ := b.Store.(*keep.Keeper)
		held[b.Name] = kept.Held()
	}
	if shared := held["a"] + held["b"]; shared > mib || shared < mib*9/10 {
		t.Errorf("the stores hold %d and %d bytes of one MiB", held["a"], held["b"])
	}
	if own := held["c"]; own < secrets*size {
		t.Errorf("the store with a memory of its own holds %d bytes of %d", own, secrets*size)
	}
}
