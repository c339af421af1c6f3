package provider_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/storetest"
)

// benchFiles is how many files a mount of the benchmarks has.
const benchFiles = 10

// BenchmarkMountWarm is a mount of ten objects whose secrets are at hand.
func BenchmarkMountWarm(b *testing.B) {
	benchMounts(b, func(s store.Store) store.Store { return s })
}

// BenchmarkMountKept is the same with a store like Vault, which wants a login and has
// to be asked what a path is, below all that keymount serve puts before it.
func BenchmarkMountKept(b *testing.B) {
	benchMounts(b, func(s store.Store) store.Store {
		sessions := auth.NewSessions(anyLogin{}, false, time.Now)
		return store.Keep(store.Limit(store.LogIn(resolving{s}, sessions, time.Now), 64), store.KeepOptions{
			Refresh: time.Hour, Bytes: 1 << 20, Now: time.Now,
			Vouch: func(s store.Session) { sessions.Vouch(s.Identity, s.Role) },
		})
	})
}

// anyLogin lets everybody in.
type anyLogin struct{}

func (anyLogin) Login(context.Context, auth.Identity, secret.Bytes, string) (auth.Login, error) {
	return auth.Login{Token: secret.New([]byte("token"))}, nil
}

// resolving is a store whose paths are what they seem to be.
type resolving struct{ store.Store }

func (resolving) Resolve(_ context.Context, _ store.Session, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path}, nil
}

// benchMounts mounts ten objects through a socket.
func benchMounts(b *testing.B, decorate func(store.Store) store.Store) {
	b.Helper()
	folder := b.TempDir()
	issuer, err := providertest.NewIssuer(issuerName, "key-1")
	if err != nil {
		b.Fatal(err)
	}
	compiled, err := access.Compile("access", []access.Rule{{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{"{namespace}/**"}}}, false)
	if err != nil {
		b.Fatal(err)
	}
	memory := storetest.NewMemory()
	p := provider.New(provider.Options{
		Version: "v0.0.0-bench", Deadline: 25 * time.Second, ParallelReads: 8,
		VersionKey: secret.New(make([]byte, 32)),
		Verifier:   auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", keysOf{issuer}, time.Now)}, node, time.Now),
		Backends:   []provider.Backend{{Name: "default", Audience: audience, Store: decorate(memory), Rules: compiled}},
	})
	var objects strings.Builder
	for i := range benchFiles {
		memory.Set(fmt.Sprintf("shop/s%d", i), map[string]any{"password": strings.Repeat("x", 32)})
		fmt.Fprintf(&objects, "- {path: shop/s%d, key: password, file: f%d}\n", i, i)
	}
	token, err := issuer.Sign(issuer.ClaimsFor(pod("shop", "api"), audience))
	if err != nil {
		b.Fatal(err)
	}
	attributes, err := providertest.Volume{
		Pod: pod("shop", "api"), Class: "app", Parameters: map[string]string{"objects": objects.String()}, Tokens: map[string]string{audience: token},
	}.Attributes()
	if err != nil {
		b.Fatal(err)
	}
	socket := filepath.Join(folder, "k.sock")
	server, err := provider.Listen(b.Context(), []string{socket}, p, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- server.Run(ctx) }()
	benchCalls(b, socket, attributes)
	cancel()
	if err := <-stopped; err != nil {
		b.Error(err)
	}
}

// BenchmarkFloor is what the socket alone costs: ten static files, no questions.
func BenchmarkFloor(b *testing.B) {
	socket := filepath.Join(b.TempDir(), "k.sock")
	listener, err := (&net.ListenConfig{}).Listen(b.Context(), "unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, floor{})
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(listener) }()
	benchCalls(b, socket, "{}")
	server.Stop()
	if err := <-stopped; err != nil {
		b.Error(err)
	}
}

func benchCalls(b *testing.B, socket, attributes string) {
	b.Helper()
	driver, err := providertest.Dial(socket)
	if err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		answer, err := driver.Call(b.Context(), attributes)
		took = append(took, time.Since(began))
		if err != nil || len(answer.GetFiles()) != benchFiles {
			b.Fatal(err, len(answer.GetFiles()))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	if err := driver.Close(); err != nil {
		b.Error(err)
	}
}

type floor struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
}

func (floor) Mount(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	var m v1alpha1.MountResponse
	for i := range benchFiles {
		name := fmt.Sprintf("f%d", i)
		m.Files = append(m.Files, &v1alpha1.File{Path: name, Mode: 0o444, Contents: []byte(strings.Repeat("x", 32))})
		m.ObjectVersion = append(m.ObjectVersion, &v1alpha1.ObjectVersion{Id: name, Version: "1"})
	}
	return &m, nil
}
