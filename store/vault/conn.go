// Package vault reads secrets from Vault and OpenBao, which share one HTTP API.
//
// A [Conn] is the way there: all addresses of one cluster behind one pool of
// connections, failing over between them. An address that gives no answers is out of
// reach: requests to it fail at once, and now and then one of them first asks for
// the server's health, see breaker.go. A [Store] reads over it: secrets of
// key/value engines by mount and name, as the vault command shows them, or by API
// path, and whatever else answers a read. Logging in is the business of auth/vault.
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

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

const (
	// maxBody bounds an answer; the driver takes no more than 4 MiB of files.
	maxBody = 4 << 20
	// attemptLimit ends one attempt at one address, so that a hanging one leaves
	// time for the next.
	attemptLimit = 8 * time.Second
	// homeAfter is how long a later address is kept before the first is tried again.
	homeAfter = 30 * time.Second
	// maxRequests and maxLogins are how many of each are under way at a time, and
	// together how many connections there are at most to an address. They are more than
	// mounts make, so that what is done in the background does not wait for those.
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
	// ServerName is what the server's certificate must say, in place of the host.
	ServerName string
	// Log gets a line when an address is out of reach, and when it answers again; nil
	// is none.
	Log *slog.Logger
}

// Request is one call of the API.
type Request struct {
	Method    string
	Path      string // below /v1/
	Query     url.Values
	Namespace string
	Token     secret.Bytes // empty for a login
	Body      any          // written as JSON
	// Once says that the call may make something, a lease or a write: it is sent
	// again only when it cannot have arrived.
	Once bool
}

// Conn is safe for concurrent use.
type Conn struct {
	client   *http.Client
	bases    []*url.URL    // one an address
	breakers []*breaker    // one an address
	slots    chan struct{} // of requests under way
	logins   chan struct{} // of logins
	now      func() time.Time

	mu    sync.Mutex
	first int       // the address to begin with
	since time.Time // when first became that
}

// NewConn opens nothing yet. now is the clock.
func NewConn(o Options, now func() time.Time) (*Conn, error) {
	transport, err := newTransport(o)
	if err != nil {
		return nil, err
	}
	c := &Conn{client: &http.Client{Transport: transport, CheckRedirect: noRedirect}, slots: make(chan struct{}, maxRequests), logins: make(chan struct{}, maxLogins), now: now}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for _, address := range o.Addresses {
		u, err := url.Parse(address)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", address, err)
		}
		c.bases, c.breakers = append(c.bases, u), append(c.breakers, &breaker{host: u.Host, log: log})
	}
	return c, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Do sends a request to the address that answered last, and to the others when
