package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands before Vault and keeps what passes. It belongs to one test.
type proxy struct {
	URL     string
	address string // of URL, host and port
	close   func() // refuses connections from then on, until open
	hangUp  func() // ends those that there are
	handler http.Handler

	// delay is added to each answer: it goes back when delay has passed in which
	// nothing else came either way, so that what keymount sends side by side is seen
	// side by side, however slow the machine.
	delay time.Duration

	// instead answers in place of Vault, while there is one.
	instead atomic.Pointer[http.HandlerFunc]

	mu      sync.Mutex
	seen    []*exchange
	secrets []string
	last    time.Time // when the latest request or answer came
}

// exchange is one request and when it was answered.
type exchange struct {
	Method, Path string // without /v1/
	Token        string
	Began, Ended time.Time
}

// newProxy begins to serve before address, until the test ends.
func newProxy(t *testing.T, address string) *proxy {
	t.Helper()
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	reverse := &httputil.ReverseProxy{
		Transport:      transport,
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: p.answered,
	}
	p.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := p.begin(r)
		if instead := p.instead.Load(); instead != nil {
			defer p.end(e)
			(*instead)(w, r)
			return
		}
		reverse.ServeHTTP(w, r.WithContext(withExchange(r.Context(), e)))
	})
	t.Cleanup(transport.CloseIdleConnections)
	p.open(t, "127.0.0.1:0")
	return p
}

// open listens, at the address it had before when that is given.
func (p *proxy) open(t *testing.T, address string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(p.handler)
	_ = server.Listener.Close() // of its own
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	p.URL, p.address, p.close, p.hangUp = server.URL, listener.Addr().String(), server.Close, server.CloseClientConnections
}

func (p *proxy) begin(r *http.Request) *exchange {
	e := &exchange{
		Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, "/v1/"),
		Token: r.Header.Get("X-Vault-Token"), Began: time.Now(),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, e)
	p.last = e.Began
	return e
}

func (p *proxy) end(e *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.Ended = time.Now()
}

// answered notes the answer before its first byte goes back: what keymount sends
// next has not begun by then.
func (p *proxy) answered(r *http.Response) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	_ = r.Body.Close()
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.wait(r.Request)
	e := exchangeOf(r.Request.Context())
	p.mu.Lock()
	defer p.mu.Unlock()
	e.Ended = time.Now()
	p.secrets = append(p.secrets, secretsIn(e.Path, body)...)
	return nil
}

func (p *proxy) wait(r *http.Request) {
	p.mu.Lock()
	p.last = time.Now()
	p.mu.Unlock()
	for {
		p.mu.Lock()
		left := p.delay - time.Since(p.last)
		p.mu.Unlock()
		if left <= 0 {
			return
		}
		select {
		case <-time.After(left):
		case <-r.Context().Done():
			return
		}
	}
}

// secretsIn are the texts of an answer that nobody but the pod may see.
func secretsIn(path string, body []byte) []string {
	var answer struct {
		LeaseID string `json:"lease_id"`
		Auth    struct {
			ClientToken string `json:"client_token"`
			Accessor    string `json:"accessor"`
		} `json:"auth"`
		Data map[string]any `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return nil
	}
	secrets := []string{answer.LeaseID, answer.Auth.ClientToken, answer.Auth.Accessor}
	if !strings.HasPrefix(path, "sys/") && !strings.HasPrefix(path, "auth/") {
		data := any(answer.Data)
		if inner, ok := answer.Data["data"]; ok {
			data = inner // of KV v2, whose metadata is no secret
		}
		secrets = append(secrets, textsIn(data)...)
	}
	return slices.DeleteFunc(secrets, func(s string) bool { return len(s) < 8 }) // what is short is there by chance
}

func textsIn(value any) []string {
	var texts []string
	switch value := value.(type) {
	case string:
		texts = append(texts, value)
	case map[string]any:
		for _, inner := range value {
			texts = append(texts, textsIn(inner)...)
		}
	case []any:
		for _, inner := range value {
			texts = append(texts, textsIn(inner)...)
		}
	}
	return texts
}

// carried are the secrets that passed.
func (p *proxy) carried() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.secrets)
}

// guards has the secrets that passed guarded by k, when the test is over.
func (p *proxy) guards(t *testing.T, k *keymount) {
	t.Helper()
	t.Cleanup(func() { // before k ends, which looks for them
		p.mu.Lock()
		defer p.mu.Unlock()
		k.guard(p.secrets...)
		for _, e := range p.seen {
			if e.Token == ambient {
				t.Errorf("%s %s was sent with the token of keymount's environment", e.Method, e.Path)
			}
		}
	})
}

// count is how many requests there were for paths that begin with prefix; of all, those
// for Vault's health are none, which is asked for beside mounts.
func (p *proxy) count(prefix string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, e := range p.seen {
		if strings.HasPrefix(e.Path, prefix) && (prefix != "" || e.Path != "sys/health") {
			n++
		}
	}
	return n
}

// first is when the first request began.
func (p *proxy) first() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == 0 {
		return time.Time{}
	}
	return p.seen[0].Began
}

// since is how many requests began within d after some time.
func (p *proxy) since(at time.Time, d time.Duration) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, e := range p.seen {
		if after := e.Began.Sub(at); after >= 0 && after < d {
			n++
		}
	}
	return n
}

// tokens are what keymount presented, each once.
func (p *proxy) tokens() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var tokens []string
	for _, e := range p.seen {
		if e.Token != "" && !slices.Contains(tokens, e.Token) {
			tokens = append(tokens, e.Token)
		}
	}
	return tokens
}

// forget begins to count anew.
func (p *proxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = nil
}

// chain is the longest row of requests each of which began after the one before
// had its answer.
func (p *proxy) chain() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	byEnd := slices.SortedFunc(slices.Values(p.seen), func(a, b *exchange) int { return a.Ended.Compare(b.Ended) })
	length, free := 0, time.Time{}
	for _, e := range byEnd { // the one that ends first leaves the most room
		if e.Began.After(free) {
			length, free = length+1, e.Ended
		}
	}
	return length
}

// depth is the most requests that were under way at one time.
func (p *proxy) depth() int {
	type change struct {
		at time.Time
		by int
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var changes []change
	for _, e := range p.seen {
		changes = append(changes, change{e.Began, 1}, change{e.Ended, -1})
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.by, b.by)) })
	now, most := 0, 0
	for _, c := range changes {
		now += c.by
		most = max(most, now)
	}
	return most
}

type exchangeKey struct{}

func withExchange(ctx context.Context, e *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, e)
}

func exchangeOf(ctx context.Context) *exchange {
	e, _ := ctx.Value(exchangeKey{}).(*exchange)
	return e
}
