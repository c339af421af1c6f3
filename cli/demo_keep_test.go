package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/cli"
)

// keptDemo is a demo that keeps running, with what it says.
type keptDemo struct {
	lines  *bufio.Scanner
	folder string
	said   []string
}

func keepDemo(t *testing.T) *keptDemo {
	t.Helper()
	const limit = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	out, in := io.Pipe()
	exited := make(chan int, 1)
	var failures bytes.Buffer
	go func() {
		exited <- cli.Run(ctx, []string{"demo", "--keep"}, strings.NewReader(""), in, &failures)
		_ = in.Close()
	}()
	k := &keptDemo{lines: bufio.NewScanner(out)}
	t.Cleanup(func() {
		cancel()
		go func() { _, _ = io.Copy(io.Discard, out) }()
		if code := <-exited; code != 0 || failures.Len() > 0 {
			t.Errorf("the demo ended with %d: %s", code, failures.String())
		}
		if _, err := os.Stat(k.folder); !os.IsNotExist(err) {
			t.Errorf("the demo left %s: %v", k.folder, err)
		}
	})
	k.folder = strings.TrimPrefix(k.hears(t, `^1\. The stage, in `), "1. The stage, in ")
	k.hears(t, "ctrl-C ends the demo")
	return k
}

// hears returns the next line of the demo that fits.
func (k *keptDemo) hears(t *testing.T, pattern string) string {
	t.Helper()
	fits := regexp.MustCompile(pattern)
	for k.lines.Scan() {
		k.said = append(k.said, k.lines.Text())
		if fits.MatchString(k.lines.Text()) {
			return k.lines.Text()
		}
	}
	t.Fatalf("the demo ended without saying %s:\n%s", pattern, strings.Join(k.said, "\n"))
	return ""
}

// edit changes a file of the demo.
func (k *keptDemo) edit(t *testing.T, name, before, after string) {
	t.Helper()
	file := filepath.Join(k.folder, name)
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), before) {
		t.Fatalf("%s has no %q: %v", name, before, err)
	}
	// By another name first: the demo must not see half of it.
	if err := os.WriteFile(file+".new", []byte(strings.Replace(string(text), before, after, 1)), 0o600); err != nil { //nolint:gosec // in the demo's folder
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// A kept demo mounts its class.yaml as it is edited, starts its node again with an edited
// keymount.yaml, and tells each mistake once.
func TestKeptDemo(t *testing.T) {
	k := keepDemo(t)

	k.edit(t, "class.yaml", "file: db/password", "file: password")
	k.hears(t, `class\.yaml changed$`)
	k.hears(t, `  password is new, version `)
	k.hears(t, `  db/password is gone$`)

	k.edit(t, "class.yaml", "file: password", "fiel: password")
	k.hears(t, `class\.yaml changed$`)
	k.hears(t, `unknown field "fiel"; did you mean "file"\?`)
	k.edit(t, "class.yaml", "kind: SecretProviderClass", "kind: Other")
	k.hears(t, `class\.yaml changed, and the class before stays:$`)
	k.hears(t, `there is no SecretProviderClass in it$`)
	k.edit(t, "class.yaml", "kind: Other", "kind: SecretProviderClass")
	k.edit(t, "class.yaml", "fiel: password", "file: password")
	k.hears(t, `mounted again$`)

	k.edit(t, "keymount.yaml", "{namespace}/**", "other/**")
	k.hears(t, `keymount\.yaml changed: the node has started again with it$`)
	k.hears(t, `service account shop/api may not read "shop/db"`)
	k.edit(t, "keymount.yaml", "access:", "acess:")
	k.hears(t, `keymount\.yaml changed, and the one before stays in force:$`)
	k.hears(t, `keymount\.yaml: line 3: unknown field "acess"; did you mean "access"\?`)
	k.edit(t, "keymount.yaml", "acess:", "access:")
	k.edit(t, "keymount.yaml", "other/**", "{namespace}/**")
	k.hears(t, `mounted again$`)
	for _, mistake := range []string{`unknown field "fiel"`, `service account shop/api may not read "shop/db"`, `unknown field "acess"`} {
		if n := strings.Count(strings.Join(k.said, "\n"), mistake); n != 1 {
			t.Errorf("%s was told %d times:\n%s", mistake, n, strings.Join(k.said, "\n"))
		}
	}

	// A mount that waits for a store is given up with the next edit.
	k.edit(t, "keymount.yaml", "file: secrets.age", "file: nowhere.age")
	k.hears(t, `keymount\.yaml changed: the node has started again with it$`)
	edited := time.Now()
	k.edit(t, "keymount.yaml", "file: nowhere.age", "file: secrets.age")
	k.hears(t, `keymount\.yaml changed: the node has started again with it$`)
	if took := time.Since(edited); took > 10*time.Second {
		t.Errorf("the edit was seen after %s", took)
	}
	k.edit(t, "class.yaml", "file: password", "file: pass")
	k.hears(t, `  pass is new, version `)
	k.edit(t, "class.yaml", "file: pass", "file: password")
	k.hears(t, `  password is new, version `)

	// A socket that is gone is told as by mount.
	if err := os.Remove(filepath.Join(k.folder, "keymount.sock")); err != nil {
		t.Fatal(err)
	}
	k.hears(t, `keymount\.sock: is not$|keymount\.sock: is not there; start`)
	k.edit(t, "keymount.yaml", "sockets:", "# again\nsockets:")
	k.hears(t, `mounted again$`)

	var out, errOut bytes.Buffer
	mount := func(class string) int {
		out.Reset()
		errOut.Reset()
		return cli.Run(t.Context(), []string{
			"mount", filepath.Join(k.folder, class), "--as", "shop/web", "--socket", filepath.Join(k.folder, "keymount.sock"),
			"--issuer-key", filepath.Join(k.folder, "issuer.pem"), "--to", filepath.Join(k.folder, "web"),
		}, strings.NewReader(""), &out, &errOut)
	}
	if code := mount("class.yaml"); code != 0 || !strings.Contains(out.String(), "Class shop-api, mounted as service account shop/web:") {
		t.Errorf("mount: %d\n%s%s", code, out.String(), errOut.String())
	}
	if code := mount("class.yaml"); code != 0 { // again, into the same volume
		t.Errorf("mount: %d\n%s%s", code, out.String(), errOut.String())
	}
}
