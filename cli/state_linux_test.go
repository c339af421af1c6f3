package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

	"github.com/keymount/keymount/cli"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// memory is a folder on a tmpfs of the machine, which a stateFolder can be in.
func memory(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "keymount-test-") //nolint:usetesting // it has to be in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

// onDisk is a folder that is not in memory, wherever the tests run.
func onDisk(t *testing.T) string {
	t.Helper()
	const tmpfs = 0x01021994
	for _, candidate := range []string{t.TempDir(), "."} {
		var stat syscall.Statfs_t
		if err := syscall.Statfs(candidate, &stat); err != nil || stat.Type == tmpfs {
			continue
		}
		folder, err := os.MkdirTemp(candidate, "on-disk-") //nolint:usetesting // t.TempDir may be in memory
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(folder) })
		if folder, err = filepath.Abs(folder); err != nil {
			t.Fatal(err)
		}
		return folder
	}
	t.Fatal("this test needs a folder on a disk")
	return ""
}

// A state folder that others may enter, or that is on a disk, or that is another
// keymount's, is refused at the start, with the place and the cure.
func TestStateFolderIsRefused(t *testing.T) {
	for name, make := range map[string]func(t *testing.T) (folder, want string){
		"no parent": func(t *testing.T) (string, string) {
			t.Helper()
			folder := filepath.Join(memory(t), "none", "state")
			return folder, "mkdir " + folder + ": no such file or directory; make the folder that it is to be in"
		},
		"a file": func(t *testing.T) (string, string) {
			t.Helper()
			file := filepath.Join(memory(t), "state")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return file, "open " + file + ": not a directory; move away what is there, or name another folder"
		},
		"group may enter": func(t *testing.T) (string, string) { return open(t, 0o710) },
		"others may look": func(t *testing.T) (string, string) { return open(t, 0o704) },
		"everybody's":     func(t *testing.T) (string, string) { return open(t, 0o777) },
		"somebody else's": foreign,
		"on a disk": func(t *testing.T) (string, string) {
			t.Helper()
			folder := onDisk(t)
			return folder, folder + " is not on a tmpfs: secrets would reach a disk; name a folder below /run, or mount a tmpfs there"
		},
		"to be made on a disk": func(t *testing.T) (string, string) {
			t.Helper()
			folder := filepath.Join(onDisk(t), "state")
			t.Cleanup(func() {
				if _, err := os.Lstat(folder); err == nil {
					t.Error("it is made all the same")
				}
			})
			return folder, folder + " is not on a tmpfs: secrets would reach a disk; name a folder below /run, or mount a tmpfs there"
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder, want := make(t)
			var out bytes.Buffer
			if got := serveOnce(t, folder, &out); got != 1 || !strings.HasSuffix(out.String(), "keymount: stateFolder: "+want+"\n") {
				t.Errorf("exit code %d\ngot  %swant %s", got, out.String(), want)
			}
		})
	}
}

func open(t *testing.T, mode os.FileMode) (folder, want string) {
	t.Helper()
	folder = memory(t)
	if err := os.Chmod(folder, mode); err != nil {
		t.Fatal(err)
	}
	return folder, fmt.Sprintf("%[1]s has the mode %04[2]o, so that others than its owner may enter; chmod 0700 %[1]s", folder, mode)
}

// foreign is a folder that belongs to somebody else; whoever is not root cannot make one.
func foreign(t *testing.T) (folder, want string) {
	t.Helper()
	folder, uid := "/dev/shm", 0
	if os.Geteuid() == 0 {
		if folder, uid = memory(t), 1; os.Chown(folder, uid, uid) != nil {
			t.Fatal("root may not give a folder away")
		}
	}
	return folder, fmt.Sprintf("%s belongs to uid %d and keymount runs as uid %d; remove it, and keymount makes one of its own", folder, uid, os.Geteuid())
}

