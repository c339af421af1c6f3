package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/keymount/keymount/access"
	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/record"
	"github.com/keymount/keymount/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are those of a trail with these sinks.
func options(sinks ...audit.Sink) audit.Options {
	return audit.Options{
		Start: audit.Start{Node: "worker-1", Keymount: "v1.2.3", Now: time.Now}, Sinks: sinks, Log: slog.New(slog.DiscardHandler),
	}
}

// during runs a trail for a story.
func during(tb testing.TB, o audit.Options, story func(*audit.Trail)) {
	tb.Helper()
	trail, err := audit.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	_ = trail.During(tb.Context(), func() error { story(trail); return nil })
}

// openFile is a file sink, with changes to its options.
func openFile(t *testing.T, name string, changes ...func(*audit.FileOptions)) *audit.File {
	t.Helper()
	o := audit.FileOptions{Path: name, MaxSize: 1 << 30, MaxAge: time.Hour, Now: time.Now}
	for _, change := range changes {
		change(&o)
	}
	file, err := audit.OpenFile(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func path(tb testing.TB, text string) store.Path {
	tb.Helper()
	p, err := store.ParsePath(text)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// mounted is the delivery of version of shop/db to a pod.
func mounted(tb testing.TB, pod, version string) *record.Mount {
	tb.Helper()
	db := path(tb, "shop/db")
	return &record.Mount{
		Pod: auth.Pod{Namespace: "shop", Name: pod, UID: "uid-" + pod, ServiceAccount: "api"}, Class: "app", Files: 1,
		Delivered: []record.File{{Path: "f", Version: "hash-of-" + version}}, Began: time.Now(), Took: time.Millisecond, Code: codes.OK,
		Reads: []record.Read{{
			Secret:   &class.Secret{Store: "prod", Role: "shop", Path: db},
			Identity: &auth.Identity{Namespace: "shop", ServiceAccount: "api", ServiceAccountUID: "uid-of-api", Audience: "vault", TokenID: "jti-1"},
			Rule:     access.Decision{Allowed: true, Rule: "stores[0].access[1]"}, Path: db,
			Version: version, RequestID: "request-" + version, Source: record.FromStore, Files: []string{"password"},
		}},
	}
}

// lines are the records of a file, which fit the schema.
func lines(t *testing.T, name string) []*audit.Record {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []*audit.Record
	for line := range bytes.Lines(text) {
		hold(t, line, map[string]bool{})
		all = append(all, read(t, bytes.TrimSuffix(line, []byte("\n"))))
	}
	return all
}

// kinds are those of records, checkpoints left out: they come by the clock.
func kinds(all []*audit.Record) string {
	var list []string
	for _, r := range all {
		if r.Kind != audit.KindCheckpoint {
			list = append(list, string(r.Kind))
		}
	}
	return strings.Join(list, " ")
}

// What changed is written at once; what is delivered again as it was is counted, with the
// first and the last time, and never waits.
func TestRepublishes(t *testing.T) {
	for full, want := range map[bool]string{
		false: "begin mount count mount count mount end", // the order tells what was delivered again
		true:  "begin mount mount mount mount mount mount end",
	} {
		t.Run(fmt.Sprint("full: ", full), func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "audit.jsonl")
			o := options(openFile(t, name))
			o.Full = full
			during(t, o, func(trail *audit.Trail) {
				failed := mounted(t, "api-0", "3")
				failed.Code, failed.Err, failed.Message = codes.NotFound, store.NotFound, "not found"
				for _, m := range []*record.Mount{
					mounted(t, "api-0", "3"), mounted(t, "api-0", "3"), mounted(t, "api-0", "3"), failed, mounted(t, "api-0", "3"), mounted(t, "api-0", "4"),
				} {
					if err := trail.Record(t.Context(), m); err != nil {
						t.Error(err)
					}
				}
			})
			all := lines(t, name)
			if got := kinds(all); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
			if s := all[len(all)-2].Secrets[0]; s.Version != "4" || s.Was != "3" {
				t.Errorf("the change is %+v", s)
			}
			if full {
				return
			}
			sums := slices.DeleteFunc(slices.Clone(all), func(r *audit.Record) bool { return r.Kind != audit.KindCount })
			if n := sums[1].Counts[0].Count; n != 1 {
				t.Errorf("after the failed mount %d were the same, want 1", n)
			}
			if c := sums[0].Counts[0]; c.Count != 2 || c.Pod.UID != "uid-api-0" || c.Class != "app" || c.ServiceAccount != "api" || c.First > c.Last || c.First == "" {
				t.Errorf("the sum is %+v", c)
			}
		})
	}
}

// The sums of an interval are written at its end, and the next ones begin anew.
func TestSums(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		during(t, options(audit.Stdout(&out, "")), func(trail *audit.Trail) {
			for range 180 { // minutes
				for i := range 110 {
					if err := trail.Record(t.Context(), mounted(t, fmt.Sprint("api-", i), "3")); err != nil {
						t.Error(err)
					}
				}
				<-time.After(time.Minute)
			}
		})
		var sum int64
		parts, size := 0, 0
		for line := range bytes.Lines(out.Bytes()) {
			for _, c := range read(t, line).Counts {
				sum += c.Count
				parts++
			}
			if bytes.Contains(line, []byte(`"kind":"count"`)) {
				size += len(line)
			}
		}
		if sum != 179*110 || parts != 3*110 && parts != 4*110 {
			t.Errorf("%d mounts in %d sums, want %d in three for each volume", sum, parts, 179*110)
		}
		if perDay := size / 3 * 24; perDay > 1<<20 {
			t.Errorf("%d bytes a day for 110 pods that change nothing, want less than 1 MiB", perDay)
		}
	})
}

