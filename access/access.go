// Package access holds the operator's rules and the one function that answers them,
// [Rules.Judge]. Rules only allow: a query without a fitting rule is denied, and without
// rules every query is.
package access

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/keymount/keymount/store"
)

// ErrDenied wraps every denial.
var ErrDenied = errors.New("not allowed")

// Rule is one line of a store's access list. It fits a query when each of its lists has a
// fitting pattern.
type Rule struct {
	Namespaces      []string
	ServiceAccounts []string
	Roles           []string // empty for a store without roles; "" among them is the login without one
	Paths           []string
	Writes          []string // paths open to reads with arguments; none when empty
}

// Need tells whether a login with a store takes a role.
type Need int

// The needs of a store; the zero Need is None.
const (
	None     Need = iota // there are no roles
	Optional             // a login names a role or does without
	Required
)

// Kind is the part of a kind of store that decides which lists its rules have.
type Kind struct {
	Roles  Need
	Writes bool
	// Never says why no query to a store of the kind fits a pattern of that list, in words
	// with a cure; nil where one may. It knows what package access does not: how the kind
	// spells paths and roles. A nil Never knows of none.
	Never func(list, pattern string) error
}

// Mistake is what is wrong with rules, and where in keymount.yaml.
type Mistake struct {
	Place string
	Err   error
}

func (m Mistake) Error() string { return m.Place + ": " + m.Err.Error() }

// Unwrap is the mistake without its place.
func (m Mistake) Unwrap() error { return m.Err }

// Query is a question to the rules of a store. Its names come from a verified token
// and a parsed class.
type Query struct {
	Store          string
	Namespace      string
	ServiceAccount string
	Role           string
	Path           store.Path
	// Write asks for the answer to arguments, which is more than reading.
	Write bool
	// Literal is a segment of Path that a rule must name without a wildcard.
	Literal string
}

// Decision is the answer of the rules with the rule behind it. It is for the operator alone:
// a pod learns nothing of the rules.
type Decision struct {
	Allowed bool
	// Rule is the place in keymount.yaml of the first rule that allows
	// ("stores[0].access[2]"), or of the word that leaves the decision to the store
	// ("stores[0].access: store"). Of a denial it is the nearest rule: the first with the
	// most fitting lists before a misfit, in the order namespaces, serviceAccounts, roles,
	// and paths or writes. It is empty without rules.
	Rule string
	// List is the first misfitting list of a denial's Rule.
	List string
}

// LogValue groups the fields of d for a log line.
func (d Decision) LogValue() slog.Value {
	return slog.GroupValue(slog.Bool("allowed", d.Allowed), slog.String("rule", d.Rule), slog.String("list", d.List))
}

// Rules are the compiled rules of one store. The zero Rules allow nothing.
type Rules struct {
	rules []compiled
	roles bool
	open  string // place of the word that leaves every decision to the store, or empty
	// fitted says that the lists before the paths fit, see [Rules.Fitted].
	fitted bool
}

// Open leaves every decision to the store's own policies; place is that of its access list.
func Open(place string) Rules { return Rules{open: place + ": store"} }

type compiled struct {
	place                                             string
	namespaces, serviceAccounts, roles, paths, writes []pattern
}

// Compile reads the rules of a store of the given kind. It reports every mistake, each a
// [Mistake] with its place below the given one: "stores[0].access[0].paths[2]".
func Compile(place string, rules []Rule, kind Kind) (Rules, error) {
	out := Rules{roles: kind.Roles != None}
	var mistakes []error
	for i, rule := range rules {
		c, err := kind.compile(fmt.Sprintf("%s[%d]", place, i), rule)
		out.rules, mistakes = append(out.rules, c), append(mistakes, err)
	}
	if err := errors.Join(mistakes...); err != nil {
		return Rules{}, err
	}
	return out, nil
}

func (k Kind) compile(place string, rule Rule) (compiled, error) {
	var mistakes []error
	read := func(l list, texts []string) []pattern {
		patterns, err := l.compile(place, texts, k.Never)
		mistakes = append(mistakes, err)
		return patterns
	}
	c := compiled{
		place:           place,
		namespaces:      read(list{name: ListNamespaces, of: aNamespace(), all: `"*"`}, rule.Namespaces),
		serviceAccounts: read(list{name: ListServiceAccounts, of: aServiceAccount(), all: `"*"`}, rule.ServiceAccounts),
		paths:           read(list{name: ListPaths, holds: paths, all: `"**"`}, rule.Paths),
	}
	switch {
	case k.Roles == Optional:
		c.roles = read(list{name: ListRoles, holds: roles, all: `"", "**"`, empty: true}, rule.Roles)
	case k.Roles == Required:
		c.roles = read(list{name: ListRoles, holds: roles, all: `"*"`}, rule.Roles)
	case len(rule.Roles) > 0:
		mistakes = append(mistakes, Mistake{place + "." + ListRoles, errors.New("this kind of store has no roles; remove the list")})
	}
	switch {
	case len(rule.Writes) == 0:
	case k.Writes:
		c.writes = read(list{name: ListWrites, holds: paths}, rule.Writes)
	default:
		mistakes = append(mistakes, Mistake{place + "." + ListWrites, errors.New("this kind of store answers no writes; remove the list")})
	}
	return c, errors.Join(mistakes...)
}

// The lists of a rule, as keymount.yaml spells them.
const (
	ListNamespaces      = "namespaces"
	ListServiceAccounts = "serviceAccounts"
	ListRoles           = "roles"
	ListPaths           = "paths"
	ListWrites          = "writes"
)

