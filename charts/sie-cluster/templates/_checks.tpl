{{/* What values.schema.json cannot say: values that contradict each other. All findings at once. */}}

{{- define "sie.check" -}}
{{- include "sie.refuseRemoved" . -}}
{{- $found := concat (include "sie.cacheFindings" . | fromYamlArray) (include "sie.otherFindings" . | fromYamlArray) -}}
{{- if $found -}}
{{- fail (printf "these values cannot work together:\n\n  %s\n" (join "\n  " $found)) -}}
{{- end -}}
{{- end -}}

{{- define "sie.cacheFindings" -}}
{{- $found := list -}}
{{- $cache := .Values.workers.common.clusterCache -}}
{{- $scheme := include "sie.cacheScheme" . -}}
{{- if $cache.enabled -}}
{{- if not (regexMatch "^(s3://[^/\\s]+(/\\S*)?|gs://[^/\\s]+(/\\S*)?|file:///\\S+)$" $cache.url) -}}
{{- $found = append $found (printf "workers.common.clusterCache.url is `%s`: want `s3://BUCKET/PREFIX/`, `gs://BUCKET/PREFIX/` or `file:///PATH`" $cache.url) -}}
{{- end -}}
{{- if and (eq $scheme "file") (not $cache.volume) -}}
{{- $found = append $found "workers.common.clusterCache.url is a file:// path: set `workers.common.clusterCache.volume` to the volume that holds it" -}}
{{- end -}}
{{- if and $cache.volume (ne $scheme "file") -}}
{{- $found = append $found "workers.common.clusterCache.volume is set, and url is not a file:// path: the volume would not be read" -}}
{{- end -}}
{{- if ne $scheme "s3" -}}
{{- range $key := list "endpoint" "region" "caSecret" "credentialsSecret" -}}
{{- if get $cache $key -}}
{{- $found = append $found (printf "workers.common.clusterCache.%s is for s3:// urls; it would not be used with `%s`" $key $cache.url) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if $cache.url -}}
{{- $found = append $found (printf "workers.common.clusterCache.url is `%s`, and `enabled` is false: it would not be read" $cache.url) -}}
{{- end -}}
{{- if not (include "sie.hubIsOn" .) -}}
{{- $found = append $found "workers have nowhere to read weights from: `workers.common.clusterCache.enabled` and `workers.common.hub.enabled` are both false" -}}
{{- end -}}
{{- end -}}
{{- if and $cache.requireVerified (not $cache.lock) -}}
{{- $found = append $found "workers.common.clusterCache.requireVerified needs `workers.common.clusterCache.lock`, the digest of airgap.lock" -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{- define "sie.otherFindings" -}}
{{- $found := list -}}
{{- if not (include "sie.pools" . | fromYamlArray) -}}
{{- $found = append $found "no worker pool is on: set `workers.pools.NAME.enabled`" -}}
{{- end -}}
{{- if and (ne .Values.gateway.auth.mode "none") (not .Values.gateway.auth.tokenSecretName) -}}
{{- $found = append $found (printf "gateway.auth.mode is `%s`: set `gateway.auth.tokenSecretName` to the Secret that holds the token" .Values.gateway.auth.mode) -}}
{{- end -}}
{{- if and .Values.hfToken.create (not .Values.hfToken.value) (include "sie.hubIsOn" .) -}}
{{- $found = append $found "hfToken.create is true and `hfToken.value` is empty" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.workers.extraEgress) -}}
{{- if and (has (include "sie.cacheScheme" .) (list "s3" "gs")) (not .Values.networkPolicy.objectStore.cidrs) -}}
{{- $found = append $found "networkPolicy.enabled would cut workers off the bucket: set `networkPolicy.objectStore.cidrs`, or a rule in `networkPolicy.workers.extraEgress`" -}}
{{- end -}}
{{- if include "sie.hubIsOn" . -}}
{{- $found = append $found "networkPolicy.enabled would cut workers off the hub: add a rule to `networkPolicy.workers.extraEgress`, or turn the hub off" -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}
