package node_test

import (
	"context"
	"hash/crc32"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/vault"
)

const (
	tokenLife = time.Hour // of which the kubelet lets four fifths pass
	// The kubelet calls for each volume every 60 to 90 s, and every other call is lost.
	callLeast = 60 * time.Second
	callMost  = 90 * time.Second
	// interval is how long after a change of its files the driver leaves a volume alone:
	// its default, and so keymount's.
	interval = 2 * time.Minute
	// round is how long it takes at most until a pod has what keymount would give it now.
	round      = interval + 2*callMost
	refreshMax = 5 * time.Minute // keymount's default
)

// clocks are the world's, which is right, and the node's, which may be ahead. Both go
// on while the node sleeps.
type clocks struct {
	begin        time.Time
	slept, ahead atomic.Int64
}

func (c *clocks) world() time.Time { return time.Now().Round(0).Add(time.Duration(c.slept.Load())) }
func (c *clocks) node() time.Time  { return c.world().Add(time.Duration(c.ahead.Load())) }

// cluster plays the API server: it makes tokens, and says which of them count.
type cluster struct {
	*providertest.Issuer

	clocks *clocks
	mu     sync.Mutex
	ends   map[string]time.Time // of each token
}

func (c *cluster) request(t *testing.T, pod auth.Pod) (token string, ends time.Time) {
	t.Helper()
	claims := c.ClaimsFor(pod, vault.DefaultAudience)
	claims.NotBefore = c.clocks.world()
	claims.Expires = claims.NotBefore.Add(tokenLife)
	token, err := c.Sign(claims)
	if err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends[token] = claims.Expires
	return token, claims.Expires
}

func (c *cluster) review(token string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clocks.world().Before(c.ends[token])
}

// Keys implements [auth.KeySource].
func (c *cluster) Keys(context.Context) (string, jose.JSONWebKeySet, error) {
	data, err := c.KeySet()
	if err != nil {
		return "", jose.JSONWebKeySet{}, err
	}
	keys, err := auth.ParseKeys(data)
	return c.Name, keys, err
}

// pod is one with a volume, from some time of the day to another.
type pod struct {
	auth.Pod
	class    string
	from, to time.Duration

	random  *rand.Rand
	calls   int
	token   string // as the kubelet has it
	expires time.Time
	files   map[string]string // nil before it has started
	changed time.Time
}

// newPod is one of a service account, namespace/name.
func newPod(account, name, class string, from, to time.Duration) *pod {
	namespace, account, _ := strings.Cut(account, "/")
	return &pod{
		Pod:   auth.Pod{Namespace: namespace, ServiceAccount: account, Name: name, UID: "uid-" + name},
		class: class, from: from, to: to,
		random: rand.New(rand.NewPCG(0, uint64(crc32.ChecksumIEEE([]byte(name))))), //nolint:gosec // a story that can be told again
	}
}

// simulation is a node that runs keymount and pods. Its kubelet and its driver go by its
// clock, as keymount does.
type simulation struct {
	t      *testing.T
	clocks *clocks
	tokens *cluster
	vault  *judge
	driver *providertest.Driver
	left   func(namespace, podUID, class string) // tells keymount of a volume that is gone
	lives  sync.WaitGroup                        // of pods

	mu      sync.Mutex // guards what follows, and the files of pods
	pods    map[*pod]bool
	refused map[codes.Code]int // mounts
	excused time.Time          // until then pods may have what has ended
}

func newSimulation(t *testing.T) *simulation {
	t.Helper()
	issuer, err := providertest.NewIssuer("https://cluster.invalid", "key-1")
	if err != nil {
		t.Fatal(err)
	}
	c := &clocks{begin: time.Now()}
	tokens := &cluster{Issuer: issuer, clocks: c, ends: map[string]time.Time{}}
	return &simulation{
		t: t, clocks: c, tokens: tokens, vault: &judge{clocks: c, tokens: tokens, loginLife: loginLife, loginMost: loginMost, given: map[string]*term{}, made: map[string]int{}},
		pods: map[*pod]bool{}, refused: map[codes.Code]int{},
	}
}

