// Package vault reads secrets from Vault and OpenBao, which share one HTTP API.
//
// A [Conn] has all addresses of one cluster behind one pool of connections, and fails
// over between them. An address without answers is out of reach: requests to it fail
// at once, and now and then one of them first asks for the server's health, see
// breaker.go. A [Store] reads over a Conn: secrets of key/value engines by mount and
// name, as the vault command shows them, or by API path, and any other path with an
// answer to a read. A [Method] logs in over it.
package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

const (
	// maxBody bounds an answer; the driver takes no more than 4 MiB of files.
	maxBody = 4 << 20
	// attemptLimit ends one attempt at one address, so that a hanging one leaves
	// time for the next.
	attemptLimit = 8 * time.Second
	// homeAfter is the time for which a later address is kept before the first is tried
	// again.
	homeAfter = 30 * time.Second
	// maxRequests and maxLogins bound the requests and logins in flight, and together
	// the connections to an address. They are more than mounts make, so that background
	// work does not wait for mounts.
	maxRequests = 80
	maxLogins   = 16
)

// Options say where a Vault is and how to reach it.
type Options struct {
	// Addresses are those of one cluster: https://host:port. The first is home.
	Addresses []string
	// CAFile, and CertFile with KeyFile, are PEM files, read again when they change.
	// Empty: the system's authorities, and no client certificate.
	CAFile, CertFile, KeyFile string
	// ServerName is the name in the server's certificate, in place of the host.
	ServerName string
	// Log gets a line when an address is out of reach, and when it answers again; nil
	// is none.
	Log *slog.Logger
	// Answers is the room of all answers in the process; nil for one of this Conn alone.
	Answers *room.Answers

	standIn http.RoundTripper // in place of a network; nil is none
}

// Request is one call of the API.
type Request struct {
	Method    string
	Path      string // below /v1/
	Query     url.Values
	Namespace string
	Token     secret.Bytes // empty for a login
	Body      any          // written as JSON
	// Once marks a call that may make something, a lease or a write: it is sent again
	// only when it cannot have arrived.
	Once bool
	// For is the pod's namespace, whose turn a large answer takes.
	For string
	// Limit bounds the text of the answer in bytes; 0 is maxBody.
	Limit int64
	// Wants is what a good answer holds.
	Wants content
	// Public are values of Body that errors may name, such as a role.
	Public []string

	also func(members) // gets a good answer, too; nil is none
}

// Conn is safe for concurrent use.
type Conn struct {
	pool     *transport
	bases    []*url.URL    // one an address
	breakers []*breaker    // one an address
	slots    chan struct{} // of requests in flight
	logins   chan struct{} // of logins
	answers  *room.Answers // the room for them
	now      func() time.Time

	mu    sync.Mutex
	first int       // the address to begin with
	since time.Time // when first was set
}

// NewConn opens no connection yet. now is the clock.
func NewConn(o Options, now func() time.Time) (*Conn, error) {
	transport, err := newTransport(o, now)
	if err != nil {
		return nil, err
	}
	c := &Conn{pool: transport, slots: make(chan struct{}, maxRequests), logins: make(chan struct{}, maxLogins), answers: o.Answers, now: now}
	if c.answers == nil {
		c.answers = room.NewAnswers(room.Parallel(), now)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	back := &recovery{}
	for _, address := range o.Addresses {
		u, err := url.Parse(address)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", address, err)
		}
		c.bases, c.breakers = append(c.bases, u), append(c.breakers, &breaker{host: u.Host, log: log, back: back})
	}
	return c, nil
}

// Do sends a request to the address that answered last, and without an answer to the
// others; it passes over addresses out of reach. It returns nil without an error for an
// answer without a body. Errors are of type [*store.Error]; none holds a token or a body.
func (c *Conn) Do(ctx context.Context, r Request) (*api.Secret, error) {
	if err := c.outOfReach(); err != nil {
		return nil, err // without waiting for requests in flight
	}
	slots := c.slots
	if r.Token.Len() == 0 {
		slots = c.logins // not behind reads that hang
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return nil, &store.Error{Reason: store.Unavailable, Said: "waiting for other requests", Cause: ctx.Err()}
	}
	c.probeAll(ctx)
	var failures []error
	for _, i := range c.order() {
		answer, err := c.attempt(ctx, i, r)
		if err == nil || !errors.Is(err, store.Unavailable) {
			c.keep(i)
			return answer, err
		}
		failures = append(failures, err)
		if e, ok := errors.AsType[*store.Error](err); ok && e.Uncertain || ctx.Err() != nil {
			if _, ok := errors.AsType[*stranger](err); ok { // the next request begins elsewhere
				c.keep((i + 1) % len(c.bases))
			}
			break
		}
	}
	return nil, together(failures)
}

// start is the address to begin with: the one that answered last, but home again
// after a while.
func (c *Conn) start() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first != 0 && c.now().Sub(c.since) >= homeAfter {
		c.first, c.since = 0, c.now()
	}
	return c.first
}

func (c *Conn) keep(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i != c.first {
		c.first, c.since = i, c.now()
	}
}

// attempt sends r to one address, and follows one redirect.
func (c *Conn) attempt(ctx context.Context, i int, r Request) (*api.Secret, error) {
	answer, next, err := c.ask(ctx, i, r)
	if err != nil || next == nowhere {
		return answer, err
	}
	answer, again, err := c.ask(ctx, next, r)
	if s, ok := errors.AsType[*shut](err); ok {
		there := *s.failure
		there.Said = c.bases[i].Host + " redirects to " + there.Said
		return nil, &there
	}
	if err == nil && again != nowhere { // the leader has just changed
		return nil, store.Unavailable.Errorf("%s redirects once more", c.bases[next].Host)
	}
	return answer, err
}

