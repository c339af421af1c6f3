package queue

import (
	"context"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
)

// Places are those of a queue, taken and given back one by one.
type Places struct{ *Queue }

// NewPlaces makes a queue.
func NewPlaces(places int) Places { return Places{New(places)} }

// Enter waits for a place as a request of a namespace.
func (p Places) Enter(ctx context.Context, namespace string, waiting bool) error {
	return p.enter(ctx, login.Request{Identity: auth.Identity{Namespace: namespace}, Waiting: waiting})
}

// Leave gives it back.
func (p Places) Leave(namespace string) { p.leave(namespace) }

// Left is how many places are free, and how many namespaces hold some.
func (p Places) Left() (free, namespaces int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.free, len(p.held)
}

// Waiting is how many requests wait.
func Waiting(p Places) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.high.length + p.low.length
}
