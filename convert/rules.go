package convert

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
	"github.com/keymount/keymount/store/vault"
)

// origin is a Vault and the way to log in there: a store of keymount.yaml.
type origin struct {
	originKey

	name     string
	mounts   map[string]string // kv1 or kv2, by mount
	comments []string
	rules    []access.Rule
}

// originKey tells origins apart.
type originKey struct {
	address, namespace                     string // empty for the usual ones of the old tool
	method, mount, authNamespace, audience string
	serverName                             string
	hasCA, hasClientCert, isUnverified     bool
}

// placeholder stands for an address that the input does not name.
const placeholder = "https://vault.invalid:8200"

// origin finds the origin, or makes it.
func (c *conversion) origin(s source, at *yaml.Node, k originKey) *origin {
	k = s.clean(at, k)
	for _, p := range c.origins {
		if p.originKey == k {
			return p
		}
	}
	p := &origin{originKey: k, mounts: map[string]string{}}
	if k.address == "" {
		p.comments = append(p.comments, "The input names no address: write it in place of this one.")
		s.look(at, "", "the address of the Vault is not in the files, since the old tool had it elsewhere", "write it into keymount.yaml in place of "+placeholder)
	}
	if k.hasCA {
		p.comments = append(p.comments, "Add caFile with the certificates of the authority that the old tool was given.")
	}
	if k.hasClientCert {
		p.comments = append(p.comments, "Add certFile and keyFile with the client certificate that the old tool was given.")
	}
	if k.isUnverified {
		p.comments = append(p.comments, "The old tool did not verify the server's certificate. keymount always does: add caFile.")
	}
	c.origins = append(c.origins, p)
	return p
}

// clean is a key in one spelling, and without what keymount.yaml would refuse.
func (s source) clean(at *yaml.Node, k originKey) originKey {
	k.method, k.audience = cmp.Or(k.method, vault.MethodKubernetes), cmp.Or(k.audience, usualAudience)
	k.mount = kind.AuthMount(cmp.Or(k.mount, k.method))
	k.namespace, k.authNamespace = kind.Rootless(k.namespace), strings.Trim(k.authNamespace, "/")
	if k.authNamespace == k.namespace {
		k.authNamespace = ""
	}
	if k.address != "" {
		address, err := kind.Address(k.address)
		if err != nil {
			s.lost(at, "", fmt.Sprintf("the address %q is not of the form https://host:port", k.address), "write the address of the store into keymount.yaml")
		}
		k.address = address
	}
	for _, part := range []struct {
		text        *string
		usual, what string
		settings    vault.Settings // with the text
	}{
		{&k.mount, usualMount, "auth mount", vault.Settings{Auth: vault.Auth{Mount: k.mount}}},
		{&k.namespace, "", "namespace", vault.Settings{Namespace: k.namespace}},
		{&k.authNamespace, "", "namespace of the auth method", vault.Settings{Auth: vault.Auth{Namespace: k.authNamespace}}},
		{&k.audience, usualAudience, "audience", vault.Settings{}},
		{&k.serverName, "", "server name", vault.Settings{ServerName: k.serverName}},
	} {
		m := kind.NewMistakes()
		part.settings.Addresses = []string{placeholder}
		part.settings.Check(m)
		if len(m.All()) > 0 || cmp.Or(spelling.Plain(*part.text), spelling.Unspaced(*part.text)) != nil || strings.ContainsAny(*part.text, "{}") {
			s.lost(at, "", fmt.Sprintf("the %s %q is none that keymount.yaml can hold", part.what, *part.text), "write it into keymount.yaml")
			*part.text = part.usual
		}
	}
	return k
}

// learn notes the engine of a mount, unless it has a name that no mount has.
func (p *origin) learn(mount, engine string) {
	if _, err := store.ParsePath(mount); err == nil && spelling.Unspaced(mount) == nil {
		p.mounts[mount] = engine
	}
}

// nameOrigins names the origins: one is called as the options say, and several after it.
func (c *conversion) nameOrigins() {
	used := slices.DeleteFunc(slices.Clone(c.origins), func(p *origin) bool { return !c.isUsed(p) })
	c.origins = used
	for i, p := range c.origins {
		p.name = c.options.Store
		if i > 0 {
			p.name = fmt.Sprintf("%s-%d", c.options.Store, i+1)
		}
	}
}

func (c *conversion) isUsed(p *origin) bool {
	return slices.ContainsFunc(c.classes, func(cl *draft) bool {
		return cl.origin == p && len(cl.entries) > 0 || slices.ContainsFunc(cl.entries, func(e entry) bool { return e.origin == p })
	})
}

