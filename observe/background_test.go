package observe_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

// What is done in the background is counted, by what is renewed or given back and what
// came of it: a pod runs for seventy minutes and is gone; its credential lives for an
// hour, its login for an hour and a half.
func TestMetricsOfTheBackground(t *testing.T) {
	refuse := func(string) error { return store.Denied.Errorf("no policy") }
	ended := func(task string) error {
		if task == "renew" {
			return store.Ended.Errorf("unknown")
		}
		return store.Denied.Errorf("no policy")
	}
	bug := func(string) error { panic(canary) }
	for name, c := range map[string]struct {
		login, lease func(string) error
		about        string
		want         map[string]float64
	}{
		"all is well": {nil, nil, "", map[string]float64{
			`keymount_leases_total{store="prod"}`:                             1,
			`keymount_renewals_total{of="lease",result="ok",store="prod"}`:    1,
			`keymount_renewals_total{of="login",result="ok",store="prod"}`:    1,
			`keymount_revocations_total{of="lease",result="ok",store="prod"}`: 1,
			`keymount_revocations_total{of="login",result="ok",store="prod"}`: 1,
		}},
		"the login has ended": {ended, nil, `of="login"`, map[string]float64{
			`keymount_renewals_total{of="login",result="session_ended",store="prod"}`: 1,
			`keymount_revocations_total{of="login",result="denied",store="prod"}`:     1,
		}},
		"the login is refused": {refuse, nil, `of="login"`, map[string]float64{
			`keymount_renewals_total{of="login",result="denied",store="prod"}`: 1, // it lives on to its end, and is not revoked
		}},
		"the lease is refused": {nil, refuse, `of="lease"`, map[string]float64{
			`keymount_renewals_total{of="lease",result="denied",store="prod"}`:    1,
			`keymount_revocations_total{of="lease",result="denied",store="prod"}`: 1,
		}},
		"a bug": {nil, bug, `of="lease"`, map[string]float64{
			`keymount_renewals_total{of="lease",result="bug",store="prod"}`:    1,
			`keymount_revocations_total{of="lease",result="bug",store="prod"}`: 1,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			metrics := observe.NewMetrics("v1.2.3", "abc")
			url := serveMetrics(t, metrics)
			synctest.Test(t, func(t *testing.T) {
				l := leasingOne()
				l.login, l.lease = c.login, c.lease
				kubeletWith(t, observing{log: &logBuffer{}, metrics: metrics}, l, func(k *kubelet) {
					api := pod("shop", "api")
					k.republish(70*time.Minute, api)
					k.kept.Leave(auth.Volume{Namespace: api.Namespace, PodUID: api.UID, Class: "app"})
					<-time.After(3 * time.Hour)
				})
			})
			got := counted(t, scrape(t, url))
			maps.DeleteFunc(got, func(name string, _ float64) bool {
				background := strings.HasPrefix(name, "keymount_renewals") || strings.HasPrefix(name, "keymount_revocations") || strings.HasPrefix(name, "keymount_leases")
				return !background || !strings.Contains(name, c.about)
			})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
		})
	}
}

// A rate sees the first failure only when there was a zero before.
func TestMetricsOfTheBackgroundBegin(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	l := leasingOne()
	metrics.Count("prod", storetest.LayersOf(l, renewing{l}))
	metrics.Count("bundle", storetest.LayersOf(l.Memory, nil)) // which has nothing in the background
	text := scrape(t, serveMetrics(t, metrics))
	for _, name := range []string{"keymount_renewals_total", "keymount_revocations_total"} {
		for _, of := range []string{"login", "lease"} {
			for _, result := range []string{"ok", "not_found", "denied", "session_ended", "unavailable", "invalid", "bug"} {
				if line := fmt.Sprintf("\n%s{of=%q,result=%q,store=\"prod\"} 0\n", name, of, result); !strings.Contains(text, line) {
					t.Errorf("there is no %s", strings.TrimSpace(line))
				}
			}
		}
	}
	for _, line := range []string{`keymount_leases_total{store="prod"} 0`, `keymount_unattended_credentials_total{store="prod"} 0`} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("there is no %s", line)
		}
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, "bundle") && (strings.Contains(line, "of=") || strings.Contains(line, "leases")) {
			t.Errorf("of a store without leases and logins: %s", line)
		}
	}
}

// What is counted can do what it could do before, and nothing else.
func TestMetricsKeepAbilities(t *testing.T) {
	metrics := observe.NewMetrics("v1.2.3", "abc")
	l := leasingOne()
	loginOf := func(method login.Method) login.Method {
		return metrics.Count("prod", kind.Layers{Store: l, Login: method}).Login
	}
	if _, ok := loginOf(l).(login.Renewer); ok {
		t.Error("a method that renews nothing has become one that does")
	}
	if _, ok := loginOf(renewing{l}).(login.Renewer); !ok {
		t.Error("a method has lost its renewals")
	}
	renewer, _ := loginOf(renewing{leasing{login: func(string) error { return errors.ErrUnsupported }}}).(login.Renewer)
	if err := renewer.Revoke(t.Context(), auth.Identity{}, login.Login{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
