#!/bin/sh
# What all examples need of Vault: logins with service account tokens, and a KV engine.
# VAULT_ADDR and VAULT_TOKEN say where and as whom. It can be run again.
#
# Its arguments are those of auth/kubernetes/config, for a Vault outside of the cluster:
#   setup.sh kubernetes_host=https://10.0.0.1:6443 kubernetes_ca_cert=@ca.crt token_reviewer_jwt=@token
set -eu
[ $# -gt 0 ] || set -- kubernetes_host=https://kubernetes.default.svc

vault auth list | grep -q '^kubernetes/' || vault auth enable kubernetes
vault write auth/kubernetes/config "$@"

vault secrets list | grep -q '^secret/' || vault secrets enable -path=secret -version=2 kv
# A new engine needs a moment.
tries=30
until vault read secret/config; do
  tries=$((tries - 1))
  [ "$tries" -gt 0 ] || { echo "setup.sh: secret/ cannot be read; is it a KV engine of version 2, and may VAULT_TOKEN read secret/config?" >&2; exit 1; }
  sleep 1
done
