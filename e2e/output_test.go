package e2e_test

import (
	"bytes"
	"sync"
)

// output keeps what processes write.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	begin   int           // of what the last one writes
	serving chan struct{} // closed when it says that it serves; nil after that
}

// again is for a process that begins to write, and closed when it serves.
func (o *output) again() (serving <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begin, o.serving = o.text.Len(), make(chan struct{})
	return o.serving
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if o.serving != nil && bytes.Contains(o.text.Bytes()[o.begin:], []byte(`"msg":"serving"`)) {
		close(o.serving)
		o.serving = nil
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
