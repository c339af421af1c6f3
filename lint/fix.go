package lint

import (
	"cmp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/manifest"
)

// Fix makes the edits of the findings that are in a file, and returns its text with those
// that it made. Two edits of one place are not made at once: the next Check finds the rest.
func Fix(f *manifest.File, findings []Finding) (text []byte, fixed []Finding) {
	byLine := map[int][]Finding{}
	for _, found := range findings {
		if found.File == f.Name && found.Fix != nil {
			byLine[found.Fix.Line] = append(byLine[found.Fix.Line], found)
		}
	}
	lines := strings.SplitAfter(string(f.Text), "\n")
	for n := range lines {
		if of := byLine[n+1]; len(of) > 0 {
			var made []Finding
			lines[n], made = fixLine(lines[n], of)
			fixed = append(fixed, made...)
		}
	}
	return []byte(strings.Join(lines, "")), fixed
}

// fixLine makes the edits of one line, from its end to its begin.
func fixLine(line string, of []Finding) (string, []Finding) {
	slices.SortStableFunc(of, func(a, b Finding) int { return cmp.Compare(b.Fix.Column, a.Fix.Column) })
	text := []rune(line)
	var made []Finding
	for next, found := len(text)+1, 0; found < len(of); found++ {
		e := of[found].Fix
		if e.Column < 1 || e.End < e.Column || e.End > next || e.Column >= next || e.End > len(text)+1 {
			continue
		}
		text = slices.Concat(text[:e.Column-1], []rune(e.Text), text[e.End-1:])
		next = e.Column
		made = append(made, of[found])
	}
	slices.Reverse(made)
	return string(text), made
}

// instead is the edit for a mistake of a class that knows what to write.
func instead(of manifest.Class, m class.Mistake) *Edit {
	node := of.Nodes[m.Parameter]
	if m.Instead == "" || node == nil {
		return nil
	}
	switch m.Reason { //nolint:exhaustive // the others need a choice
	case class.UnknownParameter:
		if of.Nodes[m.Instead] != nil {
			return nil
		}
		return replace(of.File, of.Keys[m.Parameter], m.Instead)
	case class.UnknownField, class.BadMode, class.BadValue:
	default:
		return nil
	}
	if m.Line == 0 || node.Style&yaml.LiteralStyle == 0 {
		return nil // there, the text is quoted or folded
	}
	at := of.File.Inside(node, m.Line, m.Column)
	if at == manifest.At(node) {
		return nil
	}
	e := rewrite(of.File, at, m.Instead, m.Reason == class.BadMode)
	if e == nil || !replaces(m, strings.Trim(string([]rune(of.File.Line(e.Line))[e.Column-1:e.End-1]), `'"`)) {
		return nil
	}
	return e
}

// replaces tells whether the text in the file is the one that the mistake is about, and not
// a part of it.
func replaces(m class.Mistake, written string) bool {
	switch m.Reason { //nolint:exhaustive // the others are not fixed
	case class.UnknownField:
		return written == m.Field
	case class.BadValue:
		return strings.TrimLeft(written, "/") == m.Instead
	}
	return strings.Trim(written, "0123456789") == ""
}

// replace is the edit of a plain or quoted scalar on one line of a file.
func replace(f *manifest.File, n *yaml.Node, text string) *Edit {
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) != 0 || n.Anchor != "" {
		return nil
	}
	e := rewrite(f, manifest.At(n), text, false)
	if e == nil || strings.Trim(string([]rune(f.Line(e.Line))[e.Column-1:e.End-1]), `'"`) != n.Value {
		return nil // it is a part of the scalar alone
	}
	return e
}

// quote puts a plain scalar into quotes.
func quote(f *manifest.File, n *yaml.Node) *Edit {
	written := []rune(f.Line(n.Line))
	end := n.Column + len([]rune(n.Value))
	if n.Style != 0 || n.Anchor != "" || n.Column < 1 || end > len(written)+1 || string(written[n.Column-1:end-1]) != n.Value {
		return nil
	}
	return &Edit{n.Line, n.Column, end, `"` + n.Value + `"`}
}

// rewrite replaces the scalar that begins at a place by a text, in its own quotes.
func rewrite(f *manifest.File, at manifest.Position, text string, quoted bool) *Edit {
	written := []rune(f.Line(at.Line))
	if at.Column < 1 || at.Column > len(written) {
		return nil
	}
	rest := written[at.Column-1:]
	mark, length := "", plainLength(rest)
	if rest[0] == '"' || rest[0] == '\'' {
		mark = string(rest[0])
		end := slices.Index(rest[1:], rest[0])
		if end < 0 || slices.Contains(rest[1:end+1], '\\') {
			return nil
		}
		length = end + 2
	}
	if quoted && mark == "" {
		mark = `"`
	}
	if length == 0 {
		return nil
	}
	return &Edit{at.Line, at.Column, at.Column + length, mark + text + mark}
}

// plainLength is the length of a plain scalar of the words that names, modes and files are
// made of; 0 for another one.
func plainLength(rest []rune) int {
	end := slices.IndexFunc(rest, func(r rune) bool { return strings.ContainsRune(" ,]}#:\t", r) })
	switch {
	case end < 0:
		return len(rest)
	case rest[end] == ':' && end+1 < len(rest) && rest[end+1] != ' ':
		return 0
	case rest[end] == ' ' && !endsScalar(rest[end:]):
		return 0
	}
	return end
}

// endsScalar tells whether nothing but a comment or a sign of YAML follows.
func endsScalar(rest []rune) bool {
	after := strings.TrimLeft(string(rest), " ")
	return after == "" || strings.ContainsAny(after[:1], "#,]}:")
}
