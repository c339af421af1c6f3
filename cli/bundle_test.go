package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/keymount/keymount/cli"
	"github.com/keymount/keymount/store/bundle"
)

// shelf is a folder with a bundle and the identity that opens it.
type shelf struct {
	t                     *testing.T
	folder, bundle, keyOf string
}

func newShelf(t *testing.T, encrypt func(recipient *age.X25519Recipient) []byte) *shelf {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	s := &shelf{t, folder, filepath.Join(folder, "secrets.age"), filepath.Join(folder, "key.txt")}
	s.write(s.keyOf, []byte(identity.String()))
	s.write(s.bundle, encrypt(identity.Recipient()))
	return s
}

func (s *shelf) write(name string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) run(ctx context.Context, in, verb string, args ...string) (code int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	code = cli.Run(ctx, append([]string{"bundle", verb, "--identity", s.keyOf, s.bundle}, args...), strings.NewReader(in), &stdout, &stderr)
	return code, stdout.String(), strings.ReplaceAll(stderr.String(), s.folder+"/", "")
}

func sealedByKeymount(t *testing.T) func(*age.X25519Recipient) []byte {
	t.Helper()
	return func(recipient *age.X25519Recipient) []byte {
		t.Helper()
		sealed, err := bundle.Encrypt([]byte("shop/db: {password: canary}\n"), []age.Recipient{recipient})
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
}

// The age program notes no recipients: to encrypt for those that are known would
// lock the others out.
func TestBundleOfOthers(t *testing.T) {
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf(t, func(recipient *age.X25519Recipient) []byte {
		var b bytes.Buffer
		w, err := age.Encrypt(&b, recipient, other.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte("shop/db: {password: canary}\n"))
		_ = w.Close()
		return b.Bytes()
	})
	t.Setenv("VISUAL", "exit 1 #")
	const want = "keymount: secrets.age: does not say for whom it is encrypted (recipients: 2); name them all once, with 'keymount bundle rekey', which notes them in the bundle\n"
	for verb, args := range map[string][]string{"set": {"shop/db", "x"}, "rm": {"shop/db"}, "edit": nil, "list": {"--recipients"}} {
		if code, out, errOut := s.run(t.Context(), "value", verb, args...); code != 1 || out != "" || errOut != want {
			t.Errorf("%s: exit code %d, output %q, errors %q; want 1 and %q", verb, code, out, errOut, want)
		}
	}
	if code, out, _ := s.run(t.Context(), "", "list"); code != 0 || !strings.Contains(out, "password") {
		t.Errorf("list: exit code %d, output %q; reading needs no recipients", code, out)
	}
}

// Of commands at the same time each is written or refused, and none is lost.
func TestBundleSetAtTheSameTime(t *testing.T) {
	s := newShelf(t, sealedByKeymount(t))
	var written sync.Map
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			key := fmt.Sprintf("key%d", i)
			switch code, _, errOut := s.run(t.Context(), "value", "set", "shop/db", key); {
			case code == 0:
				written.Store(key, true)
			case errOut != "keymount: secrets.age: somebody else changed it meanwhile, and it is left as they wrote it; do this again\n":
				t.Errorf("set %s: exit code %d, errors %q", key, code, errOut)
			}
		})
	}
	all.Wait()
	_, out, _ := s.run(t.Context(), "", "list")
	some := false
	written.Range(func(key, _ any) bool {
		some = true
		if !strings.Contains(out, key.(string)) {
			t.Errorf("%s was set and is not there", key)
		}
		return true
	})
	if !some {
		t.Error("none was written")
	}
}

// An edit that is ended, as by SIGTERM, ends the editor and leaves nothing.
func TestBundleEditEnded(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no place in memory to edit in")
	}
	s := newShelf(t, sealedByKeymount(t))
	before, err := os.ReadFile(s.bundle)
	if err != nil {
		t.Fatal(err)
	}
	started := filepath.Join(s.folder, "started")
	t.Setenv("VISUAL", "cp \"$1\" \"$1~\"; dirname \"$1\" > "+started+".new; mv "+started+".new "+started+"; sleep 60 #")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer cancel()
		for range time.Tick(5 * time.Millisecond) {
			if _, err := os.Stat(started); err == nil || t.Context().Err() != nil {
				return
			}
		}
	}()
	code, out, errOut := s.run(ctx, "", "edit")
	if want := "keymount: secrets.age is left as it was: the edit was ended: context canceled\n"; code != 1 || out != "" || errOut != want {
		t.Errorf("exit code %d, output %q, errors %q; want 1 and %q", code, out, errOut, want)
	}
	after, err := os.ReadFile(s.bundle)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the bundle changed, or %v", err)
	}
	folder, err := os.ReadFile(started)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(strings.TrimSpace(string(folder))); !os.IsNotExist(err) { //nolint:gosec // the editor above wrote it
		t.Errorf("the folder of the editor: %v, want that there is none", err)
	}
}

func TestMemoryFolder(t *testing.T) {
	const want = "no place in memory to edit in, and the document is not written to a disk; " +
		"mount a tmpfs at /dev/shm, name one in $XDG_RUNTIME_DIR, or use 'keymount bundle set'"
	folder, err := cli.MemoryFolder("/proc", "", ".", filepath.Join(t.TempDir(), "none"))
	if err == nil || err.Error() != want {
		t.Errorf("folder %q, error %v; want %s", folder, err, want)
	}
}
