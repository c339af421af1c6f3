package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider/providertest"
)

const (
	// backWithin is how long after a store's return every pod that waits for it has started.
	// It is judged where KEYMOUNT_OUTAGE gives the test its time, and with it the machine;
	// store/vault has the same for every moment of a return, by a clock of its own.
	backWithin = 5 * time.Second
	// outageLasts is enough for the last request that was sent in hope, and for keymount to
	// look after the store as seldom as it ever does; .ci/long sets KEYMOUNT_OUTAGE for a
	// longer one.
	outageLasts = 20 * time.Second
	// atOnce is requestsAtOnce of node/stores.go, and a few probes.
	atOnce = 64 + 3
)

// However a store was away, whoever waits for it starts within seconds of its return,
// with one login and one read of each secret, and no more requests at a time than ever.
func TestBackInSeconds(t *testing.T) {
	t.Parallel()
	lasts, text := outageLasts, os.Getenv("KEYMOUNT_OUTAGE")
	if text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatalf("KEYMOUNT_OUTAGE: %v", err)
		}
	}
	issuer := newIssuer(t)
	for _, o := range append(outages(), answering(http.StatusServiceUnavailable)) {
		if o.end == nil || o.named { // a program reads names every 5 s
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			backInSeconds(t, issuer, o, lasts, text != "")
		})
	}
}

func backInSeconds(t *testing.T, issuer *providertest.Issuer, o outage, lasts time.Duration, timed bool) {
	t.Helper()
	const identities, objects = 20, 5
	s := &scene{server: newVault(t, issuer)}
	anyone := jwtRole()
	delete(anyone, "bound_subject")
	s.server.WriteRole(t, "jwt", "shop-any", anyone)
	var list []string
	for i := range objects {
		write(t, s.server.Client(t).Logical(), fmt.Sprintf("secret/data/shop/many/%d", i), map[string]any{"data": map[string]any{"value": "canary-value"}})
		list = append(list, fmt.Sprintf("{path: secret/shop/many/%d, key: value, file: f%d}", i, i))
	}
	s.k, s.proxy = serveBefore(t, s.server, issuer, operator{Memory: "refresh: 1m, stale: 1h"})
	o.begin(t, s)
	began := time.Now()
	var pods sync.WaitGroup
	for i := range identities {
		pod := auth.Pod{Namespace: fmt.Sprintf("shop-%d", i%3), Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("uid-of-pod-%d", i), ServiceAccount: fmt.Sprintf("account-%d", i)}
		pods.Go(func() { startAtLast(t, s.k, pod, class{"shop-any", lines(list...)}, objects) })
	}
	<-time.After(time.Until(began.Add(lasts)))
	s.proxy.forget()
	o.end(t, s)
	back := time.Now()
	pods.Wait()
	last := time.Since(back)
	t.Logf("%d pods waited for %s; the last one started %s after that, with %d requests, at most %d at a time",
		identities, lasts, short(last), s.proxy.count(""), s.proxy.depth())
	if timed && last > backWithin {
		t.Errorf("the last pod started %s after the store was back, want %s at most", last, backWithin)
	}
	if s.proxy.depth() > atOnce {
		t.Errorf("%d requests at a time, want %d at most", s.proxy.depth(), atOnce)
	}
	for path, want := range map[string]int{"auth/jwt/login": identities, "secret/data/": identities * objects} {
		if got := s.proxy.count(path); got < want || got > want && o.name != "429" { // which takes a moment to lift
			t.Errorf("%d requests for %s after the outage, want %d", got, path, want)
		}
	}
}

// startAtLast mounts as the kubelet does, which pauses after each failure.
func startAtLast(t *testing.T, k *keymount, pod auth.Pod, c class, files int) {
	t.Helper()
	for pause := 500 * time.Millisecond; ; pause *= 2 {
		got, err := k.mount(t, pod, c)
		if err == nil {
			if len(got) != files {
				t.Errorf("%s starts with %d files, want %d", pod.Name, len(got), files)
			}
			return
		}
		<-time.After(pause)
	}
}
