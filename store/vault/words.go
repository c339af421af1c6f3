package vault

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/keymount/keymount/internal/scrub"
	"github.com/keymount/keymount/internal/spelling"
)

// words pass on what a server says in answer to a request: without what the request
// carried, without anything of a token's form, and readable. Every text of a server, and of
// a connection to one, goes through them.
type words struct{ sent scrub.Sent }

// words are those for the answers to r.
func (r Request) words() words {
	w := words{scrub.Sent{Kept: append([]string{r.Path, r.Namespace}, r.Public...)}}
	if r.Token.Len() > 0 {
		w.sent.Credentials = []string{string(r.Token.Reveal())}
	}
	if r.Body != nil {
		if body, err := json.Marshal(r.Body); err == nil {
			w.sent.Arguments = scrub.Values(body)
		}
	}
	for name, values := range r.Query {
		if name != "version" {
			w.sent.Arguments = append(w.sent.Arguments, values...)
		}
	}
	return w
}

// clean is a text that can be passed on.
func (w words) clean(text string) string { return trimmed(w.sent.Clean(text)) }

// short is one that stands within another.
func (w words) short(text string) string {
	const most = 60
	return spelling.Cut(w.clean(text), most)
}

func (w words) cleanAll(texts []string) []string {
	var all []string
	for _, text := range texts {
		all = append(all, w.clean(text))
	}
	return all
}

// id is a name that Vault has for a request; empty for what is none.
func (w words) id(text string) string {
	const most = 64
	plain := strings.IndexFunc(text, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}) < 0
	echoed := func(sent string) bool { return strings.Contains(sent, text) }
	if len(text) > most || !plain || slices.ContainsFunc(w.sent.Credentials, echoed) || slices.ContainsFunc(w.sent.Arguments, echoed) {
		return ""
	}
	return text
}

// trimmed keeps what a server says readable: it moves no cursor, and turns no line around.
func trimmed(text string) string {
	const most = 500
	return spelling.Cut(spelling.Visible(strings.Join(strings.Fields(text), " ")), most)
}
