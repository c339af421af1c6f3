package form

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// print is text/template's, with null as nothing and lists and maps as JSON.
func (e *execution) print(values ...any) (string, error) { return e.sprint(fmt.Sprint, values) }

func (e *execution) println(values ...any) (string, error) { return e.sprint(fmt.Sprintln, values) }

func (e *execution) sprint(made func(...any) string, values []any) (string, error) {
	n := 0
	printable := make([]any, 0, len(values))
	for _, v := range values {
		switch v.(type) {
		case bool, int, int64, float64: // fmt puts a space between two of these
			printable = append(printable, v)
			n += maxNumber
			continue
		}
		text, err := e.text(v)
		if err != nil {
			return "", err
		}
		printable = append(printable, text)
		if n += len(text) + 1; n > maxResult {
			break // too much in any case
		}
	}
	if err := e.charge(n); err != nil {
		return "", err
	}
	return made(printable...), nil
}

const (
	maxWidth  = 999
	maxDigits = 3
	// maxNumber is the length of a number without its precision: %f of the largest
	// one has 309 digits before the point.
	maxNumber = 330
	// perByte is the most a verb makes of one byte: 0xff and a space with "% #x".
	perByte = 5
)

// printf is fmt's for texts, numbers and booleans. Its mistakes are errors, where
// fmt would write %!d(string=...) into the file.
func (e *execution) printf(format string, values ...any) (string, error) {
	var b strings.Builder
	next, used := 0, 0
	for {
		literal, rest, found := strings.Cut(format, "%")
		if err := e.add(&b, literal); err != nil || !found {
			return ended(b.String(), len(values)-used, err)
		}
		var d directive
		var err error
		if d, format, err = parseDirective(rest); err != nil {
			return "", err
		}
		if d.verb == '%' {
			b.WriteByte('%')
			continue
		}
		if d.argument > 0 {
			next = d.argument - 1
		}
		if next >= len(values) {
			return "", faultf("printf has fewer values than verbs")
		}
		written, err := e.format(d, values[next])
		if err != nil {
			return "", err
		}
		if err := e.add(&b, written); err != nil {
			return "", err
		}
		next++
		used = max(used, next)
	}
}

func ended(text string, unused int, err error) (string, error) {
	if err == nil && unused > 0 {
		err = faultf("printf has more values than verbs")
	}
	return text, err
}

// add lets the result of printf grow.
func (e *execution) add(b *strings.Builder, text string) error {
	if err := e.fits(b.Len() + len(text)); err != nil {
		return err
	}
	b.WriteString(text)
	return e.charge(len(text))
}

// directive is the part after a percent sign: %[flags][width][.precision][[argument]]verb.
type directive struct {
	layout   string // flags, width and precision, as written
	argument int    // 0 for the next one
	verb     byte
}

func parseDirective(text string) (d directive, rest string, err error) {
	flags := len(text) - len(strings.TrimLeft(text, "+-# 0"))
	width := digits(text[flags:])
	end := flags + width
	precision := 0
	if strings.HasPrefix(text[end:], ".") {
		precision = digits(text[end+1:])
		end += 1 + precision
	}
	d.layout, rest = text[:end], text[end:]
	if width > maxDigits || precision > maxDigits {
		return d, "", faultf("printf takes no width and precision over 999")
	}
	if strings.HasPrefix(rest, "[") {
		number, after, found := strings.Cut(rest[1:], "]")
		n, err := strconv.Atoi(number)
		if !found || err != nil || n < 1 {
			return d, "", faultf("printf takes the number of a value as in %%[1]s")
		}
		d.argument, rest = n, after
	}
	switch {
	case strings.HasPrefix(rest, "*"):
		return d, "", faultf("printf takes no * for a width or precision")
	case rest == "":
		return d, "", faultf("printf: the text ends in a percent sign; write %%%% for one")
	}
	d.verb = rest[0]
	return d, rest[1:], nil
}

// digits is the number of digits in front.
func digits(text string) int { return len(text) - len(strings.TrimLeft(text, "0123456789")) }

// format is v as the directive wants it. An error about a verb does not name it,
// because the format may be a value.
func (e *execution) format(d directive, v any) (string, error) {
	_, isText := v.(string)
	switch {
	case strings.IndexByte("svq", d.verb) >= 0, strings.IndexByte("xX", d.verb) >= 0 && isText:
		return e.formatText(d, v)
	case strings.IndexByte("dboxXc", d.verb) >= 0:
		if n, ok := whole(v); ok {
			return fmt.Sprintf("%"+d.layout+string(d.verb), n), nil
		}
		return "", faultf("printf: the verb takes a whole number")
	case strings.IndexByte("feEgG", d.verb) >= 0:
		if f, ok := float(v); ok {
			return fmt.Sprintf("%"+d.layout+string(d.verb), f), nil
		}
		return "", faultf("printf: the verb takes a number")
	case d.verb == 't':
		if b, ok := v.(bool); ok {
			return fmt.Sprintf("%"+d.layout+"t", b), nil
		}
		return "", faultf("printf: the verb takes true or false")
	}
	return "", faultf("printf knows the verbs s, v, q, x, X, d, b, o, c, f, e, E, g, G and t")
}

func (e *execution) formatText(d directive, v any) (string, error) {
	text, err := e.text(v)
	if err != nil {
		return "", err
	}
	most := len(text)
	if d.verb == 'v' {
		d.verb = 's'
	}
	if d.verb != 's' {
		most *= perByte
	}
	if err := e.fits(most + 2*maxWidth); err != nil {
		return "", err
	}
	return fmt.Sprintf("%"+d.layout+string(d.verb), text), nil
}

func float(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case json.Number:
		f, err := v.Float64()
		return f, err == nil
	}
	return 0, false
}
