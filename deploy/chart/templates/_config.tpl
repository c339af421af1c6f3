{{/* keymount.yaml: what the values say, and what the chart knows better. */}}

{{- define "keymount.config" -}}
{{- $config := deepCopy (.Values.config | default dict) -}}
{{- if not (hasKey $config "versionKeyFile") -}}
{{- $_ := set $config "versionKeyFile" "version.key" -}}
{{- end -}}
{{- if and .Values.events.enabled (not (hasKey $config "events")) -}}
{{- $_ := set $config "events" true -}}
{{- end -}}
{{- if and .Values.watchVolumes.enabled (not (hasKey $config "watchVolumes")) -}}
{{- $_ := set $config "watchVolumes" true -}}
{{- end -}}
{{- if and .Values.metrics.enabled (not (hasKey $config "metrics")) -}}
{{- $_ := set $config "metrics" (printf ":%d" (int .Values.metrics.port)) -}}
{{- end -}}
{{- if and (ne .Values.providersDir "/var/run/secrets-store-csi-providers") (not (hasKey $config "sockets")) -}}
{{- $_ := set $config "sockets" (list (printf "%s/keymount.sock" .Values.providersDir)) -}}
{{- end -}}
{{- if not (hasKey $config "statusSocket") -}}
{{- $_ := set $config "statusSocket" "/run/status/keymount.sock" -}}
{{- end -}}
{{- if and .Values.state.enabled (not (hasKey $config "stateFolder")) -}}
{{- $_ := set $config "stateFolder" (printf "%s/state" .Values.state.hostPath) -}}
{{- end -}}
{{- with include "keymount.audit" . | fromYaml -}}
{{- $_ := set $config "audit" . -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/*
The part about the audit trail: where a file of it is, the key, and, for a trail that goes to
standard output alone, the file by which a new process names the trail before it.
*/}}
{{- define "keymount.audit" -}}
{{- $audit := deepCopy (.Values.config.audit | default dict) -}}
{{- if dig "enabled" true $audit -}}
{{- if and .Values.audit.file.enabled (not (hasKey $audit "file")) -}}
{{- $_ := set $audit "file" (printf "%s/audit.jsonl" .Values.audit.file.hostPath) -}}
{{- end -}}
{{- if and .Values.state.enabled (not $audit.file) (not (hasKey $audit "stateFile")) -}}
{{- $_ := set $audit "stateFile" (printf "%s/audit.state" .Values.state.hostPath) -}}
{{- end -}}
{{- if and .Values.audit.key.existingSecret (not (hasKey $audit "keyFile")) -}}
{{- $_ := set $audit "keyFile" "audit.key" -}}
{{- end -}}
{{- end -}}
{{- toYaml $audit -}}
{{- end -}}

{{/* The file, byte for byte as the ConfigMap holds it. */}}
{{- define "keymount.file" -}}
# Made from the release's values, config and others; change it there.
{{ include "keymount.config" . }}
{{ end -}}

{{/*
The name of the ConfigMap says what is in it, so that each pod keeps the keymount.yaml that
it started with. Otherwise a bad one would reach all nodes at once: the probes read it, too.
What is immutable may never have other data under the same name, be it a comment.
*/}}
{{- define "keymount.configMap" -}}
{{- printf "%s-%s" (include "keymount.fullname" .) (include "keymount.file" . | sha256sum | trunc 10) -}}
{{- end -}}

