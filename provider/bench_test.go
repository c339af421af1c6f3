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
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/queue"
	"github.com/keymount/keymount/store/storetest"
)

// benchFiles is how many files a mount of the benchmarks has, and manyFiles one of a large
// class.
const (
	benchFiles = 10
	manyFiles  = 1000
)

// BenchmarkMountWarm is a mount of ten objects whose secrets are at hand.
func BenchmarkMountWarm(b *testing.B) {
	benchMounts(b, benchFiles, false, func(s store.Store) provider.Store { return direct(kind.Layers{Store: s}) })
}

// BenchmarkMountKept is the same with a store like Vault, which wants a login and has
// to be asked what a path is, below all that keymount serve puts before it.
func BenchmarkMountKept(b *testing.B) { benchMountsKept(b, benchFiles) }

// BenchmarkMountKeptMany is that of a large class.
func BenchmarkMountKeptMany(b *testing.B) { benchMountsKept(b, manyFiles) }

func benchMountsKept(b *testing.B, files int) {
	b.Helper()
	benchMounts(b, files, true, func(s store.Store) provider.Store {
		inner, sessions := storetest.LoggedIn(storetest.LayersOf(resolving{s}, anyLogin{}))
		return keep.New(queue.Limit(inner, 64), keep.Options{
			Refresh: time.Hour, Pool: keep.NewPool(16<<20, time.Now, nil), Now: time.Now,
			Vouch: func(r login.Request) { sessions.Vouch(r.Identity, r.Role) },
		})
	})
}

// anyLogin lets everybody in.
type anyLogin struct{}

func (anyLogin) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	return login.Login{Token: secret.New([]byte("token"))}, nil
}

// resolving is a store whose paths are what they seem to be.
type resolving struct{ store.Store }

func (resolving) Resolve(_ context.Context, _ store.Caller, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path}, nil
}

// benchMounts mounts so many objects through a socket.
func benchMounts(b *testing.B, files int, resolves bool, decorate func(store.Store) provider.Store) {
	b.Helper()
	folder := b.TempDir()
	issuer, err := providertest.NewIssuer(issuerName, "key-1")
	if err != nil {
		b.Fatal(err)
	}
	compiled, err := access.Compile("access", []access.Rule{{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{"{namespace}/**"}}}, access.Kind{})
	if err != nil {
		b.Fatal(err)
	}
	memory := storetest.NewMemory()
	p := provider.New(provider.Options{
		Version: "v0.0.0-bench", Deadline: 25 * time.Second, ParallelReads: 8,
		VersionKey: secret.New(make([]byte, 32)),
		Verifier:   auth.NewVerifier([]*auth.Issuer{auth.NewIssuer("", issuer, time.Now)}, node, time.Now),
		Backends:   []provider.Backend{{Name: "default", Audience: audience, Store: decorate(memory), Resolves: resolves, Rules: compiled}},
		Recorders:  []provider.Recorder{observe.NewLog(slog.New(slog.DiscardHandler))},
	})
	var objects strings.Builder
	for i := range files {
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
	benchCalls(b, socket, attributes, files)
	cancel()
	if err := <-stopped; err != nil {
		b.Error(err)
	}
}

// BenchmarkFloor is what the socket alone costs: ten static files, no questions.
func BenchmarkFloor(b *testing.B) { benchFloor(b, benchFiles) }

// BenchmarkFloorMany is that of a large class.
func BenchmarkFloorMany(b *testing.B) { benchFloor(b, manyFiles) }

func benchFloor(b *testing.B, files int) {
	b.Helper()
	socket := filepath.Join(b.TempDir(), "k.sock")
	listener, err := (&net.ListenConfig{}).Listen(b.Context(), "unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	v1alpha1.RegisterCSIDriverProviderServer(server, floor{files: files})
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(listener) }()
	benchCalls(b, socket, "{}", files)
	server.Stop()
	if err := <-stopped; err != nil {
		b.Error(err)
	}
}

func benchCalls(b *testing.B, socket, attributes string, files int) {
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
		if err != nil || len(answer.GetFiles()) != files {
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

	files int
}

func (f floor) Mount(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	var m v1alpha1.MountResponse
	for i := range f.files {
		name := fmt.Sprintf("f%d", i)
		m.Files = append(m.Files, &v1alpha1.File{Path: name, Mode: 0o444, Contents: []byte(strings.Repeat("x", 32))})
		m.ObjectVersion = append(m.ObjectVersion, &v1alpha1.ObjectVersion{Id: name, Version: "1"})
	}
	return &m, nil
}
