package provider

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/internal/room"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store/keep"
)

// reads are the secrets of a mount, each once.
type reads struct {
	list    []*read
	of      []*read        // by their places in the class; two spellings of one secret are one read
	objects []class.Object // which want them
	askers  map[string]*asker
	share   *room.Share // of the mount, for all that it holds; nil before the first fetch
}

// gather makes one read of each secret, for all objects that want something of it, so that
// a username and its password are of the same moment.
func gather(r class.Request, askers map[string]*asker) *reads {
	made := make([]read, len(r.Secrets))
	list := make([]*read, len(made))
	for i := range made {
		one := &made[i]
		one.asker, one.secret = askers[r.Secrets[i].Store], &r.Secrets[i]
		list[i] = one
	}
	return &reads{list: list, of: list, objects: r.Objects, askers: askers}
}

// authorize judges every secret.
func (r *reads) authorize() error {
	for _, one := range r.list {
		one.judge()
	}
	var denials []error
	for i := range r.objects {
		o := &r.objects[i]
		for _, place := range o.Reads {
			if err := r.of[place].err; err != nil {
				denials = append(denials, fmt.Errorf("objects[%d]: %w", o.Index, err))
			}
		}
	}
	return joined(denials)
}

// end puts what came of the reads into the record, and gives the share of the mount back.
func (r *reads) end(m *record.Mount) {
	if r.share != nil {
		defer r.share.End()
	}
	m.Reads = make([]record.Read, len(r.list))
	for i, one := range r.list {
		m.Reads[i] = one.record()
	}
}

// fetch reads everything, at most parallel at a time, once all of it is judged; of a
// secret that is absent and optional there is no value. What is read counts into share;
// once that is full the rest is not read, and the error is errHoldsMuch.
func (r *reads) fetch(ctx context.Context, m *record.Mount, parallel int, share *room.Share) error {
	runtime.Gosched() // grpc's writer has its turn here: on another processor it costs a warm mount a quarter of its time
	r.share = share
	for _, one := range r.list {
		one.share = share
	}
	r.take(ctx, step{(*read).recallPath, (*read).resolve}, parallel)
	if err := r.failures(); err != nil {
		return err
	}
	r.merge()
	r.take(ctx, step{(*read).recall, (*read).ask}, parallel)
	if share.Full() {
		return errHoldsMuch
	}
	for _, one := range r.list {
		if one.failed() {
			continue
		}
		for _, text := range one.answer.Warnings {
			m.Warnings = append(m.Warnings, fmt.Sprintf("%s: %s", one.secret, text))
		}
	}
	return r.failures()
}

// take takes a step, for which everything is recalled anew: the one before may have waited.
func (r *reads) take(ctx context.Context, s step, parallel int) {
	for _, a := range r.askers {
		a.recalled = recalled{}
	}
	s.take(ctx, r.list, parallel)
}

// drop forgets what was read, and that it was too much.
func (r *reads) drop() {
	r.share.End()
	for _, one := range r.list {
		one.answer, one.err, one.share = keep.Answer{}, nil, nil
	}
}

// oneSpelling is a secret in its one spelling; what is no ordinary secret shares nothing
// with a secret of that name.
type oneSpelling struct {
	class.Secret
	literal string
}

// merge makes one read of two spellings of a secret, so that a username and its
// password are of the same moment however they are spelt.
func (r *reads) merge() {
	if !slices.ContainsFunc(r.list, (*read).respelt) {
		return // no two are alike
	}
	known := make(map[oneSpelling]*read, len(r.list))
	first := make(map[*read]*read, len(r.list))
	all := r.list
	r.list = make([]*read, 0, len(all))
	for _, one := range all {
		spelt := oneSpelling{*one.secret, one.resolved.Literal}
		spelt.Path = one.resolved.Path
		if known[spelt] == nil {
			known[spelt] = one
			r.list = append(r.list, one)
		}
		first[one] = known[spelt]
	}
	of := make([]*read, len(r.of))
	for place, one := range r.of {
		of[place] = first[one]
	}
	r.of = of
}

// failures says of each read why there is no value, and names the objects that cannot be
// made without it.
func (r *reads) failures() error {
	if !slices.ContainsFunc(r.list, (*read).failed) {
		return nil
	}
	wanting := r.wanting()
	var failures []error
	for _, one := range r.list {
		if names := wanting[one]; len(names) > 0 {
			failures = append(failures, fmt.Errorf("%s: %s: %w", strings.Join(names, ", "), one.secret, one.err))
		}
	}
	return joined(failures)
}

func (r *reads) wanting() map[*read][]string {
	wanting := map[*read][]string{}
	for i := range r.objects {
		o := &r.objects[i]
		name := fmt.Sprintf("objects[%d]", o.Index)
		for _, place := range o.Reads {
			one := r.of[place]
			if names := wanting[one]; one.wantedBy(o) && !slices.Contains(names[max(0, len(names)-1):], name) {
				wanting[one] = append(names, name)
			}
		}
	}
	return wanting
}
