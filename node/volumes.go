package node

import (
	"context"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/kube"
	"github.com/keymount/keymount/login"
)

// revoker revokes the credentials of a volume.
type revoker interface{ Leave(volume auth.Volume) }

// removals tell every store of a removed volume, so that it revokes the credentials.
type removals struct {
	kept     []revoker
	sessions []*login.Sessions
}

// add takes a store's memory and its logins, which may be nil.
func (r *removals) add(kept revoker, sessions *login.Sessions) {
	r.kept = append(r.kept, kept)
	if sessions != nil {
		r.sessions = append(r.sessions, sessions)
	}
}

// removed is called for a removed volume; last tells that the pod has no other one.
func (r *removals) removed(v auth.Volume, last bool) {
	for _, kept := range r.kept {
		kept.Leave(v)
	}
	if !last { // the pod's own login serves its other volumes
		return
	}
	for _, sessions := range r.sessions {
		sessions.Left(v.Namespace, v.PodUID)
	}
}

// watchVolumes tells the stores of removed volumes, if the operator wants it.
func watchVolumes(c *config.Config, o Options, r *removals) ([]part, error) {
	if !c.WatchVolumes {
		return nil, nil
	}
	volumes, err := kube.ClusterVolumes(o.Node, r.removed)
	if err != nil {
		return nil, err
	}
	return []part{func(ctx context.Context) error { volumes.Run(ctx, o.Log); return nil }}, nil
}
