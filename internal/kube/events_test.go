package kube_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/kube"
)

// request is one request to the API server.
type request struct {
	Method, Path, Type string
	Body               map[string]any
	At                 time.Time
}

// apiServer keeps what it is asked and answers with a code, in memory: synctest
// cannot wait for a real connection.
type apiServer struct {
	mu       sync.Mutex
	codes    []int         // of the next answers; then 201
	hold     chan struct{} // what answers wait for; nil for nothing
	requests []request
}

func (a *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	one := request{Method: r.Method, Path: r.URL.Path, Type: r.Header.Get("Content-Type"), At: time.Now()}
	if err := json.Unmarshal(body, &one.Body); err != nil {
		return nil, err
	}
	if r.Method == http.MethodPost { // of nothing but what an event has
		strict := json.NewDecoder(bytes.NewReader(body))
		strict.DisallowUnknownFields()
		if err := strict.Decode(new(core.Event)); err != nil {
			return nil, err
		}
	}
	code, hold := a.add(one)
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	answer := httptest.NewRecorder()
	answer.Header().Set("Content-Type", "application/json")
	answer.WriteHeader(code)
	if code == http.StatusNotFound {
		_, _ = answer.WriteString(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	} else {
		_, _ = answer.WriteString(`{"kind":"Event","apiVersion":"v1"}`)
	}
	return answer.Result(), nil
}

// add notes a request and says how to answer it.
func (a *apiServer) add(one request) (code int, hold chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, one)
	code = http.StatusCreated
	if len(a.codes) > 0 {
		code, a.codes = a.codes[0], a.codes[1:]
	}
	return code, a.hold
}

func (a *apiServer) take() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.requests
	a.requests = nil
	return taken
}

// block makes answers wait for answer.
func (a *apiServer) block() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold = make(chan struct{})
}

func (a *apiServer) answer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.hold)
	a.hold = nil
}

// write runs events until the test's story has ended, and returns their log.
func write(t *testing.T, server *apiServer, story func(*kube.Events)) (log string) {
	t.Helper()
	// Without a limit of requests per second: they are counted here.
	events, err := kube.EventsTo(&rest.Config{Host: "http://api.invalid", Transport: server, QPS: -1}, "node-1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var text strings.Builder
	go func() { events.Run(ctx, slog.New(slog.NewTextHandler(&text, nil))); close(ended) }()
	story(events)
	cancel()
	<-ended
	return text.String()
}

var api0 = auth.Pod{Namespace: "shop", Name: "api-0", UID: "uid-1", ServiceAccount: "api"}

// What is said again is counted in one object, at most every five minutes.
func TestEventsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{}
		write(t, server, func(events *kube.Events) {
			events.Warning(api0, "app", "SecretRotationFailed", "denied")
			synctest.Wait()
			first := server.take()
			if len(first) != 1 || first[0].Method != http.MethodPost || first[0].Path != "/api/v1/namespaces/shop/events" {
				t.Fatalf("got %+v", first)
			}
			involved, _ := first[0].Body["involvedObject"].(map[string]any)
			if involved["kind"] != "Pod" || involved["name"] != "api-0" || involved["uid"] != "uid-1" ||
				first[0].Body["type"] != "Warning" || first[0].Body["message"] != "denied" || first[0].Body["reason"] != "SecretRotationFailed" {
				t.Errorf("got %v", first[0].Body)
			}
			for range 4 {
				<-time.After(time.Minute)
				events.Warning(api0, "app", "SecretRotationFailed", "denied")
			}
			synctest.Wait()
			if again := server.take(); len(again) != 0 {
				t.Errorf("the same is sent again: %+v", again)
			}
			<-time.After(time.Minute)
			events.Warning(api0, "app", "SecretRotationFailed", "denied")
			synctest.Wait()
			later := server.take()
			if len(later) != 1 || later[0].Method != http.MethodPatch || later[0].Body["count"] != float64(6) ||
				!strings.HasPrefix(later[0].Path, "/api/v1/namespaces/shop/events/api-0.") || later[0].Type != "application/merge-patch+json" {
				t.Errorf("got %+v", later)
			}
		})
	})
}

