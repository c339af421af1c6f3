package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/state"
)

// part is one of the two whose state is kept, which here is a text.
type part struct {
	calls *calls
	name  string
	text  string // of a JSON list
	fail  error
}

// calls are those of both parts, in their order.
type calls struct {
	mu   sync.Mutex
	made []string
}

func (c *calls) add(call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, call)
}

// since is what was added since it was asked last.
func (c *calls) since() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	made := c.made
	c.made = nil
	return made
}

func (p part) Snapshot() (secret.Bytes, error) {
	p.calls.add("write " + p.name)
	return secret.New([]byte(`["` + p.text + `"]`)), nil
}

func (p part) Restore(snapshot secret.Bytes) (int, error) {
	p.calls.add("take " + p.name + " " + string(snapshot.Reveal()))
	return 3, p.fail
}

// life is one of a process, each field of which may differ from the life before.
type life struct {
	key, node, store string
	fingerprint      []any
	fail             error // of what takes values over
	calls            calls
	log              bytes.Buffer
}

func aLife() *life {
	return &life{
		key: strings.Repeat("k", 32), node: "node-1", store: "prod",
		fingerprint: []any{[]string{"https://vault:8200"}, "a", "jwt", "b", "pod"},
	}
}

func (l *life) in(t *testing.T, folder string, serve func(changed func())) {
	t.Helper()
	kept, err := state.Open(folder, secret.New([]byte(l.key)), l.node, slog.New(slog.NewTextHandler(&l.log, &slog.HandlerOptions{ReplaceAttr: withoutTime})))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	file := kept.File(l.store, l.fingerprint)
	file.Hold(part{calls: &l.calls, name: "logins", text: "canary-login"}, part{calls: &l.calls, name: "values", text: "canary-value", fail: l.fail})
	kept.Restore(t.Context())
	if err := kept.During(t.Context(), func() error { serve(file.Change); return nil }); err != nil {
		t.Error(err)
	}
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// A change is in the file after a second, with those that came meanwhile, and the end
// is in it in any case. The next process takes logins first: what lives by one that is
// not known has ended.
func TestStateIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := memory(t)
		first := aLife()
		first.in(t, folder, func(changed func()) {
			expect := func(what string, after time.Duration, want ...string) {
				t.Helper()
				<-time.After(after)
				synctest.Wait()
				if diff := cmp.Diff(want, first.calls.since()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			expect("nothing has changed", time.Hour)
			for range 3 {
				changed()
			}
			expect("a moment later", 999*time.Millisecond)
			changed()
			expect("a second later", time.Millisecond, "write values", "write logins")
			expect("a second more", time.Second, "write values", "write logins")
			expect("nothing more has changed", time.Hour)
		})
		if diff := cmp.Diff([]string{"write values", "write logins"}, first.calls.since()); diff != "" {
			t.Errorf("at the end (-want +got):\n%s", diff)
		}
		next := aLife()
		next.in(t, folder, func(func()) {})
		if diff := cmp.Diff([]string{`take logins ["canary-login"]`, `take values ["canary-value"]`}, next.calls.since()[:2]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got, want := next.log.String(), "level=INFO msg=\"the state is taken over\" store=prod logins=3 credentials=3\n"; got != want {
			t.Errorf("the log says %q, want %q", got, want)
		}
	})
}

// What is in the folder says nothing to whoever has no key, and belongs to keymount
// alone.
func TestStateIsEncrypted(t *testing.T) {
	folder, salts := memory(t), map[string]bool{}
	for range 2 {
		aLife().in(t, folder, func(func()) {})
		text, err := os.ReadFile(filepath.Join(folder, "prod.state"))
		if err != nil || bytes.Contains(text, []byte("canary")) {
			t.Errorf("a secret is in the file: %q, %v", text, err)
		}
		salts[string(text[:32])] = true
		if info, err := os.Stat(filepath.Join(folder, "prod.state")); err != nil || info.Mode() != 0o600 {
			t.Errorf("it has the mode %v, %v", info.Mode(), err)
		}
	}
	if len(salts) != 2 {
		t.Error("two files have one key")
	}
	if names := namesIn(t, folder); !slices.Equal(names, []string{"prod.state"}) {
		t.Errorf("the folder has %q", names)
	}
}

func namesIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A file that an earlier keymount has written opens: its form is not another one by
// accident.
func TestStateOfBefore(t *testing.T) {
	folder := memory(t)
	if err := os.CopyFS(folder, os.DirFS(filepath.Join("testdata", "form-1"))); err != nil {
		t.Fatal(err)
	}
	now := aLife()
	now.in(t, folder, func(func()) {})
	if diff := cmp.Diff([]string{`take logins ["canary-login"]`, `take values ["canary-value"]`}, now.calls.since()[:2]); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, now.log.String())
	}
}

