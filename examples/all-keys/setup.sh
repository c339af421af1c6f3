#!/bin/sh
# One secret, and a role that reads it. Run ../setup.sh first; it can be run again.
set -eu

vault kv put secret/example-all-keys/db \
  host=postgres.example.svc username=example-user password=example-password-not-a-secret

vault policy write example-all-keys - <<'POLICY'
path "secret/data/example-all-keys/*" { capabilities = ["read"] }
POLICY

vault write auth/kubernetes/role/example-all-keys \
  bound_service_account_namespaces=example-all-keys bound_service_account_names=app \
  audience=vault token_policies=example-all-keys token_ttl=1h
