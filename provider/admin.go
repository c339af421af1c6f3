package provider

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// These are answered on the driver's sockets, beside its own service: a process with
// access to one could mount as well.
const (
	adminService  = "keymount.v1.Admin"
	refreshName   = "Refresh"
	refreshMethod = "/" + adminService + "/" + refreshName
	readyName     = "Ready"
	readyMethod   = "/" + adminService + "/" + readyName
)

// refresher is a store with a memory of its reads.
type refresher interface{ Refresh() }

// refresh makes the next mount of each secret read it again.
func (p *Provider) refresh() {
	for _, b := range p.backends {
		if r, ok := b.Store.(refresher); ok {
			r.Refresh()
		}
	}
}

// adminDesc is the service in Go; a protocol file for calls without words would take a
// compiler of its own.
func adminDesc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: adminService, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			adminMethod(refreshName, func(p *Provider) any {
				p.refresh()
				return &emptypb.Empty{}
			}),
			adminMethod(readyName, func(p *Provider) any { return wrapperspb.Bool(p.ready == nil || p.ready()) }),
		},
	}
}

func adminMethod(name string, do func(*Provider) any) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(
		server any, ctx context.Context, decode func(any) error, through grpc.UnaryServerInterceptor,
	) (any, error) {
		request := &emptypb.Empty{}
		if err := decode(request); err != nil {
			return nil, fmt.Errorf("read the request: %w", err)
		}
		info := &grpc.UnaryServerInfo{Server: server, FullMethod: "/" + adminService + "/" + name}
		return through(ctx, request, info, func(context.Context, any) (any, error) {
			if p, ok := server.(*Provider); ok {
				return do(p), nil
			}
			return &emptypb.Empty{}, nil
		})
	}}
}

// Ready asks the keymount behind a connection to its socket whether a rollout may go on
// to the next node.
func Ready(ctx context.Context, connection grpc.ClientConnInterface) (bool, error) {
	var ready wrapperspb.BoolValue
	if err := connection.Invoke(ctx, readyMethod, &emptypb.Empty{}, &ready); err != nil {
		return false, fmt.Errorf("ready: %w", err)
	}
	return ready.GetValue(), nil
}

// Refresh asks the keymount behind a connection to its socket to read every secret
// again with its next mount.
func Refresh(ctx context.Context, connection grpc.ClientConnInterface) error {
	if err := connection.Invoke(ctx, refreshMethod, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	return nil
}
