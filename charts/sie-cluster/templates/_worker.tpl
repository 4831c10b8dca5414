{{/* What a worker pool comes to: the common values with the pool's own over them. */}}

{{/* The names of the enabled pools, sorted, as YAML. */}}
{{- define "sie.pools" -}}
{{- $names := list -}}
{{- range $name, $pool := .Values.workers.pools }}
{{- if and $pool $pool.enabled }}{{ $names = append $names $name }}{{ end -}}
{{- end -}}
{{- toYaml (sortAlpha $names) -}}
{{- end -}}

{{/* One pool's settings, as YAML. Takes (list $ name). */}}
{{- define "sie.pool" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $common := deepCopy $root.Values.workers.common -}}
{{- $pool := deepCopy (get $root.Values.workers.pools $name) -}}
{{- $gpu := default dict $pool.gpu -}}
{{- $gpus := int (default 0 $gpu.count) -}}
{{- $image := default dict $pool.image -}}
{{- if and $image.tag (not $image.digest) }}{{ $_ := unset $common.image "digest" }}{{ end -}}
{{- $node := merge (dict) (default dict $pool.nodeSelector) (default dict $common.nodeSelector) -}}
{{- with $gpu.product }}{{ $_ := set $node "nvidia.com/gpu.product" . }}{{ end -}}
{{- $tolerations := concat (list) (default list $common.tolerations) (default list $pool.tolerations) -}}
{{- $resources := deepCopy (default $common.resources $pool.resources) -}}
{{- $initResources := deepCopy $resources -}}
{{- if $gpus -}}
{{- $limits := mergeOverwrite (default dict $resources.limits) (dict "nvidia.com/gpu" $gpus) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- $own := dict
    "replicas" (int (ternary 1 $pool.minReplicas (kindIs "invalid" $pool.minReplicas)))
    "machineProfile" (default $name $pool.machineProfile)
    "gpuType" (default (ternary (default $name $pool.machineProfile) "" (gt $gpus 0)) $pool.gpuType)
    "gpus" $gpus
    "bundle" (default $common.bundle $pool.bundle)
    "image" (mergeOverwrite $common.image $image)
    "resources" $resources
    "initResources" $initResources
    "extraEnv" (concat (default list $common.extraEnv) (default list $pool.extraEnv))
    "runtimeClassName" (default $common.runtimeClassName $pool.runtimeClassName)
    "nodeSelector" $node
    "tolerations" $tolerations -}}
{{- range $key := list "updateStrategy" "podAnnotations" "podLabels" "affinity" "topologySpreadConstraints" "priorityClassName" "terminationGracePeriodSeconds" }}
{{- $_ := set $own $key (get $common $key) -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{/* The machine profiles of the enabled pools, each once, separated by commas. */}}
{{- define "sie.machineProfiles" -}}
{{- $profiles := list -}}
{{- range $name := include "sie.pools" . | fromYamlArray }}
{{- $pool := get $.Values.workers.pools $name -}}
{{- $profiles = append $profiles (default $name $pool.machineProfile) -}}
{{- end -}}
{{- $profiles | uniq | sortAlpha | join "," -}}
{{- end -}}

{{/* Whether weights may come from the hub: `true`, or empty. */}}
{{- define "sie.hubIsOn" -}}
{{- $on := .Values.workers.common.hub.enabled -}}
{{- if kindIs "invalid" $on }}{{ $on = not .Values.workers.common.clusterCache.enabled }}{{ end -}}
{{- if $on }}true{{ end -}}
{{- end -}}

{{/* `s3`, `gs` or `file`, or empty where the cluster cache is off. */}}
{{- define "sie.cacheScheme" -}}
{{- with .Values.workers.common.clusterCache -}}
{{- if .enabled }}{{ regexFind "^[a-z0-9]+" .url }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Where a `file://` cache is mounted. */}}
{{- define "sie.cachePath" -}}
{{- trimPrefix "file://" .Values.workers.common.clusterCache.url | trimSuffix "/" -}}
{{- end -}}

{{/* What workers may fill of their local cache: a twentieth less than its volume, at whose limit the kubelet evicts. */}}
{{- define "sie.localCacheBytes" -}}
{{- $size := toString .Values.workers.common.cacheStorageSize -}}
{{- $unit := regexFind "[KMGTP]i?$" $size -}}
{{- $bytes := float64 (trimSuffix $unit $size) -}}
{{- $times := ternary 1024.0 1000.0 (hasSuffix "i" $unit) -}}
{{- range until (get (dict "K" 1 "M" 2 "G" 3 "T" 4 "P" 5) (trimSuffix "i" $unit) | default 0 | int) }}
{{- $bytes = mulf $bytes $times -}}
{{- end -}}
{{- printf "%.0f" (floor (mulf $bytes 0.95)) -}}
{{- end -}}

