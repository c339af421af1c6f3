package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

func snapshotOf(t *testing.T, s any) secret.Bytes {
	t.Helper()
	stateful, ok := s.(store.Stateful)
	if !ok {
		t.Fatal("it cannot outlive anything")
	}
	snapshot, err := stateful.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// given is a store that answers with one value.
type given struct{ value store.Value }

func (g given) Read(context.Context, store.Session, store.Ref) (store.Value, error) {
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
		"a list":                 {Data: treeOf(t, []any{"a"})},
		"a text":                 {Data: treeOf(t, "a")},
	} {
		ref := refTo(t, "make/db")
		ref.Args, ref.Query, ref.Version = "{}", "a=b", "3"
		before, after := keep(given{value}), keep(given{})
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
			"warnings": cmp.Diff(value.Warnings, got.Warnings), "version": cmp.Diff(value.Version, got.Version), "end": cmp.Diff(value.NotAfter, got.NotAfter),
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

// Where there is less room, what was used last is taken over.
func TestRestartWithLessRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour}}
		s := keep(inner)
		for n := range 10 {
			got(t, s, session("api", "a"), fmt.Sprintf("make/%d", n))
		}
		got(t, s, session("api", "a"), "make/0")
		small := store.Keep(inner, store.KeepOptions{Replace: replace, Bytes: 5 << 10, Now: time.Now})
		s, _ = restarted(t, s, small)
		for _, path := range []string{"make/0", "make/9"} {
			if got(t, s, session("api", "a"), path); inner.count() != 10 {
				t.Errorf("%s is made anew", path)
			}
		}
		if got(t, s, session("api", "a"), "make/1"); inner.count() != 11 {
			t.Error("all of it fits: this test cannot fail")
		}
	})
}

// Whoever keeps snapshots is told when there would be another one, and not of secrets
// that are read again and again.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &counting{lease: store.Lease{Duration: time.Hour, Renewable: true}}
		told := 0
		s := store.Keep(inner, store.KeepOptions{Refresh: refresh, Stale: stale, Replace: replace, Bytes: 1 << 20, Now: time.Now, Changed: func() { told++ }})
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
			inner.set(func(c *counting) { c.fail = fmt.Errorf("%w: away", store.ErrUnavailable) })
			<-time.After(2 * time.Second) // it is to be replaced
			got(t, s, session("api", "a"), "make/other")
			want("an outage", 0)
			inner.set(func(c *counting) { c.fail = fmt.Errorf("%w: no", store.ErrDenied) })
			got(t, s, session("api", "a"), "make/other")
			want("a denial", 1)
		})
	})
}

// What is no snapshot is refused, without a word of what is in it, and changes nothing.
func TestRestoreOfSomethingElse(t *testing.T) {
	good := keep(&counting{lease: store.Lease{Duration: time.Hour}})
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
		next := keep(inner)
		stateful, _ := next.(store.Stateful)
		values, err := stateful.Restore(secret.New([]byte(bad)))
		if bad == text || err == nil || values != 0 || strings.Contains(err.Error(), "canary-") || strings.Contains(err.Error(), "make") {
			t.Errorf("%s: %d values, %v", name, values, err)
		}
		expect(t, inner, next, session("api", "a"), "make/db", "make/db of api as shop, 1", 1)
	}
}

func FuzzRestore(f *testing.F) {
	lease := store.Lease{Duration: time.Hour, Renewable: true}
	for _, inner := range []store.Store{&counting{lease: lease}, &twofold{counting: counting{lease: lease}, life: time.Hour}} {
		s := keep(inner)
		for _, args := range []string{"", "{}"} {
			path, err := store.ParsePath("make/db")
			if err != nil {
				f.Fatal(err)
			}
			if _, err := s.Read(f.Context(), session("api", "a"), store.Ref{Path: path, Args: args}); err != nil {
				f.Fatal(err)
			}
		}
		stateful, _ := s.(store.Stateful)
		snapshot, err := stateful.Snapshot()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(snapshot.Reveal())
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		now := time.Now()
		read := func(text secret.Bytes) (store.Stateful, error) {
			s := store.Keep(&counting{}, store.KeepOptions{Refresh: refresh, Replace: replace, Bytes: 1 << 20, Now: func() time.Time { return now }})
			stateful, _ := s.(store.Stateful)
			_, err := stateful.Restore(text)
			return stateful, err
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
