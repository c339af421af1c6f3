// Package mlog has the five names that the Secrets Store CSI driver uses of
// monis.app/mlog, a front of klog, so that the driver builds where the domain of
// that module cannot be reached. What the driver logs goes to klog as it stands,
// in klog's text format.
package mlog

import (
	"context"
	"fmt"

	"k8s.io/klog/v2" //nolint:depguard // it is what the driver logs with
)

// The formats that the driver's flag chooses from.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Setup returns what ends logging.
func Setup() func() { return klog.Flush }

// Error logs an error.
func Error(msg string, err error, keysAndValues ...any) {
	klog.ErrorSDepth(1, err, msg, keysAndValues...)
}

// Fatal logs an error and ends the process.
func Fatal(err error) { klog.FatalDepth(1, err) }

// ValidateAndSetKlogLevelAndFormatGlobally keeps the level, which klog's own flag
// has set by now.
func ValidateAndSetKlogLevelAndFormatGlobally(_ context.Context, _ klog.Level, format string) error {
	if format != FormatText {
		return fmt.Errorf("log format %q: only %q is built in", format, FormatText)
	}
	return nil
}
