{{/* What several templates say alike: names, labels, and the parts of a pod. */}}

{{- define "keymount.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Room is left for the longest ending, that of the version key. */}}
{{- define "keymount.fullname" -}}
{{- $name := include "keymount.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $full | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "keymount.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "keymount.fullname" .) -}}
{{- end -}}

{{/* What a DaemonSet selects by can never change: no version in here. */}}
{{- define "keymount.selector" -}}
app.kubernetes.io/name: {{ include "keymount.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: provider
{{- end -}}

{{- define "keymount.labels" -}}
app.kubernetes.io/name: {{ include "keymount.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "keymount.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Where a pod's image and its network come from, and where it may run; gets the values and nodeSelector. */}}
{{- define "keymount.placement" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- if .Values.hostNetwork -}}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{ end -}}
nodeSelector:
  {{- merge (dict "kubernetes.io/os" "linux") (.nodeSelector | default dict) | toYaml | nindent 2 }}
{{- end -}}

{{/*
Those of the Job's pod, as a JSON list. A toleration of everything is not among them: it
would let the one pod onto a node that is dead, where it waits for ever.
*/}}
{{- define "keymount.versionKeyTolerations" -}}
{{- $kept := .Values.versionKey.tolerations | default list -}}
{{- range .Values.tolerations -}}
{{- if .key -}}
{{- $kept = append $kept . -}}
{{- end -}}
{{- end -}}
{{- toJson $kept -}}
{{- end -}}

{{/* A list of variables as YAML, each name once: of two with one name the last counts. */}}
{{- define "keymount.env" -}}
{{- $last := dict -}}
{{- range $i, $variable := . -}}
{{- $_ := set $last $variable.name $i -}}
{{- end -}}
{{- $kept := list -}}
{{- range $i, $variable := . -}}
{{- if eq $i (get $last $variable.name) -}}
{{- $kept = append $kept $variable -}}
{{- end -}}
{{- end -}}
{{- with $kept -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* The variables of keymount itself, those of the values last. */}}
{{- define "keymount.serveEnv" -}}
{{- $node := dict "name" "NODE_NAME" "valueFrom" (dict "fieldRef" (dict "fieldPath" "spec.nodeName")) -}}
{{- $own := list $node -}}
{{- with include "keymount.memoryLimit" . -}}
{{- $own = prepend $own (dict "name" "GOMEMLIMIT" "value" .) -}}
{{- end -}}
{{- include "keymount.env" (concat $own (.Values.extraEnv | default list)) -}}
{{- end -}}

{{/* Four fifths of the memory limit, as Go writes it. The schema allows the units below alone. */}}
{{- define "keymount.memoryLimit" -}}
{{- with dig "limits" "memory" "" (.Values.resources | default dict) -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "M" 1000000 "G" 1000000000 -}}
{{- $bytes := mul (regexFind "^[0-9]+" .) (get $units (regexFind "[A-Za-z]+$" .)) -}}
{{- printf "%dMiB" (div (mul $bytes 4) (mul 5 1048576)) -}}
{{- end -}}
{{- end -}}
