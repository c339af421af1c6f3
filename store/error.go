package store

import (
	"errors"
	"fmt"
	"time"
)

// Reason is why a store gave no value. It is an error, for errors.Is(err, store.NotFound).
type Reason string

// The reasons. Only [Unavailable] is no answer of the store.
const (
	// NotFound: the store has no such secret.
	NotFound Reason = "not found"
	// Denied: the store knows the caller and refuses.
	Denied Reason = "denied by the store"
	// Unavailable: the store gave no answer; another try may get one.
	Unavailable Reason = "store unavailable"
	// Ended: the login has ended; a new one may help.
	Ended Reason = "the session has ended"
	// Doubt: either Denied or Ended; the store does not say which.
	Doubt Reason = "denied by the store, or the session has ended"
	// Invalid: the request or the answer makes no sense; another try does not help.
	Invalid Reason = "invalid"
)

func (r Reason) Error() string { return string(r) }

// Errorf is an [Error] of this reason.
func (r Reason) Errorf(format string, args ...any) *Error {
	return &Error{Reason: r, Said: fmt.Sprintf(format, args...)}
}

// Error is every failure of a store. It holds no secret, no token and no argument of a
// request.
type Error struct {
	Reason Reason
	// Said is the message: the attempt, the store's words about it, and the cure.
	Said string
	// RequestID is the store's own name for the request; empty if it gave none.
	RequestID string
	// RetryAfter is the pause that the store asked for; zero for none.
	RetryAfter time.Duration
	// Back is closed when the store answers again, which ends the pause; nil is never.
	Back <-chan struct{}
	// Uncertain says of an Unavailable that the store may have carried out the request, such
	// as making a credential: another try may make a second one.
	Uncertain bool
	// Lasting says of an Unavailable that another try in the same mount has no answer either,
	// such as with a certificate that is not trusted.
	Lasting bool
	// Cause is the error beneath, for errors.Is; its text follows Said. nil for none.
	Cause error
}

// Error joins the reason, Said and the text of the cause. A cause of the same reason already
// names it.
func (e *Error) Error() string {
	text := string(e.Reason)
	switch {
	case e.Cause != nil && e.Said == "" && errors.Is(e.Cause, e.Reason):
		return e.Cause.Error()
	case e.Uncertain:
		text += ", and it may have been done"
	}
	if e.Said != "" {
		text += ": " + e.Said
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Is matches the reason, for errors.Is.
func (e *Error) Is(target error) bool { return target == error(e.Reason) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Answered tells whether err is an answer of the store, of any content, rather than silence.
func Answered(err error) bool {
	for _, reason := range []Reason{Denied, Doubt, Ended, NotFound, Invalid} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}
