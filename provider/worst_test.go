package provider_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/queue"
	"github.com/keymount/keymount/store/storetest"
	"github.com/keymount/keymount/store/vault"
)

const (
	// worstBound is the chart's limit, and worstLimit the GOMEMLIMIT that it sets. The
	// drivers of this test are in the same process, and count; the store is in its own, as
	// its work would be elsewhere.
	worstBound   = 256 << 20
	worstLimit   = 204 << 20
	worstCollect = 40       // percent, as keymount serve has it
	worstKept    = 40 << 20 // the memory of stores that it takes with such a limit
	// worstShort is how long the search takes at least, unless KEYMOUNT_SEARCH says otherwise.
	worstShort = 5 * time.Second
	// worstWait bounds each mount of a neighbour, and worstStop the stop.
	worstWait, worstStop = time.Second, 5 * time.Second
	// worstCallers mount at a time, of several namespaces.
	worstCallers, worstNamespaces = 16, 4
)

// TestWorstInputs looks for the input that takes most memory: mixtures of secrets and
// classes that mean harm, many at a time, against all that keymount serve has between
// driver and store. Whatever they are, the process stays below the chart's limit, a
// neighbour is served, and all ends soon after a stop. With the race detector, which
// takes memory of its own, the memory is not judged. The time of the neighbours and of the
// stop is judged where KEYMOUNT_SEARCH gives the search a time, and with it the machine.
func TestWorstInputs(t *testing.T) {
	long, timed := worstShort, os.Getenv("KEYMOUNT_SEARCH")
	if timed != "" {
		var err error
		if long, err = time.ParseDuration(timed); err != nil {
			t.Fatalf("KEYMOUNT_SEARCH: %v", err)
		}
	}
	w := startWorst(t)
	before, percent := debug.SetMemoryLimit(worstLimit), debug.SetGCPercent(worstCollect)
	t.Cleanup(func() { debug.SetMemoryLimit(before); debug.SetGCPercent(percent) })
	debug.FreeOSMemory()

	s := &search{running: map[int]string{}, slowest: map[string]time.Duration{}}
	ctx, stop := context.WithCancel(t.Context()) // without a deadline, which grpc would tell the server
	defer stop()
	enough := time.Now().Add(long)
	var all, neighbours sync.WaitGroup
	for caller := range worstCallers {
		all.Go(func() { s.attack(ctx, t, w, caller) })
	}
	for what, objects := range neighbourly() {
		neighbours.Go(func() { s.neighbour(t, w, what, objects, enough) })
	}
	measuring, seen := context.WithCancel(t.Context())
	go func() { neighbours.Wait(); seen() }()
	s.measure(measuring)
	s.stopping.Store(true)
	stopped := time.Now() // with all of the harm under way
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	w.settle()
	if took := time.Since(stopped); took > worstStop && timed != "" {
		t.Errorf("the stop took %s, more than %s", took, worstStop)
	} else {
		t.Logf("the stop took %s", took.Round(time.Millisecond))
	}
	stop()
	all.Wait()
	t.Logf("%d mounts of harm, at most %d MiB; %d mounts of neighbours, at most:", s.mounts, s.peak>>20, s.served)
	for what, took := range s.slowest {
		t.Logf("%12s %s", took.Round(time.Millisecond), what)
		if took > worstWait && timed != "" {
			t.Errorf("a mount of %s took %s, more than %s", what, took, worstWait)
		}
	}
	if s.peak > worstBound && !weighsTwice {
		t.Errorf("%d MiB were in use while these were mounted:\n%s", s.peak>>20, strings.Join(s.worst, "\n"))
	}
	if s.mounts == 0 {
		t.Error("nothing was mounted, so this test shows nothing")
	}
}

// search is what was found so far.
type search struct {
	stopping atomic.Bool

	mu      sync.Mutex
	running map[int]string // by caller
	mounts  int
	served  int
	slowest map[string]time.Duration // of each neighbour
	peak    uint64                   // bytes of heap and stacks
	worst   []string                 // running then
}

