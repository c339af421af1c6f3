package observe_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/storetest"
)

// loginLife is longer than the hour that a credential lives.
const loginLife = 90 * time.Minute

// leasing is a store with logins that makes a credential of every path. What is done
// in the background can be made to fail.
type leasing struct {
	*storetest.Memory
	makes        store.Lease
	login, lease func(what string) error // "renew" or "revoke"; nil is well
}

func (leasing) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	return login.Login{Token: secret.New([]byte(time.Now().String())), Expires: time.Now().Add(loginLife), Renewable: true}, nil
}

func (leasing) Resolve(_ context.Context, _ store.Caller, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path, Makes: true}, nil
}

func (l leasing) Read(ctx context.Context, caller store.Caller, ref store.Ref) (store.Value, error) {
	value, err := l.Memory.Read(ctx, caller, ref)
	value.Lease = &l.makes
	return value, err
}

func (l leasing) Renew(_ context.Context, _ store.Caller, lease store.Lease) (store.Lease, error) {
	return lease, failing(l.lease, "renew")
}

func (l leasing) Revoke(context.Context, store.Caller, store.Lease) error {
	return failing(l.lease, "revoke")
}

func failing(fails func(what string) error, what string) error {
	if fails == nil {
		return nil
	}
	return fails(what)
}

// renewing is the login method of a leasing store.
type renewing struct{ leasing }

func (r renewing) Renew(_ context.Context, _ auth.Identity, given login.Login) (login.Login, error) {
	given.Expires = time.Now().Add(loginLife)
	return given, failing(r.login, "renew")
}

func (r renewing) Revoke(context.Context, auth.Identity, login.Login) error {
	return failing(r.login, "revoke")
}

// kubelet calls a provider whose store makes credentials, in a bubble of synctest,
// which sockets do not go with.
type kubelet struct {
	t        *testing.T
	provider *provider.Provider
	memory   *storetest.Memory // of the store
	kept     *keep.Keeper
	issuer   *providertest.Issuer
	objects  string // of the class
}

// observing is who may be told.
type observing struct {
	events  *recorder
	log     *logBuffer
	metrics *observe.Metrics
	// interval is the driver's rotationPollInterval.
	interval time.Duration
}

// kubeletWith runs what keymount serve does in the background until the story ends.
func kubeletWith(t *testing.T, o observing, l leasing, story func(k *kubelet)) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(o.log, nil))
	inner, sessions := storetest.LoggedIn(o.metrics.Count("prod", storetest.LayersOf(l, renewing{l})))
	rotation := &observe.Rotation{Metrics: o.metrics}
	if o.events != nil {
		rotation.Events = o.events
	}
	k := &kubelet{t: t, memory: l.Memory, issuer: newIssuer(t, issuerName, "key-1"), objects: "[{store: prod, path: shop/db, key: password, file: a}]"}
	k.kept = keep.New(inner, keep.Options{
		Refresh: time.Minute, Replace: o.interval + 3*time.Minute, Pool: keep.NewPool(1<<20, time.Now, nil), Now: time.Now,
		Vouch:     func(r login.Request) { sessions.Vouch(r.Identity, r.Role) },
		Forgotten: rotation.Forgotten("prod", log),
	})
	k.provider = provider.New(provider.Options{
		Version: "v0.0.0-test", Deadline: 10 * time.Second, ParallelReads: 8, VersionKey: secret.New(make([]byte, 32)),
		Verifier: auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", k.issuer, time.Now)}, node, time.Now),
		Backends: []provider.Backend{{
			Name: "prod", Audience: audience, Store: k.kept, Resolves: true,
			Rules: rules(t, access.None, access.Rule{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{"{namespace}/**"}}),
		}},
		Recorders: []provider.Recorder{o.metrics, rotation}, Mounting: o.metrics.Mounting,
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = sessions.Run(ctx) })
	running.Go(func() { _ = k.kept.Run(ctx) })
	story(k)
	cancel()
	running.Wait()
}

// mount has the class app of a pod mounted.
func (k *kubelet) mount(p auth.Pod) error {
	k.t.Helper()
	token, err := k.issuer.Sign(k.issuer.ClaimsFor(p, audience))
	if err != nil {
		k.t.Fatal(err)
	}
	attributes, err := providertest.Volume{
		Pod: p, Class: "app", Tokens: map[string]string{audience: token},
		Parameters: map[string]string{"objects": k.objects},
	}.Attributes()
	if err != nil {
		k.t.Fatal(err)
	}
	_, err = k.provider.Mount(k.t.Context(), &v1alpha1.MountRequest{Attributes: attributes, Permission: "420"})
	return err
}