// allow adds the narrowest rules for a class, and takes out what no rule can allow.
func (c *conversion) allow(cl *draft) {
	if len(cl.entries) == 0 {
		return
	}
	accounts := cl.accounts
	if len(accounts) == 0 && cl.old != "" {
		accounts = []string{cl.old}
		cl.look(nil, "", fmt.Sprintf("no pod that uses it is in the files: the rules allow the service account %q, with which the old tool logged in", cl.old),
			"keymount logs in as each pod: let the rules, and the role in Vault, name the service accounts of the pods")
	}
	if len(accounts) == 0 {
		accounts = []string{"*"}
		cl.look(nil, "", "no pod that uses it is in the files, so the rules allow every service account of the namespace",
			`give convert the pods as well, or write their service accounts in place of "*"`)
	}
	var allowed []entry
	for _, e := range cl.entries {
		p := cmp.Or(e.origin, cl.origin)
		rule := access.Rule{Namespaces: []string{cl.namespace}, ServiceAccounts: accounts, Roles: []string{cmp.Or(e.role, cl.role)}}
		rule.Paths = slices.Clone(e.beside)
		if e.args != nil {
			rule.Writes = []string{e.path}
		} else {
			rule.Paths = append(rule.Paths, e.path)
		}
		if err := p.judge(rule); err != nil {
			cl.lost(e.at, e.field, "no rule can allow it: "+err.Error(), "left out of the class; write the object and its rule by hand")
			continue
		}
		p.add(rule)
		allowed = append(allowed, e)
	}
	cl.entries = allowed
}

// judge tells whether keymount.yaml can hold a rule.
func (p *origin) judge(r access.Rule) error {
	for _, text := range slices.Concat(r.Paths, r.Writes, r.Roles, r.Namespaces) {
		if strings.ContainsAny(text, "*{}") {
			return fmt.Errorf("%q would be a pattern", text)
		}
	}
	if len(r.Paths) == 0 {
		r.Paths = []string{noReads}
	}
	if _, err := access.Compile("access", []access.Rule{r}, access.Kind{Roles: access.Required, Writes: true, Never: kind.Never(&vault.Settings{Mounts: p.mounts})}); err != nil {
		return err //nolint:wrapcheck // it is about the rule alone
	}
	return nil
}

// noReads is the path of a rule that is for writes alone, as audit proposes it.
const noReads = "no-reads/none"

// add merges a rule into those of the origin.
func (p *origin) add(r access.Rule) {
	for i, has := range p.rules {
		if slices.Equal(has.Namespaces, r.Namespaces) && slices.Equal(has.ServiceAccounts, r.ServiceAccounts) && slices.Equal(has.Roles, r.Roles) {
			p.rules[i].Paths, p.rules[i].Writes = union(has.Paths, r.Paths), union(has.Writes, r.Writes)
			return
		}
	}
	r.Paths, r.Writes = union(nil, r.Paths), union(nil, r.Writes)
	p.rules = append(p.rules, r)
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// rules writes keymount.yaml; nil without a store.
func (c *conversion) rules() *yaml.Node {
	if len(c.origins) == 0 {
		return nil
	}
	stores := &yaml.Node{Kind: yaml.SequenceNode}
	for _, p := range c.origins {
		stores.Content = append(stores.Content, p.node())
	}
	n := mapping("stores", stores)
	n.HeadComment = comment("The stores and rules for the converted classes: the narrowest that allow what they read.", "Add them to keymount.yaml.")
	return n
}

func (p *origin) node() *yaml.Node {
	auth := mapping("method", p.method, "mount", p.mount)
	if p.authNamespace != "" {
		put(auth, "namespace", p.authNamespace)
	}
	put(auth, "audience", p.audience)
	auth.Style = yaml.FlowStyle
	settings := mapping("addresses", list([]string{cmp.Or(p.address, placeholder)}))
	if p.namespace != "" {
		put(settings, "namespace", p.namespace)
	}
	if p.serverName != "" {
		put(settings, "serverName", p.serverName)
	}
	if len(p.mounts) > 0 {
		mounts := mapping()
		for _, mount := range slices.Sorted(maps.Keys(p.mounts)) {
			put(mounts, mount, p.mounts[mount])
		}
		mounts.Style = yaml.FlowStyle
		put(settings, "mounts", mounts)
	}
	put(settings, "auth", auth)
	rules := &yaml.Node{Kind: yaml.SequenceNode}
	for _, r := range p.rules {
		rules.Content = append(rules.Content, ruleNode(r))
	}
	n := mapping("name", p.name, vault.Kind{}.Name(), settings)
	if len(rules.Content) > 0 {
		put(n, "access", rules)
	}
	n.HeadComment = comment(p.comments...)
	return n
}

func ruleNode(r access.Rule) *yaml.Node {
	if len(r.Paths) == 0 {
		r.Paths = []string{noReads}
	}
	n := mapping("namespaces", list(r.Namespaces), "serviceAccounts", list(r.ServiceAccounts), "roles", list(r.Roles), "paths", long(r.Paths))
	if len(r.Writes) > 0 {
		put(n, "writes", long(r.Writes))
	}
	return n
}

// long is a list in one line, or a line for each where that would be too long.
func long(texts []string) *yaml.Node {
	const widest = 70
	n := list(texts)
	if len(strings.Join(texts, ", ")) > widest {
		n.Style = 0
	}
	return n
}
