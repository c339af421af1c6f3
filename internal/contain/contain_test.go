package contain_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keymount/keymount/internal/contain"
)

// A panic is an error with a stack. Its value, which may be a secret, is told of a
// fault of the Go runtime alone.
func TestDo(t *testing.T) {
	const canary = "canary-b1c5"
	var none []int
	for name, test := range map[string]struct {
		f     func() (int, error)
		cause string
	}{
		"a text":    {func() (int, error) { panic(canary) }, "string"},
		"an error":  {func() (int, error) { panic(errors.New(canary)) }, "*errors.errorString"},
		"a fault":   {func() (int, error) { return none[len(canary)], nil }, "runtime error: index out of range [11] with length 0"},
		"no panic":  {func() (int, error) { return 7, nil }, ""},
		"a failure": {func() (int, error) { return 0, errors.New("no") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := contain.Do(test.f)
			p, panicked := errors.AsType[*contain.Panic](err)
			if panicked != (test.cause != "") {
				t.Fatalf("%d, %v", result, err)
			}
			if !panicked {
				return
			}
			if p.Cause != test.cause || !strings.Contains(p.Stack, "contain_test.go") || strings.Contains(p.Cause+err.Error(), canary) {
				t.Errorf("cause %q, message %q, stack %s", p.Cause, err, p.Stack)
			}
		})
	}
}