// withState writes a keymount.yaml with a state folder.
func withState(t *testing.T, folder string) (file string) {
	t.Helper()
	place, err := os.MkdirTemp("", "km") //nolint:usetesting // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(place) })
	fill(t, place, "versionKeyFile: version.key\nstateFolder: "+folder)
	if err := os.WriteFile(filepath.Join(place, "version.key"), bytes.Repeat([]byte("k"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(place, "keymount.yaml")
}

func serveOnce(t *testing.T, folder string, log io.Writer) (code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // should it serve after all
	defer cancel()
	return cli.Run(ctx, []string{"serve", "--config", withState(t, folder)}, strings.NewReader(""), io.Discard, log)
}

// The folder is made when it is not there, for keymount alone, and is one keymount's at
// a time.
func TestStateFolderIsOneKeymounts(t *testing.T) {
	folder := filepath.Join(memory(t), "state")
	ctx, cancel := context.WithCancel(t.Context())
	logs, log := io.Pipe()
	exited := make(chan int, 1)
	go func() {
		exited <- cli.Run(ctx, []string{"serve", "--config", withState(t, folder)}, strings.NewReader(""), io.Discard, log)
		_ = log.Close()
	}()
	lines := bufio.NewScanner(logs)
	waitFor(t, lines, "serving")
	if info, err := os.Stat(folder); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("the folder has the mode %v, %v", info.Mode(), err)
	}
	var out bytes.Buffer
	want := "keymount: stateFolder: " + folder + " is that of another keymount, which runs; stop that one or name another folder\n"
	if code := serveOnce(t, folder, &out); code != 1 || !strings.HasSuffix(out.String(), want) {
		t.Errorf("exit code %d\ngot  %swant %s", code, out.String(), want)
	}
	cancel()
	waitFor(t, lines, "stopped")
	if code := <-exited; code != 0 {
		t.Errorf("exit code %d", code)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 0)
	defer cancel()
	if code := cli.Run(ctx, []string{"serve", "--config", withState(t, folder)}, strings.NewReader(""), io.Discard, &out); code != 0 {
		t.Errorf("after the first has ended: exit code %d\n%s", code, out.String())
	}
}

// part is one of the two whose state is kept, which here is a text.
type part struct {
	store.Store
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
	key, node string
	store     config.Store
	fail      error // of what takes values over
	calls     calls
	log       bytes.Buffer
}

func aLife() *life {
	return &life{
		key: strings.Repeat("k", 32), node: "node-1",
		store: config.Store{Name: "prod", Session: "pod", Vault: &config.Vault{
			Addresses: []string{"https://vault:8200"}, Namespace: "a", Auth: config.VaultAuth{Method: "jwt", Mount: "b"},
		}},
	}
}

func (l *life) in(t *testing.T, folder string, serve func(changed func())) {
	t.Helper()
	err := cli.ServeWithState(t.Context(), folder, secret.New([]byte(l.key)), l.node, l.store,
		part{calls: &l.calls, name: "logins", text: "canary-login"}, part{calls: &l.calls, name: "values", text: "canary-value", fail: l.fail},
		slog.New(slog.NewTextHandler(&l.log, &slog.HandlerOptions{ReplaceAttr: withoutTime})),
		func(changed func()) error { serve(changed); return nil })
	if err != nil {
		t.Fatal(err)
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

// A file that is another one's, or damaged, is put aside with one line, and keymount
// serves.
func TestStateIsPutAside(t *testing.T) {
	const foreign = "it does not open: the key in versionKeyFile, the node, or the store's addresses, namespace, auth or session are others, " +
		"another version of keymount has written it, or it is damaged"
	changes := map[string]func(*life){
		"another key":     func(l *life) { l.key = strings.Repeat("K", 32) },
		"another node":    func(l *life) { l.node = "node-2" },
		"another address": func(l *life) { l.store.Vault.Addresses = append(l.store.Vault.Addresses, "https://other:8200") },
		"a namespace":     func(l *life) { l.store.Vault.Namespace = "ab" },
		"another method":  func(l *life) { l.store.Vault.Auth.Method = "kubernetes" },
		"another mount":   func(l *life) { l.store.Vault.Auth.Mount = "c" },
		"another session": func(l *life) { l.store.Session = "serviceAccount" },
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
			line := "level=WARN msg=\"the state is put aside: there will be new logins and credentials, and those that it holds expire\" " +
				fmt.Sprintf("store=prod file=prod.state.aside error=%q\n", want)
			if diff := cmp.Diff(line, next.log.String()); diff != "" {
				t.Errorf("the log (-want +got):\n%s", diff)
			}
			last := aLife()
			last.key, last.node, last.store = next.key, next.node, next.store
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
		if err := os.Mkdir(inTheWay, 0o700); err != nil {
			t.Fatal(err)
		}
		l.in(t, folder, func(changed func()) {
			changed()
			<-time.After(time.Minute)
			if tries := len(l.calls.since()) / 2; tries < 5 || tries > 7 {
				t.Errorf("%d tries in a minute", tries)
			}
			if err := os.Remove(inTheWay); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Minute)
			if tries := len(l.calls.since()) / 2; tries != 1 {
				t.Errorf("%d tries in the next minute, want 1", tries)
			}
		})
		want := "level=WARN msg=\"the state is not written: a restart now would make new logins and credentials\" store=prod " +
			"error=\"openat prod.state.new: is a directory\"\n" + "level=INFO msg=\"the state is written again\" store=prod\n"
		if diff := cmp.Diff(want, l.log.String()); diff != "" {
			t.Errorf("the log (-want +got):\n%s", diff)
		}
	})
}
