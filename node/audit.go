package node

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/mod/sumdb/note"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/secret"
)

// openTrail begins the audit trail, if the operator wants one; else it is nil, which keeps
// nothing.
func openTrail(ctx context.Context, c *config.Config, o Options, key secret.Bytes) (*audit.Trail, error) {
	if !*c.Audit.Enabled {
		return nil, nil //nolint:nilnil // a nil Trail has methods
	}
	var origin note.Signer
	if c.Audit.KeyFile != "" {
		var err error
		if origin, err = audit.ReadKey(c.Audit.KeyFile); err != nil {
			return nil, err
		}
	}
	sinks, last, err := openSinks(ctx, c, o)
	if err != nil {
		return nil, err
	}
	trail, err := audit.New(audit.Options{
		Start: audit.Start{Node: o.Node, Keymount: o.Version, Predecessor: last, Origin: origin, Now: clock},
		Sinks: sinks, Continue: c.Audit.OnFailure == config.OnFailureContinue, Full: c.Audit.Republishes == config.RepublishesFull,
		Key: key, Log: o.Log,
	})
	if err == nil {
		err = trail.Loaded(c.Source.File, c.Source.SHA256, len(c.Stores))
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(sinks))
	}
	return trail, nil
}

// openSinks opens the sinks of keymount.yaml, with the last checkpoint of the trail before.
func openSinks(ctx context.Context, c *config.Config, o Options) (sinks []audit.Sink, last *audit.Predecessor, err error) {
	a := c.Audit
	if a.File != "" {
		file, err := audit.OpenFile(ctx, audit.FileOptions{
			Path: a.File, MaxSize: int64(*a.MaxSizeMiB) << 20, MaxAge: *a.MaxAge, Keep: *a.Keep, Always: a.Sync == config.SyncAlways, Now: clock,
		})
		switch {
		case err == nil:
			sinks, last = append(sinks, file), file.Last()
		case a.OnFailure == config.OnFailureBlock:
			return nil, nil, err
		default:
			o.Log.LogAttrs(ctx, slog.LevelError, "the audit trail has no file until the next start", slog.String("error", err.Error()))
		}
	}
	if *a.Stdout {
		if last == nil {
			if last, err = audit.OpenState(ctx, a.StateFile, o.Log); err != nil {
				return nil, nil, errors.Join(err, closeAll(sinks))
			}
		}
		sinks = append(sinks, audit.Stdout(o.Stdout, a.StateFile))
	}
	return sinks, last, nil
}

func closeAll(sinks []audit.Sink) error {
	var failures []error
	for _, s := range sinks {
		failures = append(failures, s.Close())
	}
	return errors.Join(failures...)
}
