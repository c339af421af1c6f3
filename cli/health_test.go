package cli_test

import (
	"bytes"
	"context"
	"go/parser"
	"go/token"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/cli"
)

// Health can fail: each way of getting no answer from keymount has its text.
func TestHealthOfASocket(t *testing.T) {
	for name, c := range map[string]struct {
		timeout string
		listen  func(*testing.T, *net.UnixListener)
		want    string
	}{
		"left behind": {
			"1m", func(t *testing.T, l *net.UnixListener) {
				t.Helper()
				l.SetUnlinkOnClose(false)
				_ = l.Close()
			},
			"nobody listens any more; start 'keymount serve' again, its log says why it ended",
		},
		"of one that hangs": {
			"100ms", func(*testing.T, *net.UnixListener) {}, // the kernel accepts, and no process answers
			"no answer within 100ms; if that stays so, restart 'keymount serve': its log has what it was doing",
		},
		"of another provider": {
			"1m", func(t *testing.T, l *net.UnixListener) { t.Helper(); serveOther(t, l, true) },
			`the provider that answers is "other"; stop that one or list another socket`,
		},
		"of something else": {
			"1m", func(t *testing.T, l *net.UnixListener) { t.Helper(); serveOther(t, l, false) },
			"what listens there is no provider: rpc error: code = Unimplemented desc = unknown service v1alpha1.CSIDriverProvider; stop it or list another socket",
		},
	} {
		t.Run(name, func(t *testing.T) {
			file, listener := listen(t)
			c.listen(t, listener)
			var out, errOut bytes.Buffer
			code := cli.Run(t.Context(), []string{"health", "--config", file, "--timeout", c.timeout}, strings.NewReader(""), &out, &errOut)
			want := "keymount: socket " + listener.Addr().String() + ": " + c.want + "\n"
			if code != 1 || out.Len() > 0 || errOut.String() != want {
				t.Errorf("exit code %d, %s\ngot  %swant %s", code, out.String(), errOut.String(), want)
			}
		})
	}
}

// What the tests' driver is made for stays out of what runs on a node: the demo
// and mount alone play the driver.
func TestNoTestDriverOnANode(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "demo") || file == "stage.go" || file == "mount.go" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			if strings.HasSuffix(spec.Path.Value, `test"`) {
				t.Errorf("%s imports %s", file, spec.Path.Value)
			}
		}
	}
}

// listen opens a socket, and writes a keymount.yaml that lists it.
func listen(t *testing.T) (file string, listener *net.UnixListener) {
	t.Helper()
	folder, err := os.MkdirTemp("", "km") //nolint:usetesting // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(folder, "keymount.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	file = filepath.Join(folder, "keymount.yaml")
	text := "stores: [{bundle: {file: secrets.age, identityFile: key.txt}}]\nsockets: [keymount.sock]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, listener
}

// serveOther answers gRPC until the test ends, as another provider or as none.
func serveOther(t *testing.T, listener net.Listener, provider bool) {
	t.Helper()
	server := grpc.NewServer()
	if provider {
		v1alpha1.RegisterCSIDriverProviderServer(server, other{})
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// other is a provider that is not keymount.
type other struct {
	v1alpha1.UnimplementedCSIDriverProviderServer
}

func (other) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{Version: "v1alpha1", RuntimeName: "other", RuntimeVersion: "1"}, nil
}
