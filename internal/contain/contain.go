// Package contain stops a panic at the border of the work around it, a request or a
// goroutine, and returns it as an error: one bad request harms one request.
package contain

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
)

// Panic is a stopped panic. Its message is for users, its Stack for the log.
type Panic struct {
	Cause string
	Stack string
}

// Recovered makes a Panic of a value from recover. It keeps the message of a Go runtime
// error; any other value may hold a secret, and only its type is kept.
func Recovered(value any) *Panic {
	p := &Panic{Cause: fmt.Sprintf("%T", value), Stack: string(debug.Stack())}
	if fault, ok := value.(runtime.Error); ok {
		p.Cause = fault.Error()
	}
	return p
}

func (p *Panic) Error() string {
	return "keymount ran into a bug of its own; its log has the stack, please report it"
}

// Attrs are the log attributes of the panic in err; none without one.
func Attrs(err error) []slog.Attr {
	p, ok := errors.AsType[*Panic](err)
	if !ok {
		return nil
	}
	return []slog.Attr{slog.String("panic", p.Cause), slog.String("stack", p.Stack)}
}

// Run calls f. A panic of f becomes the error, a [*Panic].
func Run(f func() error) error {
	_, err := Do(func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// Do is [Run] for an f with a result.
func Do[T any](f func() (T, error)) (result T, err error) {
	defer func() {
		if p := recover(); p != nil {
			var none T
			result, err = none, Recovered(p)
		}
	}()
	return f()
}
