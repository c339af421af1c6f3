package bundle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/bundle"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	for name, sealed := range map[string]func(testing.TB, string, *age.X25519Identity) []byte{"armored": seal, "binary": sealBinary} {
		t.Run(name, func(t *testing.T) {
			storetest.Read(t, func(t *testing.T, secrets map[string]map[string]any) storetest.Subject {
				t.Helper()
				document, err := json.Marshal(secrets) // JSON is YAML
				if err != nil {
					t.Fatal(err)
				}
				n := newNode(t)
				n.put(n.file, sealed(t, string(document), n.identity))
				return storetest.Subject{Store: n.bundle, Faults: n.faults(sealed)}
			})
		})
	}
}

// faults are those of a bundle that was not read yet; it goes on with what it has read.
func (n *node) faults(sealed func(testing.TB, string, *age.X25519Identity) []byte) storetest.Faults {
	return storetest.Faults{
		// Every caller may read everything, and nobody logs in.
		Never: []store.Reason{store.Denied, store.Ended, store.Doubt},
		Fail: func(reason store.Reason) {
			switch reason {
			case store.NotFound:
				n.put(n.file, sealed(n.t, "shop/db: {value: "+storetest.Canary+"}\n", n.identity))
			case store.Invalid:
				n.put(n.file, sealed(n.t, storetest.Canary+": [", n.identity))
			case store.Unavailable, store.Denied, store.Ended, store.Doubt: // the last three are not asked for
				n.remove(n.file)
			}
		},
	}
}

func TestKind(t *testing.T) {
	storetest.Kind(t, storetest.KindSubject{
		Kind:      bundle.Kind{},
		Settings:  "{file: secrets.age, identityFile: key.txt}",
		Elsewhere: "{file: others.age, identityFile: key.txt}",
		Paths:     []string{"shop/db", "arn:aws:secretsmanager:eu-central-1:1:secret:db-AbCdEf", "grüße"},
	})
}

// node is a machine with a bundle on it.
type node struct {
	t                       *testing.T
	dir, file, identityFile string
	identity                *age.X25519Identity
	bundle                  *bundle.Bundle
	log                     bytes.Buffer
}