// A checkpoint follows a record within a second, and the 256th at once.
func TestCheckpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out syncBuffer
		during(t, options(audit.Stdout(&out, "")), func(trail *audit.Trail) {
			<-time.After(10500 * time.Millisecond) // between two looks at the clock
			if got := strings.Count(out.String(), `"kind":"checkpoint"`); got != 1 {
				t.Errorf("%d checkpoints of a begin alone, want 1", got)
			}
			for i := range 600 {
				if err := trail.Record(t.Context(), mounted(t, fmt.Sprint("api-", i), "3")); err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
			if got := strings.Count(out.String(), `"kind":"checkpoint"`); got != 3 {
				t.Errorf("%d checkpoints after 600 records more, want 3", got)
			}
			<-time.After(1100 * time.Millisecond)
			if got := strings.Count(out.String(), `"kind":"checkpoint"`); got != 4 {
				t.Errorf("%d checkpoints a second later, want 4", got)
			}
		})
	})
}

// syncBuffer is a buffer that one goroutine fills and another reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A pipe that is not read refuses what is new, and nothing else; when it is read again, it
// has each line once, and says which mounts were refused in spite of their record.
func TestPipeThatIsNotRead(t *testing.T) {
	for _, goOn := range []bool{false, true} {
		t.Run(fmt.Sprint("continue: ", goOn), func(t *testing.T) {
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close() //nolint:errcheck // it was only read
			o := options(audit.Stdout(writer, ""))
			o.Continue = goOn
			refused := 0
			var text []byte
			var reading sync.WaitGroup
			during(t, o, func(trail *audit.Trail) {
				if err := trail.Record(t.Context(), mounted(t, "known", "3")); err != nil {
					t.Error(err)
				}
				for i := range 200 { // more than a pipe holds
					m := mounted(t, fmt.Sprint("new-", i), "3")
					m.Reads[0].Files = []string{strings.Repeat("f", 4000)}
					if err := trail.Record(t.Context(), m); err != nil {
						if !errors.Is(err, audit.ErrNotWritten) || !strings.Contains(err.Error(), "standard output: ") {
							t.Error(err)
						}
						refused++
						break
					}
				}
				if err := trail.Record(t.Context(), mounted(t, "known", "3")); err != nil {
					t.Errorf("a republish of the same is refused: %v", err)
				}
				reading.Go(func() { text, _ = io.ReadAll(reader) })
				if err := trail.Record(t.Context(), mounted(t, "late", "3")); err != nil {
					t.Errorf("when it is read again: %v", err)
				}
			})
			if err := writer.Close(); err != nil {
				t.Error(err)
			}
			reading.Wait()
			if want := map[bool]int{false: 1, true: 0}[goOn]; refused != want {
				t.Errorf("%d mounts were refused, want %d", refused, want)
			}
			checkWhole(t, text, refused)
		})
	}
}

// checkWhole looks for lines that are torn, twice or missing, and counts the withdrawn ones.
func checkWhole(t *testing.T, text []byte, withdrawn int) {
	t.Helper()
	next, prev := int64(0), ""
	mounts := map[int64]bool{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		r := read(t, line)
		if r.Seq != next || r.Prev != prev {
			t.Fatalf("record %d follows %d", r.Seq, next-1)
		}
		next, prev = r.Seq+1, audit.Hash(line)
		mounts[r.Seq] = r.Kind == audit.KindMount
		if r.Withdrawn != nil {
			withdrawn--
			if !mounts[r.Withdrawn.Seq] {
				t.Errorf("record %d, which is withdrawn, is no mount", r.Withdrawn.Seq)
			}
		}
	}
	if withdrawn != 0 {
		t.Errorf("%d refused mounts were not withdrawn", withdrawn)
	}
}

