package provider_test

import (
	"context"
	"strings"
	"testing"

	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/provider"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// volumes notes the class of every volume that it is read for.
type volumes struct {
	provider.Store
	classes []string
}

func (v *volumes) Read(ctx context.Context, request login.Request, ref store.Ref, resolved store.Resolved) (keep.Answer, error) {
	v.classes = append(v.classes, request.Volume.Class)
	return v.Store.Read(ctx, request, ref, resolved)
}

func (*volumes) Recall(login.Request) keep.Recollection { return forgetful{} }

// A pod's author names the class, and what is made for the volume keeps the name: it is
// no longer than that of a Kubernetes object.
func TestVolumesHaveShortNames(t *testing.T) {
	noted := &volumes{}
	w := start(t, func(_ *world, s *setup) {
		noted.Store = s.options.Backends[0].Store
		s.options.Backends[0].Store = noted
	})
	w.memory.Set("shop/db", map[string]any{"password": canary})
	v := w.volume(pod("shop", "api"), oneKey)
	v.Class = strings.Repeat("c", 64<<10)
	if _, _, err := w.mount(t, v); err != nil {
		t.Fatal(err)
	}
	const most = 256
	if len(noted.classes) != 1 || len(noted.classes[0]) > most {
		t.Errorf("%d reads, and the name of a class has %d bytes", len(noted.classes), len(strings.Join(noted.classes, "")))
	}
}
