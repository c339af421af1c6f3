package store

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Panic is a panic that was stopped at the border of what it belongs to: a request,
// or a question that several requests share.
type Panic struct {
	Cause string
	Stack string
}

// Recovered keeps the message of a fault of the Go runtime. Any other value may
// hold a secret: only its type is told.
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