// measure looks at the memory until ctx ends.
func (s *search) measure(ctx context.Context) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	every := time.NewTicker(2 * time.Millisecond)
	defer every.Stop()
	for ctx.Err() == nil {
		<-every.C
		metrics.Read(samples)
		used := samples[0].Value.Uint64() + samples[1].Value.Uint64() + samples[2].Value.Uint64()
		s.mu.Lock()
		if used > s.peak {
			s.peak, s.worst = used, s.worst[:0]
			for _, one := range s.running {
				s.worst = append(s.worst, one)
			}
		}
		s.mu.Unlock()
	}
}

// attack mounts one harmful class after the other.
func (s *search) attack(ctx context.Context, t *testing.T, w *worst, caller int) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, uint64(caller))) //nolint:gosec // G404, G115: the same inputs at each run
	namespace := fmt.Sprint("shop", caller%worstNamespaces)
	for n := 0; ctx.Err() == nil; n++ {
		m := mixture{random, namespace, fmt.Sprint(caller, "-", n)}
		driver, parameters := w.own, map[string]string{"objects": m.known(n)}
		if parameters["objects"] == "" {
			parameters["objects"] = m.objects()
		}
		if n >= len(knownHarm()) && random.IntN(3) == 0 {
			driver, parameters = w.other, map[string]string{"roleName": namespace, "objects": m.vaultObjects()}
		}
		p := pod(namespace, "api")
		p.UID += m.id
		v := providertest.Volume{Pod: p, Class: "app", Parameters: parameters, Tokens: map[string]string{"vault": w.sign(w.issuer, w.issuer.ClaimsFor(p, "vault"))}}
		attributes, err := v.Attributes()
		if err != nil {
			t.Error(err)
			return
		}
		s.begin(caller, parameters["objects"])
		_, err = driver.Call(ctx, attributes)
		s.end(caller)
		if s.stopping.Load() {
			return
		}
		if code := status.Code(err); ctx.Err() == nil && !slices.Contains([]codes.Code{codes.OK, codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound}, code) {
			t.Errorf("answered %s: %.300s\nto %.300s", code, statusText(err), parameters["objects"])
		}
	}
}

func (s *search) begin(caller int, objects string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounts++
	s.running[caller] = fmt.Sprintf("%d bytes: %.300s", len(objects), objects)
}

func (s *search) end(caller int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, caller)
}

// neighbourly are honest classes of other namespaces, of which PATH is in each its own.
func neighbourly() map[string]string {
	return map[string]string{ //nolint:gosec // G101: no credentials
		"two small secrets":     "[{role: r, path: secret/PATH/0-1-0-NEW, key: v, file: f}, {role: r, path: secret/PATH/4-100-1-NEW, file: d/}]",
		"ten secrets":           objectsOf(10, "{role: r, path: secret/PATH/4-20-1-NEW-%[1]d, file: d%[1]d/}"),
		"ten templates":         objectsOf(10, "{role: r, path: secret/PATH/4-20-1-NEW-%[1]d, template: '{{ range $k, $v := . }}{{ $k }}={{ $v }}\n{{ end }}', file: f%[1]d}"),
		"a secret of 200 KiB":   "[{role: r, path: secret/PATH/4-50000-3-NEW, key: v, file: f}]",
		"a secret of 1 MiB":     "[{role: r, path: secret/PATH/4-250000-3-NEW, key: v, file: f}]",
		"a secret of 500 parts": "[{role: r, path: secret/PATH/6-500-0-NEW, file: d/}]",
	}
}

func objectsOf(count int, object string) string {
	all := make([]string, count)
	for i := range all {
		all[i] = fmt.Sprintf(object, i)
	}
	return "[" + strings.Join(all, ", ") + "]"
}

// neighbour mounts an honest class in a namespace of its own, with new secrets each time,
// until there is enough and it has mounted once.
func (s *search) neighbour(t *testing.T, w *worst, what, objects string, enough time.Time) {
	t.Helper()
	namespace := strings.ReplaceAll(strings.ToLower(what), " ", "-")
	p := pod(namespace, "web")
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for n := 0; n == 0 || time.Now().Before(enough); n++ {
		<-pause.C
		p.UID = fmt.Sprint("neighbour-", n)
		v := providertest.Volume{
			Pod: p, Class: "app", Tokens: map[string]string{"vault": w.sign(w.issuer, w.issuer.ClaimsFor(p, "vault"))},
			Parameters: map[string]string{"objects": strings.NewReplacer("PATH", namespace, "NEW", fmt.Sprint(n)).Replace(objects)},
		}
		attributes, err := v.Attributes()
		if err != nil {
			t.Error(err)
			return
		}
		began := time.Now()
		if _, err := w.driver.Call(t.Context(), attributes); err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		s.mu.Lock()
		s.served++
		s.slowest[what] = max(s.slowest[what], time.Since(began))
		s.mu.Unlock()
	}
}

