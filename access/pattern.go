package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keymount/keymount/store"
)

// pattern is a rule's text, cut at slashes. Within a segment "*" stands for any
// run of characters, "**" as a whole segment for any number of segments, and
// {namespace} and {serviceAccount} for the names of whoever asks.
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

func compile(text string, path bool) (pattern, error) {
	if text == "" {
		return pattern{}, errors.New("an empty pattern fits nothing; remove it")
	}
	if !path && strings.Contains(text, "/") {
		return pattern{}, fmt.Errorf("%q holds a slash; names of Kubernetes objects and roles have none", text)
	}
	if path && strings.ContainsFunc(text, store.NotInPaths) {
		return pattern{}, fmt.Errorf(`%q never fits; a path has no %%, ?, #, backslash or invisible characters`, text)
	}
	var p pattern
	for text := range strings.SplitSeq(text, "/") {
		s, err := compileSegment(text, path)
		if err != nil {
			return pattern{}, err
		}
		p.segments = append(p.segments, s)
	}
	return p, nil
}

func compileSegment(text string, path bool) (segment, error) {
	switch {
	case text == "":
		return segment{}, errors.New("empty segment; a pattern has no slash at either end and no doubled slashes")
	case text == "." || text == "..":
		return segment{}, fmt.Errorf("%q never fits; no path has such a segment", text)
	case text == "**" && path:
		return segment{rest: true}, nil
	case strings.Contains(text, "**") && !path:
		return segment{}, fmt.Errorf(`%q: "**" is for paths; names of Kubernetes objects and roles have one segment, use "*"`, text)
	case strings.Contains(text, "**"):
		return segment{}, fmt.Errorf(`%q: "**" stands for whole segments of a path and cannot be a part of one; use "*"`, text)
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
	return piece{}, "", fmt.Errorf("%q: braces hold {namespace} or {serviceAccount}, nothing else", text)
}

// names tells whether the pattern has this very segment, without a wildcard.
func (p pattern) names(text string) bool {
	return text == "" || slices.ContainsFunc(p.segments, func(s segment) bool {
		return len(s.pieces) == 1 && s.pieces[0] == piece{literal, text}
	})
}

func (p pattern) fits(q Query, text string) bool {
	names := make([]string, 0, 8) // on the stack, unless a path is deeper
	for name := range strings.SplitSeq(text, "/") {
		names = append(names, name)
	}
	return fitsSegments(p.segments, q, names)
}

// fitsSegments walks both lists once and returns to the last "**" when stuck,
// so that no pattern costs more than its length times the path's.
func fitsSegments(pattern []segment, q Query, names []string) bool {
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
func fitsName(pieces []piece, q Query, name string) bool {
	i, j, back, from := 0, 0, -1, 0
	for {
		switch {
		case i < len(pieces) && pieces[i].kind == star:
			back, from = i, j
			i++
		case i < len(pieces) && strings.HasPrefix(name[j:], pieces[i].value(q)):
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

func (p piece) value(q Query) string {
	switch p.kind {
	case namespace:
		return q.Namespace
	case serviceAccount:
		return q.ServiceAccount
	case literal, star:
	}
	return p.text
}
