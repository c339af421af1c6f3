{{/* keymount.yaml: what the values say, and what the chart knows better. */}}

{{- define "keymount.config" -}}
{{- $config := deepCopy (.Values.config | default dict) -}}
{{- if not (hasKey $config "versionKeyFile") -}}
{{- $_ := set $config "versionKeyFile" "version.key" -}}
{{- end -}}
{{- if and .Values.events.enabled (not (hasKey $config "events")) -}}
{{- $_ := set $config "events" true -}}
{{- end -}}
{{- if and .Values.metrics.enabled (not (hasKey $config "metrics")) -}}
{{- $_ := set $config "metrics" (printf ":%d" (int .Values.metrics.port)) -}}
{{- end -}}
{{- if and (ne .Values.providersDir "/var/run/secrets-store-csi-providers") (not (hasKey $config "sockets")) -}}
{{- $_ := set $config "sockets" (list (printf "%s/keymount.sock" .Values.providersDir)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/*
The name of the ConfigMap says what is in it, so that each pod keeps the keymount.yaml that
it started with. Otherwise a bad one would reach all nodes at once: the probes read it, too.
*/}}
{{- define "keymount.configMap" -}}
{{- printf "%s-%s" (include "keymount.fullname" .) (include "keymount.config" . | sha256sum | trunc 10) -}}
{{- end -}}

{{/* The port that metrics are on, or nothing. */}}
{{- define "keymount.metricsPort" -}}
{{- get (include "keymount.config" . | fromYaml) "metrics" | regexFind "[0-9]+$" -}}
{{- end -}}

{{/* "true" when failed mounts become events. */}}
{{- define "keymount.events" -}}
{{- if (include "keymount.config" . | fromYaml).events -}}true{{- end -}}
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

{{/* The ports of all that keymount reads from, as a JSON list. */}}
{{- define "keymount.storePorts" -}}
{{- $addresses := list -}}
{{- range .Values.config.stores -}}
{{- $addresses = concat $addresses ((.vault | default dict).addresses | default list) -}}
{{- end -}}
{{- range .Values.config.issuers -}}
{{- if eq .keys "discovery" -}}
{{- $addresses = append $addresses .issuer -}}
{{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range $addresses -}}
{{- $url := urlParse . -}}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $ports = append $ports ($named | default (eq $url.scheme "http" | ternary 80 443) | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}
