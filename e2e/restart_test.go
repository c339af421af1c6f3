package e2e_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/provider/providertest"
)

// With a state folder pods keep what they have when keymount ends, however it ends, and
// nobody logs in again; without one each start makes other credentials.
func leaseAfterRestarts(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	e.role(t, "restart", leaseLife)
	folder := stateFolder(t)
	k, p := serveBefore(t, e.Server, issuer, operator{State: folder})
	certificate := shopClass(`[{path: pki/issue/shop, args: {common_name: api.shop.svc, ttl: 1h}, file: ./}]`)
	mount := func() map[string]volume { // by class and pod
		mounted := map[string]volume{"certificate": k.published(t, shopAPI, "certificate", certificate)}
		for _, pod := range pods(10) {
			mounted[pod.Name] = k.published(t, pod, "app", credentialOf("restart"))
		}
		return mounted
	}
	var first map[string]volume
	for _, step := range []func(){ // each is written by itself
		func() { k.published(t, shopAPI, "login", shopClass(oneObject)) },
		func() { first = mount() },
	} {
		began := time.Now()
		step()
		written(t, filepath.Join(folder, storeName+".state"), began)
		k.restart(t, syscall.SIGKILL)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for who, v := range mount() {
			same(t, who, first[who], v)
		}
		k.restart(t, signal)
	}
	for who, v := range mount() {
		same(t, who, first[who], v)
	}
	for path, want := range map[string]int{"auth/": 1, "database/creds/": 10, "pki/issue/": 1} {
		if got := p.count(path); got != want {
			t.Errorf("%d requests for %q, want %d", got, path, want)
		}
	}
	if users, leases := len(e.users(t, "restart")), len(e.leases(t, "restart")); users != 10 || leases != 10 {
		t.Errorf("%d users in the database and %d leases, want 10", users, leases)
	}
	for who, v := range first {
		if who != "certificate" && !e.lets(t, v.files) {
			t.Errorf("the database does not let %s in", who)
		}
	}
	for _, leak := range leaksIn(textIn(t, folder), p.carried()) {
		t.Errorf("a secret stands in the state: %.8s...", leak)
	}

	without, p := serveBefore(t, e.Server, issuer, operator{})
	before := without.published(t, shopAPI, "app", credentialOf("restart"))
	without.restart(t, syscall.SIGTERM)
	if after := without.published(t, shopAPI, "app", credentialOf("restart")); cmp.Equal(before.files, after.files) || p.count("auth/jwt/login") != 2 {
		t.Error("without a state folder it is the same credential, or login")
	}
}

// stateFolder is one that keymount makes, in memory.
func stateFolder(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("/dev/shm", "km-") //nolint:usetesting // it has to be in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	return filepath.Join(parent, "state")
}

// written waits until a file was written since some time, and not any more for a while:
// what has changed is written within a second, and SIGKILL loses what is not.
func written(t *testing.T, file string, since time.Time) {
	t.Helper()
	const while = 2500 * time.Millisecond
	until(t, func() bool {
		info, err := os.Stat(file)
		return err == nil && info.ModTime().After(since) && time.Since(info.ModTime()) > while
	})
}

// textIn is what all files of a folder hold.
func textIn(t *testing.T, folder string) (text string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text += string(content)
	}
	return text
}

// A lease that the process before was given is renewed by the next one, with the login
// that made it. The clock is the test's, since it is about minutes.
func leaseRenewedAfterARestart(t *testing.T, e engines, issuer *providertest.Issuer) {
	t.Helper()
	e.role(t, "prolonged", 2*leaseLife)
	s := newStack(t, e.Server, issuer)
	user := func() string {
		t.Helper()
		name, err := s.read(t, shopAPI, "database/creds/prolonged", "", "username")
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	first := user()
	made := e.leases(t, "prolonged")[0]
	s.restart(t)
	s.after(9 * time.Minute)
	user()
	s.after(5 * time.Minute) // two thirds of the life are over
	until(t, func() bool { return e.lease(t, made.ID).Renewed != "" })
	if l := e.lease(t, made.ID); !l.Expires.After(made.Expires) {
		t.Errorf("the lease: %+v, was %+v", l, made)
	}
	if now := user(); now != first || s.proxy.count("auth/jwt/login") != 1 || s.proxy.count("database/creds/") != 1 {
		t.Errorf("user %q, was %q; %d logins, %d credentials; want 1", now, first, s.proxy.count("auth/jwt/login"), s.proxy.count("database/creds/"))
	}
}

// restart ends what runs, and lets the next take over.
func (s *stack) restart(t *testing.T) {
	t.Helper()
	s.stop()
	logins, err := s.sessions.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	values, err := s.kept.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s.open(t)
	if _, err := s.sessions.Restore(logins); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kept.Restore(values); err != nil {
		t.Fatal(err)
	}
	s.start(t)
}
