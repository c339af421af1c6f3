package form

import (
	"cmp"
	"encoding/json"
)

// The comparisons are text/template's, but pay for the bytes they look through, and
// their errors hold no values.

const uncomparable = `these do not compare; a number of a secret compares to a number in quotes, as in: eq .port "5432"`

// eq tells whether the first value equals one of the others.
func (e *execution) eq(first any, others ...any) (bool, error) {
	if len(others) == 0 {
		return false, faultf("too few or too many arguments")
	}
	for _, other := range others {
		if first == nil || other == nil {
			if first == nil && other == nil {
				return true, nil
			}
			continue
		}
		order, err := e.compare(first, other)
		if err != nil || order == 0 {
			return err == nil, err
		}
	}
	return false, nil
}

func (e *execution) ne(a, b any) (bool, error) {
	equal, err := e.eq(a, b)
	return !equal, err
}

func (e *execution) lt(a, b any) (bool, error) {
	return e.ordered(a, b, func(order int) bool { return order < 0 })
}

func (e *execution) le(a, b any) (bool, error) {
	return e.ordered(a, b, func(order int) bool { return order <= 0 })
}

func (e *execution) gt(a, b any) (bool, error) {
	return e.ordered(a, b, func(order int) bool { return order > 0 })
}

func (e *execution) ge(a, b any) (bool, error) {
	return e.ordered(a, b, func(order int) bool { return order >= 0 })
}

func (e *execution) ordered(a, b any, is func(int) bool) (bool, error) {
	if _, isBool := a.(bool); isBool {
		return false, faultf(uncomparable)
	}
	order, err := e.compare(a, b)
	return err == nil && is(order), err
}

// compare orders two texts (a number of a secret is one, as it was written), two
// numbers of the template, or two booleans.
func (e *execution) compare(a, b any) (int, error) {
	if a, ok := textOf(a); ok {
		if b, ok := textOf(b); ok {
			return cmp.Compare(a, b), e.look(min(len(a), len(b)) + 1)
		}
	}
	if a, ok := numberOf(a); ok {
		if b, ok := numberOf(b); ok {
			return cmp.Compare(a, b), nil
		}
	}
	aBool, aIs := a.(bool)
	bBool, bIs := b.(bool)
	switch {
	case !aIs || !bIs:
		return 0, faultf(uncomparable)
	case aBool == bBool:
		return 0, nil
	default:
		return 1, nil
	}
}

func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return string(v), true
	}
	return "", false
}

func numberOf(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