// A file is put aside at a checkpoint when it is large enough or old enough, the chain goes
// on in the next one, and the oldest are removed.
func TestRotation(t *testing.T) {
	for what, change := range map[string]func(*audit.FileOptions){
		"by size": func(o *audit.FileOptions) { o.MaxSize = 100 },
		"by age":  func(o *audit.FileOptions) { o.MaxAge = time.Minute },
	} {
		t.Run(what, func(t *testing.T) {
			folder := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				file := openFile(t, filepath.Join(folder, "audit.jsonl"), change, func(o *audit.FileOptions) { o.Keep = 3 })
				during(t, options(file), func(trail *audit.Trail) {
					for i := range 6 {
						<-time.After(2 * time.Minute)
						if err := trail.Record(t.Context(), mounted(t, fmt.Sprint("api-", i), "3")); err != nil {
							t.Error(err)
						}
					}
					<-time.After(2 * time.Second)
				})
			})
			names, err := filepath.Glob(filepath.Join(folder, "audit-*.jsonl"))
			if err != nil || len(names) != 3 {
				t.Fatalf("%d files were put aside, want 3: %v", len(names), err)
			}
			var prev string
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				list := slices.Collect(bytes.Lines(text))
				first, last := read(t, list[0]), read(t, list[len(list)-1])
				if prev != "" && first.Prev != prev {
					t.Errorf("%s does not go on where the one before ended", name)
				}
				if last.Checkpoint == nil {
					t.Errorf("%s ends with a record of kind %s", name, last.Kind)
				}
				prev = audit.Hash(bytes.TrimSuffix(list[len(list)-1], []byte("\n")))
			}
		})
	}
}

// The next process names the last checkpoint of the one before, also after a kill within a
// line, and after the file was put aside.
func TestPredecessor(t *testing.T) {
	for what, between := range map[string]func(t *testing.T, name string){
		"after an end": func(*testing.T, string) {},
		"after a kill within a line": func(t *testing.T, name string) {
			t.Helper()
			f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(`{"at":"2026-`); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
		},
		"after the file was put aside": func(t *testing.T, name string) {
			t.Helper()
			if err := os.Rename(name, strings.Replace(name, "audit.", "audit-20260102T150405Z-000000000001.", 1)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "audit.jsonl")
			during(t, options(openFile(t, name)), func(*audit.Trail) {})
			all := lines(t, name)
			end := all[len(all)-1]
			between(t, name)

			file := openFile(t, name)
			o := options(file)
			o.Predecessor = file.Last()
			during(t, o, func(*audit.Trail) {})
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			begin := read(t, last(bytes.SplitAfter(text, []byte("\n")), 3))
			if p := begin.Begin.Predecessor; p == nil || p.Boot != end.Boot || p.Number != end.Checkpoint.Number {
				t.Errorf("the predecessor is %+v, want checkpoint %d of %s", p, end.Checkpoint.Number, end.Boot)
			}
			if next := read(t, last(bytes.SplitAfter(text, []byte("\n")), 2)); next.Checkpoint == nil || next.Checkpoint.Number != end.Checkpoint.Number+1 {
				t.Errorf("the next checkpoint is %+v", next.Checkpoint)
			}
		})
	}
}

func last[T any](list []T, n int) T { return list[len(list)-n] }

