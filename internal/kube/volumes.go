package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	api "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/auth"
)

const (
	// volumesPath is the path of the driver's objects, and nodeLabel their label with the
	// node's name. (The driver's package of their types would bring controller-runtime.)
	volumesPath = "/apis/secrets-store.csi.x-k8s.io/v1/secretproviderclasspodstatuses"
	nodeLabel   = "internal.secrets-store.csi.k8s.io/node-name"
	// maxListed bounds a list, in bytes, and maxVolumes the volumes remembered until the next
	// list. A node has some hundred.
	maxListed  = 16 << 20
	maxVolumes = 4096
	// answerLimit ends a request without an answer.
	answerLimit = 30 * time.Second
	// watchLife is the life of a watch, up to twice as long by chance: then it starts anew,
	// so that a connection that died unnoticed is given up.
	watchLife = 5 * time.Minute
	// againFirst and againMost bound the pause before another request to the API server.
	againFirst = time.Second
	againMost  = 30 * time.Second
)

// Volumes watches the volumes that the driver has mounted on this node, and reports those
// that are gone. The driver makes a SecretProviderClassPodStatus for each volume, and the
// cluster removes it with the pod. Volumes that were gone before the watch are not reported.
// It needs the right to list and watch these objects in all namespaces, since rights know no
// labels; it asks for those of its node.
type Volumes struct {
	client *rest.RESTClient
	node   string
	gone   func(v auth.Volume, last bool)

	known   map[string]auth.Volume // by namespace and name of the object
	listed  bool                   // known is complete at version
	version string                 // of the newest known change; empty for any
}

// ClusterVolumes watches in the cluster of this process's pod. node names this node. gone is
// called for each volume that is gone, one at a time, with last for the last one of its pod;
// it must not wait for anything.
func ClusterVolumes(node string, gone func(v auth.Volume, last bool)) (*Volumes, error) {
	config, err := inCluster("watchVolumes")
	if err != nil {
		return nil, err
	}
	return VolumesAt(config, node, gone)
}

// VolumesAt is [ClusterVolumes] for an API server named by config.
func VolumesAt(config *rest.Config, node string, gone func(v auth.Volume, last bool)) (*Volumes, error) {
	if node == "" {
		return nil, errors.New("watchVolumes: which node is this? name it with --node-name or $NODE_NAME")
	}
	client, err := coreClient(config, 0) // no limit, because a watch lasts
	if err != nil {
		return nil, err
	}
	return &Volumes{client: client, node: node, gone: gone, known: map[string]auth.Volume{}}, nil
}

// Run watches until ctx ends. While the API server refuses, it tries again and again, and
// logs the start and the end of such a time. Volumes gone meanwhile are reported afterwards.
func (w *Volumes) Run(ctx context.Context, log *slog.Logger) {
	lost, pause := false, againFirst
	watching := func() {
		if lost {
			log.LogAttrs(ctx, slog.LevelInfo, "volumes are watched again")
		}
		lost = false
	}
	for {
		began := time.Now()
		err := w.follow(ctx, watching)
		if err != nil && !lost && ctx.Err() == nil {
			lost = true
			log.LogAttrs(ctx, slog.LevelWarn, "volumes are not watched: credentials of pods that go are given back later, or expire",
				slog.String("error", err.Error()))
		}
		if time.Since(began) > againMost {
			pause = againFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)): //nolint:gosec // a jitter needs no unguessable numbers
		}
		pause = min(2*pause, againMost)
	}
}

// follow lists the volumes, unless the version to watch from is known, and watches them until
// the watch ends, which is no error.
func (w *Volumes) follow(ctx context.Context, watching func()) error {
	if !w.listed {
		if err := w.list(ctx); err != nil {
			return explained("list", err)
		}
	}
	return explained("watch", w.watch(ctx, watching))
}

// explained adds the cure for a missing right.
func explained(tried string, err error) error {
	if err == nil {
		return nil
	}
	if api.IsForbidden(err) {
		err = fmt.Errorf("%w; the chart grants it with watchVolumes.enabled", err)
	}
	return fmt.Errorf("%s the driver's SecretProviderClassPodStatus: %w", tried, err)
}

func (w *Volumes) request() *rest.Request {
	return w.client.Get().AbsPath(volumesPath).Param("labelSelector", nodeLabel+"="+w.node).MaxRetries(0) // Run has its own pauses
}

// podStatus is the part of a SecretProviderClassPodStatus in use here.
type podStatus struct {
	Metadata struct {
		Namespace, Name, ResourceVersion string

		OwnerReferences []struct{ APIVersion, Kind, UID string }
	}
	Status struct{ SecretProviderClassName string }
}