// that one gives no answer; those that are out of reach are passed over. It returns
// nil without an error for an answer without a body. Errors wrap a kind of store;
// none holds a token or a body.
func (c *Conn) Do(ctx context.Context, r Request) (*api.Secret, error) {
	if err := c.outOfReach(); err != nil {
		return nil, err // without waiting for those that still wait for an answer
	}
	slots := c.slots
	if r.Token.Len() == 0 {
		slots = c.logins // which must not wait behind reads that hang
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: waiting for other requests: %w", store.ErrUnavailable, ctx.Err())
	}
	var failures []error
	for _, i := range c.order() {
		answer, err := c.attempt(ctx, i, r)
		if err == nil || !errors.Is(err, store.ErrUnavailable) {
			c.keep(i)
			return answer, err
		}
		failures = append(failures, err)
		if errors.Is(err, store.ErrUncertain) || ctx.Err() != nil {
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

// attempt sends r to one address, and once more where that one redirects to.
func (c *Conn) attempt(ctx context.Context, i int, r Request) (*api.Secret, error) {
	answer, next, err := c.ask(ctx, i, r)
	if err != nil || next == nowhere {
		return answer, err
	}
	answer, again, err := c.ask(ctx, next, r)
	if s, ok := errors.AsType[*shut](err); ok {
		return nil, fmt.Errorf("%w: %s redirects to %s", store.ErrUnavailable, c.bases[i].Host, s.text)
	}
	if err == nil && again != nowhere { // the leader has just changed
		return nil, fmt.Errorf("%w: %s redirects once more", store.ErrUnavailable, c.bases[next].Host)
	}
	return answer, err
}

// ask sends r to one address if that may be asked, and notes what came of it.
func (c *Conn) ask(ctx context.Context, i int, r Request) (*api.Secret, int, error) {
	if err := c.enter(ctx, i); err != nil {
		return nil, nowhere, err
	}
	began := c.now()
	answer, next, err := c.exchange(ctx, i, r)
	c.note(ctx, i, err, began)
	return answer, next, err
}

// nowhere is where an answer redirects to that does not.
const nowhere = -1

// exchange is one request, and its answer or where it redirects to.
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
		next, err = c.redirected(i, response)
		return nil, next, err
	}
	answer, err = read(ctx, response, c.bases[i].Host, r.Once)
	return answer, nowhere, err
}

func isRedirect(status int) bool {
	return status == http.StatusMovedPermanently || status == http.StatusFound ||
		status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect
}

// redirected finds the address that a standby points to. The token goes nowhere
// but to the addresses of keymount.yaml.
func (c *Conn) redirected(from int, response *http.Response) (int, error) {
	location, err := response.Location()
	if err != nil {
		return nowhere, fmt.Errorf("%w: %s redirects without saying where to", store.ErrUnavailable, c.bases[from].Host)
	}
	i := slices.IndexFunc(c.bases, func(base *url.URL) bool { return base.Host == location.Host })
	if i < 0 {
		// Another address may know better.
		return nowhere, fmt.Errorf("%w: %s redirects to %s, which is none of the store's addresses in keymount.yaml; add it there",
			store.ErrUnavailable, c.bases[from].Host, location.Host)
	}
	return i, nil
}

// send makes one HTTP request. Its error tells whether the request may have
// arrived.
func (c *Conn) send(ctx context.Context, i int, r Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	var sent atomic.Bool
	if r.Once {
		ctx = context.WithValue(ctx, onceKey{}, true)
	}
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	request, err := c.request(traced, i, r)
	if err != nil {
		cancel()
		return nil, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		cancel()
		return nil, c.unreachable(i, err, r.Once && sent.Load())
	}
	response.Body = &closer{response.Body, cancel}
	return response, nil
}

// request writes r for one address. Nothing of it comes from the environment: a
// token or a header found there would be an identity that no pod has proven.
func (c *Conn) request(ctx context.Context, i int, r Request) (*http.Request, error) {
	target := *c.bases[i]
	target.Path, target.RawQuery = "/v1/"+r.Path, r.Query.Encode()
	var body io.Reader
	if r.Body != nil {
		text, err := json.Marshal(r.Body)
		if err != nil {
			return nil, fmt.Errorf("%w: the request cannot be written as JSON", store.ErrInvalid)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, r.Method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%w: the request for %q cannot be made", store.ErrInvalid, r.Path)
	}
	request.Header.Set(api.RequestHeaderName, "true")
	for name, value := range map[string]string{api.AuthHeaderName: string(r.Token.Reveal()), api.NamespaceHeaderName: r.Namespace} {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	return request, nil
}

func (c *Conn) unreachable(i int, err error, uncertain bool) error {
	return newSilence(carried(uncertain), c.bases[i].Host+": "+reason(err), "", err)
}

// reason is what went wrong with a connection, without the URL of the request.
func reason(err error) string {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var wrapped *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &dns):
		return "no address is known for this name: " + dns.Err
	case errors.As(err, &certificate):
		return "its certificate is not trusted: " + certificate.Err.Error()
	case errors.As(err, &wrapped):
		return wrapped.Err.Error()
	}
	return err.Error()
}

// limited is a body that fails when it goes on after its limit.
type limited struct {
	io.ReadCloser
	left int64
}

var errTooLong = errors.New("the answer is too long")

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLong
	}
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err //nolint:wrapcheck // a Reader's error is compared with io.EOF
}

// closer ends the request's time with its body.
type closer struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c *closer) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close() //nolint:wrapcheck // nobody looks at it
}

// trimmed keeps what a server says readable.
func trimmed(text string) string {
	const most = 500
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
