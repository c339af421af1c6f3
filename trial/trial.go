// Package trial tries a class before a cluster does: [Try.Mount] makes the files that a pod
// would get, through the code that mounts on a node.
//
// [Pick] finds class and pod in manifests. [Assume] is a keymount.yaml for a class without
// one, [ParseSecrets] reads secrets that stand in for those of stores, and [Sketch] writes
// such secrets for a class.
package trial

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
)

// driverMode is the mode of files without one in a class of another provider, as the driver
// sends it.
const driverMode = "420"

// Issuer gives the tokens of one service account, and the keys that prove them.
type Issuer interface {
	auth.KeySource
	// Token is one for an audience.
	Token(ctx context.Context, audience string) (string, error)
}

// Try is one mount to be tried.
type Try struct {
	Class   Class
	Pod     auth.Pod
	Node    string // that the pod's token names; empty for none
	Config  *config.Config
	Secrets map[string]map[string]secret.Tree // that stand in for stores, by store and path
	Issuer  Issuer
	Version string // of this keymount
	Log     *slog.Logger
}

// Outcome is what came of it.
type Outcome struct {
	Files    []provider.File
	Reads    []Read
	Warnings []string
	// Code and Message are the answer to the driver: OK and empty with files.
	Code, Message string
}

// Read is one secret of the class.
type Read struct {
	Store, Role, Path string
	Write             bool
	Rule              access.Decision
	Files             []string
	Missing           bool // the store has no such secret
}

// Mount calls Mount as the driver does. Its error says why nothing could be tried; what the
// driver would be told is in the Outcome.
func (t Try) Mount(ctx context.Context) (*Outcome, error) {
	heard := &hearer{}
	p, err := node.InMemory(ctx, t.Config, node.InMemoryOptions{
		Version: t.Version, Node: t.Node, Issuers: []auth.KeySource{t.Issuer}, Secrets: t.Secrets, Recorders: []provider.Recorder{heard}, Log: t.Log,
	})
	if err != nil {
		return nil, err
	}
	volume := providertest.Volume{Pod: t.Pod, Class: t.Class.Name, Parameters: t.Class.Parameters}
	if volume.Tokens, err = t.tokens(ctx); err != nil {
		return nil, err
	}
	attributes, err := volume.Attributes()
	if err != nil {
		return nil, err
	}
	response, err := p.Speaking(t.Class.Dialect).Mount(ctx, &v1alpha1.MountRequest{Attributes: attributes, Secrets: "null", Permission: driverMode})
	if err != nil {
		return &heard.outcome, nil //nolint:nilerr // the record has it
	}
	for _, f := range response.GetFiles() {
		heard.outcome.Files = append(heard.outcome.Files, provider.File{Path: f.GetPath(), Mode: f.GetMode(), Contents: secret.New(f.GetContents())})
	}
	return &heard.outcome, nil
}

// tokens are those that the driver would send, for the stores that the class reads from.
func (t Try) tokens(ctx context.Context) (map[string]string, error) {
	tokens := map[string]string{}
	for _, s := range t.Config.Stores { // of a class with mistakes, no token is looked at
		audience := s.Settings.Audience()
		if _, have := tokens[audience]; have || !t.Class.Reads(t.Config, s.Name) {
			continue
		}
		token, err := t.Issuer.Token(ctx, audience)
		if err != nil {
			return nil, err
		}
		tokens[audience] = token
	}
	return tokens, nil
}

// Reads tells whether the class reads from a store of keymount.yaml.
func (c Class) Reads(of *config.Config, name string) bool {
	return slices.ContainsFunc(c.check(Stores(of)).Secrets, func(s class.Secret) bool { return s.Store == name })
}

// parse reads the class as a node would.
func parse(v providertest.Volume, d class.Dialect, stores map[string]class.Store) (class.Request, error) {
	attributes, err := v.Attributes()
	if err != nil {
		return class.Request{}, err
	}
	return class.Parse(class.Call{Attributes: attributes, Permission: driverMode, Dialect: d}, stores)
}

// Stores are those of keymount.yaml, as far as a class depends on them.
func Stores(c *config.Config) map[string]class.Store {
	stores := make(map[string]class.Store, len(c.Stores))
	for _, s := range c.Stores {
		stores[s.Name] = class.Store{Traits: s.Kind.Traits(), Settings: s.Settings}
	}
	return stores
}

// hearer keeps what the record of the mount says.
type hearer struct{ outcome Outcome }

// Record implements [provider.Recorder].
func (h *hearer) Record(_ context.Context, m *record.Mount) error {
	h.outcome = Outcome{Warnings: append([]string(nil), m.Warnings...), Code: m.Code.String(), Message: m.Message}
	for i := range m.Reads {
		r := &m.Reads[i]
		path := r.Path.String()
		if path == "" {
			path = r.Secret.Path.String()
		}
		h.outcome.Reads = append(h.outcome.Reads, Read{
			Store: r.Secret.Store, Role: r.Secret.Role, Path: path, Write: r.Write, Rule: r.Rule, Files: append([]string(nil), r.Files...),
			Missing: errors.Is(r.Err, store.NotFound),
		})
	}
	return nil
}
