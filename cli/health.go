package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store/all"
)

// defaultHealthTimeout is long for a probe: an answer takes a millisecond.
const defaultHealthTimeout = 2 * time.Second

// health is the result of the command health.
type health struct {
	Sockets []answer `json:"sockets"`
}

// answer is the answer of one socket.
type answer struct {
	Socket  string `json:"socket"`
	Version string `json:"version"` // of the keymount that answers
}

func newHealth() *cobra.Command {
	var file string
	var timeout time.Duration
	var ready bool
	command := &cobra.Command{
		Use:   "health",
		Short: "Ask the keymount that serves on this node whether it answers",
		Long: `Ask for the version through every socket of keymount.yaml, as the driver does. The exit code
is 0 when keymount answers on all of them and 1 otherwise: made for the probes of a
container that has no shell. Stores are not asked, since a store that is away is no
reason to restart keymount.

With --ready it is 1, too, while a rollout should not go on to the next node: a store has a
fault that waiting does not mend, such as a bundle that does not open or a certificate that
is not trusted, or gave no answer yet, for limits.readinessBound at most. Keymount serves
all the same.`,
		Example: `  keymount health --config /etc/keymount/keymount.yaml
  keymount health --ready`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usagef("--timeout is %s; it is a duration such as %s", timeout, defaultHealthTimeout)
			}
			c, err := config.Load(file, all.All())
			if err != nil {
				return err
			}
			result, err := askAll(cmd.Context(), c.Sockets, timeout, ready)
			if err != nil {
				return err
			}
			return printResult(cmd, result, result.print)
		},
	}
	command.Flags().StringVarP(&file, "config", "c", defaultConfigFile, "the operator's file, for its sockets")
	completeFile(command, "config", yamlFiles()...)
	command.Flags().DurationVar(&timeout, "timeout", defaultHealthTimeout, "how long to wait for the answers")
	command.Flags().BoolVar(&ready, "ready", false, "ask, too, whether a rollout may go on to the next node")
	return command
}

// askAll asks all sockets at once, so that limit bounds all of them together.
func askAll(ctx context.Context, sockets []string, limit time.Duration, ready bool) (health, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result := health{Sockets: make([]answer, len(sockets))}
	failures := make([]error, len(sockets))
	var asking sync.WaitGroup
	for i, socket := range sockets {
		asking.Go(func() {
			version, err := contain.Do(func() (string, error) { return ask(ctx, socket, ready) })
			result.Sockets[i] = answer{socket, version}
			switch {
			case err == nil:
			case errors.Is(err, errNotReady):
				failures[i] = err
			case ctx.Err() != nil:
				failures[i] = fmt.Errorf("socket %s: no answer within %s; if that stays so, restart 'keymount serve': its log has what it was doing", socket, limit)
			default:
				failures[i] = fmt.Errorf("socket %s: %w", socket, err)
			}
		})
	}
	asking.Wait()
	if slices.ContainsFunc(failures, func(err error) bool { return errors.Is(err, errNotReady) }) { // by all sockets alike
		failures = append(slices.DeleteFunc(failures, func(err error) bool { return errors.Is(err, errNotReady) }), errNotReady)
	}
	return result, errors.Join(failures...)
}

// errNotReady names no store: a probe's words are for everybody who sees the pod.
var errNotReady = errors.New("not ready: a store has a fault that waiting does not mend, or gave no answer yet; the log of 'keymount serve' says which")

func ask(ctx context.Context, socket string, ready bool) (version string, err error) {
	driver, err := dial(ctx, socket)
	if err != nil {
		return "", err
	}
	defer func() { _ = driver.Close() }()
	response, err := v1alpha1.NewCSIDriverProviderClient(driver).Version(ctx, &v1alpha1.VersionRequest{Version: "v1alpha1"})
	if err != nil {
		return "", fmt.Errorf("what listens there is no provider: %w; stop it or list another socket", err)
	}
	if name := response.GetRuntimeName(); name != provider.Name {
		return "", fmt.Errorf("the provider that answers is %q; stop that one or list another socket", name)
	}
	if !ready {
		return response.GetRuntimeVersion(), nil
	}
	switch ok, err := provider.Ready(ctx, driver); {
	case err != nil:
		return "", err
	case !ok:
		return "", errNotReady
	}
	return response.GetRuntimeVersion(), nil
}

// dial connects once before it speaks gRPC: gRPC's error for a socket without a listener
// is long and has no kind.
func dial(ctx context.Context, socket string) (*grpc.ClientConn, error) {
	tried, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, unreachable(err)
	}
	_ = tried.Close()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("cannot be reached: %w", err)
	}
	return connection, nil
}

// unreachable tells the cure for a socket that cannot be reached.
func unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("is not there; start 'keymount serve' with this file, or name with --config the one that it runs with")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nobody listens any more; start 'keymount serve' again, its log says why it ended")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("may not be opened by this user; run this as the user that 'keymount serve' runs as")
	}
	return fmt.Errorf("cannot be reached: %w", err)
}

func (h health) print(w io.Writer) {
	for _, a := range h.Sockets {
		_, _ = fmt.Fprintf(w, "%s: keymount %s answers\n", a.Socket, a.Version)
	}
}
