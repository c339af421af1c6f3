package provider

import (
	"context"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// Bounds of what is remembered of classes.
const (
	MaxClasses     = maxClasses
	MaxClassesSize = maxClassesSize
)

// Parse reads a request in a dialect as Mount does, from memory where it can.
func (p *Provider) Parse(ctx context.Context, d Dialect, m *v1alpha1.MountRequest) (Request, error) {
	return p.speaking(d).parse(ctx, m)
}

// RememberedClasses is how many classes are remembered, and about what they take.
func (p *Provider) RememberedClasses() (classes, size int) {
	p.classes.mu.Lock()
	defer p.classes.mu.Unlock()
	return len(p.classes.known), p.classes.size
}
