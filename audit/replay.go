package audit

import (
	"errors"
	"fmt"

	"github.com/keymount/keymount/access"
)

// Change is an access of the past to which other rules have another answer.
type Change struct {
	Use

	// Now is what the other rules say.
	Now Answer `json:"now"`
	// Why is the reason of a refusal, or the place of the rule that allows.
	Why string `json:"why"`
}

// Answer is what other rules say about an access of the past.
type Answer string

// The answers.
const (
	NowRefused Answer = "refused"
	NowAllowed Answer = "allowed"
	// CannotTell is the answer to a past refusal at login: the login would be allowed now, and
	// what the path is, which only the store knows, was not asked then.
	CannotTell Answer = "cannot tell"
)

// Replayed is what other rules say about the accesses of a trail.
type Replayed struct {
	// Changes are accesses with another answer than before.
	Changes []Change `json:"changes"`
	// Untold are accesses of which the trail does not tell what the answer is.
	Untold []Change `json:"untold"`
	// Same are the accesses with the answer of before.
	Same int `json:"same"`
}

// Replay has the rules of stores judge the accesses of a trail anew.
func Replay(uses []Use, stores map[string]Store) Replayed {
	r := Replayed{Changes: []Change{}, Untold: []Change{}}
	for _, use := range uses {
		s, is := stores[use.Store]
		switch now, why := answer(use, s, is); {
		case now == CannotTell:
			r.Untold = append(r.Untold, Change{use, now, why})
		case (now == NowAllowed) == (use.Verdict == Allowed):
			r.Same++
		default:
			r.Changes = append(r.Changes, Change{use, now, why})
		}
	}
	return r
}

// answer is what a store says about a use now; is tells whether the store is there.
func answer(use Use, s Store, is bool) (now Answer, why string) {
	if !is {
		return NowRefused, fmt.Sprintf("there is no store %q", use.Store)
	}
	if use.Verdict == RefusedLogin {
		return s.answerLogin(use)
	}
	decision, err := judge(s, use.Access)
	if err != nil {
		return NowRefused, refusal(decision, err)
	}
	return NowAllowed, decision.Rule
}

// answerLogin is about an access of which only the login was judged. Its path is that of a
// class, and no rule about a login looks at it.
func (s Store) answerLogin(use Use) (now Answer, why string) {
	a := use.Access
	a.Path = NoReads
	query, err := a.Query()
	if err != nil {
		return CannotTell, err.Error()
	}
	decision, err := s.Rules.JudgeLogin(query)
	if err != nil {
		return NowRefused, refusal(decision, err)
	}
	return CannotTell, "the login is allowed now, and the store was not asked then what the path is"
}

func refusal(d access.Decision, err error) string {
	switch {
	case !errors.Is(err, access.ErrDenied):
		return err.Error()
	case d.Rule == "":
		return "the store has no rules"
	default:
		return fmt.Sprintf("no rule allows it; the nearest is %s, whose %s do not fit", d.Rule, d.List)
	}
}
