package class

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/lru"
)

const (
	// maxClasses and maxClassesSize bound the ordinary classes of a Cache, and maxClassSize
	// one of them; a class of ten objects takes about 5 KiB.
	maxClasses     = 512
	maxClassesSize = 8 << 20
	maxClassSize   = maxClassesSize / 64
	// maxLargeSize bounds the larger ones, which so take no room from the others, and
	// maxLargeClass one of them: a class of a thousand objects takes about 600 KiB. What is
	// larger still is full of templates, and parsed each time.
	maxLargeSize  = 8 << 20
	maxLargeClass = maxLargeSize / 4
	// maxCalls and maxCallsSize bound the calls that are known again: a node has some
	// hundred volumes, and each has another text with each token.
	maxCalls     = 1024
	maxCallsSize = 1 << 20
	callSize     = 400 // about the bytes of a call without its texts

	// About the bytes of an object, of a secret, of a node of a template's tree, and of a
	// secret that a template names.
	objectSize = 640
	secretSize = 112
	nodeSize   = 256
	namedSize  = 48
)

// Cache remembers the meaning of classes, and which class a call names. It is safe for
// concurrent use.
type Cache struct {
	stores map[string]Store

	mu    sync.Mutex
	known *lru.Cache[classSum, meaning] // weighed by size
	large *lru.Cache[classSum, meaning] // likewise
	calls *lru.Cache[callSum, seen]     // weighed by size
}

// classSum and callSum are the SHA-256 of the text of a class, and of a call.
type (
	classSum [sha256.Size]byte
	callSum  [sha256.Size]byte
)

// seen is what is known of a call's text once it was parsed. It holds no token: that is in
// the text.
type seen struct {
	pod                     auth.Pod
	name                    string // of the class
	class                   classSum
	tokensBegin, tokensStop int // of the tokens' attribute in the text
}

// NewCache makes a Cache for calls that may ask these stores.
func NewCache(stores map[string]Store) *Cache {
	return &Cache{
		stores: stores,
		known:  lru.New[classSum, meaning](maxClasses, maxClassesSize),
		large:  lru.New[classSum, meaning](maxClasses, maxLargeSize),
		calls:  lru.New[callSum, seen](maxCalls, maxCallsSize),
	}
}

// Parse is [Parse], from memory where it can. turn does the work that is left when it may
// be done, for a pod whose class has so many bytes; the Request has no objects yet. An
// error of turn is that of Parse.
func (c *Cache) Parse(call Call, turn func(of Request, bytes int, work func()) error) (Request, error) {
	if len(call.Attributes) > maxAttributes {
		return Parse(call, c.stores) // which refuses it
	}
	of := call.sum()
	if known, ok := c.again(call, of); ok {
		return known, nil
	}
	var sum classSum
	parsed, err := call.parse(func(of Request, s source, m *mistakes) (parsed meaning, err error) {
		text := s.canonical()
		sum = sha256.Sum256(text)
		if known, ok := c.find(sum); ok {
			return known, nil
		}
		err = turn(of, len(text), func() { parsed = c.parse(s, m, sum, len(text)) })
		return parsed, err
	})
	if err == nil {
		c.see(call, of, parsed, sum)
	}
	return parsed, err
}

// again is the request of a call that was made before, to the letter, if its class is
// still known. A kubelet repeats each call until it has a new token.
func (c *Cache) again(call Call, sum callSum) (r Request, ok bool) {
	was, class, ok := c.recall(sum)
	if !ok {
		return r, false
	}
	tokens, err := tokensIn(call.Attributes[was.tokensBegin:was.tokensStop])
	return Request{Pod: was.pod, Class: was.name, Tokens: tokens, Objects: class.objects, Secrets: class.secrets, Warnings: class.warnings}, err == nil
}

func (c *Cache) recall(sum callSum) (was seen, class meaning, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok = c.calls.Get(sum); ok {
		class, ok = c.findLocked(was.class)
	}
	return was, class, ok
}

