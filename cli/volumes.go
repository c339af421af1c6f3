package cli

import (
	"context"
	"log/slog"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/store"
)

// leavers are told of volumes that are gone: each store gives back what it made for them.
type leavers struct {
	kept     []store.Kept
	sessions []*auth.Sessions
}

func (l *leavers) add(kept store.Kept, sessions *auth.Sessions) {
	l.kept, l.sessions = append(l.kept, kept), append(l.sessions, sessions)
}

// left takes what kube.Volumes tells.
func (l *leavers) left(v kube.Volume, last bool) {
	for _, kept := range l.kept {
		kept.Leave(v.Namespace, v.PodUID, v.Class)
	}
	if !last { // a login that is the pod's own serves its other volumes
		return
	}
	for _, sessions := range l.sessions {
		sessions.Left(v.Namespace, v.PodUID)
	}
}

// watchVolumes tells those who leave of volumes that are gone, if the operator wants it.
func watchVolumes(c *config.Config, node string, gone *leavers, log *slog.Logger) ([]part, error) {
	if !c.WatchVolumes {
		return nil, nil
	}
	volumes, err := kube.ClusterVolumes(node, gone.left)
	if err != nil {
		return nil, err
	}
	return []part{func(ctx context.Context) error { volumes.Run(ctx, log); return nil }}, nil
}
