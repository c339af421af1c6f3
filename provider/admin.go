package provider

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// refreshMethod is answered on the driver's sockets, beside its own service: whoever
// can open one could mount as well.
const (
	adminService  = "keymount.v1.Admin"
	refreshName   = "Refresh"
	refreshMethod = "/" + adminService + "/" + refreshName
)

// refresher is a store that remembers what it has read.
type refresher interface{ Refresh() }

// refresh makes the next mount of each secret read it again.
func (p *Provider) refresh() {
	for _, b := range p.backends {
		if r, ok := b.Store.(refresher); ok {
			r.Refresh()
		}
	}
}

// adminDesc is the service in Go; a protocol file for one call without words would
// take a compiler of its own.
func adminDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: adminService, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: refreshName, Handler: func(
			server any, ctx context.Context, decode func(any) error, through grpc.UnaryServerInterceptor,
		) (any, error) {
			request := &emptypb.Empty{}
			if err := decode(request); err != nil {
				return nil, fmt.Errorf("read the request: %w", err)
			}
			info := &grpc.UnaryServerInfo{Server: server, FullMethod: refreshMethod}
			return through(ctx, request, info, func(context.Context, any) (any, error) {
				if p, ok := server.(*Provider); ok {
					p.refresh()
				}
				return &emptypb.Empty{}, nil
			})
		}}},
	}
}

// Refresh asks the keymount behind a connection to its socket to read every secret
// again with its next mount.
func Refresh(ctx context.Context, connection grpc.ClientConnInterface) error {
	if err := connection.Invoke(ctx, refreshMethod, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	return nil
}
