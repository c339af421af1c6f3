package form

import (
	"slices"
	"text/template/parse"
)

// names tells whether a key stands somewhere below a node.
func names(n parse.Node, key string) bool {
	if slices.Contains(words(n), key) {
		return true
	}
	return slices.ContainsFunc(children(n), func(child parse.Node) bool { return names(child, key) })
}

// words are the keys that a node names by itself.
func words(n parse.Node) []string {
	switch n := n.(type) {
	case *parse.FieldNode:
		return n.Ident
	case *parse.VariableNode:
		return n.Ident[1:]
	case *parse.ChainNode:
		return n.Field
	case *parse.StringNode:
		return []string{n.Text}
	}
	return nil
}

// children are the nodes directly below one, of the kinds that a checked template has.
func children(n parse.Node) (all []parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		return n.Nodes
	case *parse.ActionNode:
		return []parse.Node{n.Pipe}
	case *parse.IfNode:
		return branches(&n.BranchNode)
	case *parse.RangeNode:
		return branches(&n.BranchNode)
	case *parse.WithNode:
		return branches(&n.BranchNode)
	case *parse.PipeNode:
		for _, cmd := range n.Cmds {
			all = append(all, cmd.Args...)
		}
	case *parse.ChainNode:
		return []parse.Node{n.Node}
	}
	return all
}

func branches(b *parse.BranchNode) []parse.Node {
	if b.ElseList == nil {
		return []parse.Node{b.Pipe, b.List}
	}
	return []parse.Node{b.Pipe, b.List, b.ElseList}
}
