package vault

import (
	"context"
	"net"
)

// DialWith has dial make the connections of c, before the first request.
func (c *Conn) DialWith(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	if t, ok := c.client.Transport.(*transport); ok {
		t.pool.DialContext = dial
	}
}

// HangUp closes the connections that nobody uses.
func (c *Conn) HangUp() {
	if t, ok := c.client.Transport.(*transport); ok {
		t.pool.CloseIdleConnections()
	}
}
