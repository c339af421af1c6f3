package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
)

// killsInCI is how often the process is killed; .ci/long sets KEYMOUNT_KILLS for more.
const killsInCI = 10

const passwordOnly = "{path: secret/shop/db, key: password, file: password}" //nolint:gosec // G101: the name of a key

// podOf is a pod of the service account shop/api.
func podOf(name string) auth.Pod {
	return auth.Pod{Namespace: "shop", Name: name, UID: "uid-of-" + name, ServiceAccount: "api"}
}

// trailOf are the records in the files of a trail, in their order, and their text.
func trailOf(t *testing.T, files ...string) (records []*audit.Record, text []byte) {
	t.Helper()
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, content...)
		for line := range bytes.Lines(content) {
			r, err := audit.Read(line)
			if err != nil {
				continue // verify judges what is no record
			}
			records = append(records, r)
		}
	}
	return records, text
}

// verified is what keymount audit verify says of files, and its exit code.
func verified(t *testing.T, files ...string) (string, int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), keymountBinary, append([]string{"audit", "verify"}, files...)...) //nolint:gosec // G204: the program that TestMain built
	out, err := command.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

// A trail has who read what, by which rule, with the name that Vault's own audit log has for
// the request; logins; and what was refused. It verifies, and holds no secret.
func TestAudit(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	server := newVault(t, issuer)
	vaultLog := filepath.Join(t.TempDir(), "vault-audit.log")
	write(t, server.Client(t).Logical(), "sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": vaultLog}})
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	k, _ := serveBefore(t, server, issuer, operator{Audit: "{file: " + file + "}"})

	k.mounted(t, shopClass(lines(passwordOnly)))
	if _, err := k.mount(t, shopAPI, shopClass(lines("{path: secret/other/db, key: password, file: f}"))); err == nil {
		t.Error("a path that no policy allows was read")
	}
	k.stop(t)
	k.exited = nil

	records, text := trailOf(t, file)
	for _, leak := range leaksIn(string(text), k.secrets) {
		t.Errorf("a secret stands in the trail: %.8s...", leak)
	}
	if out, code := verified(t, file); code != 0 {
		t.Errorf("verify exits with %d: %s", code, out)
	}
	var logins, granted, denied []*audit.Record
	for _, r := range records {
		switch {
		case r.Kind == audit.KindLogin:
			logins = append(logins, r)
		case r.Kind == audit.KindMount && r.Outcome == audit.Granted:
			granted = append(granted, r)
		case r.Kind == audit.KindMount && r.Outcome == audit.Denied:
			denied = append(denied, r)
		}
	}
	if len(logins) != 1 || len(granted) != 1 || len(denied) != 1 {
		t.Fatalf("%d logins, %d mounts granted and %d denied, want one each:\n%s", len(logins), len(granted), len(denied), text)
	}
	if l := logins[0]; l.Login.Store != storeName || l.Login.Role != "shop-api" || l.Outcome != audit.Granted || l.ServiceAccount.Name != "api" {
		t.Errorf("the login is %+v of %+v", l.Login, l)
	}
	read := granted[0].Secrets[0]
	if read.Path != "secret/shop/db" || read.Version == "" || read.Rule != "stores[0].access[0]" || read.Source != "store" || read.Files[0] != "password" {
		t.Errorf("the secret is %+v", read)
	}
	if refused := denied[0].Secrets[0]; refused.Path != "secret/other/db" || refused.Outcome != audit.Denied || refused.Reason != "denied by the store" {
		t.Errorf("the denial is %+v", refused)
	}
	if path := vaultPathOf(t, vaultLog, read.Request); path != "secret/data/shop/db" { // of a denial Vault's answer has no such name
		t.Errorf("request %q is one for %q in Vault's own audit log", read.Request, path)
	}
}

// vaultPathOf is the path of a request in Vault's own audit log.
func vaultPathOf(t *testing.T, log, request string) string {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var entry struct {
			Request struct{ ID, Path string }
		}
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatal(err)
		}
		if entry.Request.ID == request {
			return entry.Request.Path
		}
	}
	return ""
}