// Another message is news at once; an event that the API server has forgotten is
// made again.
func TestEventsTellNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{codes: []int{http.StatusCreated, http.StatusNotFound}}
		write(t, server, func(events *kube.Events) {
			events.Warning(api0, "app", "SecretRotationFailed", "denied")
			events.Warning(api0, "app", "SecretRotationFailed", "sealed")
			synctest.Wait()
			var methods []string
			for _, r := range server.take() {
				methods = append(methods, r.Method)
			}
			if got := strings.Join(methods, " "); got != "POST PATCH POST" {
				t.Errorf("got %s", got)
			}
		})
	})
}

// An API server that cannot be reached costs the events, and nothing else waits.
func TestEventsNeverWait(t *testing.T) {
	events, err := kube.EventsTo(&rest.Config{Host: "http://api.invalid"}, "", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		events.Normal(api0, "app", "SecretMountRecovered", "nobody runs")
	}
}

// A message is cut to what the API server takes, between two characters.
func TestEventMessageIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{}
		write(t, server, func(events *kube.Events) {
			events.Warning(api0, "app", "SecretMountFailed", strings.Repeat("ü", 2000))
			synctest.Wait()
			sent := server.take()
			if len(sent) != 1 {
				t.Fatalf("got %+v", sent)
			}
			message, _ := sent[0].Body["message"].(string)
			if len(message) > 1024 || !strings.HasSuffix(message, "ü ...") || strings.Contains(message, "\uFFFD") {
				t.Errorf("%d bytes ending in %q", len(message), message[len(message)-10:])
			}
		})
	})
}

// Each volume of a pod fails for itself, and has an event of its own.
func TestEventsOfTwoClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{}
		write(t, server, func(events *kube.Events) {
			for range 3 {
				events.Warning(api0, "app", "SecretMountFailed", "class app: denied")
				events.Warning(api0, "tls", "SecretMountFailed", "class tls: sealed")
			}
			synctest.Wait()
			var got []string
			for _, r := range server.take() {
				text, _ := r.Body["message"].(string)
				got = append(got, r.Method+" "+text)
			}
			if diff := cmp.Diff([]string{"POST class app: denied", "POST class tls: sealed"}, got); diff != "" {
				t.Errorf("requests (-want +got)\n%s", diff)
			}
		})
	})
}

// Words that are new each time cost a request per minute, also where it fails.
func TestEventsInAStream(t *testing.T) {
	for name, codes := range map[string][]int{
		"written": nil,
		"refused": append([]int{http.StatusCreated}, slices.Repeat([]int{http.StatusInternalServerError}, 100)...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &apiServer{codes: codes}
				write(t, server, func(events *kube.Events) {
					for port := range 61 {
						events.Warning(api0, "app", "SecretMountFailed", fmt.Sprintf("read tcp 10.0.0.1:%d: connection reset", 40_000+port))
						<-time.After(10 * time.Second)
					}
					sent := server.take()
					if len(sent) != 11 || sent[0].Method != http.MethodPost {
						t.Fatalf("%d requests in 10 minutes: %+v", len(sent), sent)
					}
					for i, r := range sent[2:] {
						if gap := r.At.Sub(sent[i+1].At); r.Method != http.MethodPatch || gap < time.Minute {
							t.Errorf("%s after %s", r.Method, gap)
						}
					}
					if last := sent[10].Body; last["count"] != float64(56) || last["message"] != "read tcp 10.0.0.1:40055: connection reset" {
						t.Errorf("the last one is %v", last)
					}
				})
			})
		})
	}
}

// The API server takes names of 253 characters, and a pod's may be as long.
func TestEventNames(t *testing.T) {
	long := strings.Repeat("z", 253)
	for pod, want := range map[string]string{
		"api-0":                               `^api-0\.[0-9a-f]+$`,
		long:                                  `^z{237}\.[0-9a-f]{15}$`, // synctest begins in the year 2000; today a time has 16 digits
		long[:230] + "-.-.-.-.-." + long[:13]: `^z{230}\.[0-9a-f]+$`,
	} {
		synctest.Test(t, func(t *testing.T) {
			server := &apiServer{}
			write(t, server, func(events *kube.Events) {
				events.Normal(auth.Pod{Namespace: "shop", Name: pod, UID: "uid-1"}, "app", "SecretMountRecovered", "class app is mounted")
				synctest.Wait()
				sent := server.take()
				if len(sent) != 1 {
					t.Fatalf("got %+v", sent)
				}
				metadata, _ := sent[0].Body["metadata"].(map[string]any)
				involved, _ := sent[0].Body["involvedObject"].(map[string]any)
				name, _ := metadata["name"].(string)
				if len(name) > 253 || !regexp.MustCompile(want).MatchString(name) {
					t.Errorf("%d characters: %s", len(name), name)
				}
				if involved["name"] != pod {
					t.Errorf("it is of the pod %v", involved["name"])
				}
			})
		})
	}
}

