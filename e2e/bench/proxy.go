package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// counts are requests by what they are for.
type counts struct {
	Logins int `json:"logins"`
	Reads  int `json:"reads"`
	Others int `json:"others"` // what is mounted where
}

// proxy stands before Vault, counts, and adds to each request what a network would.
type proxy struct {
	url       string
	server    *http.Server
	transport *http.Transport

	mu   sync.Mutex
	seen counts
	open map[net.Conn]struct{} // to keymount
	most int                   // of them at a time
}

// newProxy serves until close.
func newProxy(ctx context.Context, address string, delay time.Duration) (*proxy, error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	const pooled = 256
	p := &proxy{
		url: "http://" + listener.Addr().String(), transport: &http.Transport{MaxIdleConnsPerHost: pooled}, open: map[net.Conn]struct{}{},
	}
	reverse := &httputil.ReverseProxy{Transport: p.transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	p.server = &http.Server{ReadHeaderTimeout: time.Minute, ConnState: p.connected, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.count(r.URL.Path)
		<-time.After(delay)
		reverse.ServeHTTP(w, r)
	})}
	go func() { _ = p.server.Serve(listener) }() // until close
	return p, nil
}

func (p *proxy) close() {
	_ = p.server.Close() // whoever is connected has ended
	p.transport.CloseIdleConnections()
}

func (p *proxy) count(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case strings.HasSuffix(path, "/login"):
		p.seen.Logins++
	case strings.HasPrefix(path, "/v1/secret/"):
		p.seen.Reads++
	default:
		p.seen.Others++
	}
}

// connected follows the connections of keymount's.
func (p *proxy) connected(one net.Conn, state http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch state {
	case http.StateNew:
		p.open[one] = struct{}{}
		p.most = max(p.most, len(p.open))
	case http.StateClosed, http.StateHijacked:
		delete(p.open, one)
	case http.StateActive, http.StateIdle:
	}
}

// connections are how many are open, and how many were at most since it was asked last.
func (p *proxy) connections() (open, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most = p.most
	p.most = len(p.open)
	return len(p.open), most
}

// take returns what was counted since it was called last.
func (p *proxy) take() counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = counts{}
	return seen
}
