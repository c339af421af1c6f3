// Package access holds the operator's rules and the one function that answers
// them, [Rules.Judge]. Rules only allow: what no rule fits is denied, and so is
// everything when there are none.
package access

import (
	"errors"
	"fmt"
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
}

// Query is what somebody wants of a store. All names come from a verified token
// and a parsed class.
type Query struct {
	Store          string
	Namespace      string
	ServiceAccount string
	Role           string
	Path           store.Path
}

// Rules are the compiled rules of one store. The zero Rules allow nothing.
type Rules struct {
	rules []compiled
	roles bool
}

type compiled struct {
	namespaces, serviceAccounts, roles, paths []pattern
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
		case len(rule.Roles) > 0:
			mistakes = append(mistakes, fmt.Errorf("%s[%d].roles: this kind of store has no roles; remove the list", place, i))
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
	for _, rule := range r.rules {
		if rule.fits(q, r.roles) {
			return nil
		}
	}
	as := ""
	if q.Role != "" {
		as = fmt.Sprintf(" with role %q", q.Role)
	}
	return fmt.Errorf("%w: service account %s/%s may not read %q of store %q%s; no rule under access of that store in keymount.yaml allows it",
		ErrDenied, q.Namespace, q.ServiceAccount, q.Path, q.Store, as)
}

func (c compiled) fits(q Query, roles bool) bool {
	return fitsAny(c.namespaces, q, q.Namespace) &&
		fitsAny(c.serviceAccounts, q, q.ServiceAccount) &&
		(!roles || fitsAny(c.roles, q, q.Role)) &&
		fitsAny(c.paths, q, q.Path.String())
}

func fitsAny(patterns []pattern, q Query, text string) bool {
	for _, p := range patterns {
		if p.fits(q, text) {
			return true
		}
	}
	return false
}
