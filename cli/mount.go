package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/trial"
)

// mounting is one run of mount, by its flags.
type mounting struct {
	classFlags

	socket, key, to string
	audiences       []string
}

func newMount() *cobra.Command {
	var m mounting
	command := &cobra.Command{
		Use:   "mount CLASS",
		Short: "Mount a class once on a running demo's socket, as the driver would",
		Long: `Mount a SecretProviderClass once on the socket of a running keymount: this command plays the
kubelet and the driver, signs the pod's tokens itself, and writes the files as the driver does.

It is for demos and tests. A keymount takes such tokens only where its keymount.yaml trusts the
key of --issuer-key by keys: file, as that of 'keymount demo --keep' does, which leaves the key in
issuer.pem. On a node of a cluster the API server signs, and a mount ends as Unauthenticated.`,
		Example: `  keymount mount class.yaml --as shop/api --socket keymount.sock --issuer-key issuer.pem --to files`,
		RunE: func(cmd *cobra.Command, args []string) error {
			m.class = args[0]
			return fold(m.run(cmd))
		},
	}
	m.add(command)
	flags := command.Flags()
	flags.StringVar(&m.socket, "socket", "", "the socket of the running keymount")
	flags.StringVar(&m.key, "issuer-key", "", "the key that signs the tokens: issuer.pem of 'keymount demo --keep'")
	flags.StringSliceVar(&m.audiences, "audience", nil, "audiences of tokens, as the CSIDriver object lists them (default: those of stores that name none)")
	flags.StringVar(&m.to, "to", "", "the folder to write the files into: new, empty, or of an earlier mount")
	completeFile(command, "socket", "sock")
	completeFile(command, "issuer-key", "pem")
	_ = command.MarkFlagDirname("to") // there is such a flag
	return command
}

// mounted is the result of mount.
type mounted struct {
	Class          string        `json:"class"`
	ServiceAccount string        `json:"serviceAccount"`
	Files          []mountedFile `json:"files"`
	To             string        `json:"to"`

	revealed bool
}

type mountedFile struct {
	renderedFile

	Version string `json:"version"`
}

func (m *mounting) run(cmd *cobra.Command) error {
	as, err := m.check()
	if err != nil {
		return err
	}
	picked, err := pickFrom(cmd, m.class, trial.Choice{Class: m.name, As: as})
	if err != nil {
		return err
	}
	issuer, err := readIssuer(m.key)
	if err != nil {
		return err
	}
	tokens, err := tokensOf(issuer, picked.Pod, m.wanted())
	if err != nil {
		return err
	}
	driver, err := dialDriver(cmd.Context(), m.socket)
	if err != nil {
		return err
	}
	defer func() { _ = driver.Close() }()
	if err := makeVolume(m.to); err != nil {
		return err
	}
	volume := providertest.Volume{Pod: picked.Pod, Class: picked.Class.Name, Parameters: picked.Class.Parameters, Tokens: tokens}
	versions, err := driver.Mount(cmd.Context(), volume, m.to)
	if err != nil {
		answer := status.Convert(err)
		return fmt.Errorf("%s: %s", answer.Code(), answer.Message())
	}
	result, err := m.look(picked, versions)
	if err != nil {
		return err
	}
	return printResult(cmd, result, func(w io.Writer) { result.print(w, styleOf(cmd.OutOrStdout())) })
}

// dialDriver plays the driver at a socket.
func dialDriver(ctx context.Context, socket string) (*providertest.Driver, error) {
	tried, err := dial(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", socket, err)
	}
	_ = tried.Close() // it is there, which is told better than by gRPC
	absolute, err := filepath.Abs(socket)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", socket, err)
	}
	return providertest.Dial(absolute)
}

func (m *mounting) check() (as trial.Account, err error) {
	var missing []string
	for _, flag := range []struct{ name, value string }{{"--socket", m.socket}, {"--issuer-key", m.key}, {"--to", m.to}} {
		if flag.value == "" {
			missing = append(missing, flag.name)
		}
	}
	if len(missing) > 0 {
		return as, usagef("mount takes --socket, --issuer-key and --to, and these are missing: %s", strings.Join(missing, ", "))
	}
	return parseAs(m.as)
}

