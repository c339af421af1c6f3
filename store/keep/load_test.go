package keep_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// The kubelet calls for each volume every 60 to 90 s.
const (
	callLeast = 60 * time.Second
	callMost  = 90 * time.Second
	loadPods  = 110 // each with its own account and secret
)

// changing is a store whose secrets are rotated by their paths, and which counts its reads.
type changing struct {
	mu       sync.Mutex
	versions map[string]int
	rotated  map[string]time.Time // at the last time
	reads    int
}

func (c *changing) Read(_ context.Context, _ login.Request, ref store.Ref) (store.Value, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	version := strconv.Itoa(c.versions[ref.Path.String()])
	tree, err := secret.NewTree(map[string]any{"value": version})
	return store.Value{Data: tree, Version: version}, err
}

func (c *changing) rotate(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions[path]++
	c.rotated[path] = time.Now()
}

// take is the number of reads since the last call.
func (c *changing) take() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	reads := c.reads
	c.reads = 0
	return reads
}

// late is the time since the last rotation of a secret, if that is not what a pod has.
func (c *changing) late(path, has string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if strconv.Itoa(c.versions[path]) == has {
		return 0
	}
	return time.Since(c.rotated[path])
}

// loadedNode is a node of pods that are mounted again and again.
type loadedNode struct {
	store *changing
	k     kept

	mu    sync.Mutex
	calls int
	most  time.Duration // that a pod had an old secret after a rotation
}

func loadPath(pod int) string { return fmt.Sprintf("kv/pod-%d", pod) }

// run mounts a pod until ctx ends.
func (n *loadedNode) run(ctx context.Context, t *testing.T, pod int) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, uint64(pod))) //nolint:gosec // a story that can be told again
	pause := time.Duration(random.Int64N(int64(callMost)))
	account, has, path := fmt.Sprintf("app-%d", pod), "", loadPath(pod)
	request, ref := session(account, account), refTo(t, path)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = callLeast + time.Duration(random.Int64N(int64(callMost-callLeast)))
		if has != "" {
			n.note(n.store.late(path, has))
		}
		answer, known := n.k.recall(request, ref) // as a mount does
		if !known {
			var err error
			if answer, err = n.k.Read(ctx, request, ref); err != nil {
				t.Error(err)
				return
			}
		}
		has = answer.Version
	}
}

// note is a call, and how late it brings a rotation.
func (n *loadedNode) note(late time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	n.most = max(n.most, late)
}

// load is what came of some time on a node.
type load struct {
	calls, reads int
	seen         time.Duration // the longest from a rotation to its pod
}

// take is the load since the last call.
func (n *loadedNode) take() load {
	n.mu.Lock()
	defer n.mu.Unlock()
	taken := load{n.calls, n.store.take(), n.most}
	n.calls, n.most = 0, 0
	return taken
}

// loaded is the load of some steady hours with one rotation each, and of the kubelet's next
// calls after all secrets have changed and Refresh was called.
func loaded(t *testing.T, most time.Duration, hours int) (steady, refreshed load) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &changing{versions: map[string]int{}, rotated: map[string]time.Time{}}
		n := &loadedNode{store: s, k: newKept(readOnly(s), keep.Options{Refresh: refresh, RefreshMax: most, Stale: stale, Pool: poolOf(1 << 20), Now: time.Now})}
		ctx, cancel := context.WithCancel(t.Context())
		var pods sync.WaitGroup
		for pod := range loadPods {
			pods.Go(func() { n.run(ctx, t, pod) })
		}
		<-time.After(time.Hour) // until each secret is read as seldom as ever
		n.take()
		for hour := range hours {
			s.rotate(loadPath(hour))
			<-time.After(time.Hour)
		}
		steady = n.take()
		for pod := range loadPods {
			s.rotate(loadPath(pod))
		}
		n.k.Refresh()
		<-time.After(2 * callMost)
		refreshed = n.take()
		cancel()
		pods.Wait()
	})
	return steady, refreshed
}

// The load of a day falls with RefreshMax: five minutes take a quarter of the reads of one at
// each call, ten an eighth. A rotation is in its pod with the first call after RefreshMax, and
// with the next call after Refresh.
func TestLoadOfADay(t *testing.T) {
	for _, test := range []struct {
		most        time.Duration
		hours, part int
	}{{refresh, 2, 1}, {5 * time.Minute, 24, 4}, {10 * time.Minute, 24, 8}} {
		steady, refreshed := loaded(t, test.most, test.hours)
		t.Logf("RefreshMax %s: %d reads at %d calls, a rotation is seen after %s at most, after Refresh %s", test.most, steady.reads, steady.calls, steady.seen, refreshed.seen)
		if steady.reads*test.part > steady.calls || test.part == 1 && steady.reads < steady.calls {
			t.Errorf("RefreshMax %s: %d reads at %d calls, want one at %d calls at most", test.most, steady.reads, steady.calls, test.part)
		}
		if most := test.most + callMost; steady.seen > most || steady.seen == 0 {
			t.Errorf("RefreshMax %s: a rotation is in its pod after %s, want %s at most", test.most, steady.seen, most)
		}
		if refreshed.seen > callMost || refreshed.seen == 0 {
			t.Errorf("RefreshMax %s: a rotation is in its pod %s after Refresh, want the next call, %s at most", test.most, refreshed.seen, callMost)
		}
	}
}