// mixture makes harmful classes, no two of which read the same.
type mixture struct {
	*rand.Rand
	namespace, id string
}

// knownHarm are inputs that took much before: how many secrets, and of what, see [harm].
func knownHarm() []struct {
	secrets int
	what    string
} {
	return []struct {
		secrets int
		what    string
	}{
		{60, "6-50000-0"},  // tiny objects, 20 MiB each once they are parsed
		{8, "4-1000000-3"}, // texts of 4 MiB
		{2, "6-320000-0"},  // 4 MiB of tiny objects
		{10, "3-60000-1"},  // many names
		{1, "9-15000-0"},   // deep lists
		{10, "8-100000-4"}, // what is beside a secret
		{100, "3-2000-2"},  // names with dots
	}
}

// known is the class of one of them; empty beyond the last.
func (m mixture) known(n int) string {
	if n >= len(knownHarm()) {
		return ""
	}
	var b strings.Builder
	for i := range knownHarm()[n].secrets {
		fmt.Fprintf(&b, "- {path: secret/%[1]s/%[2]s-%[3]s-%[4]d, role: %[1]s, key: v, file: f%[4]d}\n", m.namespace, knownHarm()[n].what, m.id, i)
	}
	return b.String()
}

// secrets are the paths of some secrets, see [harm].
func (m mixture) secrets() []string {
	paths := make([]string, []int{1, 1, 2, 8, 60}[m.IntN(5)])
	unit, wrap := m.IntN(len(units())), m.IntN(wraps)
	size := 1 << (8 + m.IntN(14)) // up to 2 MiB, and twice that below
	size += m.IntN(size)
	for i := range paths {
		if m.IntN(4) == 0 {
			unit, wrap = m.IntN(len(units())), m.IntN(wraps)
		}
		paths[i] = fmt.Sprintf("%s/%d-%d-%d-%s-%d", m.namespace, unit, max(1, size/(len(units()[unit])+1)), wrap, m.id, i)
	}
	return paths
}

// objects are those of a class in keymount's own syntax.
func (m mixture) objects() string {
	if attack := attacks(); m.IntN(8) == 0 {
		names := slices.Sorted(maps.Keys(attack))
		return strings.ReplaceAll(attack[names[m.IntN(len(names))]], "path: shop/big,", "role: "+m.namespace+", path: secret/"+m.secrets()[0]+",")
	}
	paths := m.secrets()
	var b strings.Builder
	for i := range max(len(paths), []int{1, 1, 10, 300}[m.IntN(4)]) {
		fmt.Fprintf(&b, "- {path: secret/%s, role: %s, optional: true, ", paths[i%len(paths)], m.namespace)
		switch m.IntN(6) {
		case 0:
			fmt.Fprintf(&b, "key: v, file: f%d}\n", i)
		case 1:
			fmt.Fprintf(&b, "format: %s, file: f%d}\n", []string{"json", "yaml", "dotenv", "properties"}[m.IntN(4)], i)
		case 2:
			fmt.Fprintf(&b, "file: d%d/}\n", i)
		case 3:
			fmt.Fprintf(&b, "key: v, format: %s, file: f%d}\n", []string{"pem", "pfx", "jks"}[m.IntN(3)], i)
		case 4:
			fmt.Fprintf(&b, "key: v%s, file: f%d}\n", strings.Repeat(".a", m.IntN(50)), i)
		case 5:
			template := templates()[m.IntN(len(templates()))]
			fmt.Fprintf(&b, "template: '%s', file: f%d}\n", strings.ReplaceAll(template, "OTHER", "secret/"+paths[m.IntN(len(paths))]), i)
		}
	}
	return b.String()
}

