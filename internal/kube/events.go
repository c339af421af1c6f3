package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/auth"
)

const (
	// waitingEvents is how many events may wait for the API server; more are dropped.
	waitingEvents = 256
	// maxEventMessage is what the API server takes of a message.
	maxEventMessage = 1024
	// quiet is how long a message that says nothing new is only counted.
	quiet = 5 * time.Minute
	// maxTopics bounds what is remembered of events.
	maxTopics = 4096
	component = "keymount"
)

// Events writes events onto pods, where `kubectl describe pod` shows them. It
// needs the right to create and patch events. Repeated ones are counted in one
// object, and what is said again and again is sent every five minutes.
// (client-go's recorder does the same with strategic merge patches, whose schema
// reader would bring fifteen modules into the program.)
type Events struct {
	client *rest.RESTClient
	node   string
	now    func() time.Time
	queue  chan event
}

type event struct {
	pod                   auth.Pod
	kind, reason, message string
}

// ClusterEvents writes to the cluster that this process is a pod of. node names
// this node, and may be empty.
func ClusterEvents(node string, now func() time.Time) (*Events, error) {
	config, err := inCluster("events")
	if err != nil {
		return nil, err
	}
	return EventsTo(config, node, now)
}

// EventsTo is [ClusterEvents] for an API server named by config.
func EventsTo(config *rest.Config, node string, now func() time.Time) (*Events, error) {
	client, err := coreClient(config)
	if err != nil {
		return nil, err
	}
	return &Events{client: client, node: node, now: now, queue: make(chan event, waitingEvents)}, nil
}

// Warning tells of something that the pod's owner should mend. It never waits:
// without a Run, or with an API server that does not keep up, events are dropped.
func (e *Events) Warning(pod auth.Pod, reason, message string) {
	e.put(event{pod, core.EventTypeWarning, reason, message})
}

// Normal tells of something that went well.
func (e *Events) Normal(pod auth.Pod, reason, message string) {
	e.put(event{pod, core.EventTypeNormal, reason, message})
}

func (e *Events) put(one event) {
	select {
	case e.queue <- one:
	default:
	}
}

// Run writes events until ctx ends; what it cannot write it logs and forgets.
func (e *Events) Run(ctx context.Context, log *slog.Logger) {
	written := map[topic]record{}
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-e.queue:
			if err := e.write(ctx, written, one); err != nil && ctx.Err() == nil {
				log.LogAttrs(ctx, slog.LevelWarn, "an event could not be written", slog.String("reason", one.reason),
					slog.String("namespace", one.pod.Namespace), slog.String("pod", one.pod.Name), slog.String("error", err.Error()))
			}
		}
	}
}

// topic is what one event object tells of, again and again.
type topic struct{ uid, reason string }

// record is an event object that was written.
type record struct {
	name    string
	count   int32
	message string
	at      time.Time
}

// write makes an event of the first of a topic and counts the others in it. A
// message that is the same as a moment ago is not worth a request.
func (e *Events) write(ctx context.Context, written map[topic]record, one event) error {
	key := topic{one.pod.UID, one.reason}
	last, known := written[key]
	now := record{name: last.name, count: last.count + 1, message: cutMessage(one.message), at: e.now()}
	if known && last.message == now.message && now.at.Sub(last.at) < quiet {
		last.count = now.count
		written[key] = last
		return nil
	}
	if !known && len(written) >= maxTopics {
		clear(written) // the next ones become new objects, which is no harm
	}
	var err error
	if known {
		err = e.patch(ctx, one.pod.Namespace, now)
	}
	if !known || errors.IsNotFound(err) { // the API server keeps events for an hour
		now.name = fmt.Sprintf("%s.%x", one.pod.Name, now.at.UnixNano())
		err = e.create(ctx, one, now)
	}
	if err == nil {
		written[key] = now
	}
	return err
}

func (e *Events) create(ctx context.Context, one event, r record) error {
	at := meta.NewTime(r.at)
	err := e.client.Post().Namespace(one.pod.Namespace).Resource("events").Body(&core.Event{
		ObjectMeta: meta.ObjectMeta{Namespace: one.pod.Namespace, Name: r.name},
		InvolvedObject: core.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: one.pod.Namespace, Name: one.pod.Name, UID: types.UID(one.pod.UID),
		},
		Type: one.kind, Reason: one.reason, Message: r.message, Count: r.count,
		FirstTimestamp: at, LastTimestamp: at,
		Source: core.EventSource{Component: component, Host: e.node}, ReportingController: component, ReportingInstance: e.node,
	}).Do(ctx).Error()
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

// inCluster is how the pod that this process runs in reaches the API server.
// setting is the line of keymount.yaml that wants it.
func inCluster(setting string) (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("%s: works only in a pod: %w", setting, err)
	}
	return config, nil
}
