package observe_test

import (
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/observe"
	"github.com/keymount/keymount/record"
)

// What is remembered of volumes is bounded in number, and in what a pod's author calls a
// class.
func TestRotationForgets(t *testing.T) {
	rotation := &observe.Rotation{}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for n := range 10_000 {
		m := &record.Mount{Pod: auth.Pod{UID: strconv.Itoa(n)}, Class: strings.Repeat("c", 64<<10) + strconv.Itoa(n), Began: time.Now()}
		if err := rotation.Record(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	const most = 8 << 20
	if after := heap(); after > before+most {
		t.Errorf("%d MiB are held", (after-before)>>20)
	}
	runtime.KeepAlive(rotation)
}
