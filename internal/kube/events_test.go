package kube_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/kube"
)

// request is one request to the API server.
type request struct {
	Method, Path, Type string
	Body               map[string]any
}

// apiServer keeps what it is asked and answers with a code, in memory: synctest
// cannot wait for a real connection.
type apiServer struct {
	mu       sync.Mutex
	codes    []int // of the next answers; then 201
	requests []request
}

func (a *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	one := request{Method: r.Method, Path: r.URL.Path, Type: r.Header.Get("Content-Type")}
	if err := json.Unmarshal(body, &one.Body); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, one)
	answer := httptest.NewRecorder()
	answer.Header().Set("Content-Type", "application/json")
	code := http.StatusCreated
	if len(a.codes) > 0 {
		code, a.codes = a.codes[0], a.codes[1:]
	}
	answer.WriteHeader(code)
	if code == http.StatusNotFound {
		_, _ = answer.WriteString(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	} else {
		_, _ = answer.WriteString(`{"kind":"Event","apiVersion":"v1"}`)
	}
	return answer.Result(), nil
}

func (a *apiServer) take() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.requests
	a.requests = nil
	return taken
}

// write runs events until the test's story has ended.
func write(t *testing.T, server *apiServer, story func(*kube.Events)) {
	t.Helper()
	events, err := kube.EventsTo(&rest.Config{Host: "http://api.invalid", Transport: server}, "node-1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { events.Run(ctx, slog.New(slog.DiscardHandler)); close(ended) }()
	story(events)
	cancel()
	<-ended
}

var api0 = auth.Pod{Namespace: "shop", Name: "api-0", UID: "uid-1", ServiceAccount: "api"}

// What is said again is counted in one object, at most every five minutes.
func TestEventsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{}
		write(t, server, func(events *kube.Events) {
			events.Warning(api0, "SecretRotationFailed", "denied")
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
				events.Warning(api0, "SecretRotationFailed", "denied")
			}
			synctest.Wait()
			if again := server.take(); len(again) != 0 {
				t.Errorf("the same is sent again: %+v", again)
			}
			<-time.After(time.Minute)
			events.Warning(api0, "SecretRotationFailed", "denied")
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
			events.Warning(api0, "SecretRotationFailed", "denied")
			events.Warning(api0, "SecretRotationFailed", "sealed")
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
		events.Normal(api0, "SecretMountRecovered", "nobody runs")
	}
}

// A message is cut to what the API server takes, between two characters.
func TestEventMessageIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{}
		write(t, server, func(events *kube.Events) {
			events.Warning(api0, "SecretMountFailed", strings.Repeat("ü", 2000))
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
