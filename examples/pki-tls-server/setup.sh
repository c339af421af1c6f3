#!/bin/sh
# A certificate authority, and a role that gets certificates. Run ../setup.sh first; it
# can be run again.
set -eu

vault secrets list | grep -q '^pki/' || vault secrets enable -max-lease-ttl=87600h pki
# Without an authority there is nothing to list.
vault list pki/issuers >/dev/null 2>&1 ||
  vault write pki/root/generate/internal common_name="example root" key_type=ec ttl=87600h
# A certificate is issued at every call of the driver: no_store keeps none of them in Vault.
vault write pki/roles/example-pki-tls-server \
  allowed_domains=example-pki-tls-server.svc allow_subdomains=true key_type=ec max_ttl=72h no_store=true

vault policy write example-pki-tls-server - <<'POLICY'
path "pki/issue/example-pki-tls-server" { capabilities = ["update"] }
POLICY

vault write auth/kubernetes/role/example-pki-tls-server \
  bound_service_account_namespaces=example-pki-tls-server bound_service_account_names=app \
  audience=vault token_policies=example-pki-tls-server token_ttl=1h
