{{/* Names, labels and references to images. */}}

{{- define "sie.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The prefix of all names. 40 characters at most, so that a pool's name (15) fits behind it into the 63 of a label. */}}
{{- define "sie.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "sie.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is common to all objects of the release. */}}
{{- define "sie.instance" -}}
app.kubernetes.io/name: {{ include "sie.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sie.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sie
{{ include "sie.instance" . }}
{{- end -}}

{{/* `repository:tag` as written, or `repository@digest`. Takes (list $ image). */}}
{{- define "sie.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Pull secrets as Kubernetes wants them, from maps and from plain strings. */}}
{{- define "sie.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sie.workerAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (printf "%s-worker" (include "sie.fullname" .)) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The ServiceAccount of gateway or config service. Takes (list $ component). */}}
{{- define "sie.account" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.serviceAccount.create -}}
{{- printf "%s-%s" (include "sie.fullname" $root) (index . 1) -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "sie.hfTokenSecret" -}}
{{- default (printf "%s-hf-token" (include "sie.fullname" .)) .Values.workers.common.hfCache.tokenSecret -}}
{{- end -}}
