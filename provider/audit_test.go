package provider_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store"
)

// trail is an audit trail in a file, beside a world.
type trail struct {
	*audit.Trail
	file string
	seen int // lines
	end  func()
}

// keepTrail runs a trail until the end of the test, or until end is called.
func keepTrail(t *testing.T) *trail {
	t.Helper()
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	file, err := audit.OpenFile(t.Context(), audit.FileOptions{Path: name, MaxSize: 1 << 30, MaxAge: time.Hour, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := audit.New(audit.Options{
		Start: audit.Start{Node: node, Keymount: "v0.0.0-test", Now: time.Now}, Sinks: []audit.Sink{file},
		Key: secret.New(bytes.Repeat([]byte{7}, 32)), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- kept.During(ctx, func() error { <-ctx.Done(); return nil }) }()
	made := &trail{Trail: kept, file: name}
	made.end = func() {
		if stop(); ended != nil {
			if err := <-ended; err != nil {
				t.Error(err)
			}
			ended = nil
		}
	}
	t.Cleanup(made.end)
	return made
}

// news are the records of a kind since the last call.
func (tr *trail) news(t *testing.T, kinds ...audit.Kind) []*audit.Record {
	t.Helper()
	text, err := os.ReadFile(tr.file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(canary)) || bytes.Contains(text, []byte("eyJ")) {
		t.Errorf("the trail holds a secret or a token:\n%s", text)
	}
	lines := strings.SplitAfter(string(text), "\n")
	lines = lines[:len(lines)-1] // the last one is empty, or not written whole yet
	var news []*audit.Record
	for _, line := range lines[tr.seen:] {
		r, err := audit.Read([]byte(line))
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for _, kind := range kinds {
			if r.Kind == kind {
				news = append(news, r)
			}
		}
	}
	tr.seen = len(lines)
	return news
}

// Every way out of a mount leaves exactly one record in the trail, with the outcome and its
// reason, before the driver is answered.
func TestEveryMountHasOneOutcome(t *testing.T) {
	kept := keepTrail(t)
	w := start(t, heardBy(kept), func(_ *world, s *setup) { s.options.Deadline = 2 * time.Second })
	w.memory.Set("shop/db", map[string]any{"password": canary})
	w.memory.Behave(badStore)
	const rule = "access[0]"
	granted := audit.Secret{Outcome: audit.Granted, Path: "shop/db", Rule: rule, Scope: audit.ScopePath, Source: "store", Store: "default", Files: []string{"db/password"}}
	unread := func(path string, outcome audit.Outcome, reason string) audit.Secret {
		return audit.Secret{Outcome: outcome, Path: path, Rule: rule, Scope: audit.ScopePath, Store: "default", Reason: reason}
	}
	keyless := granted
	keyless.Files = nil
	for name, test := range map[string]struct {
		objects string
		change  func(v *providertest.Volume)
		code    codes.Code
		outcome audit.Outcome
		secrets []audit.Secret
	}{
		"success":            {objects: oneKey, code: codes.OK, outcome: audit.Granted, secrets: []audit.Secret{granted}},
		"a mistake":          {objects: "[{path: shop/db, fiel: a}]", code: codes.InvalidArgument, outcome: audit.Failed},
		"a token of another": {objects: oneKey, change: func(v *providertest.Volume) { v.Tokens[audience] = "e30.e30.e30" }, code: codes.Unauthenticated, outcome: audit.Denied},
		"no token":           {objects: oneKey, change: func(v *providertest.Volume) { v.Tokens = nil }, code: codes.Unauthenticated, outcome: audit.Denied},
		"a rule": {objects: "[{path: blog/db, key: password, file: a}]", code: codes.PermissionDenied, outcome: audit.Denied, secrets: []audit.Secret{
			{Outcome: audit.Denied, Path: "blog/db", Rule: rule, List: "paths", Scope: audit.ScopePath, Store: "default"},
		}},
		"the store's denial": {
			objects: "[{path: shop/denied, key: password, file: a}]", code: codes.PermissionDenied, outcome: audit.Denied,
			secrets: []audit.Secret{unread("shop/denied", audit.Denied, "denied by the store")},
		},
		"absent": {
			objects: "[{path: shop/none, key: password, file: a}]", code: codes.NotFound, outcome: audit.NotFound,
			secrets: []audit.Secret{unread("shop/none", audit.NotFound, "not found")},
		},
		"absent, optional": {
			objects: "[{path: shop/none, key: password, file: a, optional: true}]", code: codes.OK, outcome: audit.Granted,
			secrets: []audit.Secret{unread("shop/none", audit.NotFound, "not found")},
		},
		"no such key": {objects: "[{path: shop/db, key: none, file: a}]", code: codes.NotFound, outcome: audit.NotFound, secrets: []audit.Secret{keyless}},
		"an odd answer": {
			objects: "[{path: shop/broken, key: password, file: a}]", code: codes.FailedPrecondition, outcome: audit.Failed,
			secrets: []audit.Secret{func() audit.Secret {
				s := unread("shop/broken", audit.Failed, "invalid")
				s.Request = "request-7"
				return s
			}()},
		},
		"a deadline": {
			objects: "[{path: shop/late, key: password, file: a}]", code: codes.FailedPrecondition, outcome: audit.Failed,
			secrets: []audit.Secret{unread("shop/late", audit.Failed, "")},
		},
		"a panic of a store": {
			objects: "[{path: shop/bug, key: password, file: a}]", code: codes.Internal, outcome: audit.Failed,
			secrets: []audit.Secret{unread("shop/bug", audit.Failed, "")},
		},
		"some, and one fails": {
			objects: "[{path: shop/db, key: password, file: a}, {path: shop/none, key: b, file: b}]", code: codes.NotFound, outcome: audit.NotFound,
			secrets: []audit.Secret{keyless, unread("shop/none", audit.NotFound, "not found")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := w.volume(pod("shop", "api"), test.objects)
			v.Pod.UID += name
			v.Tokens = map[string]string{audience: w.sign(w.issuer, w.issuer.ClaimsFor(v.Pod, audience))}
			if test.change != nil {
				test.change(&v)
			}
			_, _, err := w.mount(t, v)
			news := kept.news(t, audit.KindMount)
			if len(news) != 1 {
				t.Fatalf("%d records of one mount", len(news))
			}
			r := news[0]
			checkStatus(t, err, test.code, r.Error)
			if r.Code != test.code.String() || r.Outcome != test.outcome || r.Class != "app" || r.Node != node || r.Us <= 0 ||
				*r.Pod != (audit.Pod{Name: v.Pod.Name, Namespace: "shop", UID: v.Pod.UID}) || r.ServiceAccount.Name != "api" {
				t.Errorf("got %+v of %+v", r, r.Pod)
			}
			checkSecrets(t, test.secrets, r.Secrets)
			if proven := r.ServiceAccount.UID != ""; proven != (len(test.secrets) > 0) || proven != (len(r.Tokens) == 1 && r.Tokens[0].Audience == audience) {
				t.Errorf("service account %v and tokens %v", *r.ServiceAccount, r.Tokens)
			}
		})
	}
}

// badStore fails in the way that a path asks for.
func badStore(ctx context.Context, _ store.Caller, ref store.Ref) error {
	switch ref.Path.String() {
	case "shop/bug":
		panic(canary)
	case "shop/late":
		<-ctx.Done()
		return ctx.Err()
	case "shop/broken":
		return &store.Error{Reason: store.Invalid, Said: "no JSON", RequestID: "request-7"}
	case "shop/denied":
		return store.Denied.Errorf("no policy allows it")
	}
	return nil
}

// checkSecrets compares all but the words of errors, which have to be there.
func checkSecrets(t *testing.T, want, got []audit.Secret) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d secrets, want %d", len(got), len(want))
	}
	for i := range got {
		failed := got[i].Outcome != audit.Granted
		if (got[i].Error != "") != failed {
			t.Errorf("secret %d has outcome %s and error %q", i, got[i].Outcome, got[i].Error)
		}
		got[i].Error = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A stop does not wait for a trail that nobody reads: the driver gets a final code, and not
// one that grpc makes up, after which it would start the pod without its files.
func TestStopBesideATrailThatIsNotRead(t *testing.T) {
	kept, err := audit.New(audit.Options{
		Start: audit.Start{Node: node, Now: time.Now}, Sinks: []audit.Sink{audit.Stdout(io.Discard, "")}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, heardBy(kept), func(_ *world, s *setup) { s.options.Deadline = time.Minute }) // and nothing writes
	w.memory.Set("shop/db", map[string]any{"password": canary})
	reading, late := make(chan struct{}), make(chan struct{})
	w.memory.Behave(func(context.Context, store.Caller, store.Ref) error {
		close(reading)
		<-late
		return nil
	})
	answered := make(chan error, 1)
	v, target := w.volume(pod("shop", "api"), oneKey), t.TempDir()
	go func() {
		_, err := w.driver.Mount(t.Context(), v, target)
		answered <- err
	}()
	<-reading
	time.AfterFunc(1200*time.Millisecond, func() { close(late) }) // within the stop, whose calls are cut after 2.75 s
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if err := <-answered; status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the driver got %s: %v", status.Code(err), err)
	}
}