// podOf is one of many pods.
func podOf(n int) auth.Pod {
	return auth.Pod{Namespace: "shop", Name: fmt.Sprintf("api-%d", n), UID: fmt.Sprintf("uid-%d", n), ServiceAccount: "api"}
}

// burst tells of n pods, while the API server is held up at the first.
func burst(events *kube.Events, n int) {
	events.Warning(podOf(0), "app", "SecretMountFailed", "denied")
	synctest.Wait()
	for i := range n - 1 {
		events.Warning(podOf(i+1), "app", "SecretMountFailed", "denied")
	}
}

// What does not fit is counted, and the log has it once a minute.
func TestEventsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{}
		server.block()
		log := write(t, server, func(events *kube.Events) {
			burst(events, 1+256+43)
			server.answer()
			<-time.After(61 * time.Second)
			if sent := server.take(); len(sent) != 257 {
				t.Errorf("%d requests", len(sent))
			}
			for n := range 5 {
				server.block()
				events.Warning(podOf(1000+n), "app", "SecretMountFailed", "denied")
				synctest.Wait()
				for i := range 256 + 2 {
					events.Warning(podOf(i), "app", "SecretMountFailed", "denied")
				}
				server.answer()
				<-time.After(10 * time.Second)
			}
			<-time.After(10 * time.Minute)
		})
		if got := dropped(log); !slices.Equal(got, []string{"43", "10"}) {
			t.Errorf("dropped %q:\n%s", got, log)
		}
	})
}

func dropped(log string) []string {
	var counts []string
	for _, m := range regexp.MustCompile(`level=WARN msg="events were dropped: the API server does not keep up" dropped=(\d+)\n`).FindAllStringSubmatch(log, -1) {
		counts = append(counts, m[1])
	}
	return counts
}

// What waits at the stop is written.
func TestEventsAtTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{}
		server.block()
		log := write(t, server, func(events *kube.Events) {
			burst(events, 10)
			time.AfterFunc(500*time.Millisecond, server.answer) // the stop has come by then
		})
		if sent := server.take(); len(sent) != 10 || log != "" {
			t.Errorf("%d requests\n%s", len(sent), log)
		}
	})
}

// An API server that does not answer holds up the stop for a second.
func TestEventsStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stop time.Time
		server := &apiServer{}
		server.block()
		log := write(t, server, func(events *kube.Events) {
			burst(events, 10)
			stop = time.Now()
		})
		if took := time.Since(stop); took != time.Second {
			t.Errorf("the stop takes %s", took)
		}
		if got := dropped(log); !slices.Equal(got, []string{"10"}) || strings.Count(log, "\n") != 1 {
			t.Errorf("the log is %s", log)
		}
	})
}

// What is remembered is bounded: all is forgotten, and told of anew.
func TestEventsForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 4096
		server := &apiServer{}
		write(t, server, func(events *kube.Events) {
			tell := func(pod int, want ...string) {
				t.Helper()
				events.Warning(podOf(pod), "app", "SecretMountFailed", "denied")
				synctest.Wait()
				var got []string
				for _, r := range server.take() {
					got = append(got, r.Method)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("pod %d: %q", pod, got)
				}
			}
			for pod := range bound {
				tell(pod, http.MethodPost)
			}
			tell(0)
			tell(bound - 1)
			tell(bound, http.MethodPost)
			tell(0, http.MethodPost)
			tell(bound)
		})
	})
}

func TestEventsOutsideACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	const want = "events: works only in a pod: unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
	if _, err := kube.ClusterEvents("node-1", time.Now); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