// newNode has an identity file and no bundle file.
func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, dir: dir, file: filepath.Join(dir, "secrets.age"), identityFile: filepath.Join(dir, "key.txt"), identity: newIdentity(t)}
	n.put(n.identityFile, []byte(n.identity.String()+"\n"))
	n.bundle = bundle.New(n.file, n.identityFile, slog.New(slog.NewTextHandler(&n.log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	return n
}

// newShop has the password one in a bundle that was read once.
func newShop(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.put(n.file, n.shop("one"))
	n.want("one")
	n.wantLog(`level=INFO msg="bundle loaded" file=DIR/secrets.age paths=1`)
	return n
}

// shop is a bundle with this password.
func (n *node) shop(password string) []byte {
	n.t.Helper()
	return seal(n.t, "shop/db:\n  password: "+password+"\n", n.identity)
}

// put replaces a file by renaming, as careful programs do.
func (n *node) put(name string, data []byte) {
	n.t.Helper()
	n.write(name+".new", data)
	if err := os.Rename(name+".new", name); err != nil {
		n.t.Fatal(err)
	}
}

// write writes in place.
func (n *node) write(name string, data []byte) {
	n.t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) remove(name string) {
	n.t.Helper()
	if err := os.Remove(name); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) mkdir(name string) {
	n.t.Helper()
	if err := os.Mkdir(name, 0o700); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) symlink(target, name string) {
	n.t.Helper()
	if err := os.Symlink(target, name); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) password() (string, error) {
	n.t.Helper()
	value, err := n.bundle.Read(n.t.Context(), store.Caller{}, store.Ref{Path: path(n.t, "shop/db")})
	if err != nil {
		return "", err
	}
	password, err := value.Data.Get("password")
	if err != nil {
		return "", err
	}
	return fmt.Sprint(password.Reveal()), nil
}

func (n *node) want(password string) {
	n.t.Helper()
	if got, err := n.password(); got != password || err != nil {
		n.t.Errorf("password %q, %v; want %q", got, err, password)
	}
}

// wantLog compares and empties the log; DIR stands for the folder.
func (n *node) wantLog(lines ...string) {
	n.t.Helper()
	want := strings.Join(append(lines, ""), "\n")
	if got := strings.ReplaceAll(n.log.String(), n.dir, "DIR"); got != want {
		n.t.Errorf("log\n%s\nwant\n%s", got, want)
	}
	n.log.Reset()
}

func TestReload(t *testing.T) {
	tests := map[string]func(*node){
		"renamed over":       func(n *node) { n.put(n.file, n.shop("two")) },
		"rewritten in place": func(n *node) { n.write(n.file, n.shop("two")) },
		"removed and made": func(n *node) {
			n.remove(n.file)
			n.write(n.file, n.shop("two"))
		},
		"same times": func(n *node) {
			info, err := os.Stat(n.file)
			if err != nil {
				n.t.Fatal(err)
			}
			n.write(n.file, n.shop("two"))
			if err := os.Chtimes(n.file, info.ModTime(), info.ModTime()); err != nil {
				n.t.Fatal(err)
			}
		},
		"rekeyed": func(n *node) {
			n.identity = newIdentity(n.t)
			n.put(n.file, n.shop("two"))
			n.put(n.identityFile, []byte(n.identity.String()))
		},
		"now a symlink": func(n *node) {
			n.write(n.file+".v2", n.shop("two"))
			n.remove(n.file)
			n.symlink("secrets.age.v2", n.file)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			n := newShop(t)
			n.want("one")
			change(n)
			n.want("two")
			n.want("two")
			n.wantLog(`level=INFO msg="bundle loaded" file=DIR/secrets.age paths=1`)
		})
	}
}

// A ConfigMap or Secret volume changes all its files at once: the name stays a
// symlink through ..data, which is swapped.
func TestReloadOfVolume(t *testing.T) {
	n := newNode(t)
	n.remove(n.identityFile)
	fill := func(version, password string) {
		n.identity = newIdentity(t)
		folder := filepath.Join(n.dir, "..version_"+version)
		n.mkdir(folder)
		n.write(filepath.Join(folder, "secrets.age"), n.shop(password))
		n.write(filepath.Join(folder, "key.txt"), []byte(n.identity.String()))
		n.symlink(filepath.Base(folder), filepath.Join(n.dir, "..data_tmp"))
		if err := os.Rename(filepath.Join(n.dir, "..data_tmp"), filepath.Join(n.dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	fill("1", "one")
	n.symlink("..data/secrets.age", n.file)
	n.symlink("..data/key.txt", n.identityFile)
	n.want("one")
	fill("2", "two")
	n.want("two")
	loaded := `level=INFO msg="bundle loaded" file=DIR/secrets.age paths=1`
	n.wantLog(loaded, loaded)
}

// A file that settled is read once, and again when stat shows a change.
func TestSettledFilesAreNotRead(t *testing.T) {
	n := newNode(t)
	reads := 0
	n.bundle.SetNow(func() time.Time {
		reads++
		return time.Now().Add(time.Hour)
	})
	n.put(n.file, n.shop("one"))
	for range 3 {
		n.want("one")
	}
	if reads != 2 {
		t.Errorf("%d files were read, want two", reads)
	}
	n.put(n.file, n.shop("two"))
	for range 3 {
		n.want("two")
	}
	if reads != 4 {
		t.Errorf("%d files were read after a change, want two more", reads)
	}
}

// A young file is read again and, being the same, not decrypted or logged again.
func TestYoungFilesAreNotDecryptedAgain(t *testing.T) {
	n := newNode(t)
	reads, start := 0, time.Now()
	n.bundle.SetNow(func() time.Time {
		reads++
		return start
	})
	n.put(n.file, n.shop("one"))
	for range 3 {
		n.want("one")
	}
	if reads != 6 {
		t.Errorf("%d files were read, want both three times", reads)
	}
	n.wantLog(`level=INFO msg="bundle loaded" file=DIR/secrets.age paths=1`)
}

// broken are the ways to spoil a bundle: what a node that never read it answers,
// and what one that did says of it.
var broken = map[string]struct {
	spoil func(*node)
	kind  error
	want  string
}{
	"vanished": {
		func(n *node) { n.remove(n.file) }, store.Unavailable,
		"store unavailable: bundle DIR/secrets.age does not exist; put it there, or correct bundle.file in keymount.yaml",
	},
	"identity vanished": {
		func(n *node) { n.remove(n.identityFile) }, store.Unavailable,
		"store unavailable: identity file DIR/key.txt does not exist; put it there, or correct bundle.identityFile in keymount.yaml",
	},
	"empty": {
		func(n *node) { n.write(n.file, nil) }, store.Invalid,
		"invalid: bundle DIR/secrets.age, opened with the identities in DIR/key.txt: is not an age file; make one with 'keymount bundle encrypt'",
	},
	"for others": {
		func(n *node) { n.put(n.file, seal(n.t, "shop/db:\n  password: two\n", newIdentity(n.t))) }, store.Invalid,
		"invalid: bundle DIR/secrets.age, opened with the identities in DIR/key.txt: none of the identities opens it; it was encrypted for other recipients, encrypt it for one of these",
	},
	"invalid": {
		func(n *node) { n.put(n.file, seal(n.t, "shop/db: two\n/x: {}\n", n.identity)) }, store.Invalid,
		"invalid: bundle DIR/secrets.age, decrypted: line 1: \"shop/db\": is not a map of keys to values\n" +
			"line 2: path \"/x\" has an empty segment; write it without a slash at either end and without doubled slashes",
	},
	"folder": {
		func(n *node) {
			n.remove(n.file)
			n.mkdir(n.file)
		}, store.Invalid,
		"invalid: bundle DIR/secrets.age: is not a regular file",
	},
	"too large": {
		func(n *node) {
			if err := os.Truncate(n.file, bundle.MaxCiphertext+1); err != nil {
				n.t.Fatal(err)
			}
		}, store.Invalid,
		"invalid: bundle DIR/secrets.age: is larger than 8 MiB",
	},
	"identity broken": {
		func(n *node) { n.write(n.identityFile, []byte("AGE-SECRET-KEY-1CANARY\n")) }, store.Invalid,
		"invalid: identity file DIR/key.txt: line 1 is no age identity; write one AGE-SECRET-KEY-1... on each line, 'keymount bundle keygen' makes one",
	},
	"identity too large": {
		func(n *node) {
			if err := os.Truncate(n.identityFile, 1<<20+1); err != nil {
				n.t.Fatal(err)
			}
		}, store.Invalid,
		"invalid: identity file DIR/key.txt: is larger than 1 MiB",
	},
}

func TestBrokenFromTheStart(t *testing.T) {
	for name, test := range broken {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.put(n.file, n.shop("one"))
			test.spoil(n)
			for range 2 {
				// A mount's error is for all to read and a bundle is of many: it names no
				// secret, and only the log has the reason.
				_, err := n.password()
				n.wantError(err, test.kind, test.kind.Error()+": the bundle cannot be loaded; keymount's log on this node says why")
			}
			n.wantError(n.bundle.Check(t.Context()), test.kind, test.want)
			n.wantLog(`level=ERROR msg="cannot load the bundle; nothing is read from it until it is mended" ` +
				fmt.Sprintf("file=DIR/secrets.age identity_file=DIR/key.txt error=%q", test.want))
		})
	}
}

func TestBrokenLater(t *testing.T) {
	for name, test := range broken {
		t.Run(name, func(t *testing.T) {
			n := newShop(t)
			test.spoil(n)
			for range 3 {
				n.want("one")
			}
			n.wantError(n.bundle.Check(t.Context()), test.kind, test.want)
			n.wantLog(`level=ERROR msg="cannot load the changed bundle; the secrets read before stay in use" ` +
				fmt.Sprintf("file=DIR/secrets.age identity_file=DIR/key.txt error=%q", test.want))
			if err := os.RemoveAll(n.file); err != nil {
				t.Fatal(err)
			}
			n.put(n.identityFile, []byte(n.identity.String()))
			n.put(n.file, n.shop("two"))
			n.want("two")
			n.wantLog(`level=INFO msg="bundle loaded" file=DIR/secrets.age paths=1`)
			if err := n.bundle.Check(t.Context()); err != nil {
				t.Errorf("Check after the repair: %v", err)
			}
		})
	}
}

func (n *node) wantError(err, kind error, text string) {
	n.t.Helper()
	if !errors.Is(err, kind) {
		n.t.Errorf("error %v does not wrap %v", err, kind)
	}
	if got := strings.ReplaceAll(fmt.Sprint(err), n.dir, "DIR"); got != text {
		n.t.Errorf("error\n%s\nwant\n%s", got, text)
	}
}

func TestBrokenTwice(t *testing.T) {
	n := newShop(t)
	for range 2 {
		n.put(n.file, seal(t, "shop/db: two\n", n.identity))
		n.want("one")
		n.want("one")
	}
	if got := strings.Count(n.log.String(), "level=ERROR"); got != 2 {
		t.Errorf("%d errors in the log, want one for each change", got)
	}
}

func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	n := newNode(t)
	n.put(n.file, n.shop("one"))
	if err := os.Chmod(n.file, 0); err != nil {
		t.Fatal(err)
	}
	n.wantError(n.bundle.Check(t.Context()), store.Invalid,
		"invalid: bundle DIR/secrets.age: permission denied; let keymount's user read it")
	if err := os.Chmod(n.file, 0o600); err != nil {
		t.Fatal(err)
	}
	n.want("one")
}

// Readers see one version or another, and nothing else, while they change.
func TestReloadWhileReading(t *testing.T) {
	n := newShop(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				if got, err := n.password(); err != nil || len(got) != 3 {
					t.Errorf("password %q, %v", got, err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for range 10 {
		n.put(n.file, n.shop("two"))
		n.put(n.file, n.shop("six"))
	}
	close(stop)
	readers.Wait()
	n.want("six")
}

func TestReadAfterTheEnd(t *testing.T) {
	n := newShop(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.bundle.Read(ctx, store.Caller{}, store.Ref{Path: path(t, "shop/db")})
	n.wantError(err, store.Unavailable, `store unavailable: read "shop/db": context canceled`)
}

func TestNotFound(t *testing.T) {
	n := newShop(t)
	_, err := n.bundle.Read(t.Context(), store.Caller{}, store.Ref{Path: path(t, "shop/tls")})
	n.wantError(err, store.NotFound, `not found: the bundle has nothing at "shop/tls"`)
}

// Each load is told of once, and so is each failure of one.
func TestLoadsAreTold(t *testing.T) {
	n := newNode(t)
	var told []string
	settings := &bundle.Settings{File: n.file, IdentityFile: n.identityFile}
	layers, err := settings.Open(kind.Env{Log: slog.New(slog.DiscardHandler), Now: time.Now, Loaded: func(err error) {
		if err == nil {
			told = append(told, "ok")
		} else if e, ok := errors.AsType[*store.Error](err); ok {
			told = append(told, string(e.Reason))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	probe := func(want error) {
		t.Helper()
		for range 2 {
			if err := layers.Probe(t.Context()); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
	}
	probe(store.Unavailable)
	n.put(n.file, n.shop("one"))
	probe(nil)
	n.put(n.file, []byte("no bundle"))
	probe(store.Invalid)
	n.put(n.file, n.shop("two"))
	probe(nil)
	n.put(n.identityFile, []byte(newIdentity(t).String()+"\n"))
	probe(store.Invalid)
	n.remove(n.file)
	probe(store.Unavailable)
	want := []string{"store unavailable", "ok", "invalid", "ok", "invalid", "store unavailable"}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("loads (-want +got)\n%s", diff)
	}
}

// Inspect finds in files what a load would, each at its field.
func TestInspect(t *testing.T) {
	n := newNode(t)
	inspect := func() string {
		m := kind.NewMistakes()
		(&bundle.Settings{File: n.file, IdentityFile: n.identityFile}).Inspect(t.Context(), m)
		var all []string
		for _, one := range m.All() {
			all = append(all, strings.ReplaceAll(one.Error(), n.dir, "DIR"))
		}
		return strings.Join(all, "\n")
	}
	want := func(text string) {
		t.Helper()
		if got := inspect(); got != text {
			t.Errorf("got\n%s\nwant\n%s", got, text)
		}
	}
	want("file: bundle DIR/secrets.age does not exist; put it there, or correct bundle.file in keymount.yaml")
	n.put(n.file, n.shop("one"))
	want("")
	n.put(n.file, seal(t, "shop/db: 1\n", n.identity))
	if got := inspect(); !strings.HasPrefix(got, "file: bundle DIR/secrets.age, decrypted: ") {
		t.Error(got)
	}
	n.put(n.file, n.shop("one"))
	n.put(n.identityFile, []byte(newIdentity(t).String()+"\n"))
	want("file: bundle DIR/secrets.age, opened with the identities in DIR/key.txt: none of the identities opens it; it was encrypted for other recipients, encrypt it for one of these")
	n.put(n.identityFile, []byte("none"))
	want("identityFile: identity file DIR/key.txt: line 1 is no age identity; write one AGE-SECRET-KEY-1... on each line, 'keymount bundle keygen' makes one")
	n.remove(n.identityFile)
	n.remove(n.file)
	want("file: bundle DIR/secrets.age does not exist; put it there, or correct bundle.file in keymount.yaml\n" +
		"identityFile: identity file DIR/key.txt does not exist; put it there, or correct bundle.identityFile in keymount.yaml")
}
