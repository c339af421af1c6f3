package form

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/internal/turns"
	"github.com/keymount/keymount/store"
)

// execution is one run of a template, with the bounds it has used up. Its methods are
// the template's functions: values come as any, because the types in a secret are known
// only then, and null is nil.
type execution struct {
	ctx     context.Context
	paths   map[string]store.Path
	secrets func(store.Path) (secret.Tree, bool)
	out     output

	rounds, work, made, read int
}

func (e *execution) functions() template.FuncMap {
	return template.FuncMap{
		stepName: e.step, textName: e.text, lookupName: lookup, indexName: indexIfThere, walkName: e.walk,
		"eq": e.eq, "ne": e.ne, "lt": e.lt, "le": e.le, "gt": e.gt, "ge": e.ge,
		"secret":   e.secret,
		"default":  orDefault,
		"required": required,
		"index":    index, "slice": slice, "first": first, "last": last,
		"fromJson": e.fromJSON, "toJson": e.toJSON, "toYaml": e.toYAML,
		"b64enc": e.b64enc, "b64dec": e.b64dec,
		"indent": e.indent, "nindent": e.nindent, "quote": e.quote,
		"trim": e.trim, "upper": e.upper, "lower": e.lower, "replace": e.replace,
		"split": e.split, "splitList": e.splitList, "join": e.join,
		"print": e.print, "println": e.println, "printf": e.printf, "len": length,
	}
}

// ifThere is a function of the same arguments, whose result is null without a subject.
func ifThere(name string, function any) any {
	call := reflect.ValueOf(function)
	var in []reflect.Type
	for parameter := range call.Type().Ins() {
		in = append(in, parameter)
	}
	out := []reflect.Type{reflect.TypeFor[any](), reflect.TypeFor[error]()}
	isVariadic := call.Type().IsVariadic()
	return reflect.MakeFunc(reflect.FuncOf(in, out, isVariadic), func(args []reflect.Value) []reflect.Value {
		if isVariadic { // the last one is a list of all others
			rest := args[len(args)-1]
			args = slices.Clone(args[:len(args)-1])
			for i := range rest.Len() {
				args = append(args, rest.Index(i))
			}
		}
		for i, arg := range args {
			if isSubject(name, i+1, i+1 == len(args)) && arg.Kind() == reflect.Interface && arg.IsNil() {
				return []reflect.Value{reflect.Zero(out[0]), reflect.Zero(out[1])}
			}
		}
		return call.Call(args)
	}).Interface()
}

// fits checks the room for a result of n bytes before it is made. Every function with a
// result calls it, so that it also cancels a long run and lends its place to others.
func (e *execution) fits(n int) error {
	if err := turns.Pause(e.ctx); err != nil {
		return &fault{text: "the template was stopped: " + err.Error(), cause: err}
	}
	if n > maxResult {
		return faultf("the result would have more than %d bytes", maxResult)
	}
	return nil
}

// charge also pays for the n bytes of a result, made just now or about to be.
func (e *execution) charge(n int) error {
	if err := e.fits(n); err != nil {
		return err
	}
	if e.made += n; e.made > maxResults {
		return faultf("the functions of the template would make more than %d bytes", maxResults)
	}
	return nil
}

// look pays for looking through n bytes without making as many.
func (e *execution) look(n int) error {
	if e.read += n; e.read > maxRead {
		return faultf("the functions of the template would look through more than %d bytes", maxRead)
	}
	return e.fits(0)
}

// walk pays for sorting a map's keys, which range does each time.
func (e *execution) walk(v any) (any, error) {
	const perKey = 1024 // sorting by reflection costs that much more than reading
	if m, ok := v.(map[string]any); ok {
		return v, e.look(perKey * len(m))
	}
	return v, nil
}

// step counts a round of a range with work nodes in its body.
func (e *execution) step(work int) (string, error) {
	e.rounds++
	e.work += work
	switch {
	case e.rounds > maxRounds:
		return "", faultf("the ranges of the template take more than %d rounds", maxRounds)
	case e.work > maxWork:
		return "", faultf("the ranges of the template take more than %d steps", maxWork)
	}
	return "", e.charge(0)
}

// text is a value's text in the file: a text as it is, null as nothing, a list or a map
// as compact JSON.
func (e *execution) text(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		return string(v), nil
	case bool, int, int64, float64:
		return fmt.Sprint(v), nil
	default:
		return e.toJSON(v)
	}
}

// lookup is v's part under the keys, each a step down, or nil without one.
func lookup(v any, keys ...string) (any, error) {
	for _, key := range keys {
		m, ok := v.(map[string]any)
		if !ok && v != nil {
			return nil, faultf("there is no key %q; what stands before it is not a map", key)
		}
		v = m[key]
	}
	return v, nil
}

