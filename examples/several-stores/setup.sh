#!/bin/sh
# One secret, and a role that reads it. Run ../setup.sh first; it can be run again.
set -eu

vault kv put secret/example-several-stores/db password=example-password-not-a-secret

vault policy write example-several-stores - <<'POLICY'
path "secret/data/example-several-stores/*" { capabilities = ["read"] }
POLICY

vault write auth/kubernetes/role/example-several-stores \
  bound_service_account_namespaces=example-several-stores bound_service_account_names=app \
  audience=vault token_policies=example-several-stores token_ttl=1h
