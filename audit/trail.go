package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/keymount/keymount/internal/lru"
	"github.com/keymount/keymount/internal/secret"
)

const (
	// checkpointEvery and checkpointRecords bound what a checkpoint leaves unsigned.
	checkpointEvery   = time.Second
	checkpointRecords = 256
	// sumEvery is the interval over which unchanged republishes are summed.
	sumEvery = time.Hour
	// writeLimit is the time after which a mount does not wait for its record any more.
	writeLimit = 2 * time.Second
	// lastMoment is what is left of that where the caller has ended: its answer is waited for,
	// though not for long.
	lastMoment = 200 * time.Millisecond
	// maxBehind bounds the bytes that a sink is behind; a mount waits for room.
	maxBehind = 4 << 20
	// maxVolumes bounds the remembered volumes, and maxVolumesSize what is remembered of
	// them: a forgotten one has its next mount recorded in full.
	maxVolumes, maxVolumesSize = 4096, 4 << 20
)

// ErrNotWritten wraps every failure to write a record.
var ErrNotWritten = errors.New("audit trail")

// cure ends the message of a mount that fails without its record.
const cure = "; make room for the trail, or a reader, on this node, or set audit.onFailure: continue"

// errFull says that a sink is too far behind for another record.
var errFull = errors.New("the records before it are not written yet")

// Options are the parts of a Trail. Sinks and Now are required.
type Options struct {
	Start
	Sinks []Sink
	// Continue lets a mount go on without its record; otherwise it fails.
	Continue bool
	// Full records every mount, also those that deliver the same as before.
	Full bool
	// Key makes the names of leases, which have to be the same after a restart; without one
	// they change with each process.
	Key secret.Bytes
	Log *slog.Logger
}

// Trail is the audit trail of a process: a Recorder of package provider, and a watcher of the
// logins and leases of stores. It is safe for concurrent use; a nil *Trail keeps nothing.
type Trail struct {
	o Options

	mu      sync.Mutex
	chain   *Chain
	ended   bool
	feeds   []*feed
	moved   chan struct{} // closed, and replaced, when a sink has taken lines
	volumes *lru.Cache[volume, *delivered]
	counts  map[volume]*Count
	summed  time.Time // when counts were last put into the trail
	leases  *lru.Cache[holder, string]
	lost    Lost // since the last record of that kind
	tally   Tally
}

// Tally is what a trail counts for metrics.
type Tally struct {
	Records, Lost, Failures uint64 // Failures are failed tries of a sink
}

// New begins a trail, with a record that waits for [Trail.During] to be written.
func New(o Options) (*Trail, error) {
	chain, line, err := NewChain(o.Start)
	if err != nil {
		return nil, err
	}
	if o.Key.Len() == 0 {
		o.Key = randomKey()
	}
	t := &Trail{
		o: o, chain: chain, moved: make(chan struct{}), summed: o.Now(),
		volumes: lru.New[volume, *delivered](maxVolumes, maxVolumesSize), counts: map[volume]*Count{},
		leases: lru.New[holder, string](maxVolumes, 0),
	}
	for _, sink := range o.Sinks {
		t.feeds = append(t.feeds, &feed{sink: sink, wake: make(chan struct{}, 1), log: o.Log})
	}
	t.enqueueLocked(line, 0, nil)
	return t, nil
}

// Tally is what was counted so far.
func (t *Trail) Tally() Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tally
}

// put makes a record part of the trail, and waits for no sink. Where one is too far behind
// the record is lost, unless the trail goes on without that sink.
func (t *Trail) put(r Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _, err := t.putLocked(r)
	if errors.Is(err, errFull) {
		t.loseLocked()
		return fmt.Errorf("%w: %w", ErrNotWritten, err)
	}
	return err
}

// putMount makes the record of a mount part of the trail, behind the sum of those before it
// that delivered the same: the numbers of its first and last line. It waits for room.
func (t *Trail) putMount(wait *patience, key volume, r Record) (first, last int64, err error) {
	for {
		var moved <-chan struct{}
		first, last, moved, err = t.tryMount(key, r)
		if !errors.Is(err, errFull) {
			return first, last, err
		}
		if !wait.until(moved) {
			t.lose()
			return 0, 0, fmt.Errorf("%w: %w", ErrNotWritten, err)
		}
	}
}

// tryMount is putMount without a wait, and the channel that is closed when there may be room.
func (t *Trail) tryMount(key volume, r Record) (first, last int64, moved <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sumOneLocked(key)
	first, last, err = t.putLocked(r)
	return first, last, t.moved, err
}

// putLocked makes a record part of the trail; errFull where a sink is too far behind.
func (t *Trail) putLocked(r Record) (first, last int64, err error) {
	switch {
	case t.ended:
		return 0, 0, fmt.Errorf("%w: keymount is stopping", ErrNotWritten)
	case len(t.feeds) == 0: // its file could not be opened, and it goes on
		t.loseLocked()
		return 0, 0, fmt.Errorf("%w: it has no sink", ErrNotWritten)
	case !t.o.Continue && t.fullLocked() != nil:
		return 0, 0, fmt.Errorf("%w: %w", errFull, t.fullLocked())
	}
	t.tellLostLocked()
	if err := t.signLocked(checkpointRecords); err != nil {
		return 0, 0, err
	}
	lines, first, err := t.chain.Append(r)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrNotWritten, err)
	}
	t.tally.Records++
	for i, line := range lines {
		last = first + int64(i)
		t.enqueueLocked(line, last, nil)
	}
	return first, last, t.signLocked(checkpointRecords)
}

// signLocked makes a checkpoint where so many records are not signed.
func (t *Trail) signLocked(least int) error {
	if t.chain.Unsigned() < least {
		return nil
	}
	return t.checkpointLocked()
}