{{/*
The ConfigMaps of earlier upgrades that a pod or the DaemonSet still names, as a JSON list.
It is empty where Helm sees no cluster. Not the annotation helm.sh/resource-policy: with it
none would ever go, and older versions of Helm cannot roll back to one that has stayed.
*/}}
{{- define "keymount.olderConfigMaps" -}}
{{- $older := list -}}
{{- $newest := include "keymount.configMap" . -}}
{{- $pods := concat ((lookup "v1" "Pod" .Release.Namespace "").items | default list) ((lookup "apps/v1" "DaemonSet" .Release.Namespace "").items | default list) | toJson -}}
{{- range (lookup "v1" "ConfigMap" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $ours := and (eq (get $labels "app.kubernetes.io/instance") $.Release.Name) (eq (get $labels "app.kubernetes.io/component") "config") -}}
{{- if and $ours (ne .metadata.name $newest) (contains (quote .metadata.name) $pods) -}}
{{- $older = append $older . -}}
{{- end -}}
{{- end -}}
{{- toJson $older -}}
{{- end -}}

{{/* The port that metrics are on, or nothing. */}}
{{- define "keymount.metricsPort" -}}
{{- get (include "keymount.config" . | fromYaml) "metrics" | regexFind "[0-9]+$" -}}
{{- end -}}

{{/* "true" when failed mounts become events. */}}
{{- define "keymount.events" -}}
{{- if (include "keymount.config" . | fromYaml).events -}}true{{- end -}}
{{- end -}}

{{/* "true" when it is watched which volumes are gone. */}}
{{- define "keymount.watchVolumes" -}}
{{- if (include "keymount.config" . | fromYaml).watchVolumes -}}true{{- end -}}
{{- end -}}

{{/* What keymount wants of the API server, as a comment's end. */}}
{{- define "keymount.asks" -}}
{{- if include "keymount.events" . }}, for events{{ end -}}
{{- if include "keymount.watchVolumes" . }}, for volumes that are gone{{ end -}}
{{- end -}}

{{/* The Secret that holds the version key, or nothing when keymount.yaml names another file. */}}
{{- define "keymount.versionKey" -}}
{{- if has (include "keymount.config" . | fromYaml).versionKeyFile (list "version.key" "/etc/keymount/version.key") -}}
{{- .Values.versionKey.existingSecret | default (printf "%s-version-key" (include "keymount.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{/* What pods' tokens must be made for, as a JSON object of audience to the name of a store that wants it. */}}
{{- define "keymount.audiences" -}}
{{- $audiences := dict -}}
{{- range $store := .Values.config.stores -}}
{{- $audience := "" -}}
{{- with $store.bundle -}}
{{- $audience = .audience | default "keymount" -}}
{{- end -}}
{{- with $store.vault -}}
{{- $audience = (.auth | default dict).audience | default "vault" -}}
{{- end -}}
{{- if and $audience (not (hasKey $audiences $audience)) -}}
{{- $_ := set $audiences $audience ($store.name | default "default") -}}
{{- end -}}
{{- end -}}
{{- toJson $audiences -}}
{{- end -}}

{{/* The addresses of all that keymount reads from, as a JSON list of each with its place in the values. */}}
{{- define "keymount.addresses" -}}
{{- $addresses := list -}}
{{- range $i, $store := .Values.config.stores -}}
{{- range $j, $address := ($store.vault | default dict).addresses -}}
{{- $addresses = append $addresses (dict "place" (printf "config.stores[%d].vault.addresses[%d]" $i $j) "address" $address) -}}
{{- end -}}
{{- end -}}
{{- range $i, $issuer := .Values.config.issuers -}}
{{- if eq ($issuer.keys | default "") "discovery" -}}
{{- $addresses = append $addresses (dict "place" (printf "config.issuers[%d].issuer" $i) "address" ($issuer.issuer | default "")) -}}
{{- end -}}
{{- end -}}
{{- toJson $addresses -}}
{{- end -}}

{{/* The port of an address, or nothing of what is none. */}}
{{- define "keymount.port" -}}
{{- $host := regexFind "^(?i:https?)://([^][/?#@:\\s]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]+)?(/[^?#]*)?$" . | regexFind "://[^/]+" -}}
{{- if $host -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (hasPrefix "http:" (lower .) | ternary "80" "443") -}}
{{- end -}}
{{- end -}}

{{/* The ports of all that keymount reads from, as a JSON list. */}}
{{- define "keymount.storePorts" -}}
{{- $ports := list -}}
{{- range include "keymount.addresses" . | fromJsonArray -}}
{{- $ports = append $ports (include "keymount.port" .address | int) -}}
{{- end -}}
{{- .Values.networkPolicy.stores.ports | default $ports | uniq | toJson -}}
{{- end -}}
