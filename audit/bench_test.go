package audit_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/keymount/keymount/audit"
	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/record"
)

// ten is a mount of ten secrets.
func ten(b *testing.B, pod, version string) *record.Mount {
	b.Helper()
	m := mounted(b, pod, version)
	one := m.Reads[0]
	m.Reads, m.Delivered = nil, nil
	for i := range 10 {
		one.Path = path(b, fmt.Sprint("secret/shop/db-", i))
		one.Secret = &class.Secret{Store: "prod", Role: "shop", Path: one.Path}
		one.Files = []string{fmt.Sprint("db/password-", i)}
		m.Reads = append(m.Reads, one)
		m.Delivered = append(m.Delivered, record.File{Version: fmt.Sprintf("%043d", i)})
	}
	return m
}

// BenchmarkRecordSame is what the trail adds to a mount that delivers the same as before.
func BenchmarkRecordSame(b *testing.B) { benchRecord(b, func(int) string { return "3" }) }

// BenchmarkRecordNew is what it adds to one that delivers something new, the file's write
// included.
func BenchmarkRecordNew(b *testing.B) { benchRecord(b, func(n int) string { return fmt.Sprint(n) }) }

func benchRecord(b *testing.B, version func(n int) string) {
	b.Helper()
	file, err := audit.OpenFile(b.Context(), audit.FileOptions{
		Path: filepath.Join(b.TempDir(), "audit.jsonl"), MaxSize: 1 << 40, MaxAge: time.Hour, Now: time.Now,
	})
	if err != nil {
		b.Fatal(err)
	}
	during(b, options(file), func(trail *audit.Trail) {
		b.ReportAllocs()
		n := 0
		m := ten(b, "api-0", "")
		for b.Loop() {
			n++
			for i := range m.Reads {
				m.Reads[i].Version = version(n)
			}
			if err := trail.Record(b.Context(), m); err != nil {
				b.Fatal(err)
			}
		}
	})
}