// serve is keymount serve during a story, but for the socket, and the connection to
// Vault.
func (n *simulation) serve(story func()) {
	file, err := config.Parse([]byte(`
stores:
  - vault: {addresses: ["https://vault.invalid:8200"], mounts: {secret: kv2, database: other, pki: other}}
    access: [{namespaces: ["*"], serviceAccounts: ["*"], roles: ["{serviceAccount}"], paths: ["**"], writes: ["pki/issue/*"]}]
metrics: 127.0.0.1:9090 # nobody listens there: it has things counted
`), all.All())
	if err != nil {
		n.t.Fatal(err)
	}
	log := slog.New(noBugs{n.t})
	backend, run, left := node.OpenPlayed(file, kind.Layers{
		Store: vaultSecrets{n.vault}, Resolver: vaultSecrets{n.vault}, Leaser: vaultSecrets{n.vault}, Login: vaultLogins{n.vault},
	}, n.clocks.node, log)
	n.left = left
	server := provider.NewGRPC(n.t.Context(), provider.New(provider.Options{
		Version: "v0.0.0", Backends: []provider.Backend{backend}, VersionKey: secret.New(make([]byte, 32)),
		Verifier: auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", n.tokens, n.clocks.node)}, "node-1", n.clocks.node),
		Deadline: file.Limits.MountDeadline, ParallelReads: file.Limits.ParallelReads, Recorders: []provider.Recorder{observe.NewLog(log)},
	}), log)
	wire := bufconn.Listen(1 << 20) // time cannot pass while a goroutine waits for a real socket
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return wire.DialContext(ctx) })
	if n.driver, err = providertest.Dial("/memory", dial); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(wire) })
	running.Go(func() {
		if err := run(ctx); err != nil {
			n.t.Error(err)
		}
	})
	story()
	n.lives.Wait()
	if err := n.driver.Close(); err != nil {
		n.t.Error(err)
	}
	cancel()
	server.Stop()
	running.Wait()
}

// start has pods come when it is their time, and go.
func (n *simulation) start(pods ...*pod) {
	for _, p := range pods {
		n.lives.Go(func() {
			<-time.After(p.from)
			n.change(func() { n.pods[p] = true })
			for time.Since(n.clocks.begin) < p.to {
				n.publish(p)
				<-time.After(callLeast + time.Duration(p.random.Int64N(int64(callMost-callLeast))))
			}
			n.change(func() { delete(n.pods, p) })
		})
	}
}

func (n *simulation) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// publish is the kubelet's call for a volume, and what the driver makes of it.
func (n *simulation) publish(p *pod) {
	now := n.clocks.node()
	p.calls++
	if lost := p.calls%2 == 0; lost || p.files != nil && now.Before(p.changed.Add(interval)) {
		return
	}
	if !now.Before(p.expires.Add(-tokenLife / 5)) {
		p.token, p.expires = n.tokens.request(n.t, p.Pod)
	}
	attributes, err := providertest.Volume{
		Pod: p.Pod, Class: "class", Tokens: map[string]string{vault.DefaultAudience: p.token},
		Parameters: map[string]string{"role": p.ServiceAccount, "objects": p.class},
	}.Attributes()
	if err != nil {
		n.t.Error(err)
	}
	answer, err := n.driver.Call(n.t.Context(), attributes)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.refused[status.Code(err)]++
		return // the files stay
	}
	files := map[string]string{}
	for _, f := range answer.GetFiles() {
		files[f.GetPath()] = string(f.GetContents())
	}
	if p.files != nil && len(files) != len(p.files) {
		n.t.Errorf("pod %s has %v, and gets %v", p.Name, p.files, files)
	}
	if !maps.Equal(files, p.files) {
		n.lookLocked(p) // for the last time at the old ones
		p.files, p.changed = files, n.clocks.node()
	}
}

// watch looks into all pods every minute.
func (n *simulation) watch(span time.Duration) {
	for range span / time.Minute {
		<-time.After(time.Minute)
		n.change(func() {
			for p := range n.pods {
				n.lookLocked(p)
			}
		})
	}
}

// excuse lets pods have what has ended, for a while.
func (n *simulation) excuse(span time.Duration) {
	n.change(func() { n.excused = time.Now().Add(span) })
}

func (n *simulation) lookLocked(p *pod) {
	if time.Now().Before(n.excused) {
		return
	}
	for file, name := range p.files {
		if late := n.vault.overdue(name); late > 0 {
			n.t.Errorf("after %s: %s of pod %s is %q, which ended %s ago", time.Since(n.clocks.begin), file, p.Name, name, late)
		}
	}
}

// noBugs is a log in which no error may stand: those of panics are.
type noBugs struct{ t *testing.T }

func (noBugs) Enabled(context.Context, slog.Level) bool { return true }
func (l noBugs) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l noBugs) WithGroup(string) slog.Handler          { return l }

func (l noBugs) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		r.Attrs(func(a slog.Attr) bool { l.t.Errorf("%s: %s", r.Message, a); return true })
	}
	return nil
}
