package keep

import (
	"container/list"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// expectedSize is the size of a certificate with its chain and key, approximately: the
	// reservation for the first value made for a namespace.
	expectedSize = 8 << 10
	// firstPart bounds that reservation to this part of a share.
	firstPart = 4
)

// Pool is the memory that the answers of one or more Keepers take together, bounded in bytes.
// Each namespace has an equal share of the whole, whatever stores its answers come from. It is
// safe for concurrent use.
type Pool struct {
	most int64 // bytes

	mu      sync.Mutex // of the memories as well, which evict from each other
	names   map[string]*tenant
	tenants []*tenant // the same
	bytes   int64
	rereads rereads
}

// NewPool makes a memory of about so many bytes. log gets a warning, once an hour at most, while
// values are evicted that are still in use; nil is none.
func NewPool(bytes int64, now func() time.Time, log *slog.Logger) *Pool {
	return &Pool{most: bytes, names: map[string]*tenant{}, rereads: newRereads(bytes, now, log)}
}

// rank is the order of eviction within a namespace: the lower ones go first.
type rank int

const (
	again  rank = iota // what can be read again: values with their paths, and denials
	toMade             // paths of credentials and certificates, which are lost without them in an outage
	made               // credentials and certificates, and reservations for them
	ranks
)

// tenant lists the cells of one namespace, the most recently used first.
type tenant struct {
	name      string
	at        int // index in Pool.tenants
	order     [ranks]list.List
	bytes     int64 // of all lists
	madeBytes int64 // of made alone
}

// evictable is a cell of any memory.
type evictable interface{ evictLocked() }

// weight is the place of a cell in the pool.
type weight struct {
	tenant  *tenant       // nil for a cell without a weight
	element *list.Element // in the list of rank
	size    int64
	rank    rank
}

func (w *weight) orderLocked() *list.List { return &w.tenant.order[w.rank] }

// share is the part of the memory that a namespace has for itself. Other namespaces may use
// what it leaves.
func (p *Pool) share() int64 { return p.most / int64(max(len(p.tenants), 1)) }

// reserveLocked weighs a cell with the expected size of the value that its flight makes;
// false without room for it. It wants room for one more, since sizes differ.
func (m *memory[K, V]) reserveLocked(c *cell[K, V]) bool {
	p := m.pool
	t := p.tenantLocked(c.namespace)
	defer p.leaveLocked(t)
	expected := max(m.cell, min(expectedSize, p.share()/firstPart))
	if n := t.order[made].Len(); n > 0 {
		expected = t.madeBytes / int64(n)
		need := max(2*expected, c.refused)
		if c.weight.rank == made {
			need -= c.weight.size
		}
		if !p.roomLocked(t, t.madeBytes+need) {
			return false
		}
	}
	m.weighLocked(c, expected, made)
	p.shrinkLocked()
	return true
}

// Namespaces are the bytes that each namespace takes.
func (p *Pool) Namespaces() map[string]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]int64, len(p.tenants))
	for _, t := range p.tenants {
		all[t.name] = t.bytes
	}
	return all
}

// roomLocked tells whether a tenant may keep so many bytes: within its share, or beyond it if
// that evicts no value made for another tenant, and nothing of a smaller one.
func (p *Pool) roomLocked(t *tenant, bytes int64) bool {
	if bytes <= p.share() || p.bytes-t.bytes+bytes <= p.most {
		return bytes <= p.most
	}
	all := bytes
	for _, other := range p.tenants {
		if other != t {
			all += max(other.madeBytes, min(other.bytes, bytes))
		}
	}
	return all <= p.most
}

// shrinkLocked evicts until the rest fits, only from tenants beyond their share.
func (p *Pool) shrinkLocked() {
	for p.bytes > p.most {
		order := p.victimLocked()
		c, _ := order.Back().Value.(evictable)
		c.evictLocked()
	}
}

// victimLocked is the list to evict from: of the largest tenant beyond its share with more than
// made values, what goes first; if there is none, the made values of the largest tenant.
func (p *Pool) victimLocked() *list.List {
	var largest, other *tenant
	share := p.share()
	for _, t := range p.tenants {
		if largest == nil || t.bytes > largest.bytes {
			largest = t
		}
		if t.bytes > max(share, t.madeBytes) && (other == nil || t.bytes > other.bytes) {
			other = t
		}
	}
	switch {
	case other == nil:
		return &largest.order[made]
	case other.order[again].Len() > 0:
		return &other.order[again]
	}
	return &other.order[toMade]
}

// evictLocked evicts a cell for room.
func (c *cell[K, V]) evictLocked() { c.memory.evictLocked(c) }

// evictLocked evicts a cell for room. In flight it loses its value, and stays for those who
// join the flight.
func (m *memory[K, V]) evictLocked(c *cell[K, V]) {
	if m.isMade(c) {
		m.onEvict(c.value)
	}
	if c.known || c.denial.err != nil {
		m.evictions++
	}
	if c.known && m.countsRereads {
		m.pool.rereads.evicted(hashOf(m.pool, c.key))
	}
	if c.flight == nil {
		m.removeLocked(c)
		return
	}
	var none V
	c.known, c.value, c.denial = false, none, denial{}
	m.liftLocked(c)
}

// weighLocked gives a cell a weight, as the one used last of its tenant.
func (m *memory[K, V]) weighLocked(c *cell[K, V], bytes int64, r rank) {
	m.liftLocked(c)
	t := m.pool.tenantLocked(c.namespace)
	c.namespace = t.name
	c.weight = weight{tenant: t, size: bytes, rank: r, element: t.order[r].PushFront(c)}
	if r == made {
		t.madeBytes += bytes
	}
	t.bytes += bytes
	m.bytes += bytes
	m.pool.bytes += bytes
}

// liftLocked takes the weight of a cell.
func (m *memory[K, V]) liftLocked(c *cell[K, V]) {
	w, t := &c.weight, c.weight.tenant
	if t == nil {
		return
	}
	w.orderLocked().Remove(w.element)
	if w.rank == made {
		t.madeBytes -= w.size
	}
	t.bytes -= w.size
	m.bytes -= w.size
	m.pool.bytes -= w.size
	c.weight = weight{}
	m.pool.leaveLocked(t)
}

func (p *Pool) tenantLocked(name string) *tenant {
	t := p.names[name]
	if t == nil {
		t = &tenant{name: strings.Clone(name), at: len(p.tenants)}
		p.names[t.name], p.tenants = t, append(p.tenants, t)
	}
	return t
}

// leaveLocked removes a tenant without cells.
func (p *Pool) leaveLocked(t *tenant) {
	for i := range t.order {
		if t.order[i].Len() > 0 {
			return
		}
	}
	if p.names[t.name] != t {
		return
	}
	last := len(p.tenants) - 1
	p.tenants[t.at] = p.tenants[last]
	p.tenants[t.at].at = t.at
	p.tenants[last] = nil
	p.tenants = p.tenants[:last]
	delete(p.names, t.name)
}

// sumOfNamespaces adds counts by namespace, and names the namespace with most.
func sumOfNamespaces(counts map[string]int) (all int, most string) {
	for namespace, n := range counts {
		if all += n; n > counts[most] || n == counts[most] && namespace < most {
			most = namespace
		}
	}
	return all, most
}