// A nil folder, and a file of it, keep nothing.
func TestNoState(t *testing.T) {
	none, err := state.Open("", secret.Bytes{}, "node-1", slog.New(slog.DiscardHandler))
	if none != nil || err != nil {
		t.Fatalf("got %v, %v", none, err)
	}
	file := none.File("prod", nil)
	file.Hold(nil, nil)
	file.Change()
	none.Restore(t.Context())
	failed := errors.New("failed")
	if err := none.During(t.Context(), func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	none.Close()
}

// A file that is another one's, or damaged, is put aside with one line, and keymount
// serves.
func TestStateIsPutAside(t *testing.T) {
	const foreign = "it does not open: the key in versionKeyFile, the node, or the store's addresses, namespace, auth or session are others, " +
		"another version of keymount has written it, or it is damaged"
	changes := map[string]func(*life){
		"another key":     func(l *life) { l.key = strings.Repeat("K", 32) },
		"another node":    func(l *life) { l.node = "node-2" },
		"another address": func(l *life) { l.fingerprint[0] = []string{"https://vault:8200", "https://other:8200"} },
		"a namespace":     func(l *life) { l.fingerprint[1] = "ab" },
		"another method":  func(l *life) { l.fingerprint[2] = "kubernetes" },
		"another mount":   func(l *life) { l.fingerprint[3] = "c" },
		"another session": func(l *life) { l.fingerprint[4] = "serviceAccount" },
	}
	damages := map[string]func([]byte) []byte{
		"empty":             func([]byte) []byte { return nil },
		"a few bytes":       func(b []byte) []byte { return b[:10] },
		"a salt":            func(b []byte) []byte { return b[:32] },
		"cut off":           func(b []byte) []byte { return b[:len(b)-1] },
		"another salt":      func(b []byte) []byte { b[0] ^= 1; return b },
		"another last byte": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
	}
	for _, name := range slices.Concat(slices.Collect(maps.Keys(changes)), slices.Collect(maps.Keys(damages)), []string{"too large", "not understood"}) {
		t.Run(name, func(t *testing.T) {
			folder, next, want := memory(t), aLife(), foreign
			file := filepath.Join(folder, "prod.state")
			aLife().in(t, folder, func(func()) {})
			switch {
			case changes[name] != nil:
				changes[name](next)
			case damages[name] != nil:
				text, err := os.ReadFile(file)
				if err := errors.Join(err, os.WriteFile(file, damages[name](text), 0o600)); err != nil {
					t.Fatal(err)
				}
			case name == "too large":
				if err := os.Truncate(file, 33<<20); err != nil {
					t.Fatal(err)
				}
				want = "it has more than 33554432 bytes"
			default:
				next.fail, want = errors.New("not of the form"), "not of the form"
			}
			next.in(t, folder, func(func()) {
				if names := namesIn(t, folder); !slices.Equal(names, []string{"prod.state.aside"}) {
					t.Errorf("the folder has %q", names)
				}
			})
			line := "level=WARN msg=\"the state is put aside: what is not taken over of it is made anew, and what it holds expires\" " +
				fmt.Sprintf("store=prod file=prod.state.aside error=%q\n", want)
			if diff := cmp.Diff(line, next.log.String()); diff != "" {
				t.Errorf("the log (-want +got):\n%s", diff)
			}
			last := aLife()
			last.key, last.node, last.fingerprint = next.key, next.node, next.fingerprint
			if last.in(t, folder, func(func()) {}); !strings.Contains(last.log.String(), "taken over") {
				t.Errorf("what was written after it is not taken over: %s", last.log.String())
			}
		})
	}
}

// A file that cannot be written is tried again and again, and told of once.
func TestStateIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder, l := memory(t), aLife()
		inTheWay := filepath.Join(folder, "prod.state.new")
		if err := os.MkdirAll(filepath.Join(inTheWay, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		l.in(t, folder, func(changed func()) {
			changed()
			<-time.After(time.Minute)
			if tries := len(l.calls.since()) / 2; tries < 5 || tries > 7 {
				t.Errorf("%d tries in a minute", tries)
			}
			if err := os.RemoveAll(inTheWay); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Minute)
			if tries := len(l.calls.since()) / 2; tries != 1 {
				t.Errorf("%d tries in the next minute, want 1", tries)
			}
		})
		want := "level=WARN msg=\"the state is not written: a restart now would make new logins and credentials\" store=prod " +
			"error=\"removeat prod.state.new: directory not empty\"\n" + "level=INFO msg=\"the state is written again\" store=prod\n"
		if diff := cmp.Diff(want, l.log.String()); diff != "" {
			t.Errorf("the log (-want +got):\n%s", diff)
		}
	})
}

// What is in the folder and is no file of ours keeps keymount neither from starting nor
// from writing, and the files of stores that are gone go, too.
func TestStateFolderWithOtherThings(t *testing.T) {
	folder := memory(t)
	before := aLife()
	before.store = "gone"
	before.in(t, folder, func(func()) {})
	for _, name := range []string{"prod.state", "prod.state.new"} {
		if err := syscall.Mkfifo(filepath.Join(folder, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := aLife()
	now.in(t, folder, func(func()) {})
	if line := now.log.String(); !strings.Contains(line, "the state is put aside") || !strings.Contains(line, "it is no regular file") {
		t.Errorf("logged %s", line)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name()+" "+entry.Type().String())
	}
	if diff := cmp.Diff([]string{"prod.state ----------", "prod.state.aside p---------"}, names); diff != "" {
		t.Error(diff)
	}
}

// A store without logins keeps its values over a restart, and one without memory its
// logins.
func TestStateOfOnePart(t *testing.T) {
	folder := memory(t)
	for _, want := range [][]string{
		{"write logins", "write values"},
		{`take logins ["of logins"]`, `take values ["of values"]`, "write logins", "write values"},
	} {
		var made calls
		kept, err := state.Open(folder, secret.New([]byte(strings.Repeat("k", 32))), "node-1", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		kept.File("open", nil).Hold(nil, part{calls: &made, name: "values", text: "of values"})
		kept.File("forgetful", nil).Hold(part{calls: &made, name: "logins", text: "of logins"}, nil)
		kept.Restore(t.Context())
		if err := kept.During(t.Context(), func() error { return nil }); err != nil {
			t.Error(err)
		}
		kept.Close()
		if diff := cmp.Diff(want, slices.Sorted(slices.Values(made.since()))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
