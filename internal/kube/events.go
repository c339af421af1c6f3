package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/auth"
)

const (
	// waitingEvents bounds the queue of events for the API server; more are dropped.
	waitingEvents = 256
	// dropsEvery is the least time between two log lines about dropped events.
	dropsEvery = time.Minute
	// stopLimit is the time to write the queued events at the stop.
	stopLimit = time.Second
	// maxEventMessage and maxEventName are the limits of the API server.
	maxEventMessage = 1024
	maxEventName    = 253
	// quiet is how long a repeated message is only counted.
	quiet = 5 * time.Minute
	// pace is how long every message is only counted after a change of the event: a message
	// with a port or a time differs every time.
	pace = time.Minute
	// maxTopics bounds the remembered topics.
	maxTopics = 4096
)

// Events writes events onto pods, where `kubectl describe pod` shows them. It needs the right
// to create and patch events. Repeated events are counted in one object, sent every five
// minutes, or every minute if the messages differ. (client-go's recorder does the same with
// strategic merge patches, whose schema reader would bring fifteen modules into the program.)
type Events struct {
	client  *rest.RESTClient
	node    string
	now     func() time.Time
	queue   chan event
	dropped atomic.Int64 // not logged yet
	lost    atomic.Uint64
}

type event struct {
	pod                          auth.Pod
	class, kind, reason, message string
}

// ClusterEvents writes to the cluster of this process's pod. node names this node, and may be
// empty.
func ClusterEvents(node string, now func() time.Time) (*Events, error) {
	config, err := inCluster("events")
	if err != nil {
		return nil, err
	}
	return EventsTo(config, node, now)
}

// EventsTo is [ClusterEvents] for an API server named by config.
func EventsTo(config *rest.Config, node string, now func() time.Time) (*Events, error) {
	client, err := coreClient(config, requestLimit)
	if err != nil {
		return nil, err
	}
	return &Events{client: client, node: node, now: now, queue: make(chan event, waitingEvents)}, nil
}

// Warning tells the pod's owner about a fault to mend in a class of a pod. It never waits:
// without a Run, or with an API server that does not keep up, events are dropped, and Run
// logs how many.
func (e *Events) Warning(pod auth.Pod, class, reason, message string) {
	e.put(event{pod, class, "Warning", reason, message})
}

// Normal reports a success.
func (e *Events) Normal(pod auth.Pod, class, reason, message string) {
	e.put(event{pod, class, "Normal", reason, message})
}

func (e *Events) put(one event) {
	select {
	case e.queue <- one:
	default:
		e.drop(1)
	}
}

func (e *Events) drop(count int) {
	e.dropped.Add(int64(count))
	e.lost.Add(uint64(count)) //nolint:gosec // G115: it is no less than 0
}

// Dropped counts the events that were not written.
func (e *Events) Dropped() uint64 { return e.lost.Load() }

// Run writes events until ctx ends, and then the queued ones, for two seconds at most. It
// logs and drops events that it cannot write.
func (e *Events) Run(ctx context.Context, log *slog.Logger) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopLimit, cancel) })()
	drops := time.NewTicker(dropsEvery)
	defer drops.Stop()
	written := map[topic]record{}
	for {
		select {
		case <-ctx.Done():
			e.finish(late, log, written)
			return
		case <-drops.C:
			e.tellDrops(late, log)
		case one := <-e.queue:
			e.handle(late, log, written, one)
		}
	}
}

// finish writes the queued events, until ctx ends.
func (e *Events) finish(ctx context.Context, log *slog.Logger, written map[topic]record) {
	for len(e.queue) > 0 && ctx.Err() == nil {
		e.handle(ctx, log, written, <-e.queue)
	}
	e.drop(len(e.queue))
	e.tellDrops(ctx, log)
}

func (e *Events) tellDrops(ctx context.Context, log *slog.Logger) {
	if dropped := e.dropped.Swap(0); dropped > 0 {
		log.LogAttrs(ctx, slog.LevelWarn, "events were dropped: the API server does not keep up", slog.Int64("dropped", dropped))
	}
}