// republish has pods mounted as long as that every 75 s, as the kubelet does.
func (k *kubelet) republish(long time.Duration, pods ...auth.Pod) {
	k.t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); <-time.After(75 * time.Second) {
		for _, p := range pods {
			if err := k.mount(p); err != nil {
				k.t.Error(err)
			}
		}
	}
}

// What a pod holds and cannot be replaced there is told of once, if the driver mounts
// nothing again; and never of a pod that is simply gone.
func TestRotationOff(t *testing.T) {
	api, job := pod("shop", "api"), pod("shop", "job")
	const (
		some = 30 * time.Minute // after which a credential is forgotten
		text = `Warning shop/%s-0 app SecretRotationOff: class app: secret "shop/db" of store "prod" ends at 2000-01-%s, and no replacement can reach the pod: ` +
			`no volume of this node was mounted a second time in %s; set enableSecretRotation=true (requiresRepublish of its CSIDriver) ` +
			`and rotationPollInterval=0s in the driver's chart; driver.check of keymount's chart looks for both`
	)
	for name, c := range map[string]struct {
		interval time.Duration
		story    func(k *kubelet)
		want     []string
	}{
		"off": {0, func(k *kubelet) {
			_ = k.mount(api)
		}, []string{fmt.Sprintf(text, "api", "01T01:00:00Z", "11m0s")}},
		"off, with two pods": {0, func(k *kubelet) {
			_ = k.mount(api)
			<-time.After(5*time.Minute + 30*time.Second)
			_ = k.mount(job)
		}, []string{fmt.Sprintf(text, "api", "01T01:00:00Z", "11m0s"), fmt.Sprintf(text, "job", "01T01:05:30Z", "16m0s")}},
		"off, and the first mount was tried twice": {0, func(k *kubelet) {
			_ = k.mount(api)
			<-time.After(30 * time.Second)
			_ = k.mount(api)
		}, []string{fmt.Sprintf(text, "api", "01T01:00:00Z", "11m0s")}},
		"on, and the pod is gone": {0, func(k *kubelet) {
			k.republish(5*time.Minute, api)
		}, nil},
		"on, and the kubelet comes often": {0, func(k *kubelet) {
			for range 10 {
				_ = k.mount(api)
				<-time.After(30 * time.Second)
			}
		}, nil},
		"off, and the driver could not write for minutes": {0, func(k *kubelet) {
			_ = k.mount(api)
			<-time.After(2 * time.Minute) // the kubelet's longest pause
			_ = k.mount(api)
		}, []string{fmt.Sprintf(text, "api", "01T01:00:00Z", "13m0s")}},
		"on, and nothing succeeds after the first mount": {0, func(k *kubelet) {
			_ = k.mount(api)
			<-time.After(4 * time.Minute)
			k.issuer = newIssuer(t, issuerName, "another key")
			if err := k.mount(api); err == nil {
				k.t.Error("a token with an unknown key was taken")
			}
		}, nil},
		"on, and the class was broken": {0, func(k *kubelet) {
			_ = k.mount(api)
			<-time.After(4 * time.Minute)
			k.objects = "[{pth: shop/db}]"
			if err := k.mount(api); err == nil {
				k.t.Error("a class with a mistake was mounted")
			}
		}, nil},
		"on, and a short job": {0, func(k *kubelet) {
			k.republish(10*time.Minute, api)
			_ = k.mount(job)
			k.republish(20*time.Minute, api)
		}, nil},
		"on, and a short job on a node that is drained": {0, func(k *kubelet) {
			k.republish(10*time.Minute, api)
			<-time.After(20 * time.Hour)
			_ = k.mount(job)
		}, nil},
		"on, and off since yesterday": {0, func(k *kubelet) {
			k.republish(10*time.Minute, api)
			<-time.After(24*time.Hour + 30*time.Second)
			_ = k.mount(job)
		}, []string{fmt.Sprintf(text, "job", "02T01:10:30Z", "24h12m15s")}},
		"off, and the pod never started": {0, func(k *kubelet) {
			k.memory.Set("shop/db", map[string]any{"name": canary}) // without what the class wants of it
			if err := k.mount(api); err == nil {
				k.t.Error("mounted without a key")
			}
		}, nil},
		"on, with a long interval": {15 * time.Minute, func(k *kubelet) {
			for range 4 {
				_ = k.mount(api)
				<-time.After(15 * time.Minute)
			}
		}, nil},
		"off, with a long interval": {15 * time.Minute, func(k *kubelet) {
			_ = k.mount(api)
		}, []string{fmt.Sprintf(text, "api", "01T01:00:00Z", "24m0s")}},
		"off, and the volume is known to be gone": {0, func(k *kubelet) {
			_ = k.mount(api)
			k.kept.Leave(auth.Volume{Namespace: api.Namespace, PodUID: api.UID, Class: "app"})
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := observing{&recorder{}, &logBuffer{}, observe.NewMetrics("v1.2.3", "abc"), c.interval}
			url := serveMetrics(t, o.metrics)
			synctest.Test(t, func(t *testing.T) {
				kubeletWith(t, o, leasingOne(), func(k *kubelet) {
					c.story(k)
					<-time.After(some)
				})
			})
			if diff := cmp.Diff(c.want, o.events.take()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if got := counted(t, scrape(t, url))[watchedByAlert(t)+`{store="prod"}`]; got != float64(len(c.want)) {
				t.Errorf("counted %v, want %d", got, len(c.want))
			}
			if lines := bytes.Count(o.log.Bytes(), []byte("\n")); lines != len(c.want) {
				t.Errorf("%d lines of the log, want %d:\n%s", lines, len(c.want), o.log.Bytes())
			}
		})
	}
}

// What has ended by then has no time.
func TestRotationOffTooLate(t *testing.T) {
	o := observing{events: &recorder{}, log: &logBuffer{}}
	synctest.Test(t, func(t *testing.T) {
		l := leasingOne()
		l.makes = store.Lease{Duration: 8 * time.Minute}
		kubeletWith(t, o, l, func(k *kubelet) {
			_ = k.mount(pod("shop", "api"))
			<-time.After(15 * time.Minute)
		})
	})
	const want = `secret "shop/db" of store "prod" has ended, and no replacement can reach the pod: `
	if got := o.events.take(); len(got) != 1 || !strings.Contains(got[0], want) {
		t.Errorf("got %q", got)
	}
}

// watchedByAlert is what the alert of docs/metrics.md looks at.
func watchedByAlert(t *testing.T) string {
	t.Helper()
	manual, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`# The driver mounts no volume again.*\n +sum by \(instance, store\) \(increase\((\w+)\[`).FindSubmatch(manual)
	if found == nil {
		t.Fatal("the manual has no such alert")
	}
	return string(found[1])
}

