package kube_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/kube"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const selector = "internal.secrets-store.csi.k8s.io/node-name="

// mounted is what the driver writes of a volume.
type mounted struct{ Node, Namespace, Pod, UID, Class string }

func (m mounted) key() string { return m.Namespace + "/" + m.Pod + "-" + m.Namespace + "-" + m.Class }

// json is the object as the API server has it; owner is the kind of whom it belongs to.
func (m mounted) json(version int) string {
	_, name, _ := strings.Cut(m.key(), "/")
	owners := ""
	if m.UID != "" {
		owners = fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Pod","uid":"no-pod"},{"apiVersion":"v1","kind":"Pod","name":%q,"uid":%q}`, m.Pod, m.UID)
	}
	return fmt.Sprintf(`{"apiVersion":"secrets-store.csi.x-k8s.io/v1","kind":"SecretProviderClassPodStatus",`+
		`"metadata":{"name":%q,"namespace":%q,"uid":"of-the-object","resourceVersion":"%d","labels":{%q:%q},"ownerReferences":[%s]},`+
		`"status":{"mounted":true,"podName":%q,"secretProviderClassName":%q,"objects":[{"id":"db","version":"1"}]}}`,
		name, m.Namespace, version, strings.TrimSuffix(selector, "="), m.Node, owners, m.Pod, m.Class)
}

// statuses is an API server with the driver's objects, in memory.
type statuses struct {
	mu      sync.Mutex
	version int
	oldest  int                // changes up to then are forgotten
	objects map[string]mounted // by namespace and name
	changes []line
	streams map[chan string]string // and the node that each is of
	refuse  func(*http.Request) (*http.Response, error)
	asked   []string // what and from where
}

// line is a change as a watch tells it.
type line struct {
	node, text string
	version    int
}

func newStatuses(there ...mounted) *statuses {
	s := &statuses{version: 100, oldest: 50, objects: map[string]mounted{}, streams: map[chan string]string{}}
	for _, m := range there {
		s.objects[m.key()] = m
	}
	return s
}

// put makes or changes an object, and remove removes one.
func (s *statuses) put(m mounted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, changed := s.objects[m.key()]
	s.objects[m.key()] = m
	if changed && before.Node != m.Node {
		s.tellLocked("DELETED", before)
		changed = false
	}
	s.tellLocked(map[bool]string{true: "MODIFIED", false: "ADDED"}[changed], m)
}

func (s *statuses) remove(m mounted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.objects[m.key()]
	delete(s.objects, m.key())
	s.tellLocked("DELETED", gone)
}

func (s *statuses) tellLocked(kind string, m mounted) {
	s.version++
	one := line{m.Node, fmt.Sprintf(`{"type":%q,"object":%s}`, kind, m.json(s.version)), s.version}
	s.changes = append(s.changes, one)
	s.sendLocked(one)
}

func (s *statuses) sendLocked(one line) {
	for stream, node := range s.streams {
		if node == one.node {
			stream <- one.text + "\n"
		}
	}
}

// bookmark tells a node which version it has, without a change.
func (s *statuses) bookmark(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version += 10
	s.sendLocked(line{node, fmt.Sprintf(`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"%d"}}}`, s.version), s.version})
}

// cut ends all watches, the last of them with some text.
func (s *statuses) cut(last string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := range s.streams {
		stream <- last
		close(stream)
	}
	clear(s.streams)
}

// answer has requests refused by f, or not any more if it is nil.
func (s *statuses) answer(f func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

// forget has changes up to now forgotten.
func (s *statuses) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldest = s.version
}

// take are the requests since the last time.
func (s *statuses) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.asked
	s.asked = nil
	return taken
}

func respond(code int, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
}

// refused is a failure as the API server tells it.
func refused(code int, reason, message string) *http.Response {
	return respond(code, io.NopCloser(strings.NewReader(failure(code, reason, message))))
}

