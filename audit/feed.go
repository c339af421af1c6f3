package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// maxBatch bounds the bytes of one write.
	maxBatch = 256 << 10
	// firstPause and maxPause bound the time between two tries of a sink that fails.
	firstPause, maxPause = 50 * time.Millisecond, time.Second
)

// Sink takes the lines of a trail. It is used by one goroutine.
type Sink interface {
	// Name is for messages.
	Name() string
	// Write takes whole lines, like [io.Writer], and returns within seconds. After an error the
	// rest is written again, from the byte on that it did not take; after errAnew, from the
	// begin of the line.
	Write(lines []byte) (int, error)
	// Checkpoint is called when all lines up to a checkpoint are written.
	Checkpoint(last Predecessor) error
	// Close gives it back.
	Close() error
}

// segment is a line on its way to a sink.
type segment struct {
	line       []byte
	seq        int64
	checkpoint *Predecessor // of the line, if it is one
}

// errSlow is the failure of a sink that has not failed.
var errSlow = errors.New("records come faster than it takes them")

// errAnew asks for the unfinished line again, from its beginning: what the sink has taken of
// it is out of reach.
var errAnew = errors.New("the file was moved away within a line")

// feed brings lines to a sink in their order. The lock of its Trail guards it.
type feed struct {
	sink    Sink
	wake    chan struct{} // holds one when there may be lines
	log     *slog.Logger
	waiting []segment
	behind  int   // bytes not taken by the sink
	taken   int64 // number of lines taken: the sink has all with a smaller seq
	failed  error // of the last try
}

func (f *feed) add(s segment) {
	f.waiting = append(f.waiting, s)
	f.behind += len(s.line)
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// failure is why the sink is behind.
func (f *feed) failure() error {
	if f.failed != nil {
		return f.failed
	}
	return fmt.Errorf("%s: %w", f.sink.Name(), errSlow)
}

// run writes until ctx ends.
func (f *feed) run(ctx context.Context, t *Trail) {
	for {
		batch := f.take(t)
		if len(batch) == 0 {
			select {
			case <-f.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if !f.write(ctx, t, batch) {
			return
		}
	}
}

// take is what to write next: up to a checkpoint, or as much as one write may have.
func (f *feed) take(t *Trail) []segment {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, size := 0, 0
	for n < len(f.waiting) && size < maxBatch {
		size += len(f.waiting[n].line)
		n++
		if f.waiting[n-1].checkpoint != nil {
			break
		}
	}
	batch := f.waiting[:n:n]
	f.waiting = f.waiting[n:]
	return batch
}

// write has the sink take a batch, however many tries that needs; false when ctx ends first.
func (f *feed) write(ctx context.Context, t *Trail, batch []segment) bool {
	var text []byte
	for _, s := range batch {
		text = append(text, s.line...)
	}
	last := batch[len(batch)-1]
	pause := firstPause
	for rest := text; ; {
		n, err := f.sink.Write(rest)
		if errors.Is(err, errAnew) {
			done := text[:len(text)-len(rest)]
			rest = text[bytes.LastIndexByte(done, '\n')+1:]
			continue
		}
		if rest = rest[n:]; len(rest) == 0 && err == nil && last.checkpoint != nil {
			err = f.sink.Checkpoint(*last.checkpoint)
		}
		f.report(ctx, t, err)
		if err == nil && len(rest) == 0 {
			break
		}
		if n > 0 {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.behind -= len(text)
	f.taken = last.seq + 1
	close(t.moved)
	t.moved = make(chan struct{})
	return true
}

// report remembers how a try ended, and logs when that has changed.
func (f *feed) report(ctx context.Context, t *Trail, err error) {
	t.mu.Lock()
	before := f.failed
	f.failed = err
	if err != nil {
		t.tally.Failures++
	}
	t.mu.Unlock()
	switch {
	case err != nil && before == nil:
		f.log.LogAttrs(ctx, slog.LevelError, "the audit trail cannot be written", slog.String("sink", f.sink.Name()), slog.String("error", err.Error()))
	case err == nil && before != nil:
		f.log.LogAttrs(ctx, slog.LevelInfo, "the audit trail is written again", slog.String("sink", f.sink.Name()))
	}
}
