package audit

import (
	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/store"
)

// Pattern is a pattern of paths as in the rules of keymount.yaml.
type Pattern struct {
	text  string
	rules access.Rules
}

// ParsePattern reads a pattern.
func ParsePattern(text string) (Pattern, error) {
	rules, err := access.Compile("pattern", []access.Rule{{Namespaces: []string{"*"}, ServiceAccounts: []string{"*"}, Paths: []string{text}}}, access.Kind{})
	if err != nil {
		return Pattern{}, err
	}
	return Pattern{text, rules}, nil
}

// fits tells whether the pattern fits the path of an access, or is that path.
func (p Pattern) fits(a Access) bool {
	if a.Path == p.text {
		return true
	}
	path, err := store.ParsePath(a.Path)
	if err != nil {
		return false
	}
	_, err = p.rules.Judge(access.Query{Namespace: a.Namespace, ServiceAccount: a.ServiceAccount, Path: path})
	return err == nil
}
