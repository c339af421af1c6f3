{{/* What cannot work is refused before it is installed. Each mistake is one text: its place, what is wrong, and the cure. */}}

{{/* Mistakes in the values that a schema cannot tell, as a JSON list. */}}
{{- define "keymount.valueMistakes" -}}
{{- $mistakes := list -}}
{{- if not .Values.image.repository -}}
{{- $mistakes = append $mistakes "image.repository: missing; no image is published yet: build one from the project's Dockerfile, push it to where your nodes can pull it, and name it here" -}}
{{- end -}}
{{- if not .Values.config.stores -}}
{{- $mistakes = append $mistakes (include "keymount.noStores" .) -}}
{{- end -}}
{{- range $i, $socket := .Values.config.sockets -}}
{{- if ne (dir $socket) $.Values.providersDir -}}
{{- $mistakes = append $mistakes (printf "config.sockets[%d]: %q is not in %s, the folder of a node that keymount sees for them; move it there, or set providersDir" $i $socket $.Values.providersDir) -}}
{{- end -}}
{{- end -}}
{{- with .Values.config.stateFolder -}}
{{- if not $.Values.state.enabled -}}
{{- $mistakes = append $mistakes (printf "config.stateFolder: %q is no folder of a node, and ends with the pod; remove it and set state.enabled=true" .) -}}
{{- else if ne (dir .) $.Values.state.hostPath -}}
{{- $mistakes = append $mistakes (printf "config.stateFolder: %q is not in %s, the folder of a node that keymount sees for it; remove it, or set state.hostPath" . $.Values.state.hostPath) -}}
{{- end -}}
{{- end -}}
{{- $mistakes = concat $mistakes (include "keymount.auditMistakes" . | fromJsonArray) -}}
{{- if and .Values.versionKey.existingSecret (not (include "keymount.versionKey" .)) -}}
{{- $mistakes = append $mistakes (printf "versionKey.existingSecret: config.versionKeyFile is %q, so that nothing reads it; remove one of the two" .Values.config.versionKeyFile) -}}
{{- end -}}
{{- if and .Values.config.metrics (not (include "keymount.metricsPort" .)) -}}
{{- $mistakes = append $mistakes (printf "config.metrics: %q does not end in a port; write address:port or :port" .Values.config.metrics) -}}
{{- end -}}
{{- range $monitor := list "podMonitor" "serviceMonitor" -}}
{{- if (index $.Values $monitor).enabled -}}
{{- if not (include "keymount.metricsPort" $) -}}
{{- $mistakes = append $mistakes (printf "%s.enabled: there is nothing to scrape; set metrics.enabled=true" $monitor) -}}
{{- else if regexMatch "^(127\\.|localhost:|\\[::1\\])" ($.Values.config.metrics | default "") -}}
{{- $mistakes = append $mistakes (printf "%s.enabled: config.metrics is %q, where Prometheus does not reach it; write \":%s\", or scrape it by something that runs beside it" $monitor $.Values.config.metrics (include "keymount.metricsPort" $)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}
{{- $mistakes = append $mistakes "serviceMonitor.enabled: podMonitor scrapes the same pods; enable one of the two" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.hostNetwork -}}
{{- $mistakes = append $mistakes "networkPolicy.enabled: no policy reaches pods with hostNetwork; set one of the two to false" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.stores.ports) -}}
{{- range include "keymount.addresses" . | fromJsonArray -}}
{{- if not (include "keymount.port" .address) -}}
{{- $mistakes = append $mistakes (printf "%s: %q is not of the form https://host:port, so that networkPolicy cannot tell which port to open" .place .address) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* stopGrace and cutGrace in provider/serve.go, and Grace and Last in internal/inflight. */ -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) 10 -}}
{{- $mistakes = append $mistakes (printf "terminationGracePeriodSeconds: %d cuts off keymount, which takes up to 5 s to end; set at least 10" (int .Values.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- $mistakes = append $mistakes "serviceAccount.name: missing; with serviceAccount.create=false it says which account is there already" -}}
{{- end -}}
{{- if dig "rollingUpdate" "maxSurge" nil .Values.updateStrategy -}}
{{- $mistakes = append $mistakes "updateStrategy.rollingUpdate.maxSurge: two keymounts cannot serve the socket of one node; use maxUnavailable" -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{/* Those about the audit trail, as a JSON list. */}}
{{- define "keymount.auditMistakes" -}}
{{- $mistakes := list -}}
{{- $audit := .Values.config.audit | default dict -}}
{{- $folder := .Values.audit.file.hostPath -}}
{{- if dig "enabled" true $audit -}}
{{- with $audit.file -}}
{{- if not $.Values.audit.file.enabled -}}
{{- $mistakes = append $mistakes (printf "config.audit.file: %q is in no folder of a node, and keymount may write nowhere else; remove it and set audit.file.enabled=true" .) -}}
{{- else if ne (dir .) $folder -}}
{{- $mistakes = append $mistakes (printf "config.audit.file: %q is not in %s, the folder of a node that keymount sees for it; remove it, or set audit.file.hostPath" . $folder) -}}
{{- end -}}
{{- end -}}
{{- with $audit.stateFile -}}
{{- if not $.Values.state.enabled -}}
{{- $mistakes = append $mistakes (printf "config.audit.stateFile: %q is in no folder of a node, and ends with the pod; remove it and set state.enabled=true" .) -}}
{{- else if ne (dir .) $.Values.state.hostPath -}}
{{- $mistakes = append $mistakes (printf "config.audit.stateFile: %q is not in %s, the folder of a node that keymount sees for it; remove it, or set state.hostPath" . $.Values.state.hostPath) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.audit.key.existingSecret (not (has $audit.keyFile (list nil "audit.key" "/etc/keymount/audit.key"))) -}}
{{- $mistakes = append $mistakes (printf "audit.key.existingSecret: config.audit.keyFile is %q, so that nothing reads it; remove one of the two" $audit.keyFile) -}}
{{- end -}}
{{- else -}}
{{- if .Values.audit.file.enabled -}}
{{- $mistakes = append $mistakes "audit.file.enabled: config.audit.enabled is false, so that nothing is written; remove one of the two" -}}
{{- end -}}
{{- if .Values.audit.key.existingSecret -}}
{{- $mistakes = append $mistakes "audit.key.existingSecret: config.audit.enabled is false, so that nothing is signed; remove one of the two" -}}
{{- end -}}
{{- end -}}
{{- $taken := list .Values.providersDir "/etc/keymount" -}}
{{- if .Values.state.enabled -}}
{{- $taken = append $taken .Values.state.hostPath -}}
{{- end -}}
{{- if and .Values.audit.file.enabled (has $folder $taken) -}}
{{- $mistakes = append $mistakes (printf "audit.file.hostPath: %s is taken for something else; name a folder of its own" $folder) -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{- define "keymount.noStores" -}}
config.stores: none; the least is one store and a rule of who may read it, such as
  config:
    stores:
      - bundle: {file: secrets.age, identityFile: key.txt}
        access:
          - namespaces: ["*"]
            serviceAccounts: ["*"]
            paths: ["{namespace}/**"]
  secrets:
    - name: keymount-bundle
    - name: keymount-identity
{{- end -}}

{{/* "true" where there is a cluster to look at: `helm template` sees none. */}}
{{- define "keymount.cluster" -}}
{{- if .Values.driver.check -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Mistakes that lie in the cluster, as a JSON list. */}}
{{- define "keymount.clusterMistakes" -}}
{{- $mistakes := list -}}
{{- if include "keymount.cluster" . -}}
{{- $level := (lookup "v1" "Namespace" "" .Release.Namespace) | dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "" -}}
{{- if has $level (list "baseline" "restricted") -}}
{{- $mistakes = append $mistakes (printf "namespace %s: its Pod Security level %q forbids the hostPath of the provider's socket; kubectl label --overwrite namespace %s pod-security.kubernetes.io/enforce=privileged" .Release.Namespace $level .Release.Namespace) -}}
{{- end -}}
{{- $driver := lookup "storage.k8s.io/v1" "CSIDriver" "" .Values.driver.name -}}
{{- $audiences := include "keymount.audiences" . | fromJson -}}
{{- $mistakes = concat $mistakes (include "keymount.driverMistakes" (dict "name" .Values.driver.name "driver" $driver "audiences" $audiences) | fromJsonArray) -}}
{{- if not .Values.driver.acceptInterval -}}
{{- range $set, $interval := include "keymount.waitingDrivers" . | fromJson -}}
{{- $mistakes = append $mistakes (printf "DaemonSet %s: the driver's rotation-poll-interval is %s: with any but 0s a pod can start with an empty volume after its first mount was cut off three times; set rotationPollInterval=0s in the driver's chart, or driver.acceptInterval=true here to live with it" $set $interval) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{/* What a CSIDriver object lacks and one cure for all of it, as a JSON list; gets name, driver and audiences. */}}
{{- define "keymount.driverMistakes" -}}
{{- $mistakes := list -}}
{{- $listed := list -}}
{{- $cure := "set all of these in the driver's chart, version 1.6 or newer:" -}}
{{- with .driver -}}
{{- if not .spec.podInfoOnMount -}}
{{- $mistakes = append $mistakes (printf "CSIDriver %s: podInfoOnMount is not true: keymount is not told which pod asks; the driver's chart sets it by itself" $.name) -}}
{{- end -}}
{{- if not .spec.requiresRepublish -}}
{{- $mistakes = append $mistakes (printf "CSIDriver %s: requiresRepublish is not true: a changed secret never reaches a running pod" $.name) -}}
{{- end -}}
{{- range .spec.tokenRequests -}}
{{- $listed = append $listed .audience -}}
{{- end -}}
{{- range $audience := keys $.audiences | sortAlpha -}}
{{- if not (has $audience $listed) -}}
{{- $mistakes = append $mistakes (printf "CSIDriver %s: tokenRequests has no audience %q: pods come without a token for store %q" $.name $audience (get $.audiences $audience)) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- $mistakes = append $mistakes (printf "CSIDriver %s: not found: nothing mounts volumes" .name) -}}
{{- $cure = "install the Secrets Store CSI driver first: helm install csi secrets-store-csi-driver -n kube-system --repo https://kubernetes-sigs.github.io/secrets-store-csi-driver/charts" -}}
{{- end -}}
{{- if $mistakes -}}
{{- $mistakes = append $mistakes (printf "%s %s" $cure (include "keymount.driverSettings" (concat $listed (keys .audiences | sortAlpha) | uniq))) -}}
{{- end -}}
{{- toJson $mistakes -}}
{{- end -}}

{{/* What the driver's chart needs, for a list of audiences. A setting replaces the whole list: those that are there are named again. */}}
{{- define "keymount.driverSettings" -}}
--set enableSecretRotation=true --set rotationPollInterval=0s
{{- range $i, $audience := . }} --set 'tokenRequests[{{ $i }}].audience={{ $audience }}'{{ end -}}
{{- end -}}

{{/* The driver's DaemonSets that wait between two calls, as a JSON object of namespace/name to interval. */}}
{{- define "keymount.waitingDrivers" -}}
{{- $waiting := dict -}}
{{- if include "keymount.cluster" . -}}
{{- range $set := (lookup "apps/v1" "DaemonSet" "" "").items -}}
{{- range $container := $set.spec.template.spec.containers -}}
{{- $line := concat ($container.command | default list) ($container.args | default list) | join " " -}}
{{- if contains "-provider-volume=" $line -}}
{{- $interval := regexFind "-rotation-poll-interval[= ][^ ]+" $line | trimPrefix "-rotation-poll-interval" | trimAll "= " | default "2m" -}}
{{- if not (regexMatch "^(0|(0(h|m|s|ms|us|ns))+)$" $interval) -}}
{{- $_ := set $waiting (printf "%s/%s" $set.metadata.namespace $set.metadata.name) $interval -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $waiting -}}
{{- end -}}
