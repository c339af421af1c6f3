package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// Every kind of record, with every field that there is, is what docs/audit.schema.json says.
func TestRecordsFitTheSchema(t *testing.T) {
	folder := t.TempDir()
	seen, kinds := map[string]bool{}, map[audit.Kind]bool{}
	for _, text := range [][]byte{trailInFile(t, folder), trailInStuckPipe(t)} {
		for line := range bytes.Lines(text) {
			hold(t, line, seen)
			kinds[read(t, line).Kind] = true
		}
	}
	if missing := unseen(reflect.TypeFor[audit.Record](), seen); len(missing) > 0 {
		t.Errorf("no record has %q", missing)
	}
	for _, want := range readSource(t).constants["Kind"] {
		if !kinds[audit.Kind(want)] {
			t.Errorf("no record is of kind %s, but %q", want, slices.Sorted(maps.Keys(kinds)))
		}
	}
}

// trailInFile is a trail with a predecessor and a key, and nothing that fails.
func trailInFile(t *testing.T, folder string) []byte {
	t.Helper()
	name := filepath.Join(folder, "audit.jsonl")
	during(t, options(openFile(t, name)), func(*audit.Trail) {})
	keyFile := filepath.Join(folder, "audit.key")
	private, _, err := audit.NewKey("shop")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	file := openFile(t, name)
	o := options(file)
	o.Predecessor = file.Last()
	if o.Origin, err = audit.ReadKey(keyFile); err != nil {
		t.Fatal(err)
	}
	during(t, o, func(trail *audit.Trail) {
		if err := trail.Loaded("/etc/keymount/keymount.yaml", strings.Repeat("0a", 32), 2); err != nil {
			t.Error(err)
		}
		for _, m := range mounts(t) {
			if err := trail.Record(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
		liveLeases(t, trail)
	})
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// mounts are one of each sort.
func mounts(t *testing.T) []*record.Mount {
	t.Helper()
	changed := func(m *record.Mount, changes ...func(*record.Mount, *record.Read)) *record.Mount {
		for _, change := range changes {
			change(m, &m.Reads[0])
		}
		return m
	}
	large := func(m *record.Mount, r *record.Read) {
		for i := range 3000 {
			r.Files = append(r.Files, fmt.Sprint("file-", i))
		}
		m.Reads = append(m.Reads, *r)
	}
	denied := func(m *record.Mount, r *record.Read) {
		r.Rule, r.Err, r.Source, r.Files = access.Decision{Rule: "stores[0].access[1]", List: "paths"}, access.ErrDenied, "", nil
		m.Code, m.Message, m.Err = codes.PermissionDenied, "objects[0]: not allowed", access.ErrDenied
	}
	absent := func(m *record.Mount, r *record.Read) {
		r.Err, r.Source, r.Files = &store.Error{Reason: store.NotFound, Said: "no secret"}, "", nil
		m.Code, m.Message, m.Err = codes.NotFound, "objects[0]: not found", r.Err
	}
	refused := func(m *record.Mount, r *record.Read) {
		denied(m, r)
		for range 99 {
			m.Reads = append(m.Reads, *r)
		}
	}
	special := func(_ *record.Mount, r *record.Read) {
		r.Write, r.Literal, r.Secret.Version, r.Source = true, "metadata", "3", record.FromMemory
	}
	unproven := func(m *record.Mount, _ *record.Read) {
		m.Reads, m.Code, m.Message, m.Files = nil, codes.Unauthenticated, "service account token refused", 0
		m.Class, m.Pod = "", auth.Pod{}
	}
	stale := func(_ *record.Mount, r *record.Read) { r.Source, r.Cause = record.Stale, "connection refused" }
	return []*record.Mount{
		mounted(t, "api-0", "3"), mounted(t, "api-0", "3"), mounted(t, "api-0", "4"), changed(mounted(t, "api-0", "4"), denied),
		changed(mounted(t, "api-0", "4"), refused),
		changed(mounted(t, "api-0", "4"), absent), changed(mounted(t, "api-1", "4"), special), changed(mounted(t, "api-2", "4"), large),
		changed(mounted(t, "api-3", "4"), unproven), changed(mounted(t, "api-0", "4"), stale), mounted(t, "api-0", "4"),
	}
}

// vending is a store whose secrets are credentials, each with a lease.
type vending struct{ fails error }

func (vending) Read(context.Context, store.Caller, store.Ref) (store.Value, error) {
	return store.Value{RequestID: "request-1", Lease: &store.Lease{ID: secret.New([]byte("database/creds/shop/1")), Duration: time.Hour}}, nil
}

func (v vending) Renew(_ context.Context, _ store.Caller, lease store.Lease) (store.Lease, error) {
	return lease, v.fails
}

func (v vending) Revoke(context.Context, store.Caller, store.Lease) error { return v.fails }

func (v vending) Login(context.Context, auth.Identity, secret.Bytes, string) (login.Login, error) {
	return login.Login{}, v.fails
}

// liveLeases has logins and leases of two stores watched, one of which refuses.
func liveLeases(t *testing.T, trail *audit.Trail) {
	t.Helper()
	for name, s := range map[string]vending{"prod": {}, "refusing": {fails: &store.Error{Reason: store.Denied, Said: "permission denied"}}} {
		layers := trail.Watch(name, kind.Layers{Store: s, Leaser: s, Login: s})
		caller := store.Caller{Role: "shop", Identity: *mounted(t, "api-0", "1").Reads[0].Identity}
		caller.Identity.PodName, caller.Identity.PodUID = "api-0", "uid-api-0"
		ref := store.Ref{Path: path(t, "database/creds/shop")}
		for range 2 { // the second replaces the first
			value, err := layers.Read(t.Context(), caller, ref)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = layers.Renew(t.Context(), caller, *value.Lease)
			_ = layers.Revoke(t.Context(), caller, *value.Lease)
		}
		_, _ = layers.Login.Login(t.Context(), caller.Identity, secret.New([]byte("token")), "shop")
	}
}

// trailInStuckPipe is what a pipe has that was not read for a while: a withdrawn mount, and
// records that are lost.
func trailInStuckPipe(t *testing.T) []byte {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close() //nolint:errcheck // it was only read
	var text []byte
	var reading sync.WaitGroup
	during(t, options(audit.Stdout(writer, "")), func(trail *audit.Trail) {
		load := func(records int) {
			for range records {
				_ = trail.Loaded(strings.Repeat("f", 1000), strings.Repeat("0", 64), 1)
			}
		}
		load(100) // more than a pipe takes
		if err := trail.Record(t.Context(), mounted(t, "api-0", "3")); !errors.Is(err, audit.ErrNotWritten) {
			t.Errorf("got %v, want that nothing reads the pipe", err)
		}
		load(3500) // more than is kept
		reading.Go(func() { text, _ = io.ReadAll(reader) })
		for trail.Record(t.Context(), mounted(t, "api-1", "3")) != nil && t.Context().Err() == nil {
			<-time.After(10 * time.Millisecond)
		}
	})
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
	reading.Wait()
	return text
}
