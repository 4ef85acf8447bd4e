{{- define "ragq.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "ragq.selector" -}}
app.kubernetes.io/name: ragq
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "ragq.labels" -}}
{{ include "ragq.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "ragq.secretName" -}}
{{ .Values.secret.existing | default (include "ragq.name" .) }}
{{- end }}

{{- define "ragq.filesClaim" -}}
{{ .Values.files.existingClaim | default (printf "%s-files" (include "ragq.name" .)) }}
{{- end }}

{{- /* How many seconds a worker has to stop: those of its jobs, and some to hand back what is left. */ -}}
{{- define "ragq.workerGrace" -}}
{{- $name := "RAGQ_SHUTDOWN_GRACE_SECONDS" -}}
{{- add 15 (hasKey .Values.settings $name | ternary (get .Values.settings $name) 30 | toString | ceil) -}}
{{- end }}

{{- /* The environment of every process of ragq. The passwords of bundled servers come from the Secret. */ -}}
{{- define "ragq.environment" -}}
{{- $secret := include "ragq.secretName" . -}}
{{- if .Values.valkey.bundled }}
- name: VALKEY_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ $secret }}, key: VALKEY_PASSWORD } }
- name: RAGQ_VALKEY_URL
  value: redis://:$(VALKEY_PASSWORD)@{{ include "ragq.name" . }}-valkey:6379/0
{{- end }}
{{- if .Values.postgresql.bundled }}
- name: POSTGRES_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ $secret }}, key: POSTGRES_PASSWORD } }
- name: RAGQ_DATABASE_URL
  value: postgresql://ragq:$(POSTGRES_PASSWORD)@{{ include "ragq.name" . }}-postgresql:5432/ragq
{{- end }}
- { name: RAGQ_DATA_DIR, value: /data }
- { name: RAGQ_LOG_FORMAT, value: json }
- { name: RAGQ_METRICS_HOST, value: 0.0.0.0 }
- { name: RAGQ_METRICS_PORT, value: "9000" }
{{- with .Values.files.blobUrl }}
- { name: RAGQ_BLOB_URL, value: {{ . | quote }} }
{{- end }}
{{- range $name, $value := .Values.settings }}
- { name: {{ $name }}, value: {{ $value | toString | quote }} }
{{- end }}
{{- end }}

{{- /* A pod of ragq. component, command, probes, grace and resources differ. */ -}}
{{- define "ragq.pod" -}}
metadata:
  labels: {{- include "ragq.labels" . | nindent 4 }}
  annotations:
    {{- if not .root.Values.secret.existing }}
    checksum/secret: {{ .root.Values.secret.values | toJson | sha256sum }}
    {{- end }}
    {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  restartPolicy: {{ .restart | default "Always" }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: { type: RuntimeDefault }
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: {{ .command | toJson }}
      env: {{- include "ragq.environment" .root | nindent 8 }}
      envFrom:
        - secretRef: { name: {{ include "ragq.secretName" .root }} }
      {{- if eq .component "api" }}
      lifecycle: # until proxies know that this pod is going
        preStop: { exec: { command: [sleep, "5"] } }
      {{- end }}
      {{- with .port }}
      ports:
        - { name: {{ .name }}, containerPort: {{ .number }} }
      startupProbe:
        httpGet: { path: /healthz, port: {{ .name }} }
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: { path: /healthz, port: {{ .name }} }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: {{ .name }} }
        periodSeconds: 5
        timeoutSeconds: 5
      {{- end }}
      resources: {{- toYaml .resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      volumeMounts:
        - { name: tmp, mountPath: /tmp }
        - { name: files, mountPath: /data }
  volumes:
    - name: tmp
      emptyDir: {}
    - name: files
      {{- if .root.Values.files.blobUrl }}
      emptyDir: {}
      {{- else }}
      persistentVolumeClaim: { claimName: {{ include "ragq.filesClaim" .root }} }
      {{- end }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