{{/* A worker's environment, less extraEnv. Takes (list $ name pool). */}}
{{- define "sie.workerEnv" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $pool := index . 2 -}}
{{- $common := $root.Values.workers.common -}}
- {name: SIE_SERVER_HOST, value: "0.0.0.0"}
- {name: SIE_SERVER_PORT, value: {{ $common.port | quote }}}
- name: SIE_WORKER_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: SIE_POOL, value: {{ $name | quote }}}
- {name: SIE_MACHINE_PROFILE, value: {{ $pool.machineProfile | quote }}}
{{- with $pool.gpuType }}
- {name: SIE_GPU_TYPE, value: {{ . | quote }}}
{{- end }}
- {name: SIE_BUNDLE, value: {{ $pool.bundle | quote }}}
{{- with $common.preloadModels }}
- {name: SIE_PRELOAD_MODELS, value: {{ join "," . | quote }}}
{{- end }}
{{- if $root.Values.config.enabled }}
- {name: SIE_CONFIG_SERVICE_URL, value: {{ include "sie.configUrl" $root | quote }}}
{{- end }}
- {name: HF_HOME, value: {{ $common.hfCache.home | quote }}}
- {name: SIE_LOCAL_CACHE, value: {{ printf "%s/hub" (trimSuffix "/" $common.hfCache.home) | quote }}}
- {name: SIE_LOCAL_CACHE_BYTES, value: {{ include "sie.localCacheBytes" $root | quote }}}
{{ include "sie.hubEnv" $root }}
{{- include "sie.cacheEnv" $root }}
{{ include "sie.sharedEnv" $root }}
{{- end -}}

{{/* Whether and how the hub is asked. Off means off for every library that would ask it. */}}
{{- define "sie.hubEnv" -}}
{{- $common := .Values.workers.common -}}
{{- if include "sie.hubIsOn" . -}}
- {name: SIE_HF_FALLBACK, value: "true"}
- {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
{{- with $common.hub.endpoint }}
- {name: HF_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- if or $common.hfCache.tokenSecret .Values.hfToken.create }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "sie.hfTokenSecret" . }}, key: {{ $common.hfCache.tokenSecretKey }}}}
{{- end }}
{{- else -}}
- {name: SIE_HF_FALLBACK, value: "false"}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- end -}}

{{/* Where the bucket is, how it is asked, and what is believed of it. */}}
{{- define "sie.cacheEnv" -}}
{{- with .Values.workers.common.clusterCache }}
{{- if .enabled }}
- {name: SIE_CLUSTER_CACHE, value: {{ .url | quote }}}
- {name: SIE_CLUSTER_CACHE_REQUIRE_VERIFIED, value: {{ .requireVerified | toString | quote }}}
{{- if .lock }}
- {name: SIE_CLUSTER_CACHE_LOCK, value: {{ .lock | quote }}}
{{- end }}
{{- if eq (include "sie.cacheScheme" $) "s3" }}
- {name: SIE_CLUSTER_CACHE_PATH_STYLE, value: {{ .pathStyle | toString | quote }}}
{{- if not .instanceMetadata }}
- {name: AWS_EC2_METADATA_DISABLED, value: "true"}
{{- end }}
{{- with .endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
{{- end }}
{{- with .region }}
- {name: AWS_REGION, value: {{ . | quote }}}
{{- end }}
{{- if .caSecret }}
- {name: AWS_CA_BUNDLE, value: /etc/sie/ca/ca.crt}
{{- end }}
{{- with .credentialsSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A worker's volumes. Read-only roots need a /tmp. */}}
{{- define "sie.workerVolumes" -}}
- name: tmp
  emptyDir: {}
- name: weights
  emptyDir: {sizeLimit: {{ .Values.workers.common.cacheStorageSize }}}
{{- with .Values.workers.common.clusterCache }}
{{- if and .enabled .caSecret (eq (include "sie.cacheScheme" $) "s3") }}
- name: cluster-cache-ca
  secret: {secretName: {{ .caSecret }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- if eq (include "sie.cacheScheme" $) "file" }}
- name: cluster-cache
  {{- toYaml .volume | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sie.workerMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: weights, mountPath: {{ .Values.workers.common.hfCache.home }}}
{{- with .Values.workers.common.clusterCache }}
{{- if and .enabled .caSecret (eq (include "sie.cacheScheme" $) "s3") }}
- {name: cluster-cache-ca, mountPath: /etc/sie/ca, readOnly: true}
{{- end }}
{{- if eq (include "sie.cacheScheme" $) "file" }}
- {name: cluster-cache, mountPath: {{ include "sie.cachePath" $ }}, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}