// see remembers a call without mistakes.
func (c *Cache) see(call Call, sum callSum, r Request, class classSum) {
	if !c.remembers(class) {
		return
	}
	begin, stop := valueIn(call.Attributes, attrTokens)
	size := callSize + len(r.Pod.Namespace) + len(r.Pod.Name) + len(r.Pod.UID) + len(r.Pod.ServiceAccount) + len(r.Class)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls.Add(sum, seen{r.Pod, r.Class, class, begin, stop}, int64(size))
}

func (c *Cache) remembers(class classSum) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.findLocked(class)
	return ok
}

// sum tells calls apart by all that they say.
func (c Call) sum() callSum {
	text := make([]byte, 0, len(c.Dialect)+len(c.Permission)+len(c.Attributes)+3*8)
	return sha256.Sum256(appendParts(text, string(c.Dialect), c.Permission, c.Attributes))
}

// valueIn is the place of the value of a name in a JSON object of texts, the last if there
// are several, as encoding/json takes it; nothing without one.
func valueIn(object, name string) (begin, stop int) {
	decoder := json.NewDecoder(strings.NewReader(object))
	if _, err := decoder.Token(); err != nil { // the brace
		return 0, 0
	}
	for decoder.More() {
		found, err := decoder.Token()
		var value json.RawMessage
		if err != nil || decoder.Decode(&value) != nil {
			return 0, 0
		}
		if found == name {
			stop = int(decoder.InputOffset())
			begin = stop - len(value)
		}
	}
	return begin, stop
}

// tokensIn reads the tokens of an attribute's value as it is in the JSON text.
func tokensIn(value string) (auth.Tokens, error) {
	var text string
	if value != "" {
		if err := json.Unmarshal([]byte(value), &text); err != nil {
			return auth.Tokens{}, errors.New("not a JSON text") // without the token that err may quote
		}
	}
	return auth.ParseTokens(text)
}

// parse remembers a class without mistakes; one with mistakes is parsed again, since
// their text names the pod.
func (c *Cache) parse(s source, m *mistakes, sum classSum, length int) meaning {
	before := m.count()
	parsed := s.parse(c.stores, m)
	// An append copies.
	parsed.objects, parsed.secrets, parsed.warnings = slices.Clip(parsed.objects), slices.Clip(parsed.secrets), slices.Clip(parsed.warnings)
	if m.count() == before {
		c.keep(sum, parsed, length+parsed.size())
	}
	return parsed
}

// canonical is a text unique to the class.
func (s source) canonical() []byte {
	text := appendParts(make([]byte, 0, 1<<10), string(s.dialect), s.namespace, s.permission)
	for _, name := range slices.Sorted(maps.Keys(s.parameters)) {
		text = appendParts(text, name, s.parameters[name])
	}
	return text
}

// appendParts puts each part behind its length, so that different lists make
// different texts.
func appendParts(text []byte, parts ...string) []byte {
	for _, part := range parts {
		text = append(binary.BigEndian.AppendUint64(text, uint64(len(part))), part...)
	}
	return text
}

// size is about the bytes of memory that a class takes besides its text.
func (c meaning) size() int {
	size := secretSize * len(c.secrets)
	for _, o := range c.objects {
		size += objectSize + len(o.Secret.Args) + namedSize*len(o.named)
		if o.Template != nil {
			size += nodeSize * o.Template.Nodes()
		}
	}
	for _, warning := range c.warnings {
		size += len(warning)
	}
	return size
}

func (c *Cache) find(sum classSum) (meaning, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.findLocked(sum)
}

func (c *Cache) findLocked(sum classSum) (class meaning, ok bool) {
	if class, ok = c.known.Get(sum); ok {
		return class, true
	}
	return c.large.Get(sum)
}

func (c *Cache) keep(sum classSum, class meaning, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case size <= maxClassSize:
		c.known.Add(sum, class, int64(size))
	case size <= maxLargeClass:
		c.large.Add(sum, class, int64(size))
	}
}
