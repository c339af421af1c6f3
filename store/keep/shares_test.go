package keep_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// town is a store of many namespaces. What is below make/ is made; the second segment of a
// path is the size of what is there, and what is below no/ is denied in so many words.
type town struct {
	mu    sync.Mutex
	reads map[string]int // namespace and path
	made  map[string]int // namespace
	away  string         // the namespaces that get no answer begin with this; empty is none
	life  time.Duration  // of leases
	slow  time.Duration  // a renewal or return takes that long
	ended []string       // namespaces of leases that were given back
	held  func() int64
	most  int64
	worst atomic.Int64
}

func newTown() *town { return &town{reads: map[string]int{}, made: map[string]int{}, life: time.Hour} }

func (w *town) answer(i auth.Identity) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away != "" && strings.HasPrefix(i.Namespace, w.away) {
		return store.Unavailable.Errorf("away")
	}
	return nil
}

func (w *town) Resolve(_ context.Context, request login.Request, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path, Makes: ref.Path.Segments()[0] == "make"}, w.answer(request.Identity)
}

func (w *town) Read(_ context.Context, request login.Request, ref store.Ref) (store.Value, error) {
	w.worst.Store(max(w.worst.Load(), w.held()))
	if err := w.answer(request.Identity); err != nil {
		return store.Value{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	kind, size, pod := ref.Path.Segments()[0], 0, request.Identity.Namespace
	if _, err := fmt.Sscan(ref.Path.Segments()[1], &size); err != nil {
		return store.Value{}, err
	}
	w.reads[pod+"/"+ref.Path.String()]++
	if kind == "no" {
		return store.Value{}, store.Denied.Errorf("%s", strings.Repeat("n", size))
	}
	w.made[pod]++
	tree, err := secret.NewTree(map[string]any{"value": fmt.Sprintf("%d of %s", w.made[pod], pod), "padding": strings.Repeat("x", size)})
	value := store.Value{Data: tree}
	if kind == "make" {
		value.Lease = &store.Lease{ID: secret.New([]byte("lease")), Duration: w.life, Renewable: true}
		if ref.Args != "" {
			value.Lease, value.NotAfter = nil, time.Now().Add(30*24*time.Hour)
		}
	}
	return value, err
}

func (w *town) Renew(_ context.Context, _ login.Request, lease store.Lease) (store.Lease, error) {
	<-time.After(w.slow)
	return lease, nil
}

func (w *town) Revoke(_ context.Context, request login.Request, _ store.Lease) error {
	<-time.After(w.slow)
	w.set(func() { w.ended = append(w.ended, request.Identity.Namespace) })
	return nil
}

func (*town) Ends(login.Request, store.Lease) (time.Time, bool) { return time.Time{}, false }

func (w *town) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// sum is the number of reads below a namespace's paths that begin so.
func (w *town) sum(prefix string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for path, reads := range w.reads {
		if strings.HasPrefix(path, prefix) {
			n += reads
		}
	}
	return n
}

// opened is a Keeper whose bound is looked at whenever the store is asked.
func (w *town) opened(most int64) kept {
	s := newKept(asked(w), keep.Options{Refresh: refresh, Stale: 6 * time.Hour, Replace: replace, Pool: poolOf(most), Now: time.Now})
	w.held, w.most = s.Held, most
	return s
}

// from is a request of a pod of a namespace.
func from(namespace, pod string) login.Request {
	as := session("api", pod)
	as.Identity.Namespace, as.Volume.Namespace = namespace, namespace
	return as
}

const (
	defaultBytes = 7 << 20
	smallBytes   = 1 << 20
	noRoom       = `invalid: no room to keep what would be made: the credentials and certificates of namespace "evil" take its share of the memory, ` +
		"and one more would be made anew at every mount; make fewer (pods can share one with lease: shared), or raise the memory limit of keymount, or memoryMiB if it is set"
)

// wish is something that a pod mounts.
type wish struct{ pod, path, args string }

func wishes(n int, one func(i int) wish) []wish {
	all := make([]wish, n)
	for i := range all {
		all[i] = one(i)
	}
	return all
}

// attack is what a namespace mounts at its polls.
type attack struct {
	most    int64
	polls   [][]wish
	refused bool
}

func attacks() map[string]attack {
	certificates := wishes(1800, func(i int) wish {
		return wish{fmt.Sprint(i), "make/6000/issue", fmt.Sprintf(`{"common_name":"%d"}`, i)}
	})
	large := wishes(4, func(i int) wish { return wish{"a", fmt.Sprintf("kv/3600000/%d", i), ""} })
	paths := wishes(400, func(i int) wish { return wish{"a", fmt.Sprintf("kv/10/%d", i), ""} })
	denials := wishes(200, func(i int) wish { return wish{"a", fmt.Sprintf("no/8000/%d", i), ""} })
	longer := wishes(200, func(i int) wish { return wish{"a", fmt.Sprintf("kv/1/%s/%d", strings.Repeat("p", 1000), i), ""} })
	leases := wishes(100, func(i int) wish { return wish{fmt.Sprint(i), "make/20000/db", ""} })
	mixed := wishes(100, func(i int) wish { return wish{fmt.Sprint(i), fmt.Sprintf("make/%d/db", 100<<(i%14)), ""} })
	return map[string]attack{
		"certificates": {defaultBytes, [][]wish{certificates}, true},
		"large values": {defaultBytes, [][]wish{large}, false},
		"credentials":  {smallBytes, [][]wish{leases}, true},
		"of all sizes": {smallBytes, [][]wish{mixed}, true},
		"paths":        {smallBytes, [][]wish{paths}, false},
		"long paths":   {smallBytes, [][]wish{longer}, false},
		"denials":      {smallBytes, [][]wish{denials}, false},
		"in turns":     {smallBytes, [][]wish{leases, large, denials, certificates[:200], longer, {}, mixed, paths}, true},
	}
}

// victim is a namespace that stays below its share.
type victim struct{ name, credential string }

func (v victim) wishes() []wish {
	return append(wishes(10, func(i int) wish { return wish{"a", fmt.Sprintf("kv/2000/%d", i), ""} }), wish{"a", "make/1000/db", ""},
		wish{"b", "make/1000/issue", "{}"})
}

// mount is a poll of a victim: its credential is the one that it was.
func (v *victim) mount(t *testing.T, s kept) {
	t.Helper()
	for _, w := range v.wishes() {
		text := read(t, s, v.name, w)
		switch {
		case strings.HasPrefix(text, "invalid"), v.credential != "" && !strings.Contains(text, " of good-"):
			t.Fatalf("%s got %s for %s", v.name, text, w.path)
		case w.path != "make/1000/db":
		case v.credential == "":
			v.credential = text
		case v.credential != text:
			t.Fatalf("the credential of %s was %q and is %q", v.name, v.credential, text)
		}
	}
}

func read(t *testing.T, s kept, namespace string, w wish) string {
	t.Helper()
	ref := refTo(t, w.path)
	ref.Args = w.args
	value, err := recallOrRead(t.Context(), s, from(namespace, w.pod), ref)
	if err != nil {
		return err.Error()
	}
	part, err := value.Data.Get("value")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(part.Reveal())
}

// Whatever a namespace mounts, nothing of others that are below their share is forgotten
// for it: neither what was made, nor the last good values, nor what paths are. It is told
// why it gets no more, before the store is asked, and loses nothing that it has.
func TestSharesOfMemory(t *testing.T) {
	t.Parallel()
	for name, attack := range attacks() {
		for _, victims := range []int{1, 2, 19} {
			t.Run(fmt.Sprintf("%s/%d", name, victims), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { siege(t, attack, victims, false) })
			})
		}
		t.Run(name+"/later", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { siege(t, attack, 1, true) })
		})
	}
}

