package main

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// The day of a node.
const (
	dayLength = 24 * time.Hour
	steadyAt  = time.Hour // by then every secret has its longest pause
	rolloutAt = 12 * time.Hour
	outageAt  = 18 * time.Hour
	tendEvery = 5 * time.Second // as login.Sessions look for what is due
)

// provider answers the calls of a kubelet.
type provider interface {
	// mount writes the versions of a pod's secrets to got, in their order; false if it fails.
	mount(at time.Duration, p *pod, got []int) bool
	// tend does what is due between mounts.
	tend(at time.Duration)
}

// secret is one of the store. Its version is how often it has changed.
type secret struct {
	path    string
	changes []time.Duration
}

// pod has a volume with some secrets.
type pod struct {
	uid     string
	account int
	secrets []*secret
	has     []int         // the versions in its files; nil before it has started
	goes    time.Duration // when it is replaced; 0 for never
	call    func()        // the kubelet's
}

// counts are requests to a store.
type counts struct {
	Reads       float64 `json:"reads"`
	Logins      float64 `json:"logins"`
	Renewals    float64 `json:"renewals"`
	Revocations float64 `json:"revocations"`
	Vain        float64 `json:"vain"` // during an outage
}

func (c counts) all() float64 { return c.Reads + c.Logins + c.Renewals + c.Revocations + c.Vain }

func (c counts) plus(other counts) counts {
	return counts{
		c.Reads + other.Reads, c.Logins + other.Logins, c.Renewals + other.Renewals,
		c.Revocations + other.Revocations, c.Vain + other.Vain,
	}
}

// world is the store that a node asks: it counts, and is away for a while.
type world struct {
	outage time.Duration

	mu      sync.Mutex // a test has more than one goroutine
	minutes [dayLength / time.Minute]counts
}

func (w *world) away(at time.Duration) bool { return at >= outageAt && at < outageAt+w.outage }

// count adds requests of a moment.
func (w *world) count(at time.Duration, c counts) {
	w.mu.Lock()
	defer w.mu.Unlock()
	minute := min(int(at/time.Minute), len(w.minutes)-1)
	w.minutes[minute] = w.minutes[minute].plus(c)
}

// node is one with a kubelet and its pods.
type node struct {
	o        options
	accounts int
	world    *world
	random   *rand.Rand
	provider provider
	// wait lets time pass until a moment of the day; nil needs none.
	wait func(at time.Duration)

	events   events
	at       time.Duration
	pods     []*pod            // nil before they come
	common   map[int][]*secret // by account
	got      []int             // of a mount
	named    int
	seen     []time.Duration // how old a change was when a pod had it
	failures int             // mounts of running pods
}

func newNode(o options, accounts, number int) *node {
	return &node{
		o: o, accounts: accounts, world: &world{outage: o.Outage}, pods: make([]*pod, o.Pods), got: make([]int, o.Secrets), common: map[int][]*secret{},
		random: rand.New(rand.NewPCG(1, uint64(number))), //nolint:gosec // a story that can be told again
	}
}

// live is a day with a provider.
func (n *node) live(p provider) {
	n.provider = p
	for i := range n.o.Pods {
		n.start(n.upTo(n.o.Kubelet.Most), i, i%n.accounts)
	}
	n.every(tendEvery, func() { n.provider.tend(n.at) })
	if n.o.Rotations > 0 {
		n.every(time.Duration(float64(time.Hour)/n.o.Rotations), n.rotate)
	}
	for len(n.events) > 0 {
		next, _ := heap.Pop(&n.events).(event)
		if n.at = next.at; n.at >= dayLength {
			return
		}
		if n.wait != nil {
			n.wait(n.at)
		}
		next.do()
	}
}

// start has a pod of an account come at some time, in the place of the one before it.
func (n *node) start(at time.Duration, place, account int) {
	n.do(at, func() {
		p := n.newPod(account)
		n.pods[place] = p
		if n.o.Rollout > 0 && n.at < rolloutAt {
			p.goes = rolloutAt + n.upTo(n.o.Rollout)
			n.start(p.goes, place, n.successor(account))
		}
		p.call = func() { n.call(p) }
		p.call()
	})
}

// successor is the account of the pod that comes when one of an account goes. A pod with an
// account of its own is followed by one of another node, which this node does not know.
func (n *node) successor(account int) int {
	if n.accounts == n.o.Pods {
		return account + n.accounts
	}
	return account
}

func (n *node) newPod(account int) *pod {
	n.named++
	p := &pod{uid: fmt.Sprint("pod-", n.named), account: account}
	shared := n.o.Shared
	if shared < 0 {
		shared = n.o.Secrets
	}
	for len(n.common[account]) < shared {
		n.common[account] = append(n.common[account], n.newSecret())
	}
	p.secrets = append(p.secrets, n.common[account][:shared]...)
	for len(p.secrets) < n.o.Secrets {
		p.secrets = append(p.secrets, n.newSecret())
	}
	return p
}

func (n *node) newSecret() *secret {
	n.named++
	return &secret{path: fmt.Sprint("secret/s", n.named)}
}

// call is the kubelet's for a volume, and the next one.
func (n *node) call(p *pod) {
	if p.goes > 0 && n.at >= p.goes {
		return
	}
	got := n.got[:len(p.secrets)]
	switch ok := n.provider.mount(n.at, p, got); {
	case ok:
		n.look(p, got)
		p.has = append(p.has[:0], got...)
	case p.has != nil:
		n.failures++
	}
	n.do(n.at+n.o.Kubelet.Least+n.upTo(n.o.Kubelet.Most-n.o.Kubelet.Least), p.call)
}

// look notes which changes have come to a pod.
func (n *node) look(p *pod, got []int) {
	if p.has == nil {
		return
	}
	for i, s := range p.secrets {
		for version := p.has[i]; version < got[i]; version++ {
			n.seen = append(n.seen, n.at-s.changes[version])
		}
	}
}

// rotate changes some secret of a pod, unless an outage would hide the change.
func (n *node) rotate() {
	if before := outageAt - n.o.RefreshMax - n.o.Kubelet.Most; n.world.outage > 0 && n.at >= before && n.at < outageAt+n.world.outage {
		return
	}
	if p := n.pods[n.random.IntN(len(n.pods))]; p != nil {
		s := p.secrets[n.random.IntN(len(p.secrets))]
		s.changes = append(s.changes, n.at)
	}
}

func (n *node) every(pause time.Duration, do func()) {
	var again func()
	again = func() {
		do()
		n.do(n.at+pause, again)
	}
	n.do(n.at+pause, again)
}

func (n *node) do(at time.Duration, do func()) {
	n.named++
	heap.Push(&n.events, event{at, n.named, do})
}

// upTo is a duration less than most.
func (n *node) upTo(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(n.random.Int64N(int64(most)))
}

// event is something that happens at a time; number orders those of one time.
type event struct {
	at     time.Duration
	number int
	do     func()
}

// events are a heap, the next one first.
type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }

func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].number < e[j].number
}

// Push implements [heap.Interface].
func (e *events) Push(x any) {
	one, _ := x.(event)
	*e = append(*e, one)
}

// Pop implements [heap.Interface].
func (e *events) Pop() any {
	last := len(*e) - 1
	one := (*e)[last]
	*e = (*e)[:last]
	return one
}
