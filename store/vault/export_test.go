package vault

import (
	"context"
	"net"
	"time"
)

// DialWith has dial make the connections of c, before the first request.
func (c *Conn) DialWith(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	c.pool.pool.DialContext = dial
}

// HangUp closes the idle connections.
func (c *Conn) HangUp() {
	c.pool.pool.CloseIdleConnections()
}

// SetClock changes the clock, before the first request.
func (c *Conn) SetClock(now func() time.Time) { c.now = now }

// Learned is how many mounts are remembered.
func (s *Store) Learned() int {
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	return len(s.mounts.learned)
}
