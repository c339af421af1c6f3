package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/auth"
	hidden "github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/queue"
)

// usual is a node that a test has time for, with as many accounts as pods.
func usual() options {
	o, _ := parse([]string{"-nodes", "1", "-pods", "20", "-accounts", "20", "-secrets", "4", "-rotations", "60", "-sample", "1"})
	return o
}

// layers are keymount's own, in front of a store that counts.
type layers struct {
	keeper   *keep.Keeper
	sessions *login.Sessions
	store    *asked
	parse    func(path string) store.Path
}

// asked is the store: it counts what it is asked in the world of a node.
type asked struct {
	options

	world   *world
	began   time.Time
	mu      sync.Mutex
	secrets map[string]*secret
	logins  int
}

func (a *asked) now() time.Duration { return time.Since(a.began) }

// answer counts a request, or refuses it in an outage.
func (a *asked) answer(c counts) error {
	if a.world.away(a.now()) {
		return store.Unavailable.Errorf("away")
	}
	a.world.count(a.now(), c)
	return nil
}

// Read implements [store.Store].
func (a *asked) Read(_ context.Context, _ store.Caller, ref store.Ref) (store.Value, error) {
	if err := a.answer(counts{Reads: 1}); err != nil {
		return store.Value{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	version := strconv.Itoa(len(a.secrets[ref.Path.String()].changes))
	data, err := hidden.NewTree(map[string]any{"value": version})
	return store.Value{Data: data, Version: version}, err
}

// Login implements [login.Method].
func (a *asked) Login(context.Context, auth.Identity, hidden.Bytes, string) (login.Login, error) {
	if err := a.answer(counts{Logins: 1}); err != nil {
		return login.Login{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.logins++
	return a.lived(hidden.New(fmt.Append(nil, "login ", a.logins))), nil
}

func (a *asked) lived(token hidden.Bytes) login.Login {
	return login.Login{Token: token, Expires: time.Now().Add(a.TokenTTL), Renewable: !a.Batch}
}

// Renew implements [login.Renewer].
func (a *asked) Renew(_ context.Context, _ auth.Identity, l login.Login) (login.Login, error) {
	if err := a.answer(counts{Renewals: 1}); err != nil {
		return login.Login{}, err
	}
	return a.lived(l.Token), nil
}

// Revoke implements [login.Renewer]; batch tokens are not asked about.
func (a *asked) Revoke(context.Context, auth.Identity, login.Login) error {
	if a.Batch {
		return nil
	}
	return a.answer(counts{Revocations: 1})
}

// newLayers wires them as package node does.
func newLayers(t *testing.T, o options, w *world) *layers {
	t.Helper()
	a := &asked{options: o, world: w, began: time.Now(), secrets: map[string]*secret{}}
	sessions := login.NewSessions(a, false, time.Now)
	sessions.Spare = spare
	below := queue.Limit(login.Open(login.Options{Store: a, Sessions: sessions, Now: time.Now}), 64)
	keeper := keep.New(below, keep.Options{
		Refresh: o.Refresh, RefreshMax: o.RefreshMax, Stale: o.Stale, Replace: replaceEarly, Pool: keep.NewPool(60<<20, time.Now, nil), Now: time.Now,
		Vouch: func(r login.Request) { sessions.Vouch(r.Identity, r.Role) },
	})
	return &layers{keeper: keeper, sessions: sessions, store: a, parse: func(path string) store.Path {
		parsed, err := store.ParsePath(path)
		if err != nil {
			t.Error(err)
		}
		return parsed
	}}
}

// mount implements provider: it recalls or reads, as package provider does.
func (l *layers) mount(_ time.Duration, p *pod, got []int) bool {
	account := fmt.Sprintf("app-%d", p.account)
	request := login.Request{
		Identity: auth.Identity{
			Namespace: "team", ServiceAccount: account, ServiceAccountUID: account, PodName: p.uid, PodUID: p.uid, Expires: time.Now().Add(time.Hour),
		},
		Role: "app", Proof: hidden.New([]byte("token of " + p.uid)), Volume: auth.Volume{Namespace: "team", PodUID: p.uid, Class: "app"}, Waiting: p.has == nil,
	}
	all := true
	for i, s := range p.secrets {
		l.store.know(s)
		version, ok := l.read(request, s.path)
		got[i], all = version, all && ok
	}
	return all
}

func (a *asked) know(s *secret) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets[s.path] = s
}

func (l *layers) read(request login.Request, path string) (version int, ok bool) {
	ref := store.Ref{Path: l.parse(path)}
	resolved := store.Resolved{Path: ref.Path}
	answer, ok := l.keeper.Recall(request).Value(ref, resolved)
	if !ok {
		var err error
		if answer, err = l.keeper.Read(context.Background(), request, ref, resolved); err != nil {
			return 0, false
		}
	}
	version, err := strconv.Atoi(answer.Version)
	return version, err == nil
}

// tend implements provider: what is due between mounts runs by itself.
func (*layers) tend(time.Duration) {}

// liveReal is a day of a node with keymount's own packages.
func liveReal(t *testing.T, o options, accounts int) *node {
	t.Helper()
	n := newNode(o, accounts, 0)
	synctest.Test(t, func(t *testing.T) {
		l, began := newLayers(t, o, n.world), time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = l.sessions.Run(ctx) })
		running.Go(func() { _ = l.keeper.Run(ctx) })
		n.wait = func(at time.Duration) {
			<-time.After(time.Until(began.Add(at)))
			synctest.Wait()
		}
		n.live(l)
		cancel()
		running.Wait()
	})
	return n
}

// The model asks as much of a store as keymount's own packages do, at each time of the day,
// and a change of a secret is seen as soon.
func TestTheModelAgreesWithKeymount(t *testing.T) {
	own := usual()
	shared := usual()
	shared.Accounts = numbers{5}
	some := shared
	some.Shared = 2
	batch := usual()
	batch.Batch = true
	long := usual()
	long.RefreshMax, long.Outage, long.Stale = 10*time.Minute, 90*time.Minute, 30*time.Minute
	steady := usual()
	steady.Pods, steady.Accounts, steady.RefreshMax = 10, numbers{10}, steady.Refresh
	for name, o := range map[string]options{
		"own accounts": own, "shared accounts": shared, "some secrets of an account": some, "batch tokens": batch,
		"a long outage": long, "each call reads": steady,
	} {
		t.Run(name, func(t *testing.T) {
			v := variant{nameKeymount, o.Accounts[0]}
			truth, model := liveReal(t, o, v.accounts), v.simulate(o, 0)
			want, got := v.scale(1, []*node{truth}, o), v.scale(1, []*node{model}, o)
			near(t, "reads of the day", got.Day.Reads, want.Day.Reads, 0.02)
			near(t, "logins of the day", got.Day.Logins, want.Day.Logins, 0.03)
			near(t, "renewals of the day", got.Day.Renewals, want.Day.Renewals, 0.04)
			near(t, "revocations of the day", got.Day.Revocations, want.Day.Revocations, 0)
			near(t, "reads a second", got.Steady.Reads, want.Steady.Reads, 0.03)
			near(t, "the hour of the start", model.hour(0), truth.hour(0), 0.05)
			near(t, "the hour of the rollout", model.hour(rolloutAt), truth.hour(rolloutAt), 0.06)
			near(t, "the hour after the outage", model.hour(outageAt+o.Outage), truth.hour(outageAt+o.Outage), 0.06)
			near(t, "the minute after the outage", got.After, want.After, 0.15)
			near(t, "the median until a change is seen", got.SeenMedian, want.SeenMedian, 0.1)
			near(t, "the longest time until a change is seen", got.SeenMost, want.SeenMost, 0.1)
			near(t, "failed mounts", got.Refused, want.Refused, 0.05)
		})
	}
}

// hour is the number of requests in one from some time on.
func (n *node) hour(from time.Duration) float64 {
	all := sum(n.world.minutes[from/time.Minute : (from+time.Hour)/time.Minute])
	all.Vain = 0 // package store/vault bounds them, and is not there
	return all.all()
}

// near fails unless two numbers are the same but for a part: jitter is drawn anew.
func near(t *testing.T, what string, got, want, part float64) {
	t.Helper()
	t.Logf("%s: %.3g, want %.3g", what, got, want)
	if math.Abs(got-want) > part*want+1e-9 {
		t.Errorf("%s: the model has %g, want %g within %g %%", what, got, want, part*100)
	}
}
