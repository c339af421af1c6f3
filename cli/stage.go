package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"filippo.io/age"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/store/bundle"
)

const (
	demoIssuer = "https://demo.keymount.invalid"
	demoClass  = "shop-api"
	// demoNamespace is that of the pod and its class.
	demoNamespace = "shop"
)

// demoStore is the store of the demo's secrets: a bundle, or a user's Vault.
type demoStore struct {
	name     string   // as a class names it
	role     string   // of the class; empty for a store without
	audience string   // of the tokens
	prefix   string   // before the paths of the secrets
	config   string   // its entry in keymount.yaml
	shown    []string // its line in the picture of the stage
	hint     string   // how to change a secret by hand, in the stage's folder
	// rotate writes the secrets, with a new password each time.
	rotate func(context.Context) error
}

// objects are those of the pod's class.
func (d demoStore) objects() string {
	return fmt.Sprintf(`- path: %[1]sshop/db          # one value
  key: password
  file: db/password
  mode: "0400"
- path: %[1]sshop/tls         # all keys, a file each
  file: tls/
- path: %[1]sshop/features    # a value further in
  key: checkout.express
  file: express-checkout
`, d.prefix)
}

// keymountYAML is the demo's keymount.yaml.
func (d demoStore) keymountYAML() string {
	return "stores:\n" + d.config + `issuers:
  - {keys: file, issuer: "` + demoIssuer + `", keysFile: jwks.json}
sockets: [keymount.sock]
versionKeyFile: version.key
audit: {file: audit.jsonl}
`
}

// classYAML is the pod's class, as it would be applied.
func (d demoStore) classYAML() string {
	var text strings.Builder
	fmt.Fprintf(&text, `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: %s, namespace: %s}
spec:
  provider: %s
  parameters:
    store: %s
`, demoClass, demoNamespace, provider.Name, d.name)
	if d.role != "" {
		fmt.Fprintf(&text, "    role: %s\n", d.role)
	}
	text.WriteString("    objects: |\n")
	for line := range strings.Lines(d.objects()) {
		text.WriteString("      " + line)
	}
	return text.String()
}

// stage is a node in a folder: a store, an issuer, the provider and a volume.
type stage struct {
	folder  string
	volume  string
	tmpfs   bool
	pod     auth.Pod
	issuer  *providertest.Issuer
	store   demoStore
	driver  *providertest.Driver
	node    *demoNode
	strikes []func() error // the steps that take the stage down, last first
}

// setStage builds a stage, with the store that open opens; strike takes it down
// again.
func setStage(ctx context.Context, open func(context.Context, *stage) (demoStore, error)) (s *stage, err error) {
	s = &stage{pod: auth.Pod{Namespace: demoNamespace, Name: "api-0", UID: "0b6f1d1c-7a5e-4f0e-9a4e-5d2c7f1e8a01", ServiceAccount: "api"}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.strike())
		}
	}()
	if err := s.makeFolder(); err != nil {
		return s, err
	}
	if s.issuer, err = providertest.NewIssuer(demoIssuer, "demo"); err != nil {
		return s, err
	}
	if s.store, err = open(ctx, s); err != nil {
		return s, err
	}
	if err := errors.Join(s.fillFolder(), s.store.rotate(ctx)); err != nil {
		return s, err
	}
	return s, s.startProvider(ctx)
}

// strike stops the provider and removes the folder.
func (s *stage) strike() error {
	var failures []error
	for _, strike := range slices.Backward(s.strikes) {
		failures = append(failures, strike())
	}
	s.strikes = nil
	return errors.Join(failures...)
}

func (s *stage) makeFolder() (err error) {
	s.folder, err = os.MkdirTemp(shortTempDir(), "keymount-demo-")
	if err != nil {
		return fmt.Errorf("make a private folder: %w", err)
	}
	s.strikes = append(s.strikes, func() error { return os.RemoveAll(s.folder) })
	s.volume = filepath.Join(s.folder, "volume")
	for _, folder := range []string{s.volume, filepath.Join(s.folder, "stranger")} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			return fmt.Errorf("make a volume: %w", err)
		}
	}
	unmount, err := mountTmpfs(s.volume)
	if s.tmpfs = err == nil; s.tmpfs {
		s.strikes = append(s.strikes, unmount)
	}
	return nil
}