func failure(code int, reason, message string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"message":%q,"code":%d}`, reason, message, code)
}

// RoundTrip takes no request but lists and watches of one node.
func (s *statuses) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	node, ofNode := strings.CutPrefix(q.Get("labelSelector"), selector)
	if r.Method != http.MethodGet || r.URL.Path != "/apis/secrets-store.csi.x-k8s.io/v1/secretproviderclasspodstatuses" || !ofNode {
		return nil, fmt.Errorf("asked %s %s", r.Method, r.URL)
	}
	what := map[string]string{"": "list", "true": "watch"}[q.Get("watch")]
	if refuse := s.note(what + " " + q.Get("resourceVersionMatch") + " " + q.Get("resourceVersion")); refuse != nil {
		return refuse(r)
	}
	if what == "list" {
		return s.list(node), nil
	}
	if q.Get("allowWatchBookmarks") != "true" || q.Get("timeoutSeconds") == "" {
		return nil, fmt.Errorf("asked for an endless watch without bookmarks: %s", r.URL)
	}
	return s.watch(r.Context(), node, q.Get("resourceVersion"))
}

// note remembers what is asked, and says who answers in the place of s.
func (s *statuses) note(asked string) func(*http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, strings.Join(strings.Fields(asked), " "))
	return s.refuse
}

func (s *statuses) list(node string) *http.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	var items []string
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if m := s.objects[key]; m.Node == node {
			items = append(items, m.json(s.version))
		}
	}
	body := fmt.Sprintf(`{"apiVersion":"secrets-store.csi.x-k8s.io/v1","items":[%s],"kind":"SecretProviderClassPodStatusList",`+
		`"metadata":{"continue":"","resourceVersion":"%d"}}`, strings.Join(items, ","), s.version)
	return respond(http.StatusOK, io.NopCloser(strings.NewReader(body)))
}

func (s *statuses) watch(ctx context.Context, node, from string) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, err := strconv.Atoi(from)
	if err != nil {
		return nil, err
	}
	if since < s.oldest {
		return refused(http.StatusGone, "Expired", "too old resource version"), nil
	}
	stream := make(chan string, 1000)
	for _, one := range s.changes {
		if one.version > since && one.node == node {
			stream <- one.text + "\n"
		}
	}
	s.streams[stream] = node
	body, in := io.Pipe()
	go func() {
		defer in.Close() //nolint:errcheck // a pipe's has no error
		for {
			select {
			case text, more := <-stream:
				if _, err := io.WriteString(in, text); !more || err != nil {
					return
				}
			case <-ctx.Done():
				s.mu.Lock()
				delete(s.streams, stream)
				s.mu.Unlock()
				return
			}
		}
	}()
	return respond(http.StatusOK, body), nil
}

// gone is what the watch has told.
type gone struct {
	auth.Volume
	Last bool
}

// told are those that have left so far, in order.
type told struct {
	mu  sync.Mutex
	all []gone
}

func (o *told) left(v auth.Volume, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, gone{v, last})
}

// expect waits until nothing happens any more, and wants these to have left since the
// last time.
func (o *told) expect(t *testing.T, want ...gone) {
	t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if diff := cmp.Diff(want, o.all); diff != "" {
		t.Errorf("gone (-want +got)\n%s", diff)
	}
	o.all = nil
}

func of(m mounted, last bool) gone {
	return gone{auth.Volume{Namespace: m.Namespace, PodUID: m.UID, Class: m.Class}, last}
}

// watched runs a watch for node-1 until the test's story has ended, and returns its log
// without times.
func watched(t *testing.T, s *statuses, story func(*told)) []string {
	t.Helper()
	o := &told{}
	volumes, err := kube.VolumesAt(&rest.Config{Host: "http://api.invalid", Transport: s, QPS: -1}, "node-1", o.left)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { volumes.Run(ctx, log); close(ended) }()
	synctest.Wait()
	story(o)
	cancel()
	<-ended
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}

// quiet wants an empty log.
func quiet(t *testing.T, log []string) {
	t.Helper()
	if diff := cmp.Diff([]string{""}, log); diff != "" {
		t.Errorf("log (-want +got)\n%s", diff)
	}
}
