package access

import (
	"fmt"
	"slices"
	"strings"
)

// parted tells whether a text that p fits says which names stand for its placeholders:
// two pods of different names then never share what one pattern allows them. Names hold
// dashes, so that {namespace}-{serviceAccount} is one text for d of b-c and for c-d of b.
func (p pattern) parted(text string, of subject) error {
	isRest := func(s segment) bool { return s.rest }
	first, last := slices.IndexFunc(p.segments, isRest), lastIndex(p.segments, isRest)
	for i, s := range p.segments {
		n := slices.IndexFunc(s.pieces, piece.isPlaceholder)
		if n >= 0 && first >= 0 && first < i && i < last {
			return fmt.Errorf(`%q: between two "**" %s is any segment of a %s that has the name of the pod's; keep one "**"`, text, s.pieces[n], of)
		}
		if err := partedPieces(s.pieces, of); err != nil {
			return err
		}
	}
	return nil
}

func lastIndex[T any](list []T, is func(T) bool) int {
	for i, one := range slices.Backward(list) {
		if is(one) {
			return i
		}
	}
	return -1
}

// partedPieces looks at one segment. Where a placeholder begins and ends is certain when
// it can be told from one end of the segment: over literals, and over placeholders that
// a character ends which their names cannot hold.
func partedPieces(pieces []piece, of subject) error {
	left, right := certain(pieces), len(pieces)-certain(reversed(pieces))
	for i, p := range pieces {
		if !p.isPlaceholder() || isCertain(i, left, right) && isCertain(i+1, left, right) {
			continue
		}
		whole := segmentText(pieces)
		if other := beside(pieces, i); other.kind != star || !surrounded(pieces, i) {
			return fmt.Errorf(`%q: one %s fits it for pods of different names, since names hold %s; part %s from %s by a slash, or by a character that no name holds, such as "_"`,
				whole, of, p.holds(), p, other)
		}
		return fmt.Errorf(`%q: between two "*" %s is any part of a %s that has the name of the pod's; keep one "*"`, whole, p, of)
	}
	return nil
}

// isCertain tells whether a boundary between pieces is known from the left or the right.
func isCertain(boundary, left, right int) bool { return boundary <= left || boundary >= right }

// certain is the last boundary between pieces that is known when read from the first on.
func certain(pieces []piece) int {
	for i, p := range pieces {
		switch {
		case p.kind == star:
			return i
		case p.isPlaceholder() && (i+1 == len(pieces) || pieces[i+1].kind != literal || !strings.ContainsFunc(pieces[i+1].text, p.lacks)):
			return i
		}
	}
	return len(pieces)
}

func reversed(pieces []piece) []piece {
	all := slices.Clone(pieces)
	slices.Reverse(all)
	return all
}

// beside is the next wildcard or placeholder that pieces[i] cannot be told from.
func beside(pieces []piece, i int) piece {
	special := func(p piece) bool { return p.kind != literal }
	if n := slices.IndexFunc(pieces[i+1:], special); n >= 0 {
		return pieces[i+1+n]
	}
	return pieces[lastIndex(pieces[:i], special)]
}

// surrounded tells of a placeholder whether there are wildcards on both sides.
func surrounded(pieces []piece, i int) bool {
	isStar := func(p piece) bool { return p.kind == star }
	return slices.ContainsFunc(pieces[:i], isStar) && slices.ContainsFunc(pieces[i+1:], isStar)
}

func (p piece) isPlaceholder() bool { return p.kind == namespace || p.kind == serviceAccount }

// object is the sort of object whose name a placeholder stands for.
func (p piece) object() object {
	if p.kind == namespace {
		return aNamespace()
	}
	return aServiceAccount()
}

// lacks tells whether no name that a placeholder stands for has this character.
func (p piece) lacks(r rune) bool { return !p.object().has(r) }

// holds are the characters beside letters and digits.
func (p piece) holds() string {
	if p.object().dots {
		return `"-" and "."`
	}
	return `"-"`
}

// String is the piece as it is written in a pattern, in quotes where it is a wildcard.
func (p piece) String() string {
	switch p.kind {
	case star:
		return `"*"`
	case namespace:
		return "{namespace}"
	case serviceAccount:
		return "{serviceAccount}"
	case literal:
	}
	return p.text
}

func segmentText(pieces []piece) string {
	var text strings.Builder
	for _, p := range pieces {
		text.WriteString(strings.Trim(p.String(), `"`))
	}
	return text.String()
}
