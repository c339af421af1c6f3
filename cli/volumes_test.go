package cli_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/cli"
	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// departed is a store that remembers who left.
type departed struct {
	store.Kept

	volumes []string
}

func (d *departed) Leave(namespace, podUID, class string) {
	d.volumes = append(d.volumes, namespace+" "+podUID+" "+class)
}

// ownLogin gives each pod a login, and counts those that were given back.
type ownLogin struct {
	mu      sync.Mutex
	revoked int
}

func (*ownLogin) Login(context.Context, auth.Identity, secret.Bytes, string) (auth.Login, error) {
	return auth.Login{Token: secret.New([]byte("fake"))}, nil
}

func (*ownLogin) Renew(_ context.Context, _ auth.Identity, login auth.Login) (auth.Login, error) {
	return login, nil
}

func (o *ownLogin) Revoke(context.Context, auth.Identity, auth.Login) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.revoked++
	return nil
}

// Every store hears of each volume that is gone; a pod's own login goes with the last.
func TestVolumesThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		login, first, second := &ownLogin{}, &departed{}, &departed{}
		sessions := auth.NewSessions(login, true, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = sessions.Run(ctx) })
		defer func() { cancel(); running.Wait() }()
		identity := auth.Identity{Namespace: "shop", PodUID: "uid-a", Expires: time.Now().Add(time.Hour)}
		if _, err := sessions.Open(ctx, identity, secret.Bytes{}, "shop"); err != nil {
			t.Fatal(err)
		}
		left := cli.Leavers(first, second, sessions)
		for i, class := range []string{"app", "tls"} {
			left(kube.Volume{Namespace: "shop", PodUID: "uid-a", Class: class}, class == "tls")
			<-time.After(time.Minute)
			login.mu.Lock()
			if login.revoked != i {
				t.Errorf("after %s %d logins were revoked, want %d", class, login.revoked, i)
			}
			login.mu.Unlock()
		}
		for _, d := range []*departed{first, second} {
			if diff := cmp.Diff([]string{"shop uid-a app", "shop uid-a tls"}, d.volumes); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// Volumes can be watched in a cluster alone, which is found out at the start.
func TestServeWatchesNoVolumesOutsideACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	folder := t.TempDir()
	fill(t, folder, "watchVolumes: true")
	var out, errOut bytes.Buffer
	code := cli.Run(t.Context(), []string{"serve", "--config", filepath.Join(folder, "keymount.yaml"), "--node-name", "node-1"}, strings.NewReader(""), &out, &errOut)
	const want = "keymount: watchVolumes: works only in a pod: unable to load in-cluster configuration, " +
		"KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined\n"
	if code != 1 || !strings.HasSuffix(errOut.String(), want) {
		t.Errorf("exit code %d\ngot  %swant %s", code, errOut.String(), want)
	}
}
