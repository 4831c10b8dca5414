{{/* Values of v0.3.1 that are gone (removed.yaml): the render stops and names each that is set. */}}

{{/* One line for every set value that `path` names. Takes (list values parts shown message). */}}
{{- define "sie.removedAt" -}}
{{- $values := index . 0 -}}
{{- $parts := index . 1 -}}
{{- $shown := index . 2 -}}
{{- $message := index . 3 -}}
{{- if not $parts }}
  `{{ join "." $shown }}`: {{ $message }}
{{- else if kindIs "map" $values -}}
{{- $wanted := first $parts -}}
{{- range $key, $value := $values -}}
{{- if or (eq $wanted "*") (eq $wanted $key) -}}
{{- include "sie.removedAt" (list $value (rest $parts) (append $shown $key) $message) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sie.refuseRemoved" -}}
{{- $found := "" -}}
{{- range $path, $message := .Files.Get "removed.yaml" | fromYaml -}}
{{- $found = print $found (include "sie.removedAt" (list $.Values.AsMap (splitList "." $path) list $message)) -}}
{{- end -}}
{{- if $found -}}
{{- fail (printf "these values are not part of sie-cluster %s:\n%s\n" .Chart.Version $found) -}}
{{- end -}}
{{- end -}}
