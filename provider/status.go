package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/store"
)

// maxMessage keeps an error readable in an event; Kubernetes cuts at 1 KiB.
const maxMessage = 8 << 10

// statusOf gives an error its gRPC code, in this one place.
//
// Only final codes are here. With rotation on, the driver takes a retry after
// Unavailable, DeadlineExceeded, ResourceExhausted, Aborted or Canceled for a
// fresh mount and starts the pod without its files (promise 1).
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codeOf(err), message(err))
}

func codeOf(err error) codes.Code {
	var panicked *store.Panic
	for _, kind := range []struct {
		is   bool
		code codes.Code
	}{
		{errors.As(err, &panicked), codes.Internal},
		{errors.Is(err, ErrRequest), codes.InvalidArgument},
		{errors.Is(err, auth.ErrToken), codes.Unauthenticated},
		{errors.Is(err, access.ErrDenied), codes.PermissionDenied},
		{errors.Is(err, store.ErrDenied), codes.PermissionDenied},
		{errors.Is(err, store.ErrDoubt), codes.PermissionDenied},
		{errors.Is(err, store.ErrSession), codes.PermissionDenied},
		{errors.Is(err, store.ErrNotFound), codes.NotFound},
		{errors.Is(err, ErrTooLarge), codes.FailedPrecondition},
		{errors.Is(err, store.ErrInvalid), codes.FailedPrecondition},
		{errors.Is(err, store.ErrUnavailable), codes.FailedPrecondition},
		{errors.Is(err, auth.ErrKeys), codes.FailedPrecondition},
		{errors.Is(err, context.DeadlineExceeded), codes.FailedPrecondition},
		{errors.Is(err, context.Canceled), codes.FailedPrecondition},
	} {
		if kind.is {
			return kind.code
		}
	}
	return codes.Internal
}

// joined is errors.Join for a message that people read: the rest is counted.
func joined(failures []error) error {
	failures = slices.DeleteFunc(failures, func(err error) bool { return err == nil })
	if more := len(failures) - maxMistakes; more > 0 {
		failures = append(failures[:maxMistakes:maxMistakes], fmt.Errorf("and %d more", more))
	}
	return errors.Join(failures...)
}

// message is err's text in what a gRPC status and an event can hold.
func message(err error) string { return cut(err.Error()) }

func cut(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= maxMessage {
		return text
	}
	end := maxMessage
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + " ... (cut)"
}
