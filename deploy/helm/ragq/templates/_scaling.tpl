{{- define "ragq.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "ragq.name" .root }}-{{ .component }}
  labels: {{- include "ragq.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "ragq.selector" . | nindent 6 }}
{{- end }}

{{- define "ragq.hpa" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "ragq.name" .root }}-{{ .component }}
  labels: {{- include "ragq.labels" . | nindent 4 }}
spec:
  scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: {{ include "ragq.name" .root }}-{{ .component }} }
  minReplicas: {{ .least }}
  maxReplicas: {{ .most }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: { type: Utilization, averageUtilization: {{ .percent }} }
{{- end }}
