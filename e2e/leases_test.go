package e2e_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/e2e/vaulttest"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/queue"
	"github.com/keymount/keymount/store/vault"
)

const (
	// leaseLife is a little more than the shortest that keymount takes.
	leaseLife = 10 * time.Minute
	republish = 10
)

// engines are what makes things for whoever asks: credentials, certificates and
// passwords that change. The engine for databases is database, that for certificates
// pki.
type engines struct {
	*vaulttest.Server
	postgres *vaulttest.Postgres
}

func newEngines(t *testing.T, issuer *providertest.Issuer) engines {
	t.Helper()
	e := engines{newVault(t, issuer), vaulttest.StartPostgres(t)}
	e.MountDatabase(t, "database", e.postgres, "shop", leaseLife)
	e.MountPKI(t, "pki", "shop")
	e.WritePolicy(t, "shop", policy+`
		path "database/creds/*" { capabilities = ["read"] }
		path "sys/leases/revoke" { capabilities = ["update"] allowed_parameters = { "lease_id" = ["database/creds/left/*"] } }`)
	role := jwtRole()
	role["token_ttl"] = "1h" // what a login makes ends with it
	e.WriteRole(t, "jwt", "shop-api", role)
	return e
}

// role makes a role of the database of its own.
func (e engines) role(t *testing.T, name string, life time.Duration) {
	t.Helper()
	write(t, e.Client(t).Logical(), "database/roles/"+name, map[string]any{
		"db_name": "postgres", "default_ttl": life.String(), "max_ttl": (2 * life).String(),
		"creation_statements": `CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
	})
}

// lease is what Vault says of one.
type lease struct {
	ID, Renewed     string // when, empty for never
	Issued, Expires time.Time
}

// leases are those of a role of the database.
func (e engines) leases(t *testing.T, role string) []lease {
	t.Helper()
	logical := e.Client(t).Logical()
	listed, err := logical.ListWithContext(t.Context(), "sys/leases/lookup/database/creds/"+role)
	if err != nil {
		t.Fatal(err)
	}
	if listed == nil {
		return nil
	}
	var all []lease
	names, _ := listed.Data["keys"].([]any)
	for _, name := range names {
		all = append(all, e.lease(t, fmt.Sprintf("database/creds/%s/%s", role, name)))
	}
	return all
}

func (e engines) lease(t *testing.T, id string) lease {
	t.Helper()
	found, err := e.Client(t).Logical().WriteWithContext(t.Context(), "sys/leases/lookup", map[string]any{"lease_id": id})
	if err != nil {
		t.Fatal(err)
	}
	one := lease{ID: id}
	one.Renewed, _ = found.Data["last_renewal"].(string)
	for name, at := range map[string]*time.Time{"issue_time": &one.Issued, "expire_time": &one.Expires} {
		text, _ := found.Data[name].(string)
		if *at, err = time.Parse(time.RFC3339Nano, text); err != nil {
			t.Fatal(err)
		}
	}
	return one
}

// users are those that Vault made with a role of the database and that are there.
func (e engines) users(t *testing.T, role string) []string {
	t.Helper()
	rows, err := e.postgres.Open(t, vaulttest.Superuser, e.postgres.Password).QueryContext(
		t.Context(), `SELECT rolname FROM pg_roles WHERE rolname LIKE $1`, "v-%-"+role+"-%")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // only read
	var users []string
	for rows.Next() {
		var user string
		if err := rows.Scan(&user); err != nil {
			t.Fatal(err)
		}
		users = append(users, user)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return users
}

// lets tells whether the database lets somebody in.
func (e engines) lets(t *testing.T, credential map[string]string) bool {
	t.Helper()
	return e.postgres.Open(t, credential["username"], credential["password"]).PingContext(t.Context()) == nil
}

// pods are n pods of the service account api.
func pods(n int) []auth.Pod {
	all := make([]auth.Pod, n)
	for i := range all {
		all[i] = shopAPI
		all[i].Name, all[i].UID = fmt.Sprintf("api-%d", i), fmt.Sprintf("uid-of-api-%d", i)
	}
	return all
}

// published mounts a class that has nothing wrong with it.
func (k *keymount) published(t *testing.T, pod auth.Pod, name string, c class) volume {
	t.Helper()
	v, err := k.publish(t, pod, name, c, "vault")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// same wants a republish to change nothing.
func same(t *testing.T, what string, before, after volume) {
	t.Helper()
	if diff := cmp.Diff(before.files, after.files); diff != "" {
		t.Errorf("%s: files (-before +after):\n%s", what, diff)
	}
	if diff := cmp.Diff(before.versions, after.versions); diff != "" {
		t.Errorf("%s: versions (-before +after):\n%s", what, diff)
	}
}

func credentialOf(role string) class {
	return shopClass(fmt.Sprintf(`[{path: database/creds/%s, file: ./}]`, role))
}

// What Vault makes for a volume stays that volume's, the same bytes, however often
// it is mounted: nothing is made without a need.
func TestLeases(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	e := newEngines(t, issuer)
	for name, test := range map[string]func(*testing.T, engines, *providertest.Issuer){
		"one for each pod":        leaseOfEachPod,
		"one for all":             leaseOfAllPods,
		"one for each class":      leaseOfEachClass,
		"one for all its objects": leaseOfObjects,
		"a certificate":           certificateOfEachPod,
		"a password that changes": staticRole,
		"of a login that ended":   leaseOfAnEndedLogin,
		"of pods that are gone":   leaseOfAPodThatIsGone,
		"of volumes that left":    leaseOfAVolumeThatLeft,
		"too short":               leaseTooShort,
		"after restarts":          leaseAfterRestarts,
		"renewed after a restart": leaseRenewedAfterARestart,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, e, issuer)
		})
	}
}

func leaseOfEachPod(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	e.role(t, "each", leaseLife)
	first := map[string]volume{} // by pod
	t.Run("serve", func(t *testing.T) {
		k, p := serveBefore(t, e.Server, issuer, operator{})
		for round := range 1 + republish {
			for _, pod := range pods(10) {
				v := k.published(t, pod, "app", credentialOf("each"))
				if round == 0 {
					first[pod.Name] = v
				}
				same(t, pod.Name, first[pod.Name], v)
			}
		}
		for path, want := range map[string]int{"auth/jwt/login": 1, "database/creds/": 10, "": 12} {
			if got := p.count(path); got != want {
				t.Errorf("%d requests for %q, want %d", got, path, want)
			}
		}
	})
	// keymount has ended by now, and ended nothing.
	users := map[string]bool{}
	for pod, v := range first {
		users[v.files["username"]] = true
		if !e.lets(t, v.files) {
			t.Errorf("the database does not let %s in", pod)
		}
	}
	if got := len(e.users(t, "each")); got != 10 || len(users) != 10 {
		t.Errorf("%d users in the database and %d in the pods, want 10", got, len(users))
	}
	leases := e.leases(t, "each")
	if len(leases) != 10 {
		t.Errorf("%d leases, want 10", len(leases))
	}
	for _, l := range leases {
		if life := l.Expires.Sub(l.Issued).Round(time.Second); l.Renewed != "" || life != leaseLife {
			t.Errorf("a lease lives for %s, renewed at %q; want %s, never", life, l.Renewed, leaseLife)
		}
	}
}

func leaseOfAllPods(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	e.role(t, "all", leaseLife)
	k, p := serveBefore(t, e.Server, issuer, operator{})
	objects := `[{path: database/creds/all, file: ./, lease: shared}]`
	files := k.published(t, shopAPI, "app", shopClass(objects)).files
	var mounts sync.WaitGroup
	for _, pod := range pods(10) {
		mounts.Go(func() {
			v, err := k.publish(t, pod, "class-of-"+pod.Name, shopClass(objects), "vault")
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(files, v.files); diff != "" {
				t.Errorf("%s (-want +got):\n%s", pod.Name, diff)
			}
		})
	}
	mounts.Wait()
	// Another role shares nothing, nor does a class that does not ask for it.
	for name, c := range map[string]class{"another role": {"shop-other", objects}, "of its own": credentialOf("all")} {
		if v := k.published(t, shopAPI, "app", c); cmp.Equal(files, v.files) {
			t.Errorf("%s: it is the same credential", name)
		}
	}
	if got := p.count("database/creds/"); got != 3 || len(e.leases(t, "all")) != 3 || len(e.users(t, "all")) != 3 {
		t.Errorf("%d reads, %d leases, %d users; want 3", got, len(e.leases(t, "all")), len(e.users(t, "all")))
	}
}

func leaseOfEachClass(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	e.role(t, "two", leaseLife)
	k, p := serveBefore(t, e.Server, issuer, operator{})
	first := map[string]volume{}
	for range 1 + republish {
		for _, name := range []string{"app", "batch"} {
			v := k.published(t, shopAPI, name, credentialOf("two"))
			if _, known := first[name]; !known {
				first[name] = v
			}
			same(t, name, first[name], v)
		}
	}
	if cmp.Equal(first["app"].files, first["batch"].files) {
		t.Error("two volumes of a pod have one credential")
	}
	if got := p.count("database/creds/"); got != 2 || len(e.leases(t, "two")) != 2 {
		t.Errorf("%d reads, %d leases; want 2", got, len(e.leases(t, "two")))
	}
}

func leaseOfObjects(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	e.role(t, "objects", leaseLife)
	k, p := serveBefore(t, e.Server, issuer, operator{})
	objects := lines(
		`{path: database/creds/objects, key: username, file: username}`, `{path: database/creds/objects, key: password, file: password}`,
		`{path: database/creds/objects, file: dsn, template: '{{ .username }}:{{ .password }}'}`,
		`{path: secret/shop/app, file: both, template: '{{ .name }} {{ (secret "database/creds/objects").username }}'}`)
	first := k.published(t, shopAPI, "app", shopClass(objects))
	user, password := first.files["username"], first.files["password"]
	if diff := cmp.Diff(map[string]string{
		"username": user, "password": password, "dsn": user + ":" + password, "both": "canary-name " + user,
	}, first.files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for range republish {
		same(t, "republished", first, k.published(t, shopAPI, "app", shopClass(objects)))
	}
	if got := p.count("database/creds/"); got != 1 || len(e.leases(t, "objects")) != 1 {
		t.Errorf("%d reads, %d leases; want 1", got, len(e.leases(t, "objects")))
	}
}

// What ends too soon to be kept is refused with advice, and costs one credential and
// not one at each try.
func leaseTooShort(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	for role, o := range map[string]operator{"short": {Memory: "refresh: 1m, stale: 0s"}, "brief": {}} {
		e.role(t, role, time.Minute)
		k, _ := serveBefore(t, e.Server, issuer, o)
		for range 3 {
			_, err := k.mount(t, shopAPI, credentialOf(role))
			for _, part := range []string{"FailedPrecondition: ", "database/creds/" + role, "raise the ttl"} {
				if !strings.Contains(told(err), part) {
					t.Errorf("the error is %q, without %q", told(err), part)
				}
			}
		}
		if got := len(e.leases(t, role)); got != 1 {
			t.Errorf("%s: %d credentials were made, want 1", role, got)
		}
	}
}

// A certificate is made once for a volume; `keymount refresh` makes none.
func certificateOfEachPod(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	k, p := serveBefore(t, e.Server, issuer, operator{Memory: "refresh: 1m, stale: 0s"})
	of := func(arguments string) class {
		return shopClass(lines(`{path: pki/issue/shop, args: `+arguments+`, file: ./}`, `{path: secret/shop/db, key: password, file: kv}`))
	}
	api, other := of(`{common_name: api.shop.svc, ttl: 1h}`), of(`{common_name: other.shop.svc, ttl: 1h}`)
	first := map[string]volume{}
	for range 1 + republish {
		for _, pod := range pods(2) {
			v := k.published(t, pod, "app", api)
			if _, known := first[pod.Name]; !known {
				first[pod.Name] = v
			}
			same(t, pod.Name, first[pod.Name], v)
		}
	}
	first["other"] = k.published(t, shopAPI, "app", other)
	serials := map[string]bool{}
	for who, v := range first {
		serials[serialOf(t, who, v)] = true
	}
	if got := p.count("pki/issue/"); got != 3 || len(serials) != 3 {
		t.Errorf("%d certificates were made, %d are in pods; want 3: two pods, and other arguments", got, len(serials))
	}

	p.forget()
	k.refresh(t)
	same(t, "after keymount refresh", first["api-0"], k.published(t, shopAPI, "app", api))
	if kv, made := p.count("secret/"), p.count("pki/issue/"); kv != 1 || made != 0 {
		t.Errorf("after keymount refresh: %d reads of a secret and %d certificates, want 1 and 0", kv, made)
	}
}

func serialOf(t *testing.T, who string, v volume) string {
	t.Helper()
	block, _ := pem.Decode([]byte(v.files["certificate"]))
	if block == nil {
		t.Fatalf("%s has no certificate, but %q", who, slices.Sorted(maps.Keys(v.files)))
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate.SerialNumber.String()
}

// A password that Vault changes by itself is read again after refresh, and when it is
// over; in between nobody asks.
func staticRole(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	for name, period := range map[string]time.Duration{"slow": time.Hour, "fast": 5 * time.Second} {
		e.postgres.CreateUser(t, "canary-user-"+name, "canary-first-password")
		e.AddStaticRole(t, "database", name, "canary-user-"+name, period)
	}
	for name, o := range map[string]operator{
		"slow": {Memory: "refresh: 1s, refreshMax: 1s, stale: 0s"}, // somebody changes it
		"fast": {Memory: "refresh: 1h, stale: 0s"},                 // Vault does
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, p := serveBefore(t, e.Server, issuer, o)
			c := shopClass(fmt.Sprintf(`[{path: database/static-creds/%s, file: ./}]`, name))
			before := k.published(t, shopAPI, "app", c)
			if !e.lets(t, before.files) {
				t.Fatal("the database does not let it in")
			}
			if name == "slow" {
				write(t, e.Client(t).Logical(), "database/rotate-role/slow", nil)
			}
			began := time.Now()
			after := until(t, func() bool {
				v := k.published(t, shopAPI, "app", c)
				return v.files["password"] != before.files["password"] && e.lets(t, v.files)
			})
			t.Logf("the new password was there after %s, %d mounts and %d reads", time.Since(began).Round(100*time.Millisecond), after, p.count("database/"))
		})
	}
}

// until asks again and again, and returns how often.
func until(t *testing.T, there func() bool) int {
	t.Helper()
	const limit = 15 * time.Second
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for began, n := time.Now(), 1; ; n++ {
		if there() {
			return n
		}
		if time.Since(began) > limit {
			t.Fatalf("not within %s", limit)
		}
		<-ticker.C
	}
}

// When a login is gone, so is what it made: the next reads find out, and the mounts
// after them have another credential.
func leaseOfAnEndedLogin(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	e.role(t, "ended", leaseLife)
	k, p := serveBefore(t, e.Server, issuer, operator{})
	c := shopClass(lines(`{path: database/creds/ended, file: ./}`, `{path: secret/shop/db, key: password, file: kv}`))
	first := k.published(t, shopAPI, "app", c)
	token := e.Client(t).Auth().Token()
	found, err := token.LookupWithContext(t.Context(), p.tokens()[0])
	if err != nil {
		t.Fatal(err)
	}
	accessor, err := found.TokenAccessor()
	if err != nil {
		t.Fatal(err)
	}
	if err := token.RevokeAccessorWithContext(t.Context(), accessor); err != nil {
		t.Fatal(err)
	}
	p.forget()
	mounts := until(t, func() bool {
		v := k.published(t, shopAPI, "app", c)
		return v.files["username"] != first.files["username"]
	})
	if mounts > 2 { // the first may find out while it delivers the old one
		t.Errorf("%d mounts until there was another credential, want 2 at most", mounts)
	}
	second := k.published(t, shopAPI, "app", c)
	if !e.lets(t, second.files) {
		t.Error("the database does not let the new one in")
	}
	for path, want := range map[string]int{"auth/jwt/login": 1, "database/creds/": 1} {
		if got := p.count(path); got != want {
			t.Errorf("%d requests for %q, want %d", got, path, want)
		}
	}
}

// Of three pods one is mounted on and its lease renewed; one is gone and its lease is
// left to expire; and one whose lease somebody has revoked gets another credential.
// The clock is the test's, since it is about minutes.
func leaseOfAPodThatIsGone(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	e.role(t, "gone", 2*leaseLife)
	forgotten := make(chan keep.Forgotten, 1)
	s := newStack(t, e.Server, issuer, func(o *keep.Options) {
		o.Sweep, o.Forgotten = 200*time.Millisecond, func(_ context.Context, f keep.Forgotten) { forgotten <- f }
	})
	made := map[string]lease{} // by pod
	for _, pod := range pods(3) {
		before := e.leases(t, "gone")
		s.user(t, pod)
		for _, l := range e.leases(t, "gone") {
			if !slices.ContainsFunc(before, func(b lease) bool { return b.ID == l.ID }) {
				made[pod.Name] = l
			}
		}
	}
	const living, gone, revoked = "api-0", "api-1", "api-2"
	if err := e.Client(t).Sys().RevokeWithContext(t.Context(), made[revoked].ID); err != nil {
		t.Fatal(err)
	}
	mountOn := func() (last string) {
		s.user(t, pods(3)[0])
		return s.user(t, pods(3)[2])
	}
	first := mountOn()
	until(t, func() bool { mountOn(); return len(forgotten) > 0 })
	if f := <-forgotten; f.Pod.Name != gone {
		t.Errorf("%s is forgotten, want %s", f.Pod.Name, gone)
	}
	s.after(14 * time.Minute) // two thirds of the life are over
	until(t, func() bool { return mountOn() != first && s.proxy.count("sys/leases/renew") == 2 })

	if l := e.lease(t, made[living].ID); l.Renewed == "" || !l.Expires.After(made[living].Expires) {
		t.Errorf("the lease of a pod that lives: %+v, was %+v", l, made[living])
	}
	if diff := cmp.Diff(made[gone], e.lease(t, made[gone].ID)); diff != "" {
		t.Errorf("the lease of a pod that is gone (-before +after):\n%s", diff)
	}
	if got := len(e.users(t, "gone")); got != 3 {
		t.Errorf("%d users, want 3: two as they were, and one anew", got)
	}
	// That end comes sooner here than it would.
	if _, err := e.Client(t).Sys().RenewWithContext(t.Context(), made[gone].ID, 1); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return len(e.users(t, "gone")) == 2 })
	if got := s.proxy.count("sys/leases/renew"); got != 2 {
		t.Errorf("%d renewals, want one and one that was refused", got)
	}
}

// stack is what keymount makes of a Vault, see node/stores.go, under a clock of the
// test's own.
type stack struct {
	issuer   *providertest.Issuer
	proxy    *proxy
	changes  []func(*keep.Options)
	sessions *login.Sessions
	kept     *keep.Keeper
	stop     func()
	ahead    atomic.Int64 // of the clock on the wall
}

func newStack(t *testing.T, server *vaulttest.Server, issuer *providertest.Issuer, changes ...func(*keep.Options)) *stack {
	t.Helper()
	s := &stack{issuer: issuer, proxy: newProxy(t, server.Address), changes: changes}
	s.open(t)
	s.start(t)
	return s
}

func (s *stack) open(t *testing.T) {
	t.Helper()
	conn, err := vault.NewConn(vault.Options{Addresses: []string{s.proxy.URL}}, s.now)
	if err != nil {
		t.Fatal(err)
	}
	sessions := login.NewSessions(vault.Method{Conn: conn, Mount: "jwt", Now: s.now}, false, s.now)
	sessions.Spare, s.sessions = 10*time.Minute, sessions
	options := keep.Options{
		Replace: 5 * time.Minute, Pool: keep.NewPool(1<<20, time.Now, nil), Now: s.now,
		Vouch: func(one login.Request) { sessions.Vouch(one.Identity, one.Role) },
	}
	for _, change := range s.changes {
		change(&options)
	}
	opened := vault.New(conn, "", nil)
	s.kept = keep.New(queue.Limit(login.Open(login.Options{
		Store: opened, Resolver: opened, Leaser: opened, Sessions: sessions, Now: s.now,
	}), 64), options)
}

func (s *stack) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = s.sessions.Run(ctx) })
	running.Go(func() { _ = s.kept.Run(ctx) })
	s.stop = func() { cancel(); running.Wait() }
	t.Cleanup(s.stop)
}

func (s *stack) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// after lets the clock go on.
func (s *stack) after(d time.Duration) { s.ahead.Add(int64(d)) }

// user is whom a pod is in the database: what a mount of the credential reads.
func (s *stack) user(t *testing.T, pod auth.Pod) string {
	t.Helper()
	user, err := s.read(t, pod, "database/creds/gone", "", "username")
	if err != nil {
		t.Fatal(err)
	}
	return user
}

// read is what a mount reads.
func (s *stack) read(t *testing.T, pod auth.Pod, path, args, key string) (string, error) {
	t.Helper()
	token, err := s.issuer.Sign(s.issuer.ClaimsFor(pod, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := store.ParsePath(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), outageDeadline)
	defer cancel()
	request, ref := login.Request{
		Role: "shop-api", Proof: secret.New([]byte(token)), Volume: auth.Volume{Namespace: pod.Namespace, PodUID: pod.UID, Class: "app"},
		Identity: auth.Identity{
			Issuer: issuerName, Audience: "vault", Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount,
			PodName: pod.Name, PodUID: pod.UID, Expires: s.now().Add(time.Hour),
		},
	}, store.Ref{Path: parsed, Args: args}
	resolved, err := s.kept.Resolve(ctx, request, ref)
	if err != nil {
		return "", err
	}
	value, err := s.kept.Read(ctx, request, ref, resolved)
	if err != nil {
		return "", err
	}
	part, err := value.Data.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(part.Reveal()), nil
}

// refresh runs keymount's command of that name.
func (k *keymount) refresh(t *testing.T) {
	t.Helper()
	//nolint:gosec // G204: the program that TestMain built
	command := exec.CommandContext(t.Context(), keymountBinary, "refresh", "--config", k.config)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("keymount refresh: %v\n%s", err, strings.TrimSpace(string(out)))
	}
}
