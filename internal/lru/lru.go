// Package lru is a cache of the most recently used values, bounded in number and in total
// weight.
package lru

import "container/list"

// Cache maps keys to values, and evicts the least recently used entries when there are too
// many or they weigh too much. It is not safe for concurrent use: its owner has the lock,
// which can span several calls.
type Cache[K comparable, V any] struct {
	maxEntries int
	maxWeight  int64
	weight     int64
	entries    map[K]*list.Element // of *entry[K, V]
	order      list.List           // the most recently used first
}

type entry[K comparable, V any] struct {
	key    K
	value  V
	weight int64
}

// New makes a Cache of at most maxEntries, with a total weight of at most maxWeight, in the
// unit of Add; entries without weight are bounded by number alone.
func New[K comparable, V any](maxEntries int, maxWeight int64) *Cache[K, V] {
	return &Cache[K, V]{maxEntries: maxEntries, maxWeight: maxWeight, entries: map[K]*list.Element{}}
}

// Get returns the value of key, and counts as a use.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	element := c.entries[key]
	if element == nil {
		return value, false
	}
	c.order.MoveToFront(element)
	return of[K, V](element).value, true
}

// Peek is Get without counting as a use.
func (c *Cache[K, V]) Peek(key K) (value V, ok bool) {
	element := c.entries[key]
	if element == nil {
		return value, false
	}
	return of[K, V](element).value, true
}

// Add stores an entry, in place of one with the same key, and evicts others until the bounds
// hold. An entry heavier than maxWeight is not stored, and evicts no other.
func (c *Cache[K, V]) Add(key K, value V, weight int64) {
	element := c.entries[key]
	switch {
	case weight > c.maxWeight:
		c.remove(element)
		return
	case element == nil:
		element = c.order.PushFront(&entry[K, V]{key: key})
		c.entries[key] = element
	default:
		c.order.MoveToFront(element)
	}
	e := of[K, V](element)
	c.weight += weight - e.weight
	e.value, e.weight = value, weight
	for len(c.entries) > c.maxEntries || c.weight > c.maxWeight {
		c.remove(c.order.Back())
	}
}

// RemoveFunc removes the entries for which drop is true.
func (c *Cache[K, V]) RemoveFunc(drop func(K, V) bool) {
	for _, element := range c.entries {
		if e := of[K, V](element); drop(e.key, e.value) {
			c.remove(element)
		}
	}
}

// Len is the number of entries.
func (c *Cache[K, V]) Len() int { return len(c.entries) }

// Weight is the total weight of the entries.
func (c *Cache[K, V]) Weight() int64 { return c.weight }

func (c *Cache[K, V]) remove(element *list.Element) {
	if element == nil {
		return
	}
	e := of[K, V](element)
	c.order.Remove(element)
	delete(c.entries, e.key)
	c.weight -= e.weight
}

func of[K comparable, V any](element *list.Element) *entry[K, V] {
	e, _ := element.Value.(*entry[K, V])
	return e
}