// siege are hours of polls with a restart, and an outage for the victims at the end.
func siege(t *testing.T, a attack, others int, later bool) {
	t.Helper()
	const pollEvery = 9 * time.Minute // almost as seldom as nobody does
	rounds := max(4, len(a.polls))
	w := newTown()
	s := w.opened(a.most)
	victims := make([]victim, others)
	for i := range victims {
		victims[i].name = fmt.Sprintf("good-%d", i)
	}
	refusals, before := 0, 0
	round := func(n int) {
		for i := range victims {
			if n > 0 || !later {
				victims[i].mount(t, s)
			}
		}
		for _, wish := range a.polls[n%len(a.polls)] {
			text := read(t, s, "evil", wish)
			if text == noRoom {
				refusals++
			}
			if strings.HasPrefix(text, "invalid") && text != noRoom {
				t.Fatal(text)
			}
		}
		if held := s.Held(); held > w.most || w.worst.Load() > w.most {
			t.Fatalf("%d bytes are held, and %d were: the bound is %d", held, w.worst.Load(), w.most)
		}
	}
	running(t, s, func() {
		for n := range rounds {
			round(n)
			<-time.After(pollEvery)
		}
	})
	s, _ = restarted(t, s, w.opened(a.most))
	running(t, s, func() {
		for n := range rounds {
			round(n + 1)
			if n == len(a.polls) {
				before = w.sum("evil/make")
			}
			<-time.After(pollEvery)
		}
		if made := w.sum("evil/make"); len(a.polls) == 1 && made != before {
			t.Errorf("%d more were made for the attacker, which would have been refused before", made-before)
		}
		w.set(func() { w.away = "good" })
		for n := range rounds {
			round(n + 1)
			for i := range victims {
				for _, wish := range victims[i].wishes() {
					if text := read(t, s, victims[i].name, wish); !strings.Contains(text, " of good-") {
						t.Fatalf("in an outage %s got %s for %s", victims[i].name, text, wish.path)
					}
				}
			}
			<-time.After(pollEvery)
		}
	})
	if a.refused != (refusals > 0) {
		t.Errorf("the attacker was refused %d times", refusals)
	}
	for i := range victims {
		if n := w.sum(victims[i].name + "/make"); n != 2 {
			t.Errorf("%d credentials and certificates were made for %s, want one of each", n, victims[i].name)
		}
		if n := w.sum(victims[i].name + "/kv"); n > 10*3*rounds {
			t.Errorf("%d reads for %s", n, victims[i].name)
		}
	}
}

