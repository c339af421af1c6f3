package image_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keymount/keymount/e2e/image"
	"github.com/keymount/keymount/e2e/vaulttest"
)

// The stand-in serves TLS with a certificate and a configuration of the pod's, as
// nginx's own image does.
func TestNginx(t *testing.T) {
	out := filepath.Join(t.TempDir(), "nginx.tar")
	if err := image.Nginx(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	made := open(t, out, image.NginxImage)
	root := made.unpack(t)
	address := free(t)
	client := serveTLS(t, root, address)

	//nolint:gosec // G204: the image's own command
	server := exec.CommandContext(t.Context(), made.Config.Cmd[0], made.Config.Cmd[1:]...)
	server.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: syscall.SIGTERM}
	server.Path, server.Err, server.Dir, server.Env = "/usr/sbin/nginx", nil, "/", made.Config.Env
	server.Cancel = func() error { return server.Process.Signal(syscall.SIGTERM) } // which ends its workers, too
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	answer := get(t, client, "https://"+address+"/hello.txt", ended)
	if answer != "hello\n" {
		t.Errorf("it answers %q", answer)
	}
	if err := server.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("nginx ended with %v", err)
	}
	if t.Failed() {
		t.Log(read(t, filepath.Join(root, "dev/stderr")))
	}
}

// serveTLS puts into the image what a pod mounts there, and plain files in place
// of a container's streams. The client that it returns trusts the certificate.
func serveTLS(t *testing.T, root, address string) *http.Client {
	t.Helper()
	authority := vaulttest.NewAuthority(t, time.Hour)
	certificate, key := authority.Issue(t, "127.0.0.1")
	for name, text := range map[string]string{
		"dev/stdout": "", "dev/stderr": "",
		"srv/hello.txt": "hello\n", "tls/tls.crt": read(t, certificate), "tls/tls.key": read(t, key),
		"etc/nginx/conf.d/default.conf": fmt.Sprintf(`server {
			listen %s ssl;
			ssl_certificate /tls/tls.crt;
			ssl_certificate_key /tls/tls.key;
			root /srv;
		}`, address),
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // G301: nginx's workers read it
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // G306: as above
			t.Fatal(err)
		}
	}
	// The temporary folder above the image is its owner's alone.
	if err := os.Chmod(root, 0o755); err != nil { //nolint:gosec // G302: as above
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority.PEM)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}
}

// get asks until the server listens.
func get(t *testing.T, client *http.Client, url string, ended <-chan error) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		response, err := client.Do(request)
		if errors.Is(err, syscall.ECONNREFUSED) {
			select {
			case err := <-ended:
				t.Fatalf("nginx ended with %v", err)
			case <-tick.C:
				continue
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
}

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
