package audit

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keymount/keymount/access"
)

// Store is a store of a keymount.yaml, for the commands that ask its rules.
type Store struct {
	Rules access.Rules
	Kind  access.Kind
	// Places are those of its rules.
	Places []string
}

// RuleUse is how often a rule decided.
type RuleUse struct {
	Store string `json:"store"`
	Rule  string `json:"rule"` // its place in keymount.yaml
	// Times are accesses that it is the first to allow; 0 for a rule that was not used.
	Times int64  `json:"times"`
	Last  string `json:"last,omitempty"`
}

// Judged is what the rules of a keymount.yaml say about the uses of a trail.
type Judged struct {
	Rules []RuleUse `json:"rules"`
	// Refused are accesses, asked for in the trail, that no rule allows, by store.
	Refused map[string]int64 `json:"refused"`
	// Gone are accesses to stores that are not in keymount.yaml.
	Gone map[string]int64 `json:"gone"`
}

// JudgeUses has the rules decide about each access again.
func JudgeUses(uses []Use, stores map[string]Store) Judged {
	j := Judged{Refused: map[string]int64{}, Gone: map[string]int64{}}
	at := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		for _, place := range stores[name].Places {
			at[place] = len(j.Rules)
			j.Rules = append(j.Rules, RuleUse{Store: name, Rule: place})
		}
	}
	for _, use := range uses {
		if use.Verdict == RefusedLogin {
			continue
		}
		s, is := stores[use.Store]
		if !is {
			j.Gone[use.Store] += use.Times
			continue
		}
		decision, err := judge(s, use.Access)
		if err != nil {
			j.Refused[use.Store] += use.Times
			continue
		}
		i, known := at[decision.Rule]
		if !known {
			i = len(j.Rules)
			at[decision.Rule] = i
			j.Rules = append(j.Rules, RuleUse{Store: use.Store, Rule: decision.Rule})
		}
		rule := &j.Rules[i]
		rule.Times += use.Times
		rule.Last = max(rule.Last, use.Last)
	}
	return j
}

func judge(s Store, a Access) (access.Decision, error) {
	query, err := a.Query()
	if err != nil {
		return access.Decision{}, err
	}
	return s.Rules.Judge(query)
}

// Proposal is the narrowest rules of a store that allow what the rules have allowed in a trail,
// and nothing else.
type Proposal struct {
	Store string `json:"store"`
	Rules []Rule `json:"rules"`
	// Accesses is how many different ones the rules allow.
	Accesses int `json:"accesses"`
	// Unsaid are accesses that no rule can be written for, and why.
	Unsaid []Unsaid `json:"unsaid"`
	// Undelivered are those among Accesses for which there was never a value.
	Undelivered []Access `json:"undelivered"`
}

// Rule is an [access.Rule] as keymount.yaml has it.
type Rule struct {
	Namespaces      []string `json:"namespaces"       yaml:"namespaces,flow"`
	ServiceAccounts []string `json:"serviceAccounts"  yaml:"serviceAccounts,flow"`
	Roles           []string `json:"roles,omitempty"  yaml:"roles,flow,omitempty"`
	Paths           []string `json:"paths"            yaml:"paths"`
	Writes          []string `json:"writes,omitempty" yaml:"writes,omitempty"`
}

// Unsaid is an access that no rule can name alone.
type Unsaid struct {
	Access

	Why string `json:"why"`
}

// NoReads is the path of a rule that is for writes alone, since a rule has to have one.
const NoReads = "no-reads/none"

// Propose makes rules of uses. Stores that are not in the map are left out.
func Propose(uses []Use, stores map[string]Store) []Proposal {
	proposals := []Proposal{}
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		p := Proposal{Store: name, Rules: []Rule{}, Unsaid: []Unsaid{}, Undelivered: []Access{}}
		var said []Access
		for _, use := range uses {
			if use.Store != name || use.Verdict != Allowed {
				continue
			}
			if err := sayable(use.Access, stores[name].Kind); err != nil {
				p.Unsaid = append(p.Unsaid, Unsaid{use.Access, err.Error()})
				continue
			}
			said = append(said, use.Access)
			if use.Delivered == 0 {
				p.Undelivered = append(p.Undelivered, use.Access)
			}
		}
		p.Accesses, p.Rules = len(said), append(p.Rules, merge(said, stores[name].Kind.Roles)...)
		proposals = append(proposals, p)
	}
	return proposals
}

// sayable tries a rule for one access: it has to allow that, and to name it literally.
func sayable(a Access, kind access.Kind) error {
	for _, text := range []string{a.Namespace, a.ServiceAccount, a.Role, a.Path} {
		if strings.ContainsAny(text, "*{}") {
			return fmt.Errorf("%q holds a character that is a wildcard in a pattern", text)
		}
	}
	rules, err := access.Compile("rule", []access.Rule{access.Rule(merge([]Access{a}, kind.Roles)[0])}, kind)
	if mistake, is := errors.AsType[access.Mistake](err); is {
		return mistake.Err // without its place, which is in no file
	}
	query, err := a.Query()
	if err != nil {
		return err
	}
	_, err = rules.Judge(query)
	return err
}

// merge makes as few rules as it finds of accesses to one store. Rules are put together where
// they differ in one list alone, so that no combination of their lists is new.
func merge(accesses []Access, roles access.Need) []Rule {
	byCaller := map[[3]string]*Rule{}
	for _, a := range accesses {
		caller := [3]string{a.Namespace, a.ServiceAccount, a.Role}
		rule := byCaller[caller]
		if rule == nil {
			rule = &Rule{Namespaces: []string{a.Namespace}, ServiceAccounts: []string{a.ServiceAccount}}
			if roles != access.None {
				rule.Roles = []string{a.Role}
			}
			byCaller[caller] = rule
		}
		if a.Write {
			rule.Writes = append(rule.Writes, a.Path)
		} else {
			rule.Paths = append(rule.Paths, a.Path)
		}
	}
	rules := make([]Rule, 0, len(byCaller))
	for _, rule := range byCaller {
		tidy(&rule.Paths)
		tidy(&rule.Writes)
		if len(rule.Paths) == 0 {
			rule.Paths = []string{NoReads}
		}
		rules = append(rules, *rule)
	}
	rules = mergeBy(rules, func(r *Rule) *[]string { return &r.Roles })
	rules = mergeBy(rules, func(r *Rule) *[]string { return &r.ServiceAccounts })
	rules = mergeBy(rules, func(r *Rule) *[]string { return &r.Namespaces })
	slices.SortFunc(rules, func(a, b Rule) int { return cmp.Compare(key(a), key(b)) })
	return rules
}

// tidy sorts a list, each text once.
func tidy(list *[]string) {
	slices.Sort(*list)
	*list = slices.Compact(*list)
}

// mergeBy makes one rule of all that are the same but for one list.
func mergeBy(rules []Rule, list func(*Rule) *[]string) []Rule {
	alike := map[string]*Rule{}
	for _, rule := range rules {
		rest := rule
		*list(&rest) = nil
		if before := alike[key(rest)]; before != nil {
			*list(before) = append(*list(before), *list(&rule)...)
		} else {
			*list(&rule) = slices.Clone(*list(&rule))
			alike[key(rest)] = &rule
		}
	}
	merged := make([]Rule, 0, len(alike))
	for _, rule := range alike {
		tidy(list(rule))
		merged = append(merged, *rule)
	}
	return merged
}

// key tells two rules apart.
func key(r Rule) string {
	return fmt.Sprintf("%q %q %q %q %q", r.Namespaces, r.ServiceAccounts, r.Roles, r.Paths, r.Writes)
}