// ask sends r to one address if its breaker permits, and notes the outcome.
func (c *Conn) ask(ctx context.Context, i int, r Request) (*api.Secret, int, error) {
	if err := c.enter(ctx, i); err != nil {
		return nil, nowhere, err
	}
	began := c.now()
	answer, next, err := c.exchange(ctx, i, r)
	c.note(ctx, i, err, began)
	return answer, next, err
}

// nowhere is the next address of an answer without a redirect.
const nowhere = -1

// exchange sends one request, and returns its answer or the address it redirects to.
func (c *Conn) exchange(ctx context.Context, i int, r Request) (answer *api.Secret, next int, err error) {
	response, err := c.send(ctx, i, r)
	if err != nil {
		return nil, nowhere, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode < http.StatusInternalServerError {
		c.breakers[i].answered(ctx, c.now())
	}
	if isRedirect(response.StatusCode) {
		next, err = c.redirected(i, response, r)
		return nil, next, err
	}
	answer, err = c.read(ctx, i, r, response)
	return answer, nowhere, err
}

func isRedirect(status int) bool {
	return status == http.StatusMovedPermanently || status == http.StatusFound ||
		status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect
}

// redirected finds the address that a standby points to. The token goes only to the
// addresses of keymount.yaml.
func (c *Conn) redirected(from int, response *http.Response, r Request) (int, error) {
	location, err := response.Location()
	if err != nil {
		return nowhere, store.Unavailable.Errorf("%s redirects without saying where to", c.bases[from].Host)
	}
	if !strings.HasPrefix(location.Path, "/v1/") { // Vault's lead to its API
		return nowhere, answer{Response: response, host: c.bases[from].Host, to: r}.stranger("a redirect to " + r.words().short(location.Host+location.Path))
	}
	i := slices.IndexFunc(c.bases, func(base *url.URL) bool { return base.Host == location.Host })
	if i < 0 {
		// Another address may know better.
		return nowhere, store.Unavailable.Errorf("%s redirects to %s, which is none of the store's addresses in keymount.yaml; add it there",
			c.bases[from].Host, r.words().short(location.Host))
	}
	return i, nil
}

// send makes one HTTP request. Its error tells whether the request may have
// arrived.
func (c *Conn) send(ctx context.Context, i int, r Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	var sent *atomic.Bool
	if r.Once {
		ctx, sent = once(ctx)
	}
	request, err := c.request(ctx, i, r)
	if err != nil {
		cancel()
		return nil, err
	}
	response, err := c.pool.RoundTrip(request) // by itself an http.Client would follow redirects
	if err != nil {
		cancel()
		return nil, c.unreachable(i, err, r, r.Once && sent.Load())
	}
	response.Body = &closer{response.Body, cancel}
	return response, nil
}

// once is the context of a request that must not be repeated, and whether it was sent.
func once(ctx context.Context) (context.Context, *atomic.Bool) {
	var sent atomic.Bool
	return httptrace.WithClientTrace(context.WithValue(ctx, onceKey{}, true), &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}), &sent
}

// request writes r for one address. Nothing of it comes from the environment: a
// token or a header found there would be an identity that no pod has proven.
func (c *Conn) request(ctx context.Context, i int, r Request) (*http.Request, error) {
	var body io.Reader
	if r.Body != nil {
		text, err := json.Marshal(r.Body)
		if err != nil {
			return nil, store.Invalid.Errorf("the request cannot be written as JSON")
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, "", body)
	if err != nil {
		return nil, store.Invalid.Errorf("the request for %q cannot be made", r.Path)
	}
	*request.URL = *c.bases[i]
	request.URL.Path, request.URL.RawQuery = "/v1/"+r.Path, r.Query.Encode()
	request.Header[api.RequestHeaderName] = []string{"true"}
	if r.Token.Len() > 0 {
		request.Header[api.AuthHeaderName] = []string{string(r.Token.Reveal())}
	}
	if r.Namespace != "" {
		request.Header[api.NamespaceHeaderName] = []string{r.Namespace}
	}
	return request, nil
}

func (c *Conn) unreachable(i int, err error, r Request, uncertain bool) error {
	s := newSilence(uncertain, c.bases[i].Host+": "+r.words().clean(reason(err)), reasons{}, err)
	s.failure.Lasting = isMistrust(err)
	return s
}

// reason is the failure of a connection, without the URL of the request.
func reason(err error) string {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &dns):
		return "no address is known for this name: " + dns.Err
	case errors.As(err, &certificate):
		return "its certificate is not trusted: " + certificate.Err.Error()
	case strings.Contains(err.Error(), "malformed "): // it may quote any part of the request
		return "what it answers is not HTTP; does the address begin with https:// where it should?"
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return http.ErrSchemeMismatch.Error()
	}
	return err.Error()
}

// limited is a body that fails beyond its limit, and remembers how it began.
type limited struct {
	io.Reader
	left  int64
	first [remembered]byte
	known int // of first
}

// remembered is how much of a body's beginning is.
const remembered = 512

var errTooLong = errors.New("the answer is too long")

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLong
	}
	n, err := l.Reader.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	l.known += copy(l.first[l.known:], p[:n])
	return n, err //nolint:wrapcheck // a Reader's error is compared with io.EOF
}

func (l *limited) began() []byte { return l.first[:l.known] }

// closer cancels the request's context when the body is closed.
type closer struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *closer) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close() //nolint:wrapcheck // no caller looks at it
}