func (e *execution) secret(path string) (any, error) {
	tree, ok := e.secrets(e.paths[path])
	if !ok {
		return nil, faultf("there is no secret %q", path)
	}
	return tree.Reveal(), nil
}

// orDefault is default. Unlike Helm's it takes false and 0 for values: a false in a
// secret is meant.
func orDefault(fallback, v any) any {
	switch v := v.(type) {
	case nil:
		return fallback
	case string:
		if v == "" {
			return fallback
		}
	case []any:
		if len(v) == 0 {
			return fallback
		}
	case map[string]any:
		if len(v) == 0 {
			return fallback
		}
	}
	return v
}

func required(message string, v any) (any, error) {
	if v == nil || v == "" {
		return nil, faultf("%s", message)
	}
	return v, nil
}

// index is text/template's, but a missing key is an error. Keys may be values, so the
// error does not name them.
func index(v any, keys ...any) (any, error) {
	for _, key := range keys {
		switch in := v.(type) {
		case map[string]any:
			name, isText := key.(string)
			found, ok := in[name]
			if !isText || !ok {
				return nil, faultf("there is no such key")
			}
			v = found
		case []any:
			i, ok := whole(key)
			if !ok || i < 0 || i >= len(in) {
				return nil, faultf("there is no such element; the list has %d, and the first is 0", len(in))
			}
			v = in[i]
		default:
			return nil, faultf("index takes a list or a map")
		}
	}
	return v, nil
}

// indexIfThere is index, and null for a missing part.
func indexIfThere(v any, keys ...any) (any, error) {
	for _, key := range keys {
		switch in := v.(type) {
		case nil:
			return nil, nil
		case map[string]any:
			name, _ := key.(string)
			v = in[name]
		case []any:
			i, isWhole := whole(key)
			if v = nil; isWhole && i >= 0 && i < len(in) {
				v = in[i]
			}
		default:
			return nil, faultf("index takes a list or a map")
		}
	}
	return v, nil
}

// slice is text/template's, within the length of a list instead of its capacity.
func slice(v any, bounds ...any) (any, error) {
	text, isText := v.(string)
	list, isList := v.([]any)
	if !isText && !isList || len(bounds) > 2 {
		return nil, faultf("slice takes a text or a list, and where to begin and to end")
	}
	from, to := 0, len(text)+len(list)
	for i, end := range []*int{&from, &to}[:len(bounds)] {
		n, ok := whole(bounds[i])
		if !ok || n < 0 || n > len(text)+len(list) {
			return nil, faultf("slice: out of range; the length is %d", len(text)+len(list))
		}
		*end = n
	}
	switch {
	case from > to:
		return nil, faultf("slice: it ends before it begins")
	case isText:
		return text[from:to], nil
	default:
		return list[from:to:to], nil
	}
}

// whole is a whole number of the template or of a secret.
func whole(v any) (int, bool) {
	switch v := v.(type) {
	case int:
		return v, true
	case int64:
		return int(v), true
	case json.Number:
		n, err := strconv.Atoi(string(v))
		return n, err == nil
	}
	return 0, false
}

// length is text/template's len.
func length(v any) (int, error) {
	switch v := v.(type) {
	case string:
		return len(v), nil
	case json.Number:
		return len(v), nil
	case []any:
		return len(v), nil
	case map[string]any:
		return len(v), nil
	}
	return 0, faultf("len takes a text, a list or a map")
}

func first(list any) (any, error) {
	l, ok := list.([]any)
	if !ok || len(l) == 0 {
		return nil, faultf("first takes a list with at least one element")
	}
	return l[0], nil
}

func last(list any) (any, error) {
	l, ok := list.([]any)
	if !ok || len(l) == 0 {
		return nil, faultf("last takes a list with at least one element")
	}
	return l[len(l)-1], nil
}

func (e *execution) toJSON(v any) (string, error) { return e.encode(v, compactJSON) }

func (e *execution) toYAML(v any) (string, error) { return e.encode(v, writeYAML) }

func (e *execution) encode(v any, write func(any) ([]byte, error)) (string, error) {
	if err := e.fits(size(v)); err != nil {
		return "", err
	}
	text, err := write(v)
	if err != nil {
		return "", faultf("the value %s", err) // an error of ours, about keys alone
	}
	if err := e.charge(len(text)); err != nil {
		return "", err
	}
	return string(text), nil
}

// size is at most the length of v as JSON or YAML, so that a result can be refused
// before it is made. Escapes make it several times as long at most.
func size(v any) int {
	n := 1
	switch v := v.(type) {
	case string:
		n += len(v)
	case json.Number:
		n += len(v)
	case []any:
		for _, e := range v {
			n += 1 + size(e)
		}
	case map[string]any:
		for k, e := range v {
			n += len(k) + 1 + size(e)
		}
	}
	return n
}

