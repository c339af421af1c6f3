#!/bin/sh
# One secret, and a role that reads it. Run ../setup.sh first; it can be run again.
set -eu

vault kv put secret/example-migrate-from-vault-csi-provider/db \
  username=example-user password=example-password-not-a-secret

vault policy write example-migrate-from-vault-csi-provider - <<'POLICY'
path "secret/data/example-migrate-from-vault-csi-provider/*" { capabilities = ["read"] }
POLICY

vault write auth/kubernetes/role/example-migrate-from-vault-csi-provider \
  bound_service_account_namespaces=example-migrate-from-vault-csi-provider bound_service_account_names=app \
  audience=vault token_policies=example-migrate-from-vault-csi-provider token_ttl=1h