// fullLocked is the failure of a sink that is too far behind; nil without one.
func (t *Trail) fullLocked() error {
	for _, f := range t.feeds {
		if f.behind > maxBehind {
			return f.failure()
		}
	}
	return nil
}

func (t *Trail) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.loseLocked()
}

// loseLocked counts a record that is in no trail.
func (t *Trail) loseLocked() {
	t.tally.Lost++
	now := timeText(t.o.Now())
	if t.lost.Count++; t.lost.Count == 1 {
		t.lost.First = now
	}
	t.lost.Last = now
}

// tellLostLocked has the trail say how many records are missing.
func (t *Trail) tellLostLocked() {
	if t.lost.Count == 0 || t.fullLocked() != nil {
		return
	}
	lost := t.lost
	t.lost = Lost{}
	if lines, first, err := t.chain.Append(Record{Kind: KindLost, Lost: &lost}); err == nil {
		t.enqueueLocked(lines[0], first, nil)
	}
}

// checkpointLocked signs what is not signed yet.
func (t *Trail) checkpointLocked() error {
	line, last, err := t.chain.Checkpoint()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotWritten, err)
	}
	t.enqueueLocked(line, t.chain.seq-1, &last)
	return nil
}

// enqueueLocked hands a line to all sinks. One that is too far behind, in a trail that goes
// on without it, misses it: what it has then lacks these lines, and a later record says so.
func (t *Trail) enqueueLocked(line []byte, seq int64, checkpoint *Predecessor) {
	one := segment{line: append(line, '\n'), seq: seq, checkpoint: checkpoint}
	for _, f := range t.feeds {
		if f.behind > maxBehind {
			t.loseLocked()
			continue
		}
		f.add(one)
	}
}

// await returns nil once every sink has the line of that number, and an error when that
// takes too long; unless it is patient, also when a sink is known to fail.
func (t *Trail) await(wait *patience, seq int64, patient bool) error {
	for {
		t.mu.Lock()
		behind, moved := t.behindLocked(seq), t.moved
		if behind == nil {
			t.mu.Unlock()
			return nil
		}
		failure, known := behind.failure(), behind.failed != nil
		t.mu.Unlock()
		if known && !patient || !wait.until(moved) {
			return fmt.Errorf("%w: %w", ErrNotWritten, failure)
		}
	}
}

// patience is how long a mount waits for the trail.
type patience struct {
	late  *time.Timer
	ended <-chan struct{} // of the caller; nil once it has
}

// newPatience waits for writeLimit, and less where the caller would get an answer made up by
// grpc meanwhile: before its deadline, or at a stop.
func newPatience(ctx context.Context) *patience {
	limit := writeLimit
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)*3/4)
	}
	return &patience{time.NewTimer(limit), ctx.Done()}
}

func (p *patience) end() { p.late.Stop() }

// until waits for moved; false when it has taken too long.
func (p *patience) until(moved <-chan struct{}) bool {
	select {
	case <-moved:
		return true
	case <-p.late.C:
		return false
	case <-p.ended:
		p.ended = nil
		p.late.Reset(lastMoment)
		return p.until(moved)
	}
}

// behindLocked is a sink without the line of that number.
func (t *Trail) behindLocked(seq int64) *feed {
	for _, f := range t.feeds {
		if f.taken <= seq {
			return f
		}
	}
	return nil
}

// During writes records while serve runs, and then the end of the trail.
func (t *Trail) During(ctx context.Context, serve func() error) error {
	if t == nil {
		return serve()
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var feeds sync.WaitGroup
	for _, f := range t.feeds {
		feeds.Go(func() { f.run(ctx, t) })
	}
	ticking, last := context.WithCancel(ctx)
	feeds.Go(func() { t.tick(ticking) })
	err := serve()
	last()
	t.end()
	wait := newPatience(ctx)
	defer wait.end()
	_ = t.await(wait, t.next()-1, true) // a sink that takes nothing has said so
	stop()
	feeds.Wait()
	t.Close(ctx)
	return err
}

// Close gives the sinks back; During does it, too.
func (t *Trail) Close(ctx context.Context) {
	if t == nil {
		return
	}
	for _, f := range t.feeds {
		if err := f.sink.Close(); err != nil {
			t.o.Log.LogAttrs(ctx, slog.LevelError, "the audit trail was not closed",
				slog.String("sink", f.sink.Name()), slog.String("error", err.Error()))
		}
	}
}

// Loaded records that a keymount.yaml was loaded, and signs that: also a process that is
// killed within its first second leaves a checkpoint for the next one to name.
func (t *Trail) Loaded(file, sha256 string, stores int) error {
	if err := t.put(Record{Kind: KindConfig, Config: &Config{File: cut(file, maxText), SHA256: sha256, Stores: stores}}); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.checkpointLocked()
}

// tick makes checkpoints and sums until ctx ends.
func (t *Trail) tick(ctx context.Context) {
	every := time.NewTicker(checkpointEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			t.mu.Lock()
			if since := t.o.Now().Sub(t.summed); since >= sumEvery || since < 0 { // or the clock was set back
				t.sumLocked()
			}
			t.tellLostLocked()
			if err := t.signLocked(1); err != nil {
				t.o.Log.LogAttrs(ctx, slog.LevelError, "the audit trail is not signed", slog.String("error", err.Error()))
			}
			t.mu.Unlock()
		}
	}
}

// next is the number of the next record.
func (t *Trail) next() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.chain.seq
}

// end puts the last sums into the trail, and signs its end.
func (t *Trail) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sumLocked()
	t.tellLostLocked()
	t.ended = true
	if line, last, err := t.chain.End(); err == nil {
		t.enqueueLocked(line, t.chain.seq-1, &last)
	}
}