// What a namespace has is kept, and the store is not asked to make what could not be.
func TestFullShareRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		s := w.opened(100 << 10)
		pods := wishes(100, func(i int) wish { return wish{fmt.Sprint(i), "make/1000/db", ""} })
		first := map[string]string{}
		served := 0
		for round := range 5 {
			for _, wish := range pods {
				text := read(t, s, "evil", wish)
				switch {
				case round == 0:
					first[wish.pod] = text
				case text != first[wish.pod]:
					t.Fatalf("the credential of pod %s was %q and is %q", wish.pod, first[wish.pod], text)
				}
				if text != noRoom {
					served++
				}
			}
			<-time.After(mountEvery)
		}
		if made := w.sum("evil/make"); made != served/5 || made < 20 || made > 45 || s.Evictions() != 0 {
			t.Errorf("%d were made and %d served of 5 times 100, %d forgotten", made, served, s.Evictions())
		}
		// A secret that can be read again is no reason to forget a credential.
		for i := range 200 {
			read(t, s, "evil", wish{"a", fmt.Sprintf("kv/2000/%d", i), ""})
		}
		for _, wish := range pods {
			if text := read(t, s, "evil", wish); text != first[wish.pod] {
				t.Errorf("the credential of pod %s was %q and is %q", wish.pod, first[wish.pod], text)
			}
		}
		// When pods are gone there is room again.
		for i := range 10 {
			s.Leave(from("evil", fmt.Sprint(i)).Volume)
		}
		if text := read(t, s, "evil", pods[99]); text == noRoom {
			t.Error(text)
		}
	})
}