// shortTempDir is the folder of temporary files, or /tmp if the path of a socket in it
// would be too long for the kernel.
func shortTempDir() string {
	const longest = 60
	if folder := os.TempDir(); len(folder) <= longest {
		return folder
	}
	return "/tmp"
}

func (s *stage) fillFolder() error {
	keys, err := s.issuer.KeySet()
	if err != nil {
		return err
	}
	issuer, err := s.issuer.PrivateKey()
	if err != nil {
		return err
	}
	return s.write(map[string]string{
		"jwks.json": string(keys), "issuer.pem": string(issuer), "version.key": rand.Text() + rand.Text(),
		configName: s.store.keymountYAML(), className: s.store.classYAML(),
	})
}

func (s *stage) write(files map[string]string) error {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.folder, name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("fill the folder: %w", err)
		}
	}
	return nil
}

// openBundleStore makes a bundle in the stage's folder.
func openBundleStore(_ context.Context, s *stage) (demoStore, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return demoStore{}, fmt.Errorf("make a key: %w", err)
	}
	return demoStore{
		name: config.DefaultStore, audience: bundle.DefaultAudience,
		config: `  - bundle: {file: secrets.age, identityFile: key.txt}
    access:
      - namespaces: ["*"]
        serviceAccounts: ["*"]
        paths: ["{namespace}/**"]
`,
		shown: []string{"secrets.age", "the store: 3 secrets, encrypted with age"},
		hint: `   echo something else | keymount bundle set --identity key.txt secrets.age shop/db password
   keymount bundle edit --identity key.txt secrets.age
`,
		rotate: func(context.Context) error {
			plain := fmt.Sprintf(`shop/db: {username: shop, password: %s}
shop/tls: {tls.crt: demo certificate, tls.key: demo key}
shop/features: {checkout: {express: true}}
`, rand.Text())
			sealed, err := bundle.Encrypt([]byte(plain), []age.Recipient{identity.Recipient()})
			if err != nil {
				return err
			}
			return errors.Join(
				s.write(map[string]string{"key.txt": identity.String() + "\n"}),
				replaceFile(filepath.Join(s.folder, "secrets.age"), sealed),
			)
		},
	}, nil
}

// The files of the stage that a kept demo reads again.
const (
	configName = "keymount.yaml"
	className  = "class.yaml"
)

// startProvider starts the stage's node. strike ends it.
func (s *stage) startProvider(ctx context.Context) error {
	c, err := config.Load(filepath.Join(s.folder, configName), all.All())
	if err != nil {
		return err
	}
	if s.node, err = startNode(ctx, c); err != nil {
		return err
	}
	s.strikes = append(s.strikes, func() error { return s.node.stop() })
	if s.driver, err = providertest.Dial(c.Sockets[0]); err != nil {
		return err
	}
	s.strikes = append(s.strikes, s.driver.Close)
	return nil
}

// demoNode is a node of this process.
type demoNode struct {
	config *config.Config
	stop   func() error // and wait for its end; once
}

// startNode outlives ctrl-C by a moment: the story ends it.
func startNode(ctx context.Context, c *config.Config) (*demoNode, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	opened, err := node.Open(ctx, c, nodeOptions("", quiet(os.Stderr), io.Discard))
	if err != nil {
		cancel()
		return nil, err
	}
	stopped := make(chan error, 1)
	go func() { stopped <- contain.Run(func() error { return opened.Run(ctx) }) }()
	return &demoNode{c, sync.OnceValue(func() error { cancel(); return <-stopped })}, nil
}

// restart has the node run with another keymount.yaml, or with the one before where that
// fails.
func (s *stage) restart(ctx context.Context, c *config.Config) error {
	before := s.node
	if err := before.stop(); err != nil {
		return err
	}
	started, err := startNode(ctx, c)
	if err != nil {
		again, failed := startNode(ctx, before.config)
		if failed != nil {
			return errors.Join(err, failed)
		}
		s.node = again
		return err
	}
	s.node = started
	return nil
}
