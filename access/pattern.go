package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keymount/keymount/internal/spelling"
	"github.com/keymount/keymount/store"
)

// pattern is a rule's text, cut at slashes; without segments it is "". Within a segment "*"
// stands for any run of characters, "**" as a whole segment for any number of segments, and
// {namespace} and {serviceAccount} for the names in the query.
type pattern struct{ segments []segment }

// segment is the pieces of one segment; rest marks "**".
type segment struct {
	pieces []piece
	rest   bool
}

// piece is a literal text, a "*", or a placeholder.
type piece struct {
	kind pieceKind
	text string
}

type pieceKind int

const (
	literal pieceKind = iota
	star
	namespace
	serviceAccount
)

// subject is the sort of text that a pattern matches.
type subject int

const (
	names subject = iota // of Kubernetes objects, which are one segment
	roles
	paths
)

func (s subject) String() string {
	if s == roles {
		return "role"
	}
	return "path"
}

func compile(text string, of subject) (pattern, error) {
	if text == "" {
		return pattern{}, errors.New("an empty pattern fits nothing; remove it")
	}
	if of == names && strings.Contains(text, "/") {
		return pattern{}, fmt.Errorf("%q holds a slash; names of Kubernetes objects have none", text)
	}
	if of == paths && strings.ContainsFunc(text, store.NotInPaths) {
		return pattern{}, fmt.Errorf(`%q never fits; a path has no %%, ?, #, backslash or invisible characters`, text)
	}
	if err := spelling.Plain(text); of == roles && err != nil {
		return pattern{}, fmt.Errorf("never fits: %w", err)
	}
	p, err := compileSegments(text, of)
	if err != nil || of == names {
		return p, err
	}
	if least := p.least(); of == paths && least > store.MaxPath {
		return pattern{}, fmt.Errorf("%q never fits; it takes %d bytes, and a path has %d at most", text, least, store.MaxPath)
	}
	return p, p.parted(text, of)
}

func compileSegments(text string, of subject) (p pattern, err error) {
	for part := range strings.SplitSeq(text, "/") {
		s, err := compileSegment(part, of)
		if err != nil {
			return pattern{}, err
		}
		p.segments = append(p.segments, s)
	}
	return p, nil
}

// least is how many bytes a text has at least that fits.
func (p pattern) least() int {
	least := -1 // there is a slash less than segments
	for _, s := range p.segments {
		if s.rest {
			continue
		}
		least++
		for _, one := range s.pieces {
			least += max(len(one.text), 1)
		}
	}
	return least
}

func compileSegment(text string, of subject) (segment, error) {
	switch {
	case text == "":
		return segment{}, errors.New("empty segment; a pattern has no slash at either end and no doubled slashes")
	case text == "." || text == "..":
		return segment{}, fmt.Errorf("%q never fits; no %s has such a segment", text, of)
	case text == "**" && of != names:
		return segment{rest: true}, nil
	case strings.Contains(text, "**") && of == names:
		return segment{}, fmt.Errorf(`%q: "**" is for paths and roles; names of Kubernetes objects have one segment, use "*"`, text)
	case strings.Contains(text, "${"):
		return segment{}, fmt.Errorf(`%q: what stands before a brace is a part of the text; write {namespace} or {serviceAccount} without "$"`, text)
	case strings.Contains(text, "**"):
		return segment{}, fmt.Errorf(`%q: "**" stands for whole segments of a %s and cannot be a part of one; use "*"`, text, of)
	}
	var s segment
	for text != "" {
		i := strings.IndexAny(text, "*{}")
		if i < 0 {
			i = len(text)
		}
		if i > 0 {
			s.pieces = append(s.pieces, piece{literal, text[:i]})
			text = text[i:]
			continue
		}
		p, rest, err := special(text)
		if err != nil {
			return segment{}, err
		}
		s.pieces = append(s.pieces, p)
		text = rest
	}
	return s, nil
}

func special(text string) (p piece, rest string, err error) {
	if rest, ok := strings.CutPrefix(text, "*"); ok {
		return piece{kind: star}, rest, nil
	}
	if rest, ok := strings.CutPrefix(text, "{namespace}"); ok {
		return piece{kind: namespace}, rest, nil
	}
	if rest, ok := strings.CutPrefix(text, "{serviceAccount}"); ok {
		return piece{kind: serviceAccount}, rest, nil
	}
	return piece{}, "", fmt.Errorf("%q: braces hold {namespace} or {serviceAccount}, nothing else%s", text, meant(text))
}

// meant is the placeholder that braces are like.
func meant(text string) string {
	word, _, _ := strings.Cut(strings.TrimLeft(text, "{. "), "}")
	word = strings.Trim(word, "{. ")
	return spelling.Hint("{"+word+"}", []string{"{namespace}", "{serviceAccount}"})
}

// names tells whether the pattern has this very segment, without a wildcard.
func (p pattern) names(text string) bool {
	return text == "" || slices.ContainsFunc(p.segments, func(s segment) bool {
		return len(s.pieces) == 1 && s.pieces[0] == piece{literal, text}
	})
}

// empty tells whether the pattern is "".
func (p pattern) empty() bool { return len(p.segments) == 0 }

func (p pattern) fits(q *Query, text string) bool {
	names := make([]string, 0, 8) // on the stack, unless a path is deeper
	for name := range strings.SplitSeq(text, "/") {
		names = append(names, name)
	}
	return fitsSegments(p.segments, q, names)
}

// fitsSegments walks both lists once and returns to the last "**" when stuck, so that no
// pattern costs more than its length times the path's.
func fitsSegments(pattern []segment, q *Query, names []string) bool {
	i, j, back, from := 0, 0, -1, 0
	for j < len(names) {
		switch {
		case i < len(pattern) && pattern[i].rest:
			back, from = i, j
			i++
		case i < len(pattern) && fitsName(pattern[i].pieces, q, names[j]):
			i++
			j++
		case back >= 0:
			from++
			i, j = back+1, from
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i].rest {
		i++
	}
	return i == len(pattern)
}

// fitsName is the same walk over the characters of one segment.
func fitsName(pieces []piece, q *Query, name string) bool {
	i, j, back, from := 0, 0, -1, 0
	for {
		switch {
		case i < len(pieces) && pieces[i].kind == star:
			back, from = i, j
			i++
		case i < len(pieces) && pieces[i].stands(q) && strings.HasPrefix(name[j:], pieces[i].value(q)):
			j += len(pieces[i].value(q))
			i++
		case i == len(pieces) && j == len(name):
			return true
		case back >= 0 && from < len(name):
			from++
			i, j = back+1, from
		default:
			return false
		}
	}
}

// stands tells whether a placeholder has a name to stand for: what is no name of a
// Kubernetes object was issued by something else, and could be two names in one.
func (p piece) stands(q *Query) bool {
	return !p.isPlaceholder() || p.object().couldBe(p.value(q))
}

func (p piece) value(q *Query) string {
	switch p.kind {
	case namespace:
		return q.Namespace
	case serviceAccount:
		return q.ServiceAccount
	case literal, star:
	}
	return p.text
}