// vaultObjects are those of a class of vault-csi-provider.
func (m mixture) vaultObjects() string {
	paths := m.secrets()
	var b strings.Builder
	for i := range max(len(paths), []int{1, 10, 300}[m.IntN(3)]) {
		fmt.Fprintf(&b, "- {objectName: f%d, secretPath: secret/data/%s%s}\n", i, paths[i%len(paths)], []string{"", ", secretKey: v"}[m.IntN(2)])
	}
	return b.String()
}

func templates() []string {
	return []string{
		`{{ range .v }}{{ . }}{{ end }}`, `{{ toJson . }}`, `{{ toYaml . }}`, `{{ b64enc (toJson .) }}`, `{{ toJson (secret "OTHER") }}`,
		`{{ range .v }}{{ toJson $ }}{{ end }}`, `{{ join "," .v }}`, `{{ range 100000 }}{{ $x := eq $.v $.v }}{{ end }}`,
		`{{ printf "%s%s" (toJson .) (toYaml .) }}`, `{{ range $a, $b := . }}{{ $c := toYaml $b }}{{ end }}`, `{{ quote (toYaml .) }}`,
		`{{ indent 2 (toYaml .) }}`, `{{ replace "a" "aaaaaaaaaaaaaaaa" (toJson .) }}`, `{{ $x := split "" (toJson .) }}`,
	}
}

// worst is a world with drivers that mean harm.
type worst struct {
	*world
	own    *providertest.Driver // for classes in keymount's own syntax
	other  *providertest.Driver // for those of vault-csi-provider
	settle func()               // ends what stands behind the mounts
}

func startWorst(t *testing.T) *worst {
	t.Helper()
	address := startHarm(t)
	other, settle := "", func() {}
	w := start(t, func(w *world, s *setup) {
		other = filepath.Join(filepath.Dir(w.socket), "vault.sock")
		s.sockets = append(s.sockets, other)
		s.options.Deadline = 25 * time.Second
		var backend provider.Backend
		backend, settle = worstBackend(t, address)
		s.options.Backends = []provider.Backend{backend}
	})
	return &worst{w, dialUnread(t, w.socket), dialUnread(t, other), settle}
}

// dialUnread is a driver that does not look at the answers: another process would.
func dialUnread(t *testing.T, socket string) *providertest.Driver {
	t.Helper()
	driver, err := providertest.Dial(socket, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(unread{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = driver.Close() })
	return driver
}

// unread is the codec of protocol buffers without the reading.
type unread struct{}

func (unread) Name() string { return "proto" }

func (unread) Marshal(v any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2("proto").Marshal(v) //nolint:wrapcheck // it is that codec
}

func (unread) Unmarshal(mem.BufferSlice, any) error { return nil }

// worstBackend has all that keymount serve puts before a Vault.
func worstBackend(t *testing.T, address string) (backend provider.Backend, settle func()) {
	t.Helper()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{address}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := access.Compile("access", []access.Rule{{
		Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Roles: []string{"*"}, Paths: []string{"secret/{namespace}/**"},
	}}, access.Kind{Roles: access.Required})
	if err != nil {
		t.Fatal(err)
	}
	s := vault.New(conn, "", map[string]vault.Engine{"secret": vault.KV2})
	inner, sessions := storetest.LoggedIn(storetest.LayersOf(s, vault.Method{Conn: conn, Mount: "kubernetes", Now: time.Now}))
	kept := keep.New(queue.Limit(inner, 64), keep.Options{
		Refresh: time.Minute, Stale: time.Hour, Pool: keep.NewPool(worstKept, time.Now, nil), Now: time.Now,
		Vouch: func(r login.Request) { sessions.Vouch(r.Identity, r.Role) },
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = kept.Run(ctx) })
	settle = func() { stop(); running.Wait() }
	t.Cleanup(settle)
	return provider.Backend{
		Name: "default", Audience: "vault", Rules: compiled, Resolves: true,
		Class: class.Store{Traits: vault.Kind{}.Traits(), Settings: &vault.Settings{
			Addresses: []string{address}, Auth: vault.Auth{Mount: "kubernetes", Audience: "vault"},
		}},
		Store: kept,
	}, settle
}