// A trail to standard output has its predecessor in the state file.
func TestStateFile(t *testing.T) {
	state := filepath.Join(t.TempDir(), "audit.state")
	if p, err := audit.OpenState(t.Context(), state, slog.New(slog.DiscardHandler)); p != nil || err != nil {
		t.Fatalf("before the first process: %v, %v", p, err)
	}
	var out bytes.Buffer
	during(t, options(audit.Stdout(&out, state)), func(*audit.Trail) {})
	p, err := audit.OpenState(t.Context(), state, slog.New(slog.DiscardHandler))
	if err != nil || p == nil {
		t.Fatalf("%v, %v", p, err)
	}
	if end := read(t, last(bytes.SplitAfter(out.Bytes(), []byte("\n")), 2)); p.Boot != end.Boot || p.Number != end.Checkpoint.Number {
		t.Errorf("got %+v, want the end %+v", p, end)
	}
	elsewhere := filepath.Join(filepath.Dir(state), "none", "audit.state")
	if _, err := audit.OpenState(t.Context(), elsewhere, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "name a file in a folder that keymount may write to") {
		t.Errorf("of a folder that is not there: %v", err)
	}
	if err := os.WriteFile(state, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := audit.OpenState(t.Context(), state, slog.New(slog.DiscardHandler)); p != nil || err != nil {
		t.Errorf("of half a file: %v, %v", p, err)
	}
}

// Where another program removes or renames the file, the trail goes on under its name.
func TestFileThatIsTakenAway(t *testing.T) {
	for what, take := range map[string]func(name string) error{
		"removed": os.Remove,
		"renamed": func(name string) error { return os.Rename(name, name+".1") },
	} {
		t.Run(what, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "audit.jsonl")
			during(t, options(openFile(t, name)), func(trail *audit.Trail) {
				if err := trail.Record(t.Context(), mounted(t, "before", "3")); err != nil {
					t.Error(err)
				}
				if err := take(name); err != nil {
					t.Error(err)
				}
				if err := trail.Record(t.Context(), mounted(t, "after", "3")); err != nil {
					t.Error(err)
				}
			})
			all := lines(t, name)
			if !slices.ContainsFunc(all, func(r *audit.Record) bool { return r.Kind == audit.KindMount && r.Pod.Name == "after" }) {
				t.Errorf("the new file has %s", kinds(all))
			}
		})
	}
}

// Two processes never write one file: the second waits, for as long as a rollout takes.
func TestTwoOnOneFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	first := openFile(t, name)
	opened := make(chan error, 1)
	go func() {
		second, err := audit.OpenFile(context.WithoutCancel(t.Context()), audit.FileOptions{Path: name, Now: time.Now})
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("the second has it, too: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("after the end of the first: %v", err)
	}
}

// A mount whose caller gives up soon is answered before that.
func TestRecordNearADeadline(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close(); _ = writer.Close() }()
	trail, err := audit.New(options(audit.Stdout(writer, ""))) // nothing writes
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if err := trail.Record(ctx, mounted(t, "api-0", "3")); !errors.Is(err, audit.ErrNotWritten) || ctx.Err() != nil {
		t.Errorf("got %v, and the deadline %v", err, ctx.Err())
	}
}

// A trail that goes on without any sink says how many records it lacks.
func TestNoSink(t *testing.T) {
	o := options()
	o.Continue = true
	trail, err := audit.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := trail.Record(t.Context(), mounted(t, "api-0", "3")); err != nil {
		t.Error(err)
	}
	if got := trail.Tally(); got.Lost != 1 || got.Records != 0 {
		t.Errorf("got %+v, want one record lost", got)
	}
}

// A bug in the trail is no way around it, and no end of it.
func TestBugInTheTrail(t *testing.T) {
	for goOn, want := range map[bool]error{false: audit.ErrNotWritten, true: nil} {
		name := filepath.Join(t.TempDir(), "audit.jsonl")
		o := options(openFile(t, name))
		o.Continue = goOn
		during(t, o, func(trail *audit.Trail) {
			impossible := mounted(t, "api-0", "3")
			impossible.Reads[0].Secret = nil
			if err := trail.Record(t.Context(), impossible); !errors.Is(err, want) || (err == nil) != goOn {
				t.Errorf("continue: %t: got %v", goOn, err)
			}
			if err := trail.Record(t.Context(), mounted(t, "api-1", "3")); err != nil {
				t.Error(err)
			}
		})
		if got := kinds(lines(t, name)); got != "begin mount end" {
			t.Errorf("the trail has %s", got)
		}
	}
}

// Old values that stand in have a begin and an end, with the cause.
func TestStale(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	during(t, options(openFile(t, name)), func(trail *audit.Trail) {
		stale := mounted(t, "api-0", "3")
		stale.Reads[0].Source, stale.Reads[0].Cause = record.Stale, "connection refused"
		for _, m := range []*record.Mount{mounted(t, "api-0", "3"), stale, stale, mounted(t, "api-0", "3"), mounted(t, "api-0", "3")} {
			if err := trail.Record(t.Context(), m); err != nil {
				t.Error(err)
			}
		}
	})
	all := lines(t, name)
	if got := kinds(all); got != "begin mount stale stale count end" {
		t.Fatalf("got %s", got)
	}
	begin, end := all[2], all[3]
	if begin.Stale.State != "begin" || begin.Stale.Cause != "connection refused" || begin.Stale.Store != "prod" || begin.Secrets[0].Path != "shop/db" ||
		begin.Pod.Name != "api-0" || end.Stale.State != "end" {
		t.Errorf("got %+v of %+v, and %+v", begin.Stale, begin.Secrets, end.Stale)
	}
}