// Beyond its share a namespace gets what others leave, and nothing that was made for one
// that has more.
func TestBeyondTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		s := w.opened(100 << 10)
		first := map[string]string{}
		mount := func(namespace string, pods int) (refused int) {
			for pod := range pods {
				text := read(t, s, namespace, wish{fmt.Sprint(pod), "make/1000/db", ""})
				name := fmt.Sprint(namespace, pod)
				if first[name] == "" {
					first[name] = text
				}
				if expectText(t, text, first[name]); strings.HasPrefix(text, "invalid") {
					refused++
				}
			}
			return refused
		}
		for range 3 {
			if most, little, more := mount("most", 16), mount("little", 1), mount("more", 30); most > 0 || little > 0 || more < 15 || more > 21 {
				t.Errorf("%d, %d and %d are refused", most, little, more)
			}
		}
	})
}

// Something larger than there is room for is made once, not at every mount, and what can
// be read again and is too large costs nothing else its place.
func TestLargerThanTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		s := w.opened(100 << 10)
		small := wish{"a", "make/1000/db", ""}
		first := read(t, s, "evil", small)
		for range 20 {
			if text := read(t, s, "evil", wish{"a", "make/200000/db", ""}); text != noRoom {
				t.Error(text)
			}
			if text := read(t, s, "evil", wish{"a", "kv/200000/db", ""}); strings.HasPrefix(text, "invalid") {
				t.Error(text)
			}
			expectText(t, read(t, s, "evil", small), first)
			again := read(t, s, "evil", wish{"a", "kv/1000/db", ""})
			read(t, s, "evil", wish{"a", "kv/200000/db", ""})
			expectText(t, read(t, s, "evil", wish{"a", "kv/1000/db", ""}), again)
			<-time.After(mountEvery)
		}
		if n := w.sum("evil/make/200000"); n != 1 {
			t.Errorf("what there is no room for was made %d times", n)
		}
		if text := read(t, s, "evil", wish{"b", "make/1000/db", ""}); text == noRoom {
			t.Errorf("another one is refused, too: %s", text)
		}
	})
}

// A state that does not name the namespaces is taken over, and belongs to whoever asks.
func TestSharesOfAnEarlierState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		s := w.opened(smallBytes)
		v := victim{name: "good-0"}
		v.mount(t, s)
		few := wishes(150, func(i int) wish { return wish{"a", fmt.Sprintf("make/10/%d", i), ""} })
		mounted := func(wishes []wish) {
			for _, wish := range wishes {
				read(t, s, "evil", wish)
			}
		}
		mounted(few)
		text := strings.ReplaceAll(string(snapshotOf(t, s).Reveal()), `"Namespace":"good-0","At"`, `"At"`)
		text = strings.ReplaceAll(text, `"Namespace":"evil","At"`, `"At"`)
		s = w.opened(smallBytes)
		if n, err := s.Restore(secret.New([]byte(text))); n != 152 || err != nil {
			t.Fatalf("%d values are taken over (%v), want 152", n, err)
		}
		v.mount(t, s)
		mounted(few)
		mounted(wishes(400, func(i int) wish { return wish{"a", fmt.Sprintf("kv/10/%d", i), ""} }))
		mounted(wishes(1800, func(i int) wish { return wish{fmt.Sprint(i), "make/6000/db", ""} }))
		<-time.After(2 * refresh)
		w.set(func() { w.away = "good" })
		v.mount(t, s)
	})
}

// Whatever namespaces of all kinds do at the same time, no more is held than the bound,
// and those that want less than their share find all of it again.
func TestSharesAtRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { jostle(t, rand.New(rand.NewPCG(seed, seed))) }) //nolint:gosec // a schedule that can be repeated
		})
	}
}