// wanted are the audiences of tokens; without any those of stores with their defaults.
func (m *mounting) wanted() []string {
	if len(m.audiences) > 0 {
		return m.audiences
	}
	var audiences []string
	for _, k := range all.All() {
		settings := k.New()
		settings.Check(kind.NewMistakes()) // which fills in the defaults
		audiences = append(audiences, settings.Audience())
	}
	return audiences
}

// readIssuer reads the key that a kept demo has left.
func readIssuer(file string) (*providertest.Issuer, error) {
	const most = 64 << 10
	data, err := readFile(file, most)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	issuer, err := providertest.ParseIssuer(data)
	if err != nil {
		return nil, fmt.Errorf("%s %w", file, err)
	}
	return issuer, nil
}

// tokensOf are the tokens of a pod by audience, as the kubelet would send them.
func tokensOf(issuer *providertest.Issuer, pod auth.Pod, audiences []string) (map[string]string, error) {
	tokens := map[string]string{}
	for _, audience := range audiences {
		token, err := issuer.Sign(issuer.ClaimsFor(pod, audience))
		if err != nil {
			return nil, err
		}
		tokens[audience] = token
	}
	return tokens, nil
}

// makeVolume makes a folder to mount into. The driver's code replaces what it wrote itself.
func makeVolume(folder string) error {
	const private = 0o700
	if err := os.MkdirAll(folder, private); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	there, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("look into the folder: %w", err)
	}
	mounted := slices.ContainsFunc(there, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "..data") })
	if len(there) > 0 && !mounted {
		return fmt.Errorf("%s is not empty, and no mount wrote into it before; name a new folder, or empty this one", folder)
	}
	return nil
}

// look reads the files back from the volume, as the pod would.
func (m *mounting) look(p trial.Picked, versions map[string]string) (mounted, error) {
	result := mounted{Class: p.Class.Name, ServiceAccount: p.Pod.Namespace + "/" + p.Pod.ServiceAccount, To: m.to, revealed: m.reveal}
	for _, path := range slices.Sorted(maps.Keys(versions)) {
		full := filepath.Join(m.to, path)
		info, err := os.Stat(full)
		if err != nil {
			return result, fmt.Errorf("look at the volume: %w", err)
		}
		content, err := os.ReadFile(full)
		if err != nil {
			return result, fmt.Errorf("look at the volume: %w", err)
		}
		f := renderedOf(path, int32(info.Mode().Perm()), content, m.reveal) //nolint:gosec // nine bits
		result.Files = append(result.Files, mountedFile{f, versions[path]})
	}
	return result, nil
}

func (m mounted) print(w io.Writer, s style) {
	_, _ = fmt.Fprintf(w, "%s\n\n", s.bold(fmt.Sprintf("Class %s, mounted as service account %s:", m.Class, m.ServiceAccount)))
	rows := [][]string{{"FILE", "MODE", "VERSION", "CONTENT", "VALUE"}}
	for _, f := range m.Files {
		rows = append(rows, []string{f.Path, f.Mode, short(f.Version), f.Content, f.shown(m.revealed)})
	}
	printRows(w, rows)
	for _, f := range m.Files {
		f.printLong(w, s, m.revealed)
	}
	_, _ = fmt.Fprintf(w, "\nThe files are in %s.\n", m.To)
}

// pickFrom reads the class and its pod from a file.
func pickFrom(cmd *cobra.Command, file string, choice trial.Choice) (trial.Picked, error) {
	files, err := manifest.Read([]string{file}, false, cmd.InOrStdin())
	if err != nil {
		return trial.Picked{}, err
	}
	picked, err := trial.Pick(files, choice)
	if len(config.Mistakes(err)) > 0 { // which name the file
		return picked, err
	}
	if err != nil {
		if file == manifest.Stdin {
			file = manifest.StdinName
		}
		return picked, fmt.Errorf("%s: %w", file, err)
	}
	return picked, nil
}

// parseAs reads --as, which may be absent.
func parseAs(text string) (as trial.Account, err error) {
	if text == "" {
		return as, nil
	}
	if as, err = trial.ParseAccount(text); err != nil {
		return as, usagef("--as: %w", err)
	}
	return as, nil
}
