#!/bin/sh
# A database engine that makes users in PostgreSQL, and a role that gets one. Run
# ../setup.sh first; it can be run again.
#
# POSTGRES is the server as Vault and pods reach it, POSTGRES_USERNAME and
# POSTGRES_PASSWORD are of a user there who may make others.
set -eu
POSTGRES=${POSTGRES:-postgres.example.svc:5432/postgres}
POSTGRES_USERNAME=${POSTGRES_USERNAME:-postgres}
POSTGRES_PASSWORD=${POSTGRES_PASSWORD:-example-password-not-a-secret}

vault secrets list | grep -q '^database/' || vault secrets enable database
vault write database/config/example-database-credential \
  plugin_name=postgresql-database-plugin allowed_roles=example-database-credential \
  connection_url="postgresql://{{username}}:{{password}}@$POSTGRES" \
  username="$POSTGRES_USERNAME" password="$POSTGRES_PASSWORD"
vault write database/roles/example-database-credential \
  db_name=example-database-credential default_ttl=10m max_ttl=1h creation_statements=- <<'SQL'
CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
SQL

vault kv put secret/example-database-credential/postgres server="$POSTGRES"

vault policy write example-database-credential - <<'POLICY'
path "database/creds/example-database-credential" { capabilities = ["read"] }
path "secret/data/example-database-credential/*" { capabilities = ["read"] }
# For watchVolumes: the leases of this role alone can be given back.
path "sys/leases/revoke" {
  capabilities = ["update"]
  allowed_parameters = { "lease_id" = ["database/creds/example-database-credential/*"] }
}
POLICY

vault write auth/kubernetes/role/example-database-credential \
  bound_service_account_namespaces=example-database-credential bound_service_account_names=app \
  audience=vault token_policies=example-database-credential token_ttl=1h
