package provider

import (
	"container/list"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"

	"github.com/keymount/keymount/internal/spelling"
)

// classText is all that the meaning of a class depends on, beside keymount.yaml. No
// token is in it, and of the pod no more than its namespace: what else a pod says of
// itself is out of the parsers' reach, and so pods can share what they made of it.
type classText struct {
	dialect    Dialect
	namespace  string            // the pod's; it may be part of where a Vault is
	permission string            // the driver's
	parameters map[string]string // of the class, overwritten by the pod's volumeAttributes
}

// parsedClass is what a class asks for. Mounts share it: it is never changed.
type parsedClass struct {
	objects  []Object
	warnings []string
}

func (t classText) parse(stores map[string]Features, m *mistakes) parsedClass {
	if t.dialect == DialectKeymount {
		return t.parseKeymount(stores, m)
	}
	return t.parseVault(stores, m)
}

// parserFor parses every class anew.
func parserFor(stores map[string]Features) func(classText, *mistakes) parsedClass {
	return func(t classText, m *mistakes) parsedClass { return t.parse(stores, m) }
}

func (t classText) parseKeymount(stores map[string]Features, m *mistakes) parsedClass {
	t.checkNames(m)
	defaults := classDefaults{t.parameters["store"], t.parameters["role"], stores}
	return parsedClass{objects: parseObjects(t.parameters["objects"], defaults, m)}
}

// checkNames refuses parameters that nobody reads: they are slips of the pen.
func (t classText) checkNames(m *mistakes) {
	known := []string{"store", "role", "objects"}
	for _, name := range slices.Sorted(maps.Keys(t.parameters)) {
		if !slices.Contains(known, name) {
			m.add("unknown parameter %q%s", name, spelling.Hint(name, known))
		}
	}
}

const (
	// maxClasses and maxClassesSize bound what is remembered of classes; one of ten
	// objects takes about 5 KiB.
	maxClasses     = 512
	maxClassesSize = 8 << 20
	// maxClassText and maxClassSize are beyond what people write by hand. What is
	// larger is parsed each time and leaves the room to the others.
	maxClassText = 32 << 10
	maxClassSize = maxClassesSize / 16

	// What an object and a node of a template's tree take in memory, about.
	objectSize = 400
	nodeSize   = 256
)

// classes remembers what classes mean. It is safe for concurrent use.
type classes struct {
	stores map[string]Features

	mu    sync.Mutex
	known map[classSum]*list.Element // of *knownClass
	order list.List                  // the most recently used first
	size  int
}

type knownClass struct {
	sum   classSum
	class parsedClass
	size  int
}

// classSum is the SHA-256 of a class's text.
type classSum [sha256.Size]byte

func newClasses(stores map[string]Features) *classes {
	return &classes{stores: stores, known: map[classSum]*list.Element{}}
}

// parse remembers a class without mistakes; one with mistakes is parsed again, since
// what is told of them names the pod.
func (c *classes) parse(t classText, m *mistakes) parsedClass {
	text := t.canonical()
	if len(text) > maxClassText {
		return t.parse(c.stores, m)
	}
	sum := classSum(sha256.Sum256(text))
	if known, ok := c.find(sum); ok {
		return known
	}
	before := m.count()
	parsed := t.parse(c.stores, m)
	parsed.objects, parsed.warnings = slices.Clip(parsed.objects), slices.Clip(parsed.warnings) // an append copies
	if size := len(text) + parsed.size(); m.count() == before && size <= maxClassSize {
		c.keep(&knownClass{sum, parsed, size})
	}
	return parsed
}

// canonical is a text that no other class has.
func (t classText) canonical() []byte {
	text := appendParts(make([]byte, 0, 1<<10), string(t.dialect), t.namespace, t.permission)
	for _, name := range slices.Sorted(maps.Keys(t.parameters)) {
		text = appendParts(text, name, t.parameters[name])
	}
	return text
}

// size is what the class takes in memory beside its text, about.
func (c parsedClass) size() int {
	size := 0
	for _, o := range c.objects {
		size += objectSize + len(o.Secret.Args)
		if o.Template != nil {
			size += nodeSize * o.Template.Nodes()
		}
	}
	for _, warning := range c.warnings {
		size += len(warning)
	}
	return size
}

func (c *classes) find(sum classSum) (parsedClass, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.known[sum]
	if !ok {
		return parsedClass{}, false
	}
	c.order.MoveToFront(element)
	found, _ := element.Value.(*knownClass)
	return found.class, true
}

func (c *classes) keep(k *knownClass) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.known[k.sum]; known {
		return // two mounts parsed it at a time
	}
	c.known[k.sum] = c.order.PushFront(k)
	c.size += k.size
	for len(c.known) > maxClasses || c.size > maxClassesSize {
		oldest, _ := c.order.Remove(c.order.Back()).(*knownClass)
		delete(c.known, oldest.sum)
		c.size -= oldest.size
	}
}
