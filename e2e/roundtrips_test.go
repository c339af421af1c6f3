package e2e_test

import (
	"fmt"
	"testing"
	"time"
)

// A cold mount takes three round trips in sequence: log in, ask what is mounted
// there, read. A later one takes one when it is time to read again, and none before.
func TestRoundTrips(t *testing.T) {
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	logical := server.Client(t).Logical()
	var objects []string
	for i := range 50 {
		write(t, logical, fmt.Sprintf("secret/data/shop/many/%d", i), map[string]any{"data": map[string]any{"value": fmt.Sprintf("canary-value-%d", i)}})
		objects = append(objects, fmt.Sprintf("{path: secret/shop/many/%d, key: value, file: f%d}", i, i))
	}
	for _, n := range []int{1, 10, 50} {
		for _, delay := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond} {
			t.Run(fmt.Sprintf("%d objects, %s", n, delay), func(t *testing.T) {
				k, p := serveBefore(t, server, issuer, operator{})
				p.delay = delay
				c := shopClass(lines(objects[:n]...))
				measure(t, k, p, c, "cold", 3, n+2)
				measure(t, k, p, c, "refreshed", 1, n)

				k, p = serveBefore(t, server, issuer, operator{Memory: "refresh: 1m"})
				p.delay = delay
				measure(t, k, p, c, "cold", 3, n+2)
				measure(t, k, p, c, "warm", 0, 0)
			})
		}
	}
}

// measure mounts c and counts. How many round trips come after each other does not
// depend on how long one takes, but a machine that is busy with other things sends
// the last of fifty requests late: only with the long delay that is no round trip
// of its own, and the short one is for the eye.
func measure(t *testing.T, k *keymount, p *proxy, c class, name string, chain, requests int) {
	t.Helper()
	p.forget()
	began := time.Now()
	k.mounted(t, c)
	t.Logf("%s: %d requests, %d in sequence, %d at a time, %s",
		name, p.count(""), p.chain(), p.depth(), time.Since(began).Round(time.Millisecond))
	if got := p.chain(); got > chain && p.delay > 5*time.Millisecond {
		t.Errorf("%s: %d round trips in sequence, want at most %d", name, got, chain)
	}
	if got := p.count(""); got != requests {
		t.Errorf("%s: %d requests, want %d", name, got, requests)
	}
}
