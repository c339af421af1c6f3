package cli

import (
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
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/provider/providertest"
)

func newDemo() *cobra.Command {
	var reveal, keep bool
	var vault demoVault
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show a mount, a rotation, a denial and their trail on this machine, without a cluster",
		Long: `Show keymount's main job on this machine, without a cluster and without root. In a
private folder, which is removed at the end, the demo makes an age-encrypted bundle and an
issuer of service account tokens, runs the provider of 'keymount serve' on a real socket,
and plays the driver: it calls Mount over gRPC and writes the files with the driver's own
code. Where it may, it mounts a tmpfs for them. In the end it shows the audit trail of all
that, verifies it, and finds a byte that it has changed.

With --vault-addr the secrets are in a real Vault or OpenBao instead: the demo mounts a
KV v2 engine and a jwt auth method under a name of its own, and removes both at the end.
It takes a token that may do that.`,
		Example: `  keymount demo
  keymount demo --vault-addr http://127.0.0.1:8200 --vault-token root`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := cmd.OutOrStdout()
			if keep && isJSON(cmd) {
				return usagef("--keep tells what happens as text, and has no end; leave out --keep, or --output json")
			}
			if cmd.Flag("output").Value.String() == "json" {
				text = io.Discard
			}
			s := &scene{out: &checkedWriter{w: text}, style: styleOf(text), reveal: reveal}
			open := openBundleStore
			if cmd.Flags().Changed("vault-addr") {
				open = vault.open
			}
			switch err := s.play(cmd.Context(), open, keep); {
			case isUsage(err):
				return err
			case err != nil:
				return fold(fmt.Errorf("demo: %w", err))
			}
			return printResult(cmd, s.result, func(io.Writer) {})
		},
	}
	command.Flags().BoolVar(&reveal, "reveal", false, "show the values instead of masking them")
	command.Flags().StringVar(&vault.address, "vault-addr", "", "keep the secrets in the Vault or OpenBao at this address")
	command.Flags().StringVar(&vault.token, "vault-token", "", "a token that may mount engines and auth methods there (default $VAULT_TOKEN)")
	command.Flags().StringVar(&vault.caFile, "vault-ca-file", "", "the PEM certificates that it is trusted by")
	completeFile(command, "vault-ca-file", "pem", "crt", "cer")
	command.Flags().BoolVar(&keep, "keep", false, "keep running after the story, to play with it, until ctrl-C")
	return command
}

// demoResult is the output of -o json.
type demoResult struct {
	Tmpfs  bool       `json:"tmpfs"`
	Before []demoFile `json:"before"`
	After  []demoFile `json:"after"`
	Denial string     `json:"denial"`
	Trail  demoTrail  `json:"trail"`
}

// demoFile is one file in the pod's volume.
type demoFile struct {
	Path    string `json:"path"`
	Mode    string `json:"mode"`
	Version string `json:"version"`
	Value   string `json:"value"` // masked unless --reveal
	Changed bool   `json:"changed,omitempty"`
}

// scene tells the story of the demo on a stage that setStage built.
type scene struct {
	*stage
	out    *checkedWriter
	style  style
	reveal bool
	began  time.Time
	result demoResult
}

func (s *scene) play(ctx context.Context, open func(context.Context, *stage) (demoStore, error), keep bool) (err error) {
	s.began = time.Now()
	s.stage, err = setStage(ctx, open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.strike()) }()
	s.result.Tmpfs = s.tmpfs
	s.say("keymount demo: a mount, a rotation, a denial and their audit trail, without a cluster\n")
	s.showStage()
	for _, act := range []func(context.Context) error{s.mount, s.rotate, s.deny, s.showTrail} {
		if err := errors.Join(act(ctx), s.out.err); err != nil {
			return err
		}
	}
	if keep {
		return s.keep(ctx)
	}
	s.say("\nDone in %s; everything is removed again. 'demo --reveal' shows the values, 'demo --keep' leaves it running.\n",
		time.Since(s.began).Round(10*time.Millisecond))
	return s.out.err
}

// checkedWriter remembers the first failure, so that the story ends without a reader.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.w.Write(p)
	if err != nil {
		c.err = fmt.Errorf("tell the story: %w", err)
	}
	return n, c.err
}

func (s *scene) say(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

func (s *scene) heading(text string) { s.say("\n%s\n", s.style.bold(text)) }

// table prints aligned rows, indented. The word changed gets its colour after the
// aligning, which counts the bytes of a colour as width.
func (s *scene) table(rows [][]string) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintf(w, "   %s\n", strings.Join(row, "\t"))
	}
	_ = w.Flush()
	s.say("%s", strings.ReplaceAll(text.String(), " changed ", " "+s.style.green("changed")+" "))
}