func leasingOne() leasing {
	l := leasing{Memory: storetest.NewMemory(), makes: store.Lease{Duration: time.Hour, Renewable: true}}
	l.Set("shop/db", map[string]any{"password": canary})
	return l
}

// Without events and metrics the log tells, with the words of docs/troubleshooting.md.
func TestRotationOffInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observing{log: &logBuffer{}}
		kubeletWith(t, o, leasingOne(), func(k *kubelet) {
			if err := k.mount(pod("shop", "api")); err != nil {
				t.Error(err)
			}
			<-time.After(12 * time.Minute)
		})
		want := `level=WARN msg="the driver does not rotate" namespace=shop service_account=api pod=api-0 class=app ` +
			`warning="secret \"shop/db\" of store \"prod\" ends at 2000-01-01T01:00:00Z, and no replacement can reach the pod: ` +
			`no volume of this node was mounted a second time in 11m0s; set enableSecretRotation=true (requiresRepublish of its CSIDriver) ` +
			`and rotationPollInterval=0s in the driver's chart; driver.check of keymount's chart looks for both"`
		if _, line, _ := strings.Cut(string(o.log.Bytes()), " "); strings.TrimSpace(line) != want {
			t.Errorf("got  %s\nwant %s", line, want)
		}
		_, message, _ := strings.Cut(strings.ReplaceAll(want, `\"`, `"`), `warning="`)
		message = strings.ReplaceAll(strings.TrimSuffix(message, `"`), "2000-01-01T01:00:00Z", "TIME")
		manual, err := os.ReadFile("../docs/troubleshooting.md")
		if err != nil || !bytes.Contains(manual, []byte("SecretRotationOff: class app: "+message+"\n")) {
			t.Errorf("the manual has other words, %v", err)
		}
	})
}
