package convert

import (
	"gopkg.in/yaml.v3"

	"github.com/keymount/keymount/manifest"
)

// maxCopied bounds the nodes of a copy: aliases can stand for more than any memory holds.
const maxCopied = 50_000

// copied is a node without aliases and places, to be written elsewhere; nil for one that is
// too large.
func copied(n *yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	left := maxCopied
	out := copyOf(n, &left)
	if left < 0 {
		return nil
	}
	return out
}

func copyOf(n *yaml.Node, left *int) *yaml.Node {
	n = manifest.Resolved(n)
	if *left--; *left < 0 {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	out := &yaml.Node{
		Kind: n.Kind, Tag: n.Tag, Value: n.Value, Style: n.Style &^ yaml.TaggedStyle,
		HeadComment: n.HeadComment, LineComment: n.LineComment, FootComment: n.FootComment,
	}
	for _, below := range n.Content {
		out.Content = append(out.Content, copyOf(below, left))
	}
	return out
}
