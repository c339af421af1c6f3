package keep_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/internal/secret"
	"github.com/keymount/keymount/login"
	"github.com/keymount/keymount/store"
	"github.com/keymount/keymount/store/keep"
)

// same answers each read with one value.
type same struct{ value store.Value }

func (s same) Read(context.Context, login.Request, store.Ref) (store.Value, error) {
	return s.value, nil
}

// benchKept has a secret of 4 KiB for each read.
func benchKept(b *testing.B, most int64) kept {
	b.Helper()
	tree, err := secret.NewTree(map[string]any{"value": strings.Repeat("x", 4<<10)})
	if err != nil {
		b.Fatal(err)
	}
	return newKept(readOnly(same{store.Value{Data: tree}}), keep.Options{Refresh: time.Hour, Pool: poolOf(most), Now: time.Now})
}

// benchRequests are those of as many namespaces.
func benchRequests(namespaces int) []login.Request {
	requests := make([]login.Request, namespaces)
	for i := range requests {
		requests[i] = session("api", "a")
		requests[i].Identity.Namespace = fmt.Sprintf("n%d", i)
	}
	return requests
}

// BenchmarkRecall is what each object of a warm mount asks.
func BenchmarkRecall(b *testing.B) {
	s, as := benchKept(b, 1<<20), benchRequests(1)[0]
	path, err := store.ParsePath("kv/db")
	if err != nil {
		b.Fatal(err)
	}
	ref := store.Ref{Path: path}
	if _, err := s.Read(b.Context(), as, ref); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, known := s.recall(as, ref); !known {
			b.Fatal("it is not known")
		}
	}
}

// BenchmarkReadIntoFullMemory forgets something for each secret that is read.
func BenchmarkReadIntoFullMemory(b *testing.B) {
	for _, namespaces := range []int{1, 20, 1000} {
		b.Run(fmt.Sprint(namespaces), func(b *testing.B) {
			s, requests := benchKept(b, 8<<20), benchRequests(namespaces)
			refs := make([]store.Ref, 4000)
			for i := range refs {
				path, err := store.ParsePath(fmt.Sprintf("kv/%d", i))
				if err != nil {
					b.Fatal(err)
				}
				refs[i] = store.Ref{Path: path}
			}
			n := 0
			read := func() {
				if _, err := s.Read(b.Context(), requests[n%namespaces], refs[n%len(refs)]); err != nil {
					b.Fatal(err)
				}
				n++
			}
			for range refs {
				read()
			}
			b.ReportAllocs()
			for b.Loop() {
				read()
			}
		})
	}
}
