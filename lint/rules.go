package lint

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/kind"
)

// noAccount stands in a rule for a service account that the files do not tell.
const noAccount = "your-service-account"

// checkRules holds the classes against the rules of keymount.yaml: for the service accounts
// of the pods that mount them, or else for any.
func (c *checker) checkRules() {
	if c.config == nil {
		return
	}
	used := map[*checkedClass]bool{}
	for _, o := range c.overridden {
		used[o.of] = true
		at := func(int) manifest.Position { return manifest.At(o.v.attributes) }
		c.contained(o.p.File, o.v.attributes, func() {
			c.judge(o.of, o.checked, []user{{o.p.ServiceAccount, o.p.namespace}}, o.p.File, at)
		})
	}
	for i := range c.classes {
		of := &c.classes[i]
		users := of.users
		if len(users) == 0 && used[of] {
			continue // no pod mounts it as it is
		}
		if len(users) == 0 {
			users = []user{{"", of.namespace}}
		}
		at := func(object int) manifest.Position { return placeOf(of.Class, of.checked.Paths[object], "") }
		c.contained(of.File, of.Node, func() { c.judge(of, of.checked, users, of.File, at) })
	}
}

// judge asks the rules for each secret of a class, for each user of it. at is the place of
// an object.
func (c *checker) judge(of *checkedClass, checked class.Checked, users []user, file *manifest.File, at func(object int) manifest.Position) {
	if len(checked.Mistakes) > 0 || of.dialect != class.DialectKeymount && !c.config.serves(string(of.dialect)) {
		return
	}
	denied := map[string][]audit.Use{}
	last := map[string]int{} // findings
	for _, u := range users {
		for i, secret := range checked.Secrets {
			r := reader{u, cmp.Or(u.namespace, of.namespace)}
			s, decision, path := c.decide(r, secret)
			if s == nil || decision.Allowed {
				continue
			}
			denied[s.Name] = append(denied[s.Name], r.use(secret, path))
			before := len(c.findings)
			c.at(file, at(objectOf(checked, i)), "denied", r.severity(), "%s", c.denial(r, s, secret, path, decision))
			if len(c.findings) > before {
				last[s.Name] = before
			}
		}
	}
	for name, i := range last {
		c.findings[i].Add = c.rulesFor(name, denied[name])
	}
}

// reader is a service account in a namespace, either of which may be unknown.
type reader struct {
	user

	namespace string
}

func (r reader) place() string { return cmp.Or(r.namespace, anyNamespace) }

func (r reader) severity() Severity {
	if r.namespace == "" {
		return Warning // it may be another
	}
	return Error
}

func (r reader) use(s class.Secret, path store.Path) audit.Use {
	return audit.Use{
		Access: audit.Access{
			Store: s.Store, Namespace: r.place(), ServiceAccount: cmp.Or(r.serviceAccount, noAccount), Role: s.Role, Path: path.String(), Write: s.Args != "",
		},
		Verdict: audit.Allowed, Delivered: 1,
	}
}

// objectOf is the index of the first object that reads a secret.
func objectOf(checked class.Checked, secret int) int {
	return max(0, slices.IndexFunc(checked.Objects, func(o class.Object) bool { return slices.Contains(o.Reads, secret) }))
}

// decide asks the rules for a secret by each spelling that its store may have for it, and
// returns the last one.
func (c *checker) decide(r reader, s class.Secret) (of *config.Store, d access.Decision, path store.Path) {
	i := slices.IndexFunc(c.config.Stores, func(of config.Store) bool { return of.Name == s.Store })
	if i < 0 {
		return nil, d, path
	}
	of = &c.config.Stores[i]
	rules := of.Rules()
	if r.serviceAccount == "" {
		rules = rules.Someone()
	}
	for _, path = range spellings(s.Path) {
		d, _ = rules.Judge(access.Query{Store: s.Store, Namespace: r.place(), ServiceAccount: r.serviceAccount, Role: s.Role, Path: path, Write: s.Args != ""})
		if d.Allowed {
			return of, d, path
		}
	}
	return of, d, path
}

// spellings are a path as it is written, and without the data/ of the API of a key/value
// engine, which rules never have. Which engine there is, the store alone knows.
func spellings(path store.Path) []store.Path {
	all := []store.Path{path}
	segments := path.Segments()
	for i := 1; i < len(segments)-1; i++ {
		if segments[i] != "data" {
			continue
		}
		if shorter, err := store.ParsePath(strings.Join(slices.Concat(segments[:i], segments[i+1:]), "/")); err == nil {
			all = append(all, shorter)
		}
	}
	return all
}

func (c *checker) denial(r reader, of *config.Store, s class.Secret, path store.Path, d access.Decision) string {
	account := "any service account of namespace " + r.place()
	if r.serviceAccount != "" {
		account = fmt.Sprintf("service account %s/%s", r.place(), r.serviceAccount)
	}
	verb := "read"
	if s.Args != "" {
		verb = "write to"
	}
	text := fmt.Sprintf("no rule of store %q lets %s %s %q", of.Name, account, verb, path)
	if s.Role != "" {
		text += fmt.Sprintf(" with role %q", s.Role)
	}
	if d.Rule != "" {
		text += fmt.Sprintf("; in the nearest, %s, %s do not fit", d.Rule, d.List)
	}
	if d.List == access.ListRoles {
		if roles := c.rolesFor(r, of); len(roles) > 0 {
			text += ", and roles that fit are " + strings.Join(roles, ", ")
		}
	}
	if r.namespace == "" {
		text += "; the file names no namespace, -n tells which"
	}
	return text
}

// rolesFor are the roles that the rules of a store allow a reader, as patterns where they
// have wildcards.
func (c *checker) rolesFor(r reader, of *config.Store) (roles []string) {
	rules := of.Rules()
	if r.serviceAccount == "" {
		rules = rules.Someone()
	}
	for _, rule := range of.Access.Rules {
		for _, role := range rule.Roles {
			role = strings.NewReplacer("{namespace}", r.place(), "{serviceAccount}", cmp.Or(r.serviceAccount, "{serviceAccount}")).Replace(role)
			some := strings.NewReplacer("**", "x", "*", "x", "{serviceAccount}", "x").Replace(role)
			d, _ := rules.JudgeLogin(access.Query{Store: of.Name, Namespace: r.place(), ServiceAccount: r.serviceAccount, Role: some})
			if shown := fmt.Sprintf("%q", role); d.Allowed && !slices.Contains(roles, shown) {
				roles = append(roles, shown)
			}
		}
	}
	return roles
}

// rulesFor are the narrowest rules that allow what is denied, as lines of keymount.yaml.
func (c *checker) rulesFor(name string, denied []audit.Use) string {
	i := slices.IndexFunc(c.config.Stores, func(of config.Store) bool { return of.Name == name })
	s := &c.config.Stores[i]
	traits := s.Kind.Traits()
	proposals := audit.Propose(denied, map[string]audit.Store{name: {Kind: access.Kind{Roles: traits.Roles, Writes: traits.Writes, Never: kind.Never(s.Settings)}}})
	if len(proposals) == 0 || len(proposals[0].Rules) == 0 {
		return ""
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(map[string]any{"access": proposals[0].Rules}); err != nil {
		return ""
	}
	return text.String()
}