func (e *execution) b64enc(v any) (string, error) {
	text, err := e.text(v)
	if err != nil {
		return "", err
	}
	if err := e.charge(base64.StdEncoding.EncodedLen(len(text))); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString([]byte(text)), nil
}

func (e *execution) b64dec(v any) (string, error) {
	return e.change(v, func(text string) (string, error) {
		decoded, err := Decode(Base64, secret.New([]byte(text)))
		if err != nil {
			return "", &fault{text: err.Error()}
		}
		return string(decoded.Reveal()), nil
	})
}

// change makes a text out of another of about its length.
func (e *execution) change(v any, to func(string) (string, error)) (string, error) {
	text, err := e.text(v)
	if err != nil {
		return "", err
	}
	if err := e.charge(len(text)); err != nil {
		return "", err
	}
	changed, err := to(text)
	if err != nil {
		return "", err
	}
	// A change of case can make up to three bytes of one.
	if err := e.fits(len(changed)); err != nil {
		return "", err
	}
	return changed, e.charge(max(0, len(changed)-len(text)))
}

func (e *execution) indent(spaces, v any) (string, error) {
	n, ok := whole(spaces)
	if !ok || n < 0 {
		return "", faultf("indent takes the number of spaces first")
	}
	text, err := e.text(v)
	if err != nil {
		return "", err
	}
	// Both factors are bounded first, so that the product is a number.
	lines := 1 + strings.Count(text, "\n")
	if n > maxResult || lines > maxResult {
		return "", e.charge(maxResult + 1)
	}
	if err := e.charge(len(text) + n*lines); err != nil {
		return "", err
	}
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(text, "\n", "\n"+pad), nil
}

func (e *execution) nindent(spaces, v any) (string, error) {
	text, err := e.indent(spaces, v)
	if err != nil {
		return "", err
	}
	return "\n" + text, e.charge(1)
}

// quote quotes as JSON does; YAML and most files for machines read it, too.
func (e *execution) quote(v any) (string, error) {
	text, err := e.text(v)
	if err != nil {
		return "", err
	}
	return e.toJSON(text)
}

func (e *execution) trim(v any) (string, error) { return e.change(v, always(strings.TrimSpace)) }

func (e *execution) upper(v any) (string, error) { return e.change(v, always(strings.ToUpper)) }

func (e *execution) lower(v any) (string, error) { return e.change(v, always(strings.ToLower)) }

func always(to func(string) string) func(string) (string, error) {
	return func(text string) (string, error) { return to(text), nil }
}

func (e *execution) replace(old, with, v any) (string, error) {
	texts, err := e.texts([]any{old, with, v})
	if err != nil {
		return "", err
	}
	from, to, in := texts[0], texts[1], texts[2]
	if err := e.look(len(in)); err != nil {
		return "", err
	}
	count := strings.Count(in, from)
	if count > 0 && len(to) > 2*maxResult/count {
		return "", e.charge(maxResult + 1) // before the product overflows
	}
	if err := e.charge(len(in) + count*(len(to)-len(from))); err != nil {
		return "", err
	}
	return strings.ReplaceAll(in, from, to), nil
}

// split makes a list. Sprig's makes a map of _0, _1 and so on, which join, first
// and range could not use.
func (e *execution) split(separator, v any) ([]any, error) {
	if separator == nil || separator == "" {
		return nil, faultf("split takes the separator first, which is not empty")
	}
	return e.splitList(separator, v)
}

// splitList is Sprig's: an empty separator parts the characters.
func (e *execution) splitList(separator, v any) ([]any, error) {
	const perElement = 32 // an interface, and the string behind it
	texts, err := e.texts([]any{separator, v})
	if err != nil {
		return nil, err
	}
	if err := e.charge(len(texts[1]) + perElement*(1+strings.Count(texts[1], texts[0]))); err != nil {
		return nil, err
	}
	parts := strings.Split(texts[1], texts[0])
	list := make([]any, len(parts))
	for i, part := range parts {
		list[i] = part
	}
	return list, nil
}

func (e *execution) join(separator, list any) (string, error) {
	elements, ok := list.([]any)
	if !ok && list != nil {
		return "", faultf("join takes the separator and then a list")
	}
	const perElement = 32 // copied twice
	if err := e.look(perElement * len(elements)); err != nil {
		return "", err
	}
	texts, err := e.texts(append([]any{separator}, elements...))
	if err != nil {
		return "", err
	}
	n := 0
	for _, text := range texts[1:] {
		if n += len(text) + len(texts[0]); n > 2*maxResult {
			break // too much in any case
		}
	}
	if err := e.charge(max(0, n-len(texts[0]))); err != nil {
		return "", err
	}
	return strings.Join(texts[1:], texts[0]), nil
}

func (e *execution) texts(values []any) ([]string, error) {
	texts := make([]string, 0, len(values))
	for _, v := range values {
		text, err := e.text(v)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}
