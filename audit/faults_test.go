package audit_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
)

// many is a mount of a thousand secrets with long paths, all of which end as change has it.
func many(t *testing.T, pod string, change func(*record.Read)) *record.Mount {
	t.Helper()
	m := mounted(t, pod, "1")
	m.Pod.Namespace = "evil"
	one := m.Reads[0]
	m.Reads = nil
	for i := range 1000 {
		r := one
		r.Path = path(t, "evil/"+strings.Repeat("x/", 450)+fmt.Sprint(i))
		r.Secret = &class.Secret{Store: "prod", Path: r.Path}
		change(&r)
		m.Reads = append(m.Reads, r)
	}
	return m
}

// denied makes a refused mount of m.
func denied(m *record.Mount) *record.Mount {
	m.Code, m.Err, m.Message = codes.PermissionDenied, access.ErrDenied, "denied"
	return m
}

// A flood of refused mounts with huge classes costs nobody else a record, and each of them
// says how much of it was left out.
func TestFlood(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	refuse := func(r *record.Read) {
		r.Files, r.Source, r.Err = nil, "", fmt.Errorf("%w: %s", access.ErrDenied, r.Path)
	}
	var mounts []*record.Mount
	for range 8 {
		mounts = append(mounts, denied(many(t, "evil", refuse)))
	}
	during(t, options(openFile(t, name)), func(trail *audit.Trail) {
		var flood sync.WaitGroup
		for _, m := range mounts {
			flood.Go(func() {
				for range 5 {
					_ = trail.Record(t.Context(), m)
				}
			})
		}
		for i := range 200 {
			if err := trail.Record(t.Context(), mounted(t, fmt.Sprint("good-", i), "3")); err != nil {
				t.Errorf("a neighbour is refused: %v", err)
			}
		}
		flood.Wait()
	})
	refused := 0
	for _, r := range lines(t, name) {
		if r.Outcome == audit.Denied && r.Part <= 1 {
			refused++
			if r.Omitted != 1000-64 {
				t.Fatalf("a refused mount leaves out %d of its 1000 secrets, want all but 64", r.Omitted)
			}
		}
	}
	if refused != 40 {
		t.Errorf("%d refused mounts are recorded, want 40", refused)
	}
}

// What is remembered of volumes is bounded by its real size.
func TestMemoryOfVolumes(t *testing.T) {
	absent := func(r *record.Read) { r.Version, r.Source, r.Files, r.Err = "", "", nil, store.NotFound }
	held := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc) //nolint:gosec // G115: no heap is that large
	}
	during(t, options(audit.Stdout(io.Discard, "")), func(trail *audit.Trail) {
		before := held()
		for v := range 16 {
			if err := trail.Record(t.Context(), many(t, fmt.Sprint("evil-", v), absent)); err != nil {
				t.Fatal(err)
			}
		}
		if grown := held() - before; grown > 8<<20 {
			t.Errorf("16 volumes of a thousand secrets take %d MiB, want 8 at most", grown>>20)
		}
	})
}

// Whatever an author, a driver or a store writes, a record fits a line of a collector.
func TestHostileTexts(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	during(t, options(openFile(t, name)), func(trail *audit.Trail) {
		for _, hostile := range []string{"\x01", `"`, `\`, "\u2028", "\xff", "<", "é", "\n"} {
			long := strings.Repeat(hostile, 20_000)
			m := mounted(t, "api-0", long)
			m.Class, m.Message, m.Code, m.Err = long, long, codes.NotFound, store.NotFound
			m.Pod.Namespace, m.Pod.Name, m.Pod.UID, m.Pod.ServiceAccount = long, long, long, long
			r := &m.Reads[0]
			r.Secret = &class.Secret{Store: "prod", Role: long, Path: r.Path, Version: long}
			r.RequestID, r.Err = long, &store.Error{Reason: store.NotFound, Said: long}
			r.Identity.TokenID, r.Identity.Audience, r.Identity.ServiceAccountUID = long, long, long
			if err := trail.Record(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
	})
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if len(line) > 16<<10 {
			t.Errorf("a line has %d bytes: %.200s", len(line), line)
		}
		if canonical, err := audit.Canonical(bytes.TrimSuffix(line, []byte("\n"))); err != nil || len(canonical) != len(line)-1 {
			t.Errorf("not canonical: %v: %.200s", err, line)
		}
	}
}

// Where the file is moved away in the middle of a line, the next one has the whole line.
func TestMovedWithinALine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	torn := &tearing{File: openFile(t, name), move: func() error { return os.Rename(name, name+".moved") }}
	during(t, options(torn), func(trail *audit.Trail) {
		if err := trail.Record(t.Context(), mounted(t, "api-0", "3")); err != nil {
			t.Error(err)
		}
	})
	mounts := 0
	for _, r := range lines(t, name) { // each of which is whole
		if r.Kind == audit.KindMount {
			mounts++
		}
	}
	if mounts != 1 {
		t.Errorf("the new file has the mount %d times", mounts)
	}
}

// tearing is a file on a disk that is full in the middle of the first mount, and that is moved
// away to make room.
type tearing struct {
	*audit.File
	move func() error
}

func (f *tearing) Write(text []byte) (int, error) {
	begin, _, found := bytes.Cut(text, []byte(`"kind":"mount"`))
	if f.move == nil || !found {
		return f.File.Write(text)
	}
	n, err := f.File.Write(begin)
	if err == nil {
		err = f.move()
	}
	f.move = nil
	if err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}

// With republishes: full a sink that stands still costs records, and holds up no republish.
func TestFullNeverBlocksRepublishes(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close(); _ = writer.Close() }()
	o := options(audit.Stdout(writer, ""))
	o.Full = true
	var drained sync.WaitGroup
	during(t, o, func(trail *audit.Trail) {
		if err := trail.Record(t.Context(), mounted(t, "api-0", "3")); err != nil {
			t.Error(err)
		}
		for range 10_000 { // more than the pipe and the memory of the sink hold
			if err := trail.Record(t.Context(), mounted(t, "api-0", "3")); err != nil {
				t.Fatalf("a republish of the same is refused: %v", err)
			}
		}
		drained.Go(func() { _, _ = io.Copy(io.Discard, reader) })
	})
	_ = writer.Close()
	drained.Wait()
}
