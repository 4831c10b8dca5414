{{/* What every pod and container of the release has in common. */}}

{{/* Restricted Pod Security, for a pod. */}}
{{- define "sie.podSecurity" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- $id := index $.Values.securityContext $key }}
{{- if not (kindIs "invalid" $id) }}
{{ $key }}: {{ int64 $id }}
{{- end }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Restricted Pod Security, for a container. */}}
{{- define "sie.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/*
The head of a pod's spec. No API token, and no environment variables for Services: with a release named `sie` they would
all begin with SIE_, and our programs refuse names they do not know.
Takes a dict: root, account, settings (a component's values), component, pool (or none).
*/}}
{{- define "sie.podSpec" -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "sie.podSecurity" .root | nindent 2 }}
{{- include "sie.pullSecrets" .root }}
{{- with .settings.terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .settings.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml (merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" (include "sie.selector" $ | fromYaml)))) | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The labels that select a component's pods. Takes a dict: root, component, pool (or none). */}}
{{- define "sie.selector" -}}
{{ include "sie.instance" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
sie/pool: {{ . }}
{{- end }}
{{- end -}}

{{/* A pod's metadata. Takes a dict: root, component, pool (or none), settings, checksums (a map, or none). */}}
{{- define "sie.podMeta" -}}
labels:
  {{- with .settings.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- include "sie.selector" . | nindent 2 }}
{{- with mergeOverwrite (dict) (default dict .checksums) .settings.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
A container's environment: the chart's variables, less those that `extraEnv` gives again, then `extraEnv`.
Takes (list chartEnv extraEnv), both lists of Kubernetes' own form.
*/}}
{{- define "sie.env" -}}
{{- $extra := default list (index . 1) -}}
{{- $given := list -}}
{{- range $extra }}{{ $given = append $given .name }}{{ end -}}
{{- $env := list -}}
{{- range index . 0 }}
{{- if not (has .name $given) }}{{ $env = append $env . }}{{ end -}}
{{- end -}}
{{- toYaml (concat $env $extra) -}}
{{- end -}}

{{/* Variables that all three programs read. */}}
{{- define "sie.sharedEnv" -}}
- {name: SIE_LOG_LEVEL, value: {{ .Values.logging.level | lower | quote }}}
- {name: SIE_LOG_JSON, value: {{ .Values.logging.json | toString | quote }}}
- {name: SIE_AUTH_MODE, value: {{ .Values.gateway.auth.mode | quote }}}
{{- if ne .Values.gateway.auth.mode "none" }}
- name: SIE_AUTH_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .Values.gateway.auth.tokenSecretName }}, key: {{ .Values.gateway.auth.tokenSecretKey }}}}
{{- end }}
{{- end -}}

{{- define "sie.configUrl" -}}
http://{{ include "sie.fullname" . }}-config:{{ .Values.config.service.port }}
{{- end -}}

{{/*
Probes. Startup and liveness ask whether the process answers at all; only readiness waits for models, so that a worker
that is loading for long is neither killed nor given calls.
*/}}
{{- define "sie.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- end -}}
