package provider

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/lru"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// Backend is one store of keymount.yaml, ready to be read.
type Backend struct {
	Name     string
	Store    Store
	Resolves bool // the store has to be asked what a path is
	Rules    access.Rules
	Audience string      // of the tokens it accepts
	Class    class.Store // what a class may ask of it
	// TokensWithoutPod accepts tokens that are bound to no pod.
	TokensWithoutPod bool
}

// Store is what a mount reads from: a [keep.Keeper], or a [keep.Direct].
type Store interface {
	// Recall has the answers of Resolve and Read that take no question and no wait.
	Recall(request login.Request) keep.Recollection
	Resolve(ctx context.Context, request login.Request, ref store.Ref) (store.Resolved, error)
	Read(ctx context.Context, request login.Request, ref store.Ref, resolved store.Resolved) (keep.Answer, error)
}

// asker is who asks one store, the same for all that a mount reads there.
type asker struct {
	backend  Backend
	identity *auth.Identity
	token    secret.Bytes // which proves the identity
	class    string
	waiting  bool     // the pod cannot start without an answer
	login    *verdict // nil before the first
	recalled recalled
}

// recalled is what a store answers at once to a request with a role.
type recalled struct {
	keep.Recollection

	role string
}

// verdict is that of the rules on a login with a role.
type verdict struct {
	role  string
	rules access.Rules // for the paths
	rule  access.Decision
	err   error
}

// judgeLogin has the rules judge a login, which has no path: so the last verdict counts for
// all that is read with one role.
func (a *asker) judgeLogin(role string) *verdict {
	if a.login == nil || a.login.role != role {
		q := access.Query{Store: a.backend.Name, Namespace: a.identity.Namespace, ServiceAccount: a.identity.ServiceAccount, Role: role}
		rule, err := a.backend.Rules.JudgeLogin(q)
		a.login = &verdict{role, a.backend.Rules.Fitted(q), rule, err}
	}
	return a.login
}

// recollection is what the store answers at once, as of the beginning of a step: the last one
// counts for all that is read with one role.
func (a *asker) recollection(role string) keep.Recollection {
	if a.recalled.Recollection == nil || a.recalled.role != role {
		a.recalled = recalled{a.backend.Store.Recall(a.request(role)), role}
	}
	return a.recalled.Recollection
}

// request is what the store is asked with.
func (a *asker) request(role string) login.Request {
	return login.Request{
		Identity: *a.identity, Role: role, Proof: a.token, Waiting: a.waiting,
		Volume: auth.Volume{Namespace: a.identity.Namespace, PodUID: a.identity.PodUID, Class: a.class},
	}
}

// identify proves who the pod is, once for each store that it reads from.
// Nothing is read, and nothing cached is used, before this has said yes.
func identify(ctx context.Context, r class.Request, verifier *auth.Verifier, backends map[string]Backend, waiting bool) (map[string]*asker, error) {
	askers := map[string]*asker{} // by store
	var mistakes []error
	for i := range r.Secrets {
		name := r.Secrets[i].Store
		if askers[name] != nil {
			continue
		}
		a := &asker{backend: backends[name], class: r.Class, waiting: waiting}
		if err := a.prove(ctx, r, verifier); err != nil && !slices.ContainsFunc(mistakes, sameText(err)) {
			mistakes = append(mistakes, err)
		}
		askers[name] = a
	}
	return askers, errors.Join(mistakes...)
}

func (a *asker) prove(ctx context.Context, r class.Request, verifier *auth.Verifier) (err error) {
	if a.token, err = r.Tokens.For(a.backend.Audience); err != nil {
		return err
	}
	identity, err := verifier.Verify(ctx, a.token, auth.Expected{
		Audience: a.backend.Audience, Pod: r.Pod, WithoutPod: a.backend.TokensWithoutPod,
	})
	a.identity = &identity
	return err
}

func sameText(err error) func(error) bool {
	return func(other error) bool { return other.Error() == err.Error() }
}

// InFlight is a mount that is being answered.
type InFlight struct {
	Pod   auth.Pod
	Class string // empty before the call is read
	Began time.Time
	First bool // the pod cannot start before
	// Awaits is the step that it has come to, and Stores are those that are asked in it.
	Awaits string
	Stores []string
}

// The steps of a mount in flight.
const (
	awaitsClass  = "a turn to read the class"
	awaitsToken  = "the check of the pod's token"
	awaitsStores = "secrets"
	awaitsFiles  = "a turn to make the files"
	awaitsRecord = "its record"
)

// flights are the mounts in flight. They are safe for concurrent use.
type flights struct {
	mu  sync.Mutex
	all map[*flight]struct{}
}

// flight is one of them. The lock of flights guards it.
type flight struct {
	of     *flights
	pod    auth.Pod
	class  string
	began  time.Time
	first  bool
	awaits string
	stores map[string]*asker // never changed
}

func (f *flights) begin(began time.Time) *flight {
	one := &flight{of: f, began: began, awaits: awaitsClass}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[*flight]struct{}{}
	}
	f.all[one] = struct{}{}
	return one
}

func (f *flight) end() {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	delete(f.of.all, f)
}

// comesTo notes the next step.
func (f *flight) comesTo(awaits string) { f.asks(awaits, nil) }

// asks notes a step in which stores are asked.
func (f *flight) asks(awaits string, stores map[string]*asker) {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.awaits, f.stores = awaits, stores
}

// named notes the pod and its class.
func (f *flight) named(r class.Request, first bool) {
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	f.pod, f.class, f.first, f.awaits = r.Pod, r.Class, first, awaitsToken
}

// list has the longest first.
func (f *flights) list() []InFlight {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]InFlight, 0, len(f.all))
	for one := range f.all {
		all = append(all, InFlight{one.pod, one.class, one.began, one.first, one.awaits, slices.Sorted(maps.Keys(one.stores))})
	}
	slices.SortFunc(all, func(a, b InFlight) int { return a.Began.Compare(b.Began) })
	return all
}

// maxServed bounds how many volumes are remembered; a node has some hundred.
const maxServed = 4096

// volume is what the driver mounts again and again.
type volume struct{ podUID, class string }

// served are the volumes that were mounted. A pod whose volume is none of them cannot
// start until it is: it goes first. It is safe for concurrent use.
type served struct {
	mu      sync.Mutex
	volumes *lru.Cache[volume, struct{}]
}

func newServed() *served { return &served{volumes: lru.New[volume, struct{}](maxServed, 0)} }

func (s *served) has(v volume) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.volumes.Get(v)
	return known
}

// add may forget another volume, which is taken for a new one once.
func (s *served) add(v volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.volumes.Add(v, struct{}{}, 0)
}
