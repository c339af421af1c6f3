// Package scrub takes out of what a server says whatever must not reach a log, an event
// or an error: a server or a proxy may echo the request, or quote a credential.
//
// [Sent] is what a request carried. [Sent.Clean] hides it in a text, in every spelling that
// servers echo it in, whole or in part, together with anything that has the form of a token.
package scrub

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Hidden stands for what was taken out.
const Hidden = "[hidden]"

const (
	// mostText is how much of a text is looked at; the rest is dropped.
	mostText = 16 << 10
	// mostEncoded is the longest value that is looked for in other spellings than JSON's.
	mostEncoded = 64 << 10
	// Of a long value any part of so many characters is hidden, and of a shorter one the
	// whole of it; below leastAnywhere only where it stands alone, and below least, where
	// it can be any word, not at all.
	partOfCredential = 8
	partOfArgument   = 12
	leastAnywhere    = 6
	least            = 3
)

// Sent is what a request carried.
type Sent struct {
	// Credentials, such as a token, are hidden wherever they stand.
	Credentials []string
	// Arguments are hidden but for what is in Kept.
	Arguments []string
	// Kept are the paths and roles that help a reader.
	Kept []string
}

// tokens are the forms that credentials have: JWTs, tokens of Vault and OpenBao, keys of
// age, blocks of PEM, bearer tokens.
var tokens = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{4,}(?:(?:\.|%2[eE])+[A-Za-z0-9_-]*)*` +
	`|\bhv[sbr]\.[A-Za-z0-9_.-]{4,}` +
	`|\b[sbr]\.[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9]+)?` +
	`|(?i:AGE-(?:SECRET-KEY|PLUGIN)-[A-Z0-9-]+)` +
	`|(?s:-----BEGIN [^-]*-----.*?(?:-----END [^-]*-----|$))` +
	`|(?i:\bbearer\s+)[A-Za-z0-9+/_.=~-]{16,}`)

// Clean is text without what was sent and without what looks like a credential.
func (s Sent) Clean(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), mostText)], "")
	if text == "" {
		return ""
	}
	secret, sent := make([]bool, len(text)), make([]bool, len(text))
	for _, found := range tokens.FindAllStringIndex(text, -1) {
		mark(secret, found[0], found[1], true)
	}
	folded := fold(text)
	folded.hide(secret, s.Credentials, partOfCredential)
	folded.hide(sent, s.Arguments, partOfArgument)
	for _, kept := range s.Kept {
		alone(text, kept, func(from, to int) { mark(sent, from, to, false) })
	}
	return replaced(text, secret, sent)
}

func mark(marks []bool, from, to int, as bool) {
	for i := from; i < to; i++ {
		marks[i] = as
	}
}

// replaced writes [Hidden] for each stretch that is marked.
func replaced(text string, secret, sent []bool) string {
	var out strings.Builder
	for i := range len(text) {
		switch {
		case !secret[i] && !sent[i]:
			out.WriteByte(text[i])
		case i == 0 || !secret[i-1] && !sent[i-1]:
			out.WriteString(Hidden)
		}
	}
	return strings.ToValidUTF8(out.String(), "")
}

// folded is a text without differences that an echo makes: spaces, case, and the two
// alphabets of base64. at is where each of its bytes stands in the text.
type folded struct {
	text  string // as it was
	bytes []byte
	at    []int
}

func fold(text string) folded {
	f := folded{text: text, bytes: make([]byte, 0, len(text)), at: make([]int, 0, len(text))}
	for i := range len(text) {
		switch c := text[i]; {
		case c == ' ' || c == '\n' || c == '\t' || c == '\r':
			continue
		case 'A' <= c && c <= 'Z':
			f.bytes = append(f.bytes, c+'a'-'A')
		case c == '+':
			f.bytes = append(f.bytes, '-')
		case c == '/':
			f.bytes = append(f.bytes, '_')
		default:
			f.bytes = append(f.bytes, c)
		}
		f.at = append(f.at, i)
	}
	return f
}

// hide marks where values stand in the text, or parts of them that are as long as part.
func (f folded) hide(marks []bool, values []string, part int) {
	parts := map[string][]int{} // where each stretch of that length begins
	for i := 0; i+part <= len(f.bytes); i++ {
		of := string(f.bytes[i : i+part])
		parts[of] = append(parts[of], i)
	}
	for _, value := range values {
		for _, spelling := range spellings(value) {
			f.hideOne(marks, spelling, part, parts)
		}
	}
}

func (f folded) hideOne(marks []bool, value string, part int, parts map[string][]int) {
	sought := fold(value).bytes
	switch n := len(sought); {
	case n >= part:
		for i := 0; i+part <= n; i++ {
			of := string(sought[i : i+part])
			for _, from := range parts[of] {
				mark(marks, f.at[from], f.at[from+part-1]+1, true)
			}
			delete(parts, of) // all of it is marked
		}
	case n >= leastAnywhere:
		for from := 0; from+n <= len(f.bytes); from++ {
			if bytes.HasPrefix(f.bytes[from:], sought) {
				mark(marks, f.at[from], f.at[from+n-1]+1, true)
			}
		}
	case n >= least:
		alone(lower(f.text), lower(value), func(from, to int) { mark(marks, from, to, true) })
	}
}

// alone finds where a word stands that is no part of a longer one.
func alone(text, word string, found func(from, to int)) {
	if word == "" {
		return
	}
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return
		}
		from += i
		to := from + len(word)
		if (from == 0 || !isWord(text[from-1]) || from >= 3 && text[from-3] == '%') && (to == len(text) || !isWord(text[to])) {
			found(from, to)
		}
		from++
	}
}

// lower changes the letters of ASCII alone, so that places stay.
func lower(text string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, text)
}

func isWord(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
}

// spellings are the ways in which a server may write a value, by itself or within a
// document in JSON.
func spellings(value string) []string {
	quoted, _ := json.Marshal(value)
	all := []string{value}
	if inner := string(quoted[1 : len(quoted)-1]); inner != value {
		all = append(all, inner)
	}
	if len(value) < leastAnywhere || len(value) > mostEncoded {
		return all
	}
	for _, one := range all {
		goes := strconv.Quote(one)
		all = append(all, goes[1:len(goes)-1], url.QueryEscape(one), url.QueryEscape(url.QueryEscape(one)), url.PathEscape(one), html.EscapeString(one), hex.EncodeToString([]byte(one)))
		for shift := range 3 { // base64 of what it is a part of, without the edges
			text := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + one))
			all = append(all, text[(shift*4+2)/3:len(text)-1])
		}
	}
	return all
}

// Values are the texts and numbers of a JSON document, without the names of its members.
// What is no JSON is one text.
func Values(document []byte) []string {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	var values []string
	var objects []bool // of what is open: whether it is an object
	name := false      // comes next
	for {
		token, err := decoder.Token()
		if err != nil {
			if len(values) == 0 && !json.Valid(document) {
				return []string{string(document)}
			}
			return values
		}
		isName := name
		switch t := token.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				objects = append(objects, t == '{')
			} else {
				objects = objects[:len(objects)-1]
			}
			name = len(objects) > 0 && objects[len(objects)-1]
			continue
		case string:
			if !isName {
				values = append(values, t)
			}
		case json.Number:
			values = append(values, t.String())
		}
		name = !isName && len(objects) > 0 && objects[len(objects)-1]
	}
}
