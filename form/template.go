package form

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/store"
)

// The bounds of a template. text/template cannot be cancelled, keeps the results of
// functions, and writes without end; its authors are all users that may create a pod.
const (
	maxTemplate  = 64 << 10  // bytes of text
	maxNodes     = 5000      // of the parsed tree
	maxNesting   = 100       // parentheses, and ifs within ifs
	maxVariables = 500       // each use of one looks through all of them
	maxRounds    = 100_000   // of all ranges together
	maxWork      = 5_000_000 // nodes walked by those rounds
	maxResult    = 1 << 20   // bytes that one function makes
	maxResults   = 16 << 20  // bytes that all calls of functions make
	maxOutput    = 1 << 20   // bytes of the file
	maxRead      = 256 << 20 // bytes that functions look through, not making as many
)

// templateName begins text/template's place of a mistake: "line:3:7".
const templateName = "line"

// Template makes a text out of secrets, in the language of text/template without
// define, template, block and call, and with the usual functions of Helm.
// It is never changed, so it may be executed by several goroutines at once.
type Template struct {
	tree     *parse.Tree
	paths    map[string]store.Path // by their literals in the template
	original *strings.Replacer     // turns our changes to the tree back into the author's text
	unsure   []string              // functions that may have nothing to work on
	nodes    int
}

// Nodes is the size of the template in memory, in nodes of its tree.
func (t *Template) Nodes() int { return t.nodes }

// ParseTemplate reads a template of at most 64 KiB; path spells the paths in it, as the
// store does. The error has a line for each mistake, as long as the text can be parsed at
// all.
func ParseTemplate(text string, path func(string) (store.Path, error)) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("%d bytes are more than a template may have (%d)", len(text), maxTemplate)
	}
	tree, others, err := parseTree(text)
	if err != nil {
		return nil, err
	}
	c := checker{text: text, path: path, paths: map[string]store.Path{}, known: functionNames()}
	if others {
		c.mistakes = append(c.mistakes, errors.New("define and block are not available in a template"))
	}
	c.node(tree.Root, 0)
	if len(c.mistakes) > 0 {
		return nil, errors.Join(c.mistakes...)
	}
	g := guarding{}
	g.node(tree.Root)
	return &Template{tree: tree, paths: c.paths, original: g.originals(), unsure: g.unsure, nodes: c.nodes}, nil
}

// parseTree also tells whether the text defines templates besides its own. An
// empty definition of its own name goes unnoticed, and has no effect.
func parseTree(text string) (tree *parse.Tree, others bool, err error) {
	defer func() {
		if recover() != nil { // text/template's parser has had such bugs
			err = errors.New("cannot be parsed as a template")
		}
	}()
	tree = parse.New(templateName)
	tree.Mode = parse.SkipFuncCheck // the checker knows names, places and the nearest name
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(text, "", "", trees); err != nil {
		message := strings.TrimPrefix(err.Error(), "template: ")
		return nil, false, errors.New(strings.ReplaceAll(message, templateName+":", "line "))
	}
	return tree, len(trees) != 1 || trees[templateName] != tree, nil
}

// Paths are the paths of the template's secrets, sorted, each once.
func (t *Template) Paths() []store.Path {
	var paths []store.Path
	for _, path := range t.paths {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b store.Path) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(paths)
}

// Unnamed are those of the keys that the template never names: neither as a field nor as
// a text, which index may take.
func (t *Template) Unnamed(keys []string) []string {
	var unnamed []string
	for _, key := range keys {
		if !names(t.tree.Root, key) {
			unnamed = append(unnamed, key)
		}
	}
	return unnamed
}

// Execute makes the text, of at most 1 MiB. The template's dot is data; secrets returns
// the secret at each of [Template.Paths], and false for a missing one. ctx ends an
// execution between the rounds of a range and at each function. The error has the place
// in the template and the cure, and never holds a value; one that ctx caused wraps its
// error.
func (t *Template) Execute(ctx context.Context, data secret.Tree, secrets func(store.Path) (secret.Tree, bool)) (made secret.Bytes, err error) {
	defer func() {
		if recover() != nil { // its text may hold a value
			made, err = secret.Bytes{}, errors.New("the template cannot be executed")
		}
	}()
	e := &execution{ctx: ctx, paths: t.paths, secrets: secrets}
	functions := e.functions()
	for _, name := range t.unsure {
		functions[ifPrefix+name] = ifThere(name, functions[name])
	}
	tmpl, err := template.New(templateName).Option("missingkey=error").Funcs(functions).AddParseTree(templateName, t.tree)
	if err != nil {
		return secret.Bytes{}, errors.New("the template cannot be executed")
	}
	if err := tmpl.Execute(&e.out, data.Reveal()); err != nil {
		return secret.Bytes{}, t.explain(err)
	}
	return secret.New(e.out.text.Bytes()), nil
}

// output is the file as it grows.
type output struct{ text bytes.Buffer }

func (o *output) Write(p []byte) (int, error) {
	if o.text.Len()+len(p) > maxOutput {
		return 0, faultf("the file would have more than %d bytes", maxOutput)
	}
	return o.text.Write(p)
}