func (e *Events) handle(ctx context.Context, log *slog.Logger, written map[topic]record, one event) {
	err := e.write(ctx, written, one)
	switch {
	case err == nil:
	case ctx.Err() != nil: // the stop cut it off
		e.drop(1)
	default:
		log.LogAttrs(ctx, slog.LevelWarn, "an event could not be written", slog.String("reason", one.reason),
			slog.String("namespace", one.pod.Namespace), slog.String("pod", one.pod.Name), slog.String("class", one.class),
			slog.String("error", err.Error()))
	}
}

// topic identifies one event object: a class is a volume of the pod, and each fails for
// itself.
type topic struct{ uid, class, reason string }

// record is a written event object.
type record struct {
	name    string
	count   int32
	message string
	at      time.Time
	patched time.Time // the last try; zero for none
}

// news tells whether now is worth a request after r: a new message at once, unless messages
// come in a stream, and the same message after a while.
func (r record) news(now record) bool {
	if now.at.Sub(r.patched) < pace {
		return false
	}
	return now.message != r.message || now.at.Sub(r.at) >= quiet
}

// write makes an event of the first of a topic and counts the others in it.
func (e *Events) write(ctx context.Context, written map[topic]record, one event) error {
	key := topic{one.pod.UID, one.class, one.reason}
	last, known := written[key]
	now := record{name: last.name, count: last.count + 1, message: cutMessage(one.message), at: e.now(), patched: last.patched}
	last.count = now.count
	if known && !last.news(now) {
		written[key] = last
		return nil
	}
	if !known && len(written) >= maxTopics {
		clear(written) // the next ones become new objects, which does no harm
	}
	var err error
	if known {
		now.patched, last.patched = now.at, now.at
		written[key] = last // in case the patch fails
		err = e.patch(ctx, one.pod.Namespace, now)
	}
	if !known || errors.IsNotFound(err) { // the API server keeps events for an hour
		now.name = eventName(one.pod.Name, now.at)
		err = e.create(ctx, one, now)
	}
	if err == nil {
		written[key] = now
	}
	return err
}

// eventName is client-go's name for an event of a pod, whose own name may already have the
// full length. Each part of a name between dots ends in a letter or a digit.
func eventName(pod string, at time.Time) string {
	suffix := fmt.Sprintf(".%x", at.UnixNano())
	if most := maxEventName - len(suffix); len(pod) > most {
		pod = strings.TrimRight(pod[:most], "-.")
	}
	return pod + suffix
}

func (e *Events) create(ctx context.Context, one event, r record) error {
	at := meta.NewTime(r.at)
	err := create(ctx, e.client, one.pod.Namespace, "events", map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata": map[string]any{"namespace": one.pod.Namespace, "name": r.name},
		"involvedObject": map[string]any{
			"apiVersion": "v1", "kind": "Pod", "namespace": one.pod.Namespace, "name": one.pod.Name, "uid": one.pod.UID,
		},
		"type": one.kind, "reason": one.reason, "message": r.message, "count": r.count,
		"firstTimestamp": at, "lastTimestamp": at,
		"source":             map[string]any{"component": component, "host": e.node},
		"reportingComponent": component, "reportingInstance": e.node,
	})
	if err != nil {
		return fmt.Errorf("create an event: %w", err)
	}
	return nil
}

func (e *Events) patch(ctx context.Context, namespace string, r record) error {
	patch, err := json.Marshal(map[string]any{"count": r.count, "message": r.message, "lastTimestamp": meta.NewTime(r.at)})
	if err != nil {
		return fmt.Errorf("write the change of an event: %w", err)
	}
	err = e.client.Patch(types.MergePatchType).Namespace(namespace).Resource("events").Name(r.name).Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("count an event: %w", err)
	}
	return nil
}

func cutMessage(text string) string {
	const more = " ..."
	if len(text) <= maxEventMessage {
		return text
	}
	end := maxEventMessage - len(more)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.TrimSpace(text[:end]) + more
}
