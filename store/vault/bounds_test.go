package vault_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keymount/keymount/store"
)

// Connections that hang while they are made have a bound, too, although their requests
// gave up long ago.
func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 96
		r := newReader(t, "vault:8200")
		var dials atomic.Int32
		r.conn.DialWith(func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			<-time.After(time.Minute)
			return nil, errors.New("no answer")
		})
		var reads sync.WaitGroup
		for range 500 {
			reads.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := r.read(ctx, t, db); !errors.Is(err, store.Unavailable) {
					t.Error(err)
				}
			})
			<-time.After(100 * time.Millisecond)
		}
		reads.Wait()
		if n := dials.Load(); n > most || n < most/2 {
			t.Errorf("%d connections were begun, want %d at most", n, most)
		}
		<-time.After(time.Minute) // for them to end
	})
}
