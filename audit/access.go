package audit

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/store"
)

// Access is the question to the rules behind one secret of a mount.
type Access struct {
	Store          string `json:"store"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	Role           string `json:"role,omitempty"`
	Path           string `json:"path"`
	Write          bool   `json:"write,omitempty"`
	// Literal is a segment of Path that a rule has to name.
	Literal string `json:"literal,omitempty"`
}

// Query is the Access for the rules. A record has the one spelling of its path, which needs no
// kind of store to read it.
func (a Access) Query() (access.Query, error) {
	path, err := store.ParsePath(a.Path)
	if err != nil {
		return access.Query{}, fmt.Errorf("path %w", err)
	}
	return access.Query{
		Store: a.Store, Namespace: a.Namespace, ServiceAccount: a.ServiceAccount, Role: a.Role, Path: path, Write: a.Write, Literal: a.Literal,
	}, nil
}

func compareAccess(a, b Access) int {
	bit := map[bool]int{true: 1}
	return cmp.Or(
		cmp.Compare(a.Store, b.Store), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ServiceAccount, b.ServiceAccount),
		cmp.Compare(a.Role, b.Role), cmp.Compare(a.Path, b.Path), cmp.Compare(bit[a.Write], bit[b.Write]), cmp.Compare(a.Literal, b.Literal),
	)
}

// Verdict is what the rules said about an access in the past.
type Verdict string

// The verdicts.
const (
	Allowed Verdict = "allowed"
	Refused Verdict = "refused"
	// RefusedLogin is a refusal before the store was asked what the path is: what the rules
	// would have said about that is not known.
	RefusedLogin Verdict = "refused at login"
)

// verdict is what the rules said about a secret; false where they said nothing that counts.
// What the store refuses has passed the rules.
func (s *Secret) verdict() (Verdict, bool) {
	byRules := s.Outcome == Denied && s.Reason == ""
	switch {
	case s.More || s.Outcome == "":
		return "", false
	case s.Scope == ScopeLogin:
		return RefusedLogin, byRules
	case s.Scope != ScopePath:
		return "", false
	case byRules:
		return Refused, true
	default:
		return Allowed, true
	}
}

// Use is an access with how often it was asked for. Two that differ in the verdict are two.
type Use struct {
	Access

	Verdict Verdict `json:"verdict"`
	Span
	// Delivered are those of Times after which a pod had the value.
	Delivered int64 `json:"delivered"`
}

type useKey struct {
	Access

	verdict Verdict
}

// Uses sums the accesses of a trail.
type Uses struct {
	all  map[useKey]*Use
	held holdings[*Use]
}

// NewUses is empty.
func NewUses() *Uses { return &Uses{all: map[useKey]*Use{}} }

// Add takes the record in.
func (u *Uses) Add(e Entry) {
	var delivered []*Use
	for i := range e.Secrets {
		s := &e.Secrets[i]
		verdict, counts := s.verdict()
		if e.Kind != KindMount || !counts {
			continue
		}
		use := u.use(accessOf(e.Record, s), verdict)
		use.add(1, e.At, e.At)
		if s.Outcome == Granted && e.Delivered() {
			use.Delivered++
			delivered = append(delivered, use)
		}
	}
	u.held.mounted(e, delivered)
	for _, c := range e.Counts {
		for _, use := range u.held.of(c) {
			use.add(c.Count, c.First, c.Last)
			use.Delivered += c.Count
		}
	}
}

func accessOf(r *Record, s *Secret) Access {
	a := Access{Store: s.Store, Role: s.Role, Path: s.Path, Write: s.Write, Literal: s.Literal}
	if r.Pod != nil {
		a.Namespace = r.Pod.Namespace
	}
	if r.ServiceAccount != nil {
		a.ServiceAccount = r.ServiceAccount.Name
	}
	return a
}

func (u *Uses) use(a Access, verdict Verdict) *Use {
	key := useKey{a, verdict}
	if u.all[key] == nil {
		u.all[key] = &Use{Access: a, Verdict: verdict}
	}
	return u.all[key]
}

// All are the uses, sorted.
func (u *Uses) All() []Use {
	all := make([]Use, 0, len(u.all))
	for _, use := range u.all {
		all = append(all, *use)
	}
	slices.SortFunc(all, func(a, b Use) int {
		return cmp.Or(compareAccess(a.Access, b.Access), cmp.Compare(a.Verdict, b.Verdict))
	})
	return all
}
