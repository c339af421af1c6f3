package keep_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// snapshotter is a Keeper, or the logins.
type snapshotter interface{ Snapshot() (secret.Bytes, error) }

func snapshotOf(t *testing.T, s snapshotter) secret.Bytes {
	t.Helper()
	snapshot, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// given is a store that answers with one value.
type given struct{ value store.Value }

func (g given) Read(context.Context, login.Request, store.Ref) (store.Value, error) {
	return g.value, nil
}

// Whatever was made is the same to the last digit.
func TestRestartChangesNothing(t *testing.T) {
	data := map[string]any{
		"text": "<a>&\u2028\x00 \"quoted\" \ufffd gr\u00fcezi", "empty": "", "number": json.Number("1.10"), "large": json.Number("12345678901234567890"),
		"small": json.Number("-0.0E-400"), "yes": true, "none": nil, "list": []any{json.Number("1"), "two", []any{}, map[string]any{}}, "a.b": map[string]any{"c": false},
	}
	for name, value := range map[string]store.Value{
		"a credential":           {Data: treeOf(t, data), Lease: &store.Lease{ID: secret.New([]byte("database/creds/\xff")), Duration: time.Hour, Renewable: true}},
		"a certificate":          {Data: treeOf(t, data), NotAfter: time.Now().Add(24 * time.Hour), Version: "4", Warnings: []string{"one", "two"}},
		"with an envelope":       {Data: treeOf(t, data), Envelope: treeOf(t, map[string]any{"data": data, "lease_duration": json.Number("0")})},
		"with another's":         {Data: treeOf(t, data), Envelope: treeOf(t, map[string]any{"data": "other"})},
		"with an envelope alone": {Envelope: treeOf(t, map[string]any{"data": nil})},
		"with what is about it":  {Data: treeOf(t, data), About: []string{"number", "text"}},
		"a list":                 {Data: treeOf(t, []any{"a"})},
		"a text":                 {Data: treeOf(t, "a")},
	} {
		ref := refTo(t, "make/db")
		ref.Args, ref.Query, ref.Version = "{}", "a=b", "3"
		before, after := remember(given{value}), remember(given{})
		if _, err := before.Read(t.Context(), session("api", "a"), ref); err != nil {
			t.Fatal(err)
		}
		after, _ = restarted(t, before, after)
		got, err := after.Read(t.Context(), session("api", "a"), ref)
		if err != nil {
			t.Fatal(err)
		}
		for what, diff := range map[string]string{
			"data": cmp.Diff(value.Data.Reveal(), got.Data.Reveal()), "envelope": cmp.Diff(value.Envelope.Reveal(), got.Envelope.Reveal()),
			"warnings": cmp.Diff(value.Warnings, got.Warnings), "about": cmp.Diff(value.About, got.About), "version": cmp.Diff(value.Version, got.Version), "end": cmp.Diff(value.NotAfter, got.NotAfter),
		} {
			if diff != "" {
				t.Errorf("%s: %s (-before +after):\n%s", name, what, diff)
			}
		}
		if value.Lease != nil && (got.Lease == nil || string(got.Lease.ID.Reveal()) != string(value.Lease.ID.Reveal())) {
			t.Errorf("%s: its lease is another one", name)
		}
	}
}

func treeOf(t *testing.T, v any) secret.Tree {
	t.Helper()
	tree, err := secret.NewTree(v)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// With less memory, the most recently used values are taken over.
func TestRestartWithLessRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		s := remember(inner)
		for n := range 10 {
			got(t, s, session("api", "a"), fmt.Sprintf("make/%d", n))
		}
		got(t, s, session("api", "a"), "make/0")
		small := newKept(asked(inner), keep.Options{Replace: replace, Pool: poolOf(5 << 10), Now: time.Now})
		s, _ = restarted(t, s, small)
		for _, path := range []string{"make/0", "make/9"} {
			if got(t, s, session("api", "a"), path); inner.count() != 10 {
				t.Errorf("%s is made anew", path)
			}
		}
		if text := got(t, s, session("api", "a"), "make/1"); inner.count() != 10 || !strings.HasPrefix(text, "invalid: no room") {
			t.Errorf("all of it fits, and this test cannot fail: %s", text)
		}
	})
}

