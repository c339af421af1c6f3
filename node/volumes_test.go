package node_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/node"
)

// departed is a store that remembers the volumes that are gone.
type departed struct{ volumes []string }

func (d *departed) Leave(v auth.Volume) {
	d.volumes = append(d.volumes, v.Namespace+" "+v.PodUID+" "+v.Class)
}

// ownLogin gives each pod a login, and counts those that were given back.
type ownLogin struct {
	mu      sync.Mutex
	revoked int
}

func (*ownLogin) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	return login.Login{Token: secret.New([]byte("fake"))}, nil
}

func (*ownLogin) Renew(_ context.Context, _ auth.Identity, given login.Login) (login.Login, error) {
	return given, nil
}

func (o *ownLogin) Revoke(context.Context, auth.Identity, login.Login) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revoked++
	return nil
}

// Every store hears of each volume that is gone; a pod's own login goes with the last.
func TestVolumesThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, first, second := &ownLogin{}, &departed{}, &departed{}
		sessions := login.NewSessions(own, true, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = sessions.Run(ctx) })
		defer func() { cancel(); running.Wait() }()
		identity := auth.Identity{Namespace: "shop", PodUID: "uid-a", Expires: time.Now().Add(time.Hour)}
		if _, err := sessions.Open(ctx, identity, secret.Bytes{}, "shop"); err != nil {
			t.Fatal(err)
		}
		left := node.Removed(first, second, sessions)
		for i, class := range []string{"app", "tls"} {
			left(auth.Volume{Namespace: "shop", PodUID: "uid-a", Class: class}, class == "tls")
			<-time.After(time.Minute)
			own.mu.Lock()
			if own.revoked != i {
				t.Errorf("after %s %d logins were revoked, want %d", class, own.revoked, i)
			}
			own.mu.Unlock()
		}
		for _, d := range []*departed{first, second} {
			if diff := cmp.Diff([]string{"shop uid-a app", "shop uid-a tls"}, d.volumes); diff != "" {
				t.Error(diff)
			}
		}
	})
}
