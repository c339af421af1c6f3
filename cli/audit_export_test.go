package cli

import (
	"bytes"
	"time"
)

// ProgressText is what a terminal gets while parts of total are read, one each half second.
func ProgressText(total int64, parts ...int64) string {
	var out bytes.Buffer
	p := &progress{w: &out, total: total}
	for i, n := range parts {
		p.add(n, p.began.Add(time.Duration(i)*time.Second/2))
	}
	p.end()
	return out.String()
}