// A namespace with more credentials than a snapshot has room for costs no other its own, and
// the log says once whose are left out.
func TestSnapshotHasSharesOfNamespaces(t *testing.T) {
	large := store.Value{Data: treeOf(t, map[string]any{"value": strings.Repeat("<", 1<<20)}), Lease: &store.Lease{Duration: time.Hour}}
	small := store.Value{Data: treeOf(t, map[string]any{"value": "small"}), Lease: &store.Lease{Duration: time.Hour}}
	var log bytes.Buffer
	now := time.Now()
	start := func() kept {
		return newKept(asked(sized{large, small}), keep.Options{
			Refresh: refresh, Replace: replace, Pool: poolOf(64 << 20), Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
	}
	as := func(namespace, pod string) login.Request {
		r := session("api", pod)
		r.Identity.Namespace, r.Volume.Namespace = namespace, namespace
		return r
	}
	before := start()
	ref := refTo(t, "make/db")
	for i := range 24 {
		if _, err := before.Read(t.Context(), as("evil", fmt.Sprint(i)), ref); err != nil {
			t.Fatal(err)
		}
		if i%8 == 0 { // the first of all, and two among them
			if _, err := before.Read(t.Context(), as("good", fmt.Sprint(i)), ref); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if length := snapshotOf(t, before).Len(); length > 9<<20 {
			t.Errorf("a snapshot has %d bytes", length)
		}
	}
	const want = `msg="the state has no room for all credentials: a restart would make those left out anew" left_out=17 namespace=evil of_namespace=17` + "\n"
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, want) {
		t.Errorf("log\n%s, want\n%s", got, want)
	}
	after := start()
	if n, err := after.Restore(snapshotOf(t, before)); err != nil || n != 3+7 {
		t.Errorf("%d credentials are taken over, %v", n, err)
	}
	for _, pod := range []string{"0", "8", "16"} {
		if _, known := after.Recall(as("good", pod)).Value(ref, store.Resolved{Path: ref.Path, Makes: true}); !known {
			t.Errorf("the credential of pod %s is made anew", pod)
		}
	}
}

// sized makes large credentials for the namespace evil, and small ones for others.
type sized struct{ large, small store.Value }

func (s sized) Resolve(_ context.Context, _ login.Request, ref store.Ref) (store.Resolved, error) {
	return store.Resolved{Path: ref.Path, Makes: true}, nil
}

func (s sized) Read(_ context.Context, r login.Request, _ store.Ref) (store.Value, error) {
	value := s.small
	if r.Identity.Namespace == "evil" {
		value = s.large
	}
	lease := *value.Lease
	value.Lease = &lease
	return value, nil
}

// Changed is called when a snapshot would differ, and not for ordinary secrets read again and
// again.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		told := 0
		s := newKept(asked(inner), keep.Options{Refresh: refresh, Stale: stale, Replace: replace, Pool: poolOf(1 << 20), Now: time.Now, Changed: func() { told++ }})
		want := func(what string, want int) {
			t.Helper()
			if synctest.Wait(); told != want {
				t.Errorf("%s: told %d times, want %d", what, told, want)
			}
			told = 0
		}
		running(t, s, func() {
			for range 3 {
				got(t, s, session("api", "a"), "kv/db")
				<-time.After(refresh)
			}
			want("secrets", 0)
			got(t, s, session("api", "a"), "make/db")
			want("a credential", 1)
			for range 33 { // 41 minutes
				got(t, s, session("api", "a"), "make/db")
				<-time.After(mountEvery)
			}
			got(t, s, session("api", "a"), "make/db")
			want("a renewal", 1)
			inner.set(func(c *counting) { c.lease.Renewable = false })
			for range 43 {
				got(t, s, session("api", "a"), "make/other")
				<-time.After(mountEvery)
			}
			<-time.After(74 * time.Second)
			got(t, s, session("api", "a"), "make/other") // and what the path is
			want("one that is not renewed", 1)
			inner.set(func(c *counting) { c.fail = store.Unavailable.Errorf("away") })
			<-time.After(2 * time.Second) // it is to be replaced
			got(t, s, session("api", "a"), "make/other")
			want("an outage", 0)
			inner.set(func(c *counting) { c.fail = store.Denied.Errorf("no") })
			got(t, s, session("api", "a"), "make/other")
			want("a denial", 1)
		})
	})
}

// Restore refuses other input than a snapshot, without quoting it, and changes nothing.
func TestRestoreOfSomethingElse(t *testing.T) {
	good := remember(&counting{lease: store.Lease{Duration: time.Hour}})
	got(t, good, session("api", "a"), "make/db")
	got(t, good, session("api", "a"), "make/other")
	text, digest := string(snapshotOf(t, good).Reveal()), regexp.MustCompile(`"What":"..`)
	for name, bad := range map[string]string{
		"empty": "", "cut off": text[:len(text)-9], "twice": text + text, "a list": `["canary"]`,
		"another field":  strings.Replace(text, `"At"`, `"Canary"`, 1),
		"no path":        strings.Replace(text, `"Path":"make/other","Literal":""}`, `"Path":"canary//","Literal":""}`, 1),
		"no digest":      strings.Replace(text, `"What":"`, `"What":"00`, 1),
		"another digest": digest.ReplaceAllString(text, `"What":"zz`),
	} {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		next := remember(inner)
		values, err := next.Restore(secret.New([]byte(bad)))
		if bad == text || err == nil || values != 0 || strings.Contains(err.Error(), "canary-") || strings.Contains(err.Error(), "make") {
			t.Errorf("%s: %d values, %v", name, values, err)
		}
		expect(t, inner, next, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
	}
}

func FuzzRestore(f *testing.F) {
	lease := store.Lease{Duration: time.Hour, Renewable: true}
	for _, inner := range []login.Reader{&counting{lease: lease}, &twofold{counting: counting{lease: lease}, life: time.Hour}} {
		s := remember(inner)
		for _, args := range []string{"", "{}"} {
			path, err := store.ParsePath("make/db")
			if err != nil {
				f.Fatal(err)
			}
			if _, err := s.Read(f.Context(), session("api", "a"), store.Ref{Path: path, Args: args}); err != nil {
				f.Fatal(err)
			}
		}
		snapshot, err := s.Snapshot()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(snapshot.Reveal())
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		now := time.Now()
		read := func(text secret.Bytes) (kept, error) {
			s := newKept(asked(&counting{}), keep.Options{Refresh: refresh, Replace: replace, Pool: poolOf(1 << 20), Now: func() time.Time { return now }})
			_, err := s.Restore(text)
			return s, err
		}
		first, err := read(secret.New(bytes.Clone(text)))
		if err != nil {
			return
		}
		snapshot, err := first.Snapshot()
		if err != nil {
			return // a year that JSON has no words for
		}
		second, err := read(snapshot)
		if err != nil {
			t.Fatalf("what was written is not read: %v\n%s", err, snapshot.Reveal())
		}
		again, err := second.Snapshot()
		if diff := cmp.Diff(string(snapshot.Reveal()), string(again.Reveal())); err != nil || diff != "" {
			t.Errorf("read and written again (-first +second): %v\n%s", err, diff)
		}
	})
}
