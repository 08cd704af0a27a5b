{{- define "shardcluster.name" -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the operator's pods. The nodes' NetworkPolicies let pods of this name in. */}}
{{- define "shardcluster.selector" -}}
app.kubernetes.io/name: shardcluster-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "shardcluster.labels" -}}
{{ include "shardcluster.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* A cluster role's name is one for all namespaces. */}}
{{- define "shardcluster.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "shardcluster.name" .) -}}
{{- end -}}
