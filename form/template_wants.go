package form

import (
	"slices"
	"text/template/parse"
)

// Want is a value that a template asks for, as far as its text shows.
type Want struct {
	Path string   // of the secret, as written; empty for the object's own
	Keys []string // the way down to the value; empty for the whole secret
	List bool     // a range walks over it
}

// Wants are the values that a template names, each once. What a variable or a function
// stands for is not followed. A text that is no template names none.
func Wants(text string) []Want {
	tree, _, err := parseTree(text)
	if err != nil {
		return nil
	}
	w := wanting{}
	w.node(tree.Root, &Want{})
	return w.all
}

// wanting gathers the wants of a tree.
type wanting struct{ all []Want }

// node goes through the tree; dot is what stands for the dot, nil where that is not known.
func (w *wanting) node(n parse.Node, dot *Want) {
	if s := subject(n, dot); s != nil {
		if len(s.Keys) > 0 {
			w.add(*s)
		}
		return
	}
	switch n := n.(type) {
	case *parse.WithNode:
		w.branch(&n.BranchNode, dot, subject(n.Pipe, dot))
	case *parse.RangeNode:
		if s := subject(n.Pipe, dot); s != nil && len(s.Keys) > 0 {
			s.List = true
			w.add(*s)
		}
		w.branch(&n.BranchNode, dot, nil)
	default:
		for _, child := range children(n) {
			w.node(child, dot)
		}
	}
}

// branch goes through a node that has a dot of its own.
func (w *wanting) branch(b *parse.BranchNode, dot, inner *Want) {
	if b.NodeType == parse.NodeWith {
		w.node(b.Pipe, dot)
	}
	w.node(b.List, inner)
	if b.ElseList != nil {
		w.node(b.ElseList, dot)
	}
}

// add keeps the longer of two ways, of which one begins the other.
func (w *wanting) add(want Want) {
	begins := func(a, b Want) bool {
		return a.Path == b.Path && len(a.Keys) <= len(b.Keys) && slices.Equal(a.Keys, b.Keys[:len(a.Keys)])
	}
	if slices.ContainsFunc(w.all, func(have Want) bool { return begins(want, have) }) {
		return
	}
	w.all = append(slices.DeleteFunc(w.all, func(have Want) bool { return begins(have, want) && !have.List }), want)
}

// subject is what a node stands for; nil where it is more than a secret or a value in one.
func subject(n parse.Node, dot *Want) *Want {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot
	case *parse.FieldNode:
		return dot.below(n.Ident)
	case *parse.VariableNode:
		if n.Ident[0] == "$" {
			return (&Want{}).below(n.Ident[1:])
		}
	case *parse.ChainNode:
		return subject(n.Node, dot).below(n.Field)
	case *parse.PipeNode:
		if len(n.Cmds) == 1 && len(n.Decl) == 0 {
			return called(n.Cmds[0].Args, dot)
		}
	}
	return nil
}

// called is the result of a command: of secret, of index with literal keys, or of a value
// alone.
func called(args []parse.Node, dot *Want) *Want {
	if len(args) == 1 {
		return subject(args[0], dot)
	}
	name, _ := args[0].(*parse.IdentifierNode)
	if name == nil {
		return nil
	}
	path, _ := args[1].(*parse.StringNode)
	switch {
	case name.Ident == "secret" && path != nil && len(args) == 2:
		return &Want{Path: path.Text}
	case name.Ident == "index":
		s := subject(args[1], dot)
		for _, arg := range args[2:] {
			key, _ := arg.(*parse.StringNode)
			if key == nil {
				return nil
			}
			s = s.below([]string{key.Text})
		}
		return s
	}
	return nil
}

func (w *Want) below(keys []string) *Want {
	if w == nil {
		return nil
	}
	return &Want{Path: w.Path, Keys: slices.Concat(w.Keys, keys)}
}