// However often keymount is killed, the trail has every delivery, and verifies but for the
// ends that it has not.
func TestAuditOfKills(t *testing.T) {
	t.Parallel()
	kills := killsInCI
	if text := os.Getenv("KEYMOUNT_KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatalf("KEYMOUNT_KILLS: %v", err)
		}
	}
	issuer := newIssuer(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "audit.jsonl")
	k, _ := serveBefore(t, newVault(t, issuer), issuer, operator{
		Memory: "refresh: 1m, stale: 1h", Audit: "{file: " + file + ", maxSizeMiB: 1, keep: 0}",
	})
	var delivered sync.Map // names of pods
	for n := range kills {
		var mounting sync.WaitGroup
		var stopping atomic.Bool
		for caller := range 4 {
			mounting.Go(func() {
				for i := 0; !stopping.Load(); i++ {
					pod := podOf(fmt.Sprintf("pod-%d-%d-%d", n, caller, i))
					if _, err := k.mount(t, pod, shopClass(lines(passwordOnly))); err == nil {
						delivered.Store(pod.Name, true)
					}
				}
			})
		}
		<-time.After(time.Duration(50+rand.IntN(450)) * time.Millisecond) //nolint:gosec // G404: when does not have to be unguessable
		if err := k.command.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		exited := k.exited
		k.exited = nil
		if err := <-exited; err == nil {
			t.Error("keymount ended by itself")
		}
		stopping.Store(true)
		mounting.Wait()
		k.start(t)
	}
	k.secrets = k.secrets[max(0, len(k.secrets)-500):] // of so many tokens the last ones are looked for
	k.stop(t)
	k.exited = nil

	files, err := filepath.Glob(filepath.Join(folder, "audit*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	out, code := verified(t, files...)
	if code != 0 {
		t.Errorf("verify exits with %d: %s", code, out)
	}
	records, _ := trailOf(t, files...)
	recorded := map[string]bool{}
	begins := 0
	for _, r := range records {
		if r.Kind == audit.KindMount && r.Outcome == audit.Granted {
			recorded[r.Pod.Name] = true
		}
		if r.Kind == audit.KindBegin {
			begins++
		}
	}
	lost, all := 0, 0
	delivered.Range(func(name, _ any) bool {
		all++
		if !recorded[name.(string)] { //nolint:forcetypeassert // only names are stored
			lost++
		}
		return true
	})
	t.Logf("%d kills, %d deliveries, %d records; verify says:\n%s", kills, all, len(records), out)
	if lost > 0 || all < kills || begins != kills+1 {
		t.Errorf("%d of %d deliveries are in no record, and %d processes began", lost, all, begins)
	}
}

// A full disk refuses what is new, with the reason, and nothing else; when there is room
// again the trail goes on where it stopped, within a line, too.
func TestAuditOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, onFailure := range []string{"block", "continue"} {
		t.Run(onFailure, func(t *testing.T) {
			t.Parallel()
			folder := smallTmpfs(t)
			file := filepath.Join(folder, "audit.jsonl")
			issuer := newIssuer(t)
			k, _ := serveBefore(t, newVault(t, issuer), issuer, operator{
				Memory: "refresh: 1m, stale: 1h", Audit: "{file: " + file + ", onFailure: " + onFailure + "}",
			})
			class := shopClass(lines(passwordOnly))
			k.mounted(t, class)
			ballast := filepath.Join(folder, "ballast")
			fillUp(t, ballast)
			for i := range 3 { // the last block of the file may have room for some
				_, err := k.mount(t, podOf(fmt.Sprint("filling-", i)), class)
				if err != nil && onFailure == "continue" {
					t.Errorf("a mount was refused: %v", err)
				}
			}
			for i := range 6 {
				_, err := k.mount(t, podOf(fmt.Sprint("new-", i)), class)
				if onFailure == "block" && i == 5 {
					const want = "FailedPrecondition: the record of this mount cannot be written: audit trail: audit.file: write "
					const cure = ": no space left on device; make room for the trail, or a reader, on this node, or set audit.onFailure: continue"
					if err == nil || !strings.HasPrefix(told(err), want) || !strings.HasSuffix(told(err), cure) {
						t.Errorf("a new pod on a full disk: %v", err)
					}
				} else if onFailure == "continue" && err != nil {
					t.Errorf("a mount was refused: %v", err)
				}
			}
			k.mounted(t, class) // as it was: a running pod
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			until(t, func() bool {
				_, err := k.mount(t, podOf("after"), class)
				return err == nil
			})
			k.stop(t)
			k.exited = nil
			if out, code := verified(t, file); code != 0 {
				t.Errorf("verify exits with %d: %s", code, out)
			}
		})
	}
}

// smallTmpfs is a disk that can be filled.
func smallTmpfs(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount a tmpfs: %v; these tests need root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// fillUp writes a file until there is no room.
func fillUp(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is only ballast
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// What keymount cannot write to from the start is told at the start.
func TestAuditThatCannotBegin(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	used := filepath.Join(t.TempDir(), "audit.jsonl")
	serveBefore(t, newVault(t, issuer), issuer, operator{Audit: "{file: " + used + "}"})
	for name, test := range map[string]struct{ file, want string }{
		"no folder":        {filepath.Join(t.TempDir(), "none", "audit.jsonl"), "no such file or directory; keymount needs a folder that it may write to"},
		"a folder":         {t.TempDir(), "is a directory"},
		"another keymount": {used, "another keymount writes " + used + "; stop that one, or name another file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := configure(t, issuer, operator{Addresses: []string{"http://127.0.0.1:1"}, Vault: []string{throughJWT}, Audit: "{file: " + test.file + "}"})
			command := exec.CommandContext(t.Context(), keymountBinary, "serve", "--config", filepath.Join(folder, "keymount.yaml")) //nolint:gosec // G204: the program that TestMain built
			out, err := command.CombinedOutput()
			if err == nil || !strings.Contains(string(out), test.want) {
				t.Errorf("it ended with %v and said\n%s\nwant %s", err, out, test.want)
			}
		})
	}
}
