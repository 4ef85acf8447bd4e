{{- /* A server with one pod and a volume of its own. */ -}}
{{- define "ragq.server" }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "ragq.name" .root }}-{{ .component }}
  labels: {{- include "ragq.labels" . | nindent 4 }}
spec:
  clusterIP: None
  selector: {{- include "ragq.selector" . | nindent 4 }}
  ports:
    - { name: {{ .component }}, port: {{ .port }}, targetPort: {{ .port }} }
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ include "ragq.name" .root }}-{{ .component }}
  labels: {{- include "ragq.labels" . | nindent 4 }}
spec:
  serviceName: {{ include "ragq.name" .root }}-{{ .component }}
  replicas: 1
  selector:
    matchLabels: {{- include "ragq.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "ragq.labels" . | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 60
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ .user }}
        runAsGroup: {{ .user }}
        fsGroup: {{ .user }}
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: { type: RuntimeDefault }
      containers:
        - name: {{ .component }}
          image: {{ .values.image }}
          {{- with .command }}
          args: {{ . | toJson }}
          {{- end }}
          env:
            - name: {{ .password }}
              valueFrom: { secretKeyRef: { name: {{ include "ragq.secretName" .root }}, key: {{ .password }} } }
            {{- range $name, $value := .environment }}
            - { name: {{ $name }}, value: {{ $value | quote }} }
            {{- end }}
          ports:
            - { name: {{ .component }}, containerPort: {{ .port }} }
          startupProbe:
            exec: { command: {{ .probe | toJson }} }
            periodSeconds: 2
            failureThreshold: 150
          readinessProbe:
            exec: { command: {{ .probe | toJson }} }
            periodSeconds: 5
            timeoutSeconds: 5
          resources: {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
          volumeMounts:
            - { name: data, mountPath: {{ .folder }} }
            - { name: tmp, mountPath: /tmp }
            - { name: tmp, mountPath: /var/run/postgresql }
            - { name: shm, mountPath: /dev/shm }
      volumes:
        - name: tmp
          emptyDir: {}
        - name: shm # PostgreSQL builds the vector index in it; by default a pod has 64 MB
          emptyDir: { medium: Memory, sizeLimit: 256Mi }
  volumeClaimTemplates:
    - metadata: { name: data }
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .values.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests: { storage: {{ .values.size }} }
{{- end }}
