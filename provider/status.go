package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/contain"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
)

// maxFailures is how many failures one error spells out.
const maxFailures = 20

// errStopping is the answer of a mount that takes longer than a stop can.
var errStopping = errors.New("keymount is stopping; the next try is answered when it has started again")

// errRecord: a Recorder failed, and with it the mount.
var errRecord = errors.New("the record of this mount cannot be written")

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
	var panicked *contain.Panic
	for _, kind := range []struct {
		is   bool
		code codes.Code
	}{
		{errors.As(err, &panicked), codes.Internal},
		{errors.Is(err, class.ErrRequest), codes.InvalidArgument},
		{errors.Is(err, auth.ErrToken), codes.Unauthenticated},
		{errors.Is(err, access.ErrDenied), codes.PermissionDenied},
		{errors.Is(err, store.Denied), codes.PermissionDenied},
		{errors.Is(err, store.Doubt), codes.PermissionDenied},
		{errors.Is(err, store.Ended), codes.PermissionDenied},
		{errors.Is(err, store.NotFound), codes.NotFound},
		{errors.Is(err, ErrTooLarge), codes.FailedPrecondition},
		{errors.Is(err, store.Invalid), codes.FailedPrecondition},
		{errors.Is(err, store.Unavailable), codes.FailedPrecondition},
		{errors.Is(err, auth.ErrKeys), codes.FailedPrecondition},
		{errors.Is(err, errStopping), codes.FailedPrecondition},
		{errors.Is(err, context.DeadlineExceeded), codes.FailedPrecondition},
		{errors.Is(err, context.Canceled), codes.FailedPrecondition},
		{errors.Is(err, errRecord), codes.FailedPrecondition},
	} {
		if kind.is {
			return kind.code
		}
	}
	return codes.Internal
}

// joined is errors.Join for a readable message: beyond a few errors the rest is counted.
func joined(failures []error) error {
	failures = slices.DeleteFunc(failures, func(err error) bool { return err == nil })
	if more := len(failures) - maxFailures; more > 0 {
		failures = append(failures[:maxFailures:maxFailures], fmt.Errorf("and %d more", more))
	}
	return errors.Join(failures...)
}

// message is err's text at the size of a gRPC status and an event.
func message(err error) string { return record.Fit(err.Error()) }