func (s *scene) showStage() {
	s.heading("1. The stage, in " + s.folder)
	volume := "a tmpfs, as on a node"
	if !s.tmpfs {
		volume = "a private folder (a tmpfs needs root; on a node it is one)"
	}
	s.table([][]string{
		s.store.shown,
		{"keymount.yaml", "the operator's rules: a namespace reads below its own name"},
		{"class.yaml", "the class of the pod, as it would be applied"},
		{"jwks.json", "the keys of a token issuer, in place of the API server"},
		{"keymount.sock", "the provider, as 'keymount serve' runs it"},
		{"volume", "the pod's volume: " + volume},
	})
}

func (s *scene) mount(ctx context.Context) error {
	s.heading("2. Pod " + podName(s.pod) + " mounts the class " + demoClass + ", whose objects are")
	for line := range strings.Lines(s.store.objects()) {
		s.say("   %s\n", s.style.dim(strings.TrimSuffix(line, "\n")))
	}
	began := time.Now()
	versions, err := s.call(ctx, s.pod, s.store.objects(), s.volume)
	if err != nil {
		return err
	}
	took := time.Since(began)
	if s.result.Before, err = s.look(versions, nil); err != nil {
		return err
	}
	s.say("\n   The driver calls Mount and writes the answer, in %s:\n\n", took.Round(100*time.Microsecond))
	rows := [][]string{{"FILE", "MODE", "VERSION", "VALUE"}}
	for _, f := range s.result.Before {
		rows = append(rows, []string{f.Path, f.Mode, short(f.Version), f.Value})
	}
	s.table(rows)
	return nil
}

func (s *scene) rotate(ctx context.Context) error {
	s.heading("3. The password of shop/db is rotated; the driver calls Mount again")
	if err := s.store.rotate(ctx); err != nil {
		return err
	}
	versions, err := s.call(ctx, s.pod, s.store.objects(), s.volume)
	if err != nil {
		return err
	}
	if s.result.After, err = s.look(versions, s.result.Before); err != nil {
		return err
	}
	rows := [][]string{{"FILE", "", "VERSION", "VALUE"}}
	for _, f := range s.result.After {
		change := "same"
		if f.Changed {
			change = "changed"
		}
		rows = append(rows, []string{f.Path, change, short(f.Version), f.Value})
	}
	s.table(rows)
	return nil
}

func (s *scene) deny(ctx context.Context) error {
	stranger := auth.Pod{Namespace: "blog", Name: "web-0", UID: "6c5b1f3e-9c55-4b5c-8a3c-0d3f6f1f2a02", ServiceAccount: "web"}
	s.heading("4. Pod " + podName(stranger) + " asks for shop/db, too")
	_, err := s.call(ctx, stranger, "[{path: "+s.store.prefix+"shop/db, key: password, file: loot}]", filepath.Join(s.folder, "stranger"))
	if err == nil {
		return errors.New("a pod of another namespace was served; this must not happen")
	}
	answer := status.Convert(err)
	s.result.Denial = answer.Code().String() + ": " + answer.Message()
	s.say("   %s\n", s.style.red(s.result.Denial))
	return nil
}

// call plays the kubelet and the driver: a fresh token, one Mount, the files.
func (s *scene) call(ctx context.Context, pod auth.Pod, objects, target string) (map[string]string, error) {
	parameters := map[string]string{"objects": objects, "store": s.store.name}
	if s.store.role != "" {
		parameters["role"] = s.store.role
	}
	tokens, err := tokensOf(s.issuer, pod, []string{s.store.audience})
	if err != nil {
		return nil, err
	}
	return s.driver.Mount(ctx, providertest.Volume{Pod: pod, Class: demoClass, Parameters: parameters, Tokens: tokens}, target)
}

// look reads the files back from the volume, as the pod would.
func (s *scene) look(versions map[string]string, before []demoFile) ([]demoFile, error) {
	var files []demoFile
	for _, path := range slices.Sorted(maps.Keys(versions)) {
		full := filepath.Join(s.volume, path)
		info, err := os.Stat(full)
		if err != nil {
			return nil, fmt.Errorf("look at the volume: %w", err)
		}
		content, err := os.ReadFile(full)
		if err != nil {
			return nil, fmt.Errorf("look at the volume: %w", err)
		}
		f := demoFile{Path: path, Mode: fmt.Sprintf("%04o", info.Mode().Perm()), Version: versions[path], Value: string(content)}
		if !s.reveal {
			f.Value = fmt.Sprintf("******** (%d bytes)", len(content))
		}
		f.Changed = before != nil && !slices.ContainsFunc(before, func(b demoFile) bool { return b.Path == f.Path && b.Version == f.Version })
		files = append(files, f)
	}
	return files, nil
}

// shellQuoted is text as one word of a shell.
func shellQuoted(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func podName(p auth.Pod) string {
	return fmt.Sprintf("%s/%s (service account %s)", p.Namespace, p.Name, p.ServiceAccount)
}

// short is enough of a version to tell two apart.
func short(version string) string { return version[:min(len(version), 10)] }

// quiet drops the provider's log lines below error: the story is told on stdout.
func quiet(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelError}))
}
