package access

import (
	"cmp"
	"fmt"
	"strings"
	"unicode"
)

// object is a sort of Kubernetes object whose names are held against patterns.
type object struct {
	what string // in messages
	dots bool
	most int // characters of a name
}

func aNamespace() object { return object{"a namespace", false, 63} }

func aServiceAccount() object { return object{"a service account", true, 253} }

// inLabel tells whether names of Kubernetes objects have this character anywhere.
func inLabel(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' }

func (o object) has(r rune) bool { return inLabel(r) || r == '.' && o.dots }

// couldBe tells whether a text has only characters of a name.
func (o object) couldBe(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !o.has(r) })
}

// possible is nil when some name fits the pieces, and says why none does otherwise.
func (o object) possible(text string, pieces []piece) error {
	least := 0
	for i, p := range pieces {
		switch p.kind {
		case star:
			continue
		case namespace, serviceAccount:
			least++
			continue
		case literal:
		}
		least += len(p.text)
		if !o.couldBe(p.text) {
			return o.unlike(text, p.text)
		}
		if wrong := o.misjoined(p.text, i == 0, i == len(pieces)-1); wrong != "" {
			return fmt.Errorf("%q never fits; %s%s", text, wrong, regular(text))
		}
	}
	if least > o.most {
		return fmt.Errorf("%q never fits; the name of %s has %d characters at most, and this takes %d", text, o.what, o.most, least)
	}
	return nil
}

// unlike says which character of a literal is in no name, and what was meant.
func (o object) unlike(text, literal string) error {
	i := strings.IndexFunc(literal, func(r rune) bool { return !o.has(r) })
	r := []rune(literal[i:])[0]
	cure := regular(text)
	switch {
	case cure != "":
	case strings.ContainsFunc(text, unicode.IsUpper) && o.couldBe(strings.ToLower(literal)):
		cure = fmt.Sprintf("; write %q", strings.ToLower(literal))
	case strings.ContainsRune(" ,;", r):
		cure = "; write each name as an entry of its own, without spaces"
	case r == '_' && o.couldBe(strings.ReplaceAll(strings.ToLower(literal), "_", "-")):
		cure = fmt.Sprintf("; did you mean %q?", strings.ReplaceAll(strings.ToLower(literal), "_", "-"))
	}
	return fmt.Errorf("%q never fits; the name of %s has lower-case letters, digits%s, no %q%s",
		text, o.what, map[bool]string{false: " and dashes", true: ", dashes and dots"}[o.dots], r, cure)
}

// misjoined says which rule of names a literal breaks, at the begin or the end of a
// pattern or within.
func (o object) misjoined(literal string, first, last bool) string {
	const ends = "-."
	switch {
	case first && strings.ContainsAny(literal[:1], ends), last && strings.ContainsAny(literal[len(literal)-1:], ends):
		return "the name of " + o.what + " begins and ends with a letter or a digit"
	case strings.Contains(literal, ".."), strings.Contains(literal, "-."), strings.Contains(literal, ".-"):
		return "between the dots of a name there is a part that begins and ends with a letter or a digit"
	}
	return ""
}

// regular is the cure for what looks like a regular expression.
func regular(text string) string {
	if strings.Contains(text, "|") {
		return "; a pattern is no regular expression: write each name as an entry of its own"
	}
	const special = `[]()^$+?\`
	if !strings.ContainsAny(text, special) && !strings.Contains(text, ".*") {
		return ""
	}
	plain := strings.NewReplacer("^", "", "$", "", ".*", "*", ".+", "*").Replace(text)
	if i := strings.IndexAny(plain, special); i >= 0 {
		plain = strings.TrimSuffix(plain[:i], "*") + "*"
	}
	return fmt.Sprintf(`; a pattern is no regular expression, and "*" in it stands for any characters: write %q`, cmp.Or(plain, "*"))
}
