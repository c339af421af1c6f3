package node

import (
	"fmt"

	"github.com/keymount/keymount/auth"
	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/internal/kube"
)

func openIssuers(issuers []config.Issuer) ([]*auth.Issuer, error) {
	opened := make([]*auth.Issuer, 0, len(issuers))
	for n, i := range issuers {
		source, err := keySource(i)
		if err != nil {
			return nil, fmt.Errorf("issuers[%d]: %w", n, err)
		}
		opened = append(opened, auth.NewIssuer(i.Issuer, source, clock))
	}
	return opened, nil
}

func keySource(i config.Issuer) (auth.KeySource, error) {
	switch i.Keys {
	case config.KeysFile:
		return auth.FileKeys{Issuer: i.Issuer, File: i.KeysFile}, nil
	case config.KeysDiscovery:
		return auth.NewDiscoveryKeys(i.Issuer, i.CAFile)
	default:
		return kube.ClusterKeys(i.Issuer)
	}
}