func jostle(t *testing.T, random *rand.Rand) {
	t.Helper()
	const modest, all = 6, 10
	w := newTown()
	s := w.opened(400 << 10)
	known := map[string]string{}
	running(t, s, func() {
		for range 3000 {
			n := random.IntN(all)
			name := fmt.Sprintf("n%d", n)
			one := wish{fmt.Sprint(random.IntN(3)), []string{"kv", "make"}[random.IntN(2)], ""}
			if n < modest { // 8 things of a KiB or two
				one = wish{"a", one.path + fmt.Sprintf("/600/%d", random.IntN(4)), ""}
			} else {
				one.path += fmt.Sprintf("/%d/%d", 1<<random.IntN(17), random.IntN(50))
			}
			text := read(t, s, name, one)
			if before, ok := known[name+one.path]; n < modest && strings.HasPrefix(one.path, "make") && ok && before != text {
				t.Fatalf("%s of %s was %q and is %q", one.path, name, before, text)
			}
			if known[name+one.path] = text; n < modest && strings.HasPrefix(text, "invalid") {
				t.Fatal(text)
			}
			if held := s.Held(); held > w.most || w.worst.Load() > w.most {
				t.Fatalf("%d bytes are held, and %d were: the bound is %d", held, w.worst.Load(), w.most)
			}
			if random.IntN(20) == 0 {
				<-time.After(time.Second)
			}
			if random.IntN(50) == 0 {
				s.Leave(from(fmt.Sprintf("n%d", modest+random.IntN(all-modest)), fmt.Sprint(random.IntN(3))).Volume)
			}
		}
		for name, text := range known {
			var number int
			if _, err := fmt.Sscanf(name, "n%d", &number); err == nil && number < modest && strings.Contains(name, "kv/") {
				w.set(func() { w.away = "n" })
				space, path, _ := strings.Cut(name, "kv/")
				if got := read(t, s, space, wish{"a", "kv/" + path, ""}); !strings.Contains(got, " of "+space) {
					t.Errorf("%s of %s was %q and is %q", path, space, text, got)
				}
			}
		}
	})
}

// Flights of a namespace that wants too much at once are refused before they begin.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		s := w.opened(defaultBytes)
		v := victim{name: "good-0"}
		v.mount(t, s)
		var group sync.WaitGroup
		var refused atomic.Int64
		for i := range 1800 {
			group.Go(func() {
				ref := refTo(t, "make/6000/issue")
				ref.Args = "{}"
				if _, err := s.Read(t.Context(), from("evil", fmt.Sprint(i)), ref); errors.Is(err, store.Invalid) && err.Error() == noRoom {
					refused.Add(1)
				}
			})
		}
		group.Wait()
		v.mount(t, s)
		if made := w.sum("evil/make"); int64(made)+refused.Load() != 1800 || refused.Load() < 500 || s.Held() > w.most {
			t.Errorf("%d were made and %d refused; %d bytes are held", made, refused.Load(), s.Held())
		}
	})
}

// However many leases of a namespace are to be renewed, those of others are in time.
func TestTurnsOfRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		w.life, w.slow = 7*time.Minute, 5*time.Second
		s := w.opened(defaultBytes)
		v := victim{name: "good-0"}
		running(t, s, func() {
			for i := range 200 {
				read(t, s, "evil", wish{fmt.Sprint(i), "make/1000/db", ""})
			}
			<-time.After(10 * time.Second)
			for range 30 {
				v.mount(t, s)
				for i := range 200 {
					read(t, s, "evil", wish{fmt.Sprint(i), "make/1000/db", ""})
				}
				<-time.After(mountEvery)
			}
		})
	})
}

// However many leases of a namespace are to be given back, those of others are, and soon.
func TestTurnsOfReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		w.slow = time.Second
		s := w.opened(defaultBytes)
		running(t, s, func() {
			leave := func(namespace, pod string) {
				read(t, s, namespace, wish{pod, "make/1000/db", ""})
				s.Leave(from(namespace, pod).Volume)
			}
			for i := range 1500 { // more than wait at most
				leave("evil", fmt.Sprint(i))
			}
			leave("good-0", "a")
			<-time.After(30 * time.Second)
			leave("good-1", "a")
			<-time.After(30 * time.Second)
			w.set(func() {
				good := 0
				for _, namespace := range w.ended {
					if strings.HasPrefix(namespace, "good") {
						good++
					}
				}
				if good != 2 || len(w.ended) < 50 {
					t.Errorf("of %d leases that were given back %d are those of others", len(w.ended), good)
				}
			})
		})
	})
}