func (s podStatus) key() string { return s.Metadata.Namespace + "/" + s.Metadata.Name }

// volume is false for an object without a pod as owner.
func (s podStatus) volume() (auth.Volume, bool) {
	for _, owner := range s.Metadata.OwnerReferences {
		if owner.APIVersion == "v1" && owner.Kind == "Pod" {
			return auth.Volume{Namespace: s.Metadata.Namespace, PodUID: owner.UID, Class: s.Status.SecretProviderClassName}, true
		}
	}
	return auth.Volume{}, false
}

// list stores the present volumes, and reports those missing since. Any API server as new as
// the last one will do; when there is none, or nothing is known, it has to be the newest, or
// new volumes would seem to be gone.
func (w *Volumes) list(ctx context.Context) error {
	request := w.request()
	if w.version != "" {
		request.Param("resourceVersion", w.version).Param("resourceVersionMatch", string(meta.ResourceVersionMatchNotOlderThan))
	}
	w.version = ""
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	stream, err := request.Stream(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // only read
	var found struct {
		Metadata struct{ ResourceVersion string }
		Items    []podStatus
	}
	if err := json.NewDecoder(io.LimitReader(stream, maxListed)).Decode(&found); err != nil {
		return fmt.Errorf("read at most %d bytes: %w", maxListed, err)
	}
	before := w.known
	w.known, w.version, w.listed = map[string]auth.Volume{}, found.Metadata.ResourceVersion, true
	for _, one := range found.Items {
		if v, owned := one.volume(); owned {
			w.known[one.key()] = v
		}
	}
	for key, v := range before {
		if w.known[key] != v {
			w.tell(v)
		}
	}
	return nil
}

// watch applies changes until the stream ends. It calls watching once the stream is open.
func (w *Volumes) watch(ctx context.Context, watching func()) error {
	life := watchLife + rand.N(watchLife) //nolint:gosec // a jitter needs no unguessable numbers
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	end := time.AfterFunc(answerLimit, func() { cancel(errors.New("no answer in time")) })
	defer end.Stop()
	stream, err := w.request().Param("watch", "true").Param("allowWatchBookmarks", "true").Param("resourceVersion", w.version).
		Param("timeoutSeconds", strconv.Itoa(int(life.Seconds()))).Stream(ctx)
	if late := context.Cause(ctx); err != nil && late != nil {
		err = late
	}
	if err != nil {
		return w.unlessExpired(err)
	}
	defer func() { _ = stream.Close() }() // only read
	end.Reset(life + answerLimit)
	watching()
	for changes := json.NewDecoder(stream); ; {
		var one change
		if err := changes.Decode(&one); err != nil {
			return nil // the next watch goes on from here
		}
		if err := w.take(one); err != nil {
			w.listed = false
			return w.unlessExpired(err)
		}
	}
}

// unlessExpired has everything listed anew where the API server has forgotten the changes
// since version, as it may.
func (w *Volumes) unlessExpired(err error) error {
	if api.IsResourceExpired(err) || api.IsGone(err) {
		w.listed = false
		return nil
	}
	return err
}

// change is a line of a watch.
type change struct {
	Type   watch.EventType
	Object json.RawMessage
}

func (w *Volumes) take(c change) error {
	if c.Type == watch.Error {
		var status meta.Status
		if err := json.Unmarshal(c.Object, &status); err != nil {
			return fmt.Errorf("read an error: %w", err)
		}
		return api.FromObject(&status)
	}
	var one podStatus
	if err := json.Unmarshal(c.Object, &one); err != nil {
		return fmt.Errorf("read a change: %w", err)
	}
	w.version = one.Metadata.ResourceVersion
	switch c.Type {
	case watch.Added, watch.Modified:
		w.learn(one)
	case watch.Deleted: // also when the object becomes another node's
		if v, known := w.known[one.key()]; known {
			delete(w.known, one.key())
			w.tell(v)
		}
	case watch.Bookmark, watch.Error: // only the version is news
	}
	return nil
}

// learn stores a volume. A pod that returns under its old name may take over the object of
// its predecessor.
func (w *Volumes) learn(one podStatus) {
	v, owned := one.volume()
	before, known := w.known[one.key()]
	if !owned || (!known && len(w.known) >= maxVolumes) {
		return
	}
	w.known[one.key()] = v
	if known && before != v {
		w.tell(before)
	}
}

// tell reports a volume that is gone and no longer in known.
func (w *Volumes) tell(v auth.Volume) {
	last := true
	for _, other := range w.known {
		last = last && (other.Namespace != v.Namespace || other.PodUID != v.PodUID)
	}
	w.gone(v, last)
}