// list says how to read one list of a rule.
type list struct {
	name  string
	holds subject
	of    object // where holds is names
	all   string // patterns that fit everything
	empty bool   // "" is a pattern, which fits the empty text alone
}

func (l list) compile(place string, texts []string, never func(list, pattern string) error) ([]pattern, error) {
	place += "." + l.name
	if len(texts) == 0 {
		return nil, Mistake{place, fmt.Errorf("missing; a list that is not there allows nothing, write [%s] for all", l.all)}
	}
	patterns := make([]pattern, len(texts))
	var mistakes []error
	for i, text := range texts {
		if text == "" && l.empty {
			continue
		}
		p, err := l.one(text)
		if err == nil && never != nil {
			err = never(l.name, text)
		}
		if err != nil {
			mistakes = append(mistakes, Mistake{fmt.Sprintf("%s[%d]", place, i), err})
		}
		patterns[i] = p
	}
	return patterns, errors.Join(mistakes...)
}

func (l list) one(text string) (pattern, error) {
	if text == "{"+strings.TrimSuffix(l.name, "s")+"}" {
		return pattern{}, fmt.Errorf(`%q fits everybody here; write "*" if that is meant`, text)
	}
	p, err := compile(text, l.holds)
	if err != nil || l.holds != names {
		return p, err
	}
	return p, l.of.possible(text, p.segments[0].pieces)
}

// Judge returns nil when one rule allows the whole query. The error of a denial names the
// identity, the path and the store of the rules, never their content.
func (r Rules) Judge(q Query) (Decision, error) {
	d := r.decide(&q, false)
	if d.Allowed {
		return d, nil
	}
	verb := "read"
	if q.Write {
		verb = "write to"
	}
	return d, denial(q, fmt.Sprintf("%s %q of store %q", verb, q.Path, q.Store))
}

// Fitted has the rules that allow some path to the identity and role of q. For these Judge
// decides as all rules would, and looks at the paths alone: a class may have a thousand.
// Where no rule allows any, it is all rules, which know the nearest.
func (r Rules) Fitted(q Query) Rules {
	fitted := r
	fitted.rules, fitted.fitted = nil, true
	for i := range r.rules {
		if list, _ := r.misfit(i, &q, true); list == "" {
			fitted.rules = append(fitted.rules, r.rules[i])
		}
	}
	if len(fitted.rules) == 0 {
		return r
	}
	return fitted
}

// JudgeLogin returns nil when one rule allows some path to this identity and role: enough to
// log in, for a store with a Resolver.
func (r Rules) JudgeLogin(q Query) (Decision, error) {
	d := r.decide(&q, true)
	if d.Allowed {
		return d, nil
	}
	return d, denial(q, fmt.Sprintf("use store %q", q.Store))
}

func denial(q Query, what string) error {
	if q.Role != "" {
		what += fmt.Sprintf(" with role %q", q.Role)
	}
	return fmt.Errorf("%w: service account %s/%s may not %s; no rule under access of that store in keymount.yaml allows it",
		ErrDenied, q.Namespace, q.ServiceAccount, what)
}

// decide finds the first rule that allows q, or only the login for it, and otherwise the
// nearest.
func (r Rules) decide(q *Query, login bool) Decision {
	if r.open != "" {
		return Decision{Allowed: true, Rule: r.open}
	}
	var nearest Decision
	most := -1
	for i := range r.rules {
		list, fitting := r.misfit(i, q, login)
		if list == "" {
			return Decision{Allowed: true, Rule: r.rules[i].place}
		}
		if fitting > most {
			nearest, most = Decision{Rule: r.rules[i].place, List: list}, fitting
		}
	}
	return nearest
}

// misfit is the first list of a rule that does not fit q, and the number of fitting lists
// before it. It is empty when all lists fit, or for a login all lists before the paths.
func (r Rules) misfit(i int, q *Query, login bool) (list string, fitting int) {
	c := &r.rules[i]
	switch {
	case !r.fitted && !fitsAny(c.namespaces, q, q.Namespace):
		return ListNamespaces, 0
	case !r.fitted && !fitsAny(c.serviceAccounts, q, q.ServiceAccount):
		return ListServiceAccounts, 1
	case !r.fitted && r.roles && !fitsRole(c.roles, q):
		return ListRoles, 2
	case login:
		return "", 3
	case q.Write && !fitsPath(c.writes, q):
		return ListWrites, 3
	case !q.Write && !fitsPath(c.paths, q):
		return ListPaths, 3
	}
	return "", 4
}

func fitsPath(patterns []pattern, q *Query) bool {
	return slices.ContainsFunc(patterns, func(p pattern) bool { return p.names(q.Literal) && p.fits(q, q.Path.String()) })
}

func fitsAny(patterns []pattern, q *Query, text string) bool {
	return slices.ContainsFunc(patterns, func(p pattern) bool { return p.fits(q, text) })
}

// fitsRole matches a role like a path. But a role is any text of a class: one with an empty
// segment, "." or ".." fits nothing, because a store that cleans such a text up would log in
// with another role than the judged one. The login without a role fits "" alone, and no
// wildcard.
func fitsRole(patterns []pattern, q *Query) bool {
	if q.Role == "" {
		return slices.ContainsFunc(patterns, pattern.empty)
	}
	for segment := range strings.SplitSeq(q.Role, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return fitsAny(patterns, q, q.Role)
}
