package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/observe"
)

// Readiness is that of a node.
type Readiness struct{ readiness }

// NewReadiness begins now.
func NewReadiness(bound time.Duration, events observe.EventWriter, pod auth.Pod, log *slog.Logger) *Readiness {
	return &Readiness{readiness{bound: bound, began: time.Now(), events: events, pod: pod, log: log}}
}

// Watch asks a store again and again, once what it returns is run.
func (r *Readiness) Watch(name string, probe func(context.Context) error) func(context.Context) error {
	return r.watch(name, probe).run
}

// Ready tells how things stand.
func (r *Readiness) Ready() bool { return r.ready() }
