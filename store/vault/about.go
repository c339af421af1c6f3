package vault

import (
	"slices"
	"strings"
)

// described is a path of an engine's API whose answers say something about the secret
// beside it.
type described struct {
	engines []string // as Vault names their type
	first   string   // segment below the mount
	last    string   // segment; empty for any
	about   []string // fields
}

// descriptions are from the API documentation of the engines, of Vault and OpenBao alike:
// each field is about the life of the secret, and most change while the secret does not.
// The fields of a key/value secret are all its author's, and none is here; neither are the
// fields of a certificate of pki, which never change.
func descriptions() []described {
	return []described{
		{[]string{"database"}, "static-creds", "", []string{"ttl", "last_vault_rotation", "rotation_period", "rotation_schedule", "rotation_window"}},
		{[]string{"ldap", "openldap"}, "static-cred", "", []string{"ttl", "last_vault_rotation", "rotation_period"}},
		{[]string{"ad"}, "roles", "", []string{"ttl", "last_vault_rotation", "password_last_set"}},
		{[]string{"aws"}, "static-creds", "", []string{"expiration"}},
		{[]string{"aws"}, "creds", "", []string{"ttl"}},
		{[]string{"aws"}, "sts", "", []string{"ttl"}},
		{[]string{"azure"}, "static-creds", "", []string{"ttl", "expiration"}},
		{[]string{"alicloud"}, "creds", "", []string{"expiration"}},
		{[]string{"gcp"}, "token", "", []string{"token_ttl", "expires_at_seconds"}},
		{[]string{"gcp"}, "roleset", "token", []string{"token_ttl", "expires_at_seconds"}},
		{[]string{"gcp"}, "static-account", "token", []string{"token_ttl", "expires_at_seconds"}},
		{[]string{"gcp"}, "impersonated-account", "token", []string{"token_ttl", "expires_at_seconds"}},
		{[]string{"identity"}, "oidc", "", []string{"ttl"}},
	}
}

// about names the fields of an answer that are no part of the secret. An engine of
// no type known here, which keymount.yaml calls other or Vault by the name of a plugin, is
// known by its paths.
func (p place) about(data map[string]any) (fields []string) {
	if p.engine != Other {
		return nil
	}
	segments := strings.Split(p.rest, "/")
	all := descriptions()
	known := slices.ContainsFunc(all, func(d described) bool { return slices.Contains(d.engines, p.kind) })
	for _, d := range all {
		if known && !slices.Contains(d.engines, p.kind) || !d.fits(segments) {
			continue
		}
		for _, field := range d.about {
			if _, has := data[field]; has && !slices.Contains(fields, field) {
				fields = append(fields, field)
			}
		}
	}
	return fields
}

// fits tells whether a path is of the form of the description. A name of several
// segments is one to some engines.
func (d described) fits(segments []string) bool {
	const least = 2 // and the name of a role
	return len(segments) >= least && segments[0] == d.first && (d.last == "" || segments[len(segments)-1] == d.last)
}
