// Package access holds the operator's rules and the one function that answers
// them, [Rules.Judge]. Rules only allow: what no rule fits is denied, and so is
// everything when there are none.
package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keymount/keymount/store"
)

// ErrDenied wraps every denial.
var ErrDenied = errors.New("not allowed")

// Rule is one line of a store's access list. A query fits when every list has a
// pattern that fits.
type Rule struct {
	Namespaces      []string
	ServiceAccounts []string
	Roles           []string // empty for a store without roles
	Paths           []string
	Writes          []string // paths that may be asked with arguments; none when empty
}

// Query is what somebody wants of a store. All names come from a verified token
// and a parsed class.
type Query struct {
	Store          string
	Namespace      string
	ServiceAccount string
	Role           string
	Path           store.Path
	// Write asks for more than reading: the answer to arguments.
	Write bool
	// Literal is a segment of Path that a rule has to name without a wildcard.
	Literal string
}

// Rules are the compiled rules of one store. The zero Rules allow nothing.
type Rules struct {
	rules []compiled
	roles bool
	open  bool
}

// Open leaves every decision to the store's own policies.
func Open() Rules { return Rules{open: true} }

type compiled struct {
	namespaces, serviceAccounts, roles, paths, writes []pattern
}

// Compile reads the rules of a store; roles tells whether the store has roles.
// Every mistake is reported, each with its place below the given one:
// "stores[0].access[0].paths[2]: ...".
func Compile(place string, rules []Rule, roles bool) (Rules, error) {
	out := Rules{roles: roles}
	var mistakes []error
	for i, rule := range rules {
		list := func(field string, texts []string, segments bool) []pattern {
			patterns, err := compileList(fmt.Sprintf("%s[%d].%s", place, i, field), texts, segments, "{"+strings.TrimSuffix(field, "s")+"}")
			mistakes = append(mistakes, err)
			return patterns
		}
		c := compiled{
			namespaces:      list("namespaces", rule.Namespaces, false),
			serviceAccounts: list("serviceAccounts", rule.ServiceAccounts, false),
			paths:           list("paths", rule.Paths, true),
		}
		switch {
		case roles:
			c.roles = list("roles", rule.Roles, false)
			if len(rule.Writes) > 0 {
				c.writes = list("writes", rule.Writes, true)
			}
		case len(rule.Roles) > 0:
			mistakes = append(mistakes, fmt.Errorf("%s[%d].roles: this kind of store has no roles; remove the list", place, i))
		case len(rule.Writes) > 0:
			mistakes = append(mistakes, fmt.Errorf("%s[%d].writes: this kind of store answers no writes; remove the list", place, i))
		}
		out.rules = append(out.rules, c)
	}
	return out, errors.Join(mistakes...)
}

// compileList reads one list; selfEvident is the placeholder that stands for the
// very name the list is held against.
func compileList(place string, texts []string, segments bool, selfEvident string) ([]pattern, error) {
	if len(texts) == 0 {
		all := "*"
		if segments {
			all = "**"
		}
		return nil, fmt.Errorf(`%s: missing; a list that is not there allows nothing, write [%q] for all`, place, all)
	}
	patterns := make([]pattern, len(texts))
	var mistakes []error
	for i, text := range texts {
		p, err := compile(text, segments)
		if text == selfEvident {
			err = fmt.Errorf(`%q fits everybody here; write "*" if that is meant`, text)
		}
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s[%d]: %w", place, i, err))
		}
		patterns[i] = p
	}
	return patterns, errors.Join(mistakes...)
}

// Judge answers nil when one rule allows the whole query. The denial names who
// asked for what and whose rules were searched, never what the rules say.
func (r Rules) Judge(q Query) error {
	if r.open || slices.ContainsFunc(r.rules, func(c compiled) bool { return c.logsIn(q, r.roles) && c.reads(q) }) {
		return nil
	}
	verb := "read"
	if q.Write {
		verb = "write to"
	}
	return r.denial(q, fmt.Sprintf("%s %q of store %q", verb, q.Path, q.Store))
}

// JudgeLogin answers nil when one rule allows some path to this identity and role:
// enough to log in, for a store that has to be asked what a path is.
func (r Rules) JudgeLogin(q Query) error {
	if r.open || slices.ContainsFunc(r.rules, func(c compiled) bool { return c.logsIn(q, r.roles) }) {
		return nil
	}
	return r.denial(q, fmt.Sprintf("use store %q", q.Store))
}

func (r Rules) denial(q Query, what string) error {
	if q.Role != "" {
		what += fmt.Sprintf(" with role %q", q.Role)
	}
	return fmt.Errorf("%w: service account %s/%s may not %s; no rule under access of that store in keymount.yaml allows it",
		ErrDenied, q.Namespace, q.ServiceAccount, what)
}

func (c compiled) logsIn(q Query, roles bool) bool {
	return fitsAny(c.namespaces, q, q.Namespace) &&
		fitsAny(c.serviceAccounts, q, q.ServiceAccount) &&
		(!roles || fitsAny(c.roles, q, q.Role))
}

func (c compiled) reads(q Query) bool {
	patterns := c.paths
	if q.Write {
		patterns = c.writes
	}
	return slices.ContainsFunc(patterns, func(p pattern) bool { return p.names(q.Literal) && p.fits(q, q.Path.String()) })
}

func fitsAny(patterns []pattern, q Query, text string) bool {
	return slices.ContainsFunc(patterns, func(p pattern) bool { return p.fits(q, text) })
}
